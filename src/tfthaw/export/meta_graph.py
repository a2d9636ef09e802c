"""Write `meta-graph`: a `.meta` with the checkpoint that belongs to it.

`model.ckpt.meta` comes with `model.ckpt.index`, `model.ckpt.data-00000-of-00001` and the state file `checkpoint`, so
that `import_meta_graph` + `Saver.restore` and `latest_checkpoint` find what they expect. A model without variables is
a `.meta` alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tfthaw._new_files import new_file_set
from tfthaw.errors import UsageError
from tfthaw.export.delivery import Delivery
from tfthaw.export.weights import write_bundle
from tfthaw.formats.checkpoint_state import checkpoint_state_bytes
from tfthaw.formats.meta_graph import write_meta_graph as write_meta_graph_file
from tfthaw.formats.tensor_bundle import written_names
from tfthaw.formats.wire import Contents
from tfthaw.ir.model import Model
from tfthaw.serde.meta_graphs import model_to_proto
from tfthaw.tensors import Tensor

META_SUFFIX = ".meta"
STATE_FILE = "checkpoint"


def meta_name(path: str | os.PathLike[str]) -> str:
    """Return the name of the `.meta` for a destination that may lack the suffix.

    Raises:
        UsageError: It has nothing before `.meta` that a checkpoint could be named after.
    """
    basename = Path(path).name.removesuffix(META_SUFFIX)
    if not basename:
        raise UsageError("a MetaGraph needs a name before .meta", path=path)
    return basename + META_SUFFIX


def write_meta_graph(
    model: Model,
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    delivery: Delivery,
) -> list[Path]:
    """Write a MetaGraph and its checkpoint.

    Args:
        model: The model; its saver reads the keys of `tensors`.
        tensors: The checkpoint's tensors by key; with none there is no checkpoint.
        path: The `.meta`, or the prefix without it.
        delivery: How to go about it.

    Returns:
        The files that were written.

    Raises:
        UsageError: The file's name has nothing before `.meta` that a checkpoint could be named after.
        OutputExistsError: One of the files is there and may not be replaced.
    """
    target = Path(path)
    basename = meta_name(path).removesuffix(META_SUFFIX)
    contents = Contents(model.payloads)  # type: ignore[arg-type]
    message = model_to_proto(model, contents)
    meta = meta_name(path)
    names = [*written_names(basename), meta] if tensors else [meta]
    # the state file of a training run must not be taken over by one more checkpoint in its directory
    with_state = bool(tensors) and not (target.parent / STATE_FILE).exists()
    with new_file_set(
        target.parent, [*names, STATE_FILE] if with_state else names, overwrite=delivery.overwrite, check=delivery.check
    ) as folder:
        if tensors:
            write_bundle(tensors, folder, basename, delivery.progress)
        with open(folder / meta, "wb") as file:
            write_meta_graph_file(file, message, contents, delivery.progress)
        if with_state:
            with open(folder / STATE_FILE, "wb") as file:
                file.write(checkpoint_state_bytes(basename, [basename]))
    return [target.parent / name for name in names]
