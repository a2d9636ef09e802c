"""The directory of an export for inference: what may be replaced in it, and the config that goes into it.

Source: export_inference_graph.py and exporter_main_v2.py of the object detection API for what they write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfthaw._new_files import refuse_existing_directory, refuse_replacing
from tfthaw.drop_ins.inference_options import InferenceOptions
from tfthaw.errors import UsageError
from tfthaw.formats.pipeline_config import (
    Block,
    config_text,
    merged,
    parse_pipeline_config,
    read_pipeline_config,
    uses_moving_averages,
    without_moving_averages,
)

CONFIG_FILE = "pipeline.config"
FROZEN_FILE = "frozen_inference_graph.pb"
TEXT_FILE = "inference_graph.pbtxt"
CHECKPOINT_NAME = "model.ckpt"
SAVED_MODEL = "saved_model"
LAYOUT_V1 = (
    FROZEN_FILE, TEXT_FILE, "model.ckpt.meta", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "checkpoint",
    SAVED_MODEL, CONFIG_FILE,
)  # fmt: skip
LAYOUT_V2 = ("checkpoint", SAVED_MODEL, CONFIG_FILE)
_BUILDING = ("model", "graph_rewriter")  # what the model is built from


@dataclass(frozen=True)
class Pipeline:
    """What an export takes from a `pipeline.config`, and gives back.

    Attributes:
        uses_moving_averages: Whether variables take their moving averages as values.
        text: The config to write: overrides merged, and no averages any more.
    """

    uses_moving_averages: bool
    text: str


def read_pipeline(options: InferenceOptions, *, keeps_averages: bool) -> Pipeline:
    """Read the config and merge what overrides it.

    Args:
        options: What the user asked for.
        keeps_averages: Whether the written config says of moving averages what the source says.

    Raises:
        UsageError: The override would change the model, which is built already.
        FormatError: The config or the override is no protobuf text.
    """
    config = read_pipeline_config(options.pipeline_config_path)
    override = parse_pipeline_config(options.config_override, path="--config_override")
    building = [name for name in _BUILDING if any(key == name for key, _ in override.fields)]
    if building:
        raise UsageError(
            f"it overrides {' and '.join(building)}, and the model is not built from the config here: the export would "
            f"be as if it were not given", where="--config_override",
            hint="give what it changes in the code that builds the model (--code), or leave it out",
        )  # fmt: skip
    config = merged(config, override)
    averages = uses_moving_averages(config, options.pipeline_config_path)
    written: Block = config if keeps_averages else without_moving_averages(config)
    return Pipeline(averages, config_text(written))


def require_own_directory(
    directory: str, layout: Sequence[str], sources: Sequence[str | None], overwrite: bool
) -> None:
    """Refuse a directory that holds anything but an earlier export, or anything that the export is made of.

    Args:
        directory: Where to write.
        layout: The names that an export consists of.
        sources: The files and directories that it is made of.
        overwrite: Whether an earlier export may be replaced.

    Raises:
        OutputExistsError: It is there, with content, and may not be replaced.
        UsageError: It holds other things too, or a source.
    """
    refuse_existing_directory(directory, layout, overwrite)
    refuse_replacing([directory], [path for path in sources if path])
