"""Nodes that decode a batch of encoded images: a v1 loop over strings that gives one uint8 batch.

    strings [N] ─ unstack ─┐  while i < N: read, DecodePng, write  ┌─ stack ─ uint8[N, H, W, 3]
    Example [N] ─ ParseExample (`image/encoded`) ─ strings [N]

`DecodePng` is the op: since TensorFlow 1.0 its kernel looks at the bytes, and decodes PNG, JPEG and GIF images of one
frame alike. All images of a batch must have one size, as nothing else makes one tensor. The loop is made of the ops of
TensorFlow 1 (`Switch`, `Merge`, `TensorArrayV3`), which every TensorFlow runs.

Source: the op definitions of control_flow_ops.cc, data_flow_ops.cc, image_ops.cc and parsing_ops.cc of TensorFlow;
`map_fn` in functional_ops.py of TensorFlow 1 for the order of things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Attr, AttrList, Shape
from tfthaw.ir.graph import TensorName
from tfthaw.ir.nodes import Node
from tfthaw.tensors import Array, ArrayTensor

ENCODED_KEY = b"image/encoded"
"""The feature of an Example that holds the image."""

_PARALLEL = 32  # as the object detection API asks of map_fn
_IMAGE = Shape((None, None, 3))


@dataclass(slots=True)
class _Scope:
    """Nodes of one name scope that are being made."""

    scope: str
    nodes: list[Node] = field(default_factory=list)

    def add(self, name: str, op: str, inputs: Sequence[str] = (), **attrs: Attr) -> str:
        """Add a node and return its name."""
        full = f"{self.scope}/{name}"
        self.nodes.append(Node(full, op, list(inputs), "", attrs))
        return full

    def constant(self, name: str, value: Array, *controls: str) -> str:
        """Add a constant and return its name."""
        tensor = ArrayTensor(value)
        return self.add(name, "Const", [f"^{text}" for text in controls], dtype=tensor.dtype, value=tensor)


def parse_examples(source: str, scope: str) -> tuple[list[Node], TensorName]:
    """Return nodes that take the encoded images out of serialized Examples.

    Args:
        source: The tensor of Examples, `string[N]`, spelled as an input.
        scope: The name scope of the new nodes.

    Returns:
        The nodes, and the tensor of encoded images, `string[N]`.
    """
    made = _Scope(scope)
    names = made.constant("names", np.array([], object))
    key = made.constant("dense_keys_0", np.array(ENCODED_KEY, object))
    default = made.constant("default_0", np.array([], object))  # none: an Example without image is an error
    parsed = made.add(
        "ParseExample", "ParseExample", [source, names, key, default], Nsparse=0, Ndense=1,
        sparse_types=AttrList("", []), Tdense=AttrList("type", [DType.string]),
        dense_shapes=AttrList("shape", [Shape(())]),
    )  # fmt: skip
    return made.nodes, TensorName(parsed, 0)


def decode_images(source: str, scope: str) -> tuple[list[Node], TensorName]:
    """Return nodes that decode a batch of images.

    Args:
        source: The tensor of encoded images, `string[N]`, spelled as an input.
        scope: The name scope of the new nodes, and the frame of its loop.

    Returns:
        The nodes, and the tensor of images, `uint8[N, H, W, 3]`.
    """
    made = _Scope(scope)
    count = _count(made, source)
    strings = _tensor_array(made, "TensorArray", count, DType.string, Shape(None))
    images = _tensor_array(made, "TensorArray_1", count, DType.uint8, _IMAGE)
    zero, one = made.constant("zero", np.array(0, np.int32)), made.constant("one", np.array(1, np.int32))
    every = made.add("unstack/range", "Range", [zero, count, one], Tidx=DType.int32)
    filled = made.add(
        "unstack/TensorArrayScatterV3", "TensorArrayScatterV3", [strings, every, source, f"{strings}:1"], T=DType.string
    )
    flow = _loop(made, count, zero, (strings, filled), images)
    size = made.add("stack/TensorArraySizeV3", "TensorArraySizeV3", [images, flow])
    order = made.add("stack/range", "Range", [zero, size, one], Tidx=DType.int32)
    batch = made.add(
        "stack/TensorArrayGatherV3", "TensorArrayGatherV3", [images, order, flow], dtype=DType.uint8,
        element_shape=_IMAGE,
    )  # fmt: skip
    return made.nodes, TensorName(batch, 0)


def _count(made: _Scope, source: str) -> str:
    """Add what counts the strings."""
    shape = made.add("Shape", "Shape", [source], T=DType.string, out_type=DType.int32)
    begin, end = made.constant("first", np.array([0], np.int32)), made.constant("behind", np.array([1], np.int32))
    return made.add(
        "count", "StridedSlice", [shape, begin, end, end], T=DType.int32, Index=DType.int32, begin_mask=0,
        end_mask=0, ellipsis_mask=0, new_axis_mask=0, shrink_axis_mask=1,
    )  # fmt: skip


def _tensor_array(made: _Scope, name: str, size: str, dtype: DType, shape: Shape) -> str:
    return made.add(
        name, "TensorArrayV3", [size], dtype=dtype, element_shape=shape, dynamic_size=False, clear_after_read=True,
        identical_element_shapes=True, tensor_array_name=b"",
    )  # fmt: skip


def _loop(made: _Scope, count: str, zero: str, strings: tuple[str, str], images: str) -> str:
    """Add the loop that decodes one image after the other.

    Args:
        made: The nodes.
        count: How many images there are.
        zero: The constant 0.
        strings: The array of strings, and its flow once it is filled.
        images: The array of images.

    Returns:
        The flow of the array of images once it is filled.
    """
    frame = f"{made.scope}/while/while_context".encode()

    def enter(name: str, text: str, dtype: DType, is_constant: bool) -> str:
        return made.add(f"while/{name}", "Enter", [text], T=dtype, frame_name=frame, is_constant=is_constant,
                        parallel_iterations=_PARALLEL)  # fmt: skip

    number = enter("Enter", zero, DType.int32, False)
    flow = enter("Enter_1", f"{images}:1", DType.float32, False)
    count = enter("count", count, DType.int32, True)
    source = enter("strings", strings[0], DType.resource, True)
    filled = enter("filled", strings[1], DType.float32, True)
    target = enter("images", images, DType.resource, True)
    number = made.add("while/Merge", "Merge", [number, f"{made.scope}/while/NextIteration"], T=DType.int32, N=2)
    flow = made.add("while/Merge_1", "Merge", [flow, f"{made.scope}/while/NextIteration_1"], T=DType.float32, N=2)
    less = made.add("while/Less", "Less", [number, count], T=DType.int32)
    condition = made.add("while/LoopCond", "LoopCond", [less])
    number = made.add("while/Switch", "Switch", [number, condition], T=DType.int32)
    flow = made.add("while/Switch_1", "Switch", [flow, condition], T=DType.float32)
    made.add("while/Exit", "Exit", [number], T=DType.int32)
    result = made.add("while/Exit_1", "Exit", [flow], T=DType.float32)
    number = made.add("while/Identity", "Identity", [f"{number}:1"], T=DType.int32)
    flow = made.add("while/Identity_1", "Identity", [f"{flow}:1"], T=DType.float32)
    one = made.constant("while/one", np.array(1, np.int32), number)
    after = made.add("while/add", "Add", [number, one], T=DType.int32)
    encoded = made.add(
        "while/TensorArrayReadV3", "TensorArrayReadV3", [source, number, filled], dtype=DType.string
    )
    image = made.add("while/DecodePng", "DecodePng", [encoded], channels=3, dtype=DType.uint8)
    written = made.add(
        "while/TensorArrayWriteV3", "TensorArrayWriteV3", [target, number, image, flow], T=DType.uint8
    )
    made.add("while/NextIteration", "NextIteration", [after], T=DType.int32)
    made.add("while/NextIteration_1", "NextIteration", [written], T=DType.float32)
    return result
