"""What a user may ask of an export for inference: the flags of the object detection API's two export scripts.

Source: export_inference_graph.py (TensorFlow 1) and exporter_main_v2.py (TensorFlow 2) of the object detection API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfthaw._files import Progress
from tfthaw.dtypes import DType
from tfthaw.errors import UsageError
from tfthaw.ir.attrs import Shape

IMAGE, FLOAT_IMAGE, ENCODED, EXAMPLE = (
    "image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example"
)  # fmt: skip
INPUT_TYPES = (IMAGE, ENCODED, EXAMPLE, FLOAT_IMAGE)
IMAGES = Shape((None, None, None, 3))
"""The shape of a batch of images, where nothing else is asked for."""
ONE_IMAGE = Shape((1, None, None, 3))


@dataclass(frozen=True)
class InferenceOptions:
    """The options of one export for inference.

    Attributes:
        pipeline_config_path: The `pipeline.config` of the model.
        output_directory: Where to write.
        trained_checkpoint_prefix: The checkpoint, for the layout of TensorFlow 1.
        trained_checkpoint_dir: The directory whose latest checkpoint to take, for the layout of TensorFlow 2.
        input_type: What is fed: `image_tensor`, `encoded_image_string_tensor`, `tf_example` or `float_image_tensor`.
        input_shape: The shape of the images that are fed, None for sizes that are not known.
        config_override: Protobuf text that is merged into the config.
        write_inference_graph: Whether the graph is also written as text.
        additional_output_tensor_names: Nodes that the frozen graph keeps besides the outputs.
        meta_graph: The graph, where it is not beside the checkpoint.
        code: The model's Python, instead of a graph.
        input: What the code takes, where it does not say: one text for each input.
        input_tensor: The tensor at which the graph is cut.
        output_tensors: The outputs, each `NAME=TENSOR` or a tensor.
        set: placeholder -> the value that it shall have.
        batch_norm: Make batch normalisation that was left in training mode use its moving averages (`inference`), or
            `keep` it.
        allow_missing: Patterns of variables that may lack what the checkpoint should hold of them.
        verify: `weights` alone, or `outputs` too; None does what can be done.
        overwrite: Whether what was exported before may be replaced.
        progress: Called with the number of bytes just done.
    """

    pipeline_config_path: str
    output_directory: str
    trained_checkpoint_prefix: str | None = None
    trained_checkpoint_dir: str | None = None
    input_type: str = IMAGE
    input_shape: Sequence[int | None] | None = None
    config_override: str = ""
    write_inference_graph: bool = False
    additional_output_tensor_names: Sequence[str] = ()
    meta_graph: str | None = None
    code: str | None = None
    input: Sequence[str] = ()
    input_tensor: str | None = None
    output_tensors: Sequence[str] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    batch_norm: str = "inference"
    allow_missing: Sequence[str] = ()
    verify: str | None = None
    overwrite: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if (self.trained_checkpoint_prefix is None) == (self.trained_checkpoint_dir is None):
            raise UsageError(
                "give the checkpoint with --trained_checkpoint_prefix for the layout of TensorFlow 1, or with "
                "--trained_checkpoint_dir for that of TensorFlow 2" + (", not both" if self.trained_checkpoint_dir
                                                                       else "")
            )  # fmt: skip
        if self.input_type not in INPUT_TYPES:
            raise UsageError(f"Unknown input type: {self.input_type}", hint=f"expected one of {', '.join(INPUT_TYPES)}")
        if self.input_shape is not None and self.input_type not in (IMAGE, FLOAT_IMAGE):
            raise UsageError("Can only specify input shape for `image_tensor` inputs.")
        if self.batch_norm not in ("keep", "inference"):
            raise UsageError(f"batch_norm is {self.batch_norm!r}; expected keep or inference")
        if self.verify not in (None, "weights", "outputs"):
            raise UsageError(f"verify is {self.verify!r}; expected weights or outputs")
        if self.code is not None and self.meta_graph is not None:
            raise UsageError("the graph comes from --meta_graph or from --code, not from both")

    @property
    def image_shape(self) -> Shape:
        """The shape of the batch of images that is fed or decoded: in the layout of TensorFlow 2 a batch of one."""
        if self.input_shape is not None:
            return Shape(tuple(self.input_shape))
        return IMAGES if self.trained_checkpoint_dir is None else ONE_IMAGE

    @property
    def fed_dtype(self) -> DType:
        """The element type of what is fed."""
        return {IMAGE: DType.uint8, FLOAT_IMAGE: DType.float32}.get(self.input_type, DType.string)


def read_input_shape(text: str) -> tuple[int | None, ...]:
    """Read a shape as the scripts take it: sizes between commas, `-1` or `None` for those that are not known.

    Raises:
        UsageError: It is no such text.
    """
    result: list[int | None] = []
    for part in text.split(","):
        word = part.strip()
        if word in ("None", "-1"):
            result.append(None)
        elif word.isascii() and word.isdigit() and len(word) < 10:
            result.append(int(word))
        else:
            raise UsageError(f"{part!r} in --input_shape {text} is no size", hint="such as 1,300,300,3 or -1,-1,-1,3")
    return tuple(result)
