"""Where the input pipeline of a training graph feeds its model.

A training graph begins with readers, decoders and queues (or an iterator). What an export wants is the tensor at which
these end and the model begins: the last queue or iterator in front of the outputs, seen from them. Nothing is changed
here, and nothing is guessed between several such tensors.

Source: the op definitions of data_flow_ops.cc, dataset_ops.cc, io_ops.cc, image_ops.cc and parsing_ops.cc of
TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.graph import GraphIndex, TensorName, data_inputs
from tfthaw.ir.nodes import Node
from tfthaw.ir.types import output_dtype
from tfthaw.passes.prune import PLACEHOLDER_OPS

QUEUE_OPS = frozenset({
    "QueueDequeue", "QueueDequeueV2", "QueueDequeueMany", "QueueDequeueManyV2", "QueueDequeueUpTo",
    "QueueDequeueUpToV2", "Unstage", "MapUnstage", "OrderedMapUnstage", "InfeedDequeue", "InfeedDequeueTuple",
})  # fmt: skip
ITERATOR_OPS = frozenset({"IteratorGetNext", "IteratorGetNextSync", "IteratorGetNextAsOptional"})
READER_OPS = frozenset({"ReaderRead", "ReaderReadV2", "ReaderReadUpTo", "ReaderReadUpToV2", "ReadFile"})
DECODE_OPS = frozenset({
    "DecodeJpeg", "DecodePng", "DecodeGif", "DecodeBmp", "DecodeImage", "DecodeAndCropJpeg", "DecodeRaw",
    "DecodePaddedRaw", "ParseExample", "ParseExampleV2", "ParseSingleExample",
})  # fmt: skip
PIPELINE_OPS = QUEUE_OPS | ITERATOR_OPS | READER_OPS
"""Ops that no inference graph may hold: they wait for a training run's data."""

_ENDS = PIPELINE_OPS | DECODE_OPS | PLACEHOLDER_OPS
_BATCHING = frozenset({"ExpandDims", "Pack", "Identity", "StopGradient"})
_SHAPES = "_output_shapes"
_IMAGE_RANK = 4


@dataclass(frozen=True, slots=True)
class Boundary:
    """A tensor at which an input pipeline ends.

    Attributes:
        tensor: The tensor.
        op: The op that gives it.
        dtype: Its element type, or None where nothing says it.
        shape: Its shape as far as the graph says.
    """

    tensor: TensorName
    op: str
    dtype: DType | None
    shape: Shape

    @property
    def may_be_images(self) -> bool:
        """Whether it may be a batch of images."""
        if self.op in DECODE_OPS:
            return False  # they give one image
        rank = None if self.shape.dims is None else len(self.shape.dims)
        return self.dtype is not None and (self.dtype.is_numeric or self.dtype.is_float) and rank in (None, _IMAGE_RANK)


def boundary_at(index: GraphIndex, tensor: TensorName) -> Boundary:
    """Return a tensor with what the graph says of it."""
    node = index.nodes[tensor.node]
    return Boundary(tensor, node.op, output_dtype(node, tensor.output), known_shape(node, tensor.output))


def known_shape(node: Node, output: int) -> Shape:
    """Return the shape of a node's output as far as its attrs say."""
    for attr in (_SHAPES, "output_shapes", "shapes"):
        listed = node.attrs.get(attr)
        shape = listed.items[output] if isinstance(listed, AttrList) and output < len(listed.items) else None
        if isinstance(shape, Shape):
            return shape
    tensor = node.tensor() if node.op == "Const" else None
    if tensor is not None:
        return Shape(tensor.shape)
    element = node.shape("element_shape") if node.op == "TensorArrayGatherV3" else None
    if element is not None and element.dims is not None:
        return Shape((None, *element.dims))
    return (node.shape() if node.op in PLACEHOLDER_OPS else None) or Shape(None)


def find_boundaries(index: GraphIndex, outputs: Iterable[TensorName]) -> list[Boundary]:
    """Return the tensors at which the data that outputs need comes out of pipelines and placeholders.

    A single image that is made a batch of one right behind its pipeline is found as that batch.

    Args:
        index: The graph.
        outputs: The outputs.
    """
    found: dict[TensorName, None] = {}
    seen: set[str] = set()
    waiting = [name.node for name in outputs]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in index or index.nodes[name].op in _ENDS:
            continue
        seen.add(name)
        for text in data_inputs(index.nodes[name]):
            source = TensorName.parse(text)
            if source.node in index and index.nodes[source.node].op in _ENDS:
                found[source] = None
            waiting.append(source.node)
    return [boundary_at(index, _batched(index, seen, name)) for name in found]


def is_in_loop(index: GraphIndex, name: str) -> bool:
    """Whether a node runs inside of a loop of `Enter` and `Exit`, where nothing from outside can take its place.

    Args:
        index: The graph.
        name: The node.
    """
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        node = index.nodes.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op in ("Enter", "RefEnter"):
            return True
        if node.op not in ("Exit", "RefExit"):
            waiting += [TensorName.parse(text).node for text in node.inputs]
    return False


def _batched(index: GraphIndex, needed: set[str], tensor: TensorName) -> TensorName:
    """Return the batch that a single image is made, where nothing else happens to it before."""
    here = tensor
    for _ in range(4):
        dims = boundary_at(index, here).shape.dims
        if dims is None or len(dims) != _IMAGE_RANK - 1:
            break
        users = {
            user.name for user, position in index.consumers(here.node)
            if user.name in needed and TensorName.parse(user.inputs[position]) == here
        }  # fmt: skip
        if len(users) != 1:
            break
        user = index.nodes[users.pop()]
        if user.op not in _BATCHING or (user.op == "Pack" and user.attrs.get("N") != 1):
            break
        here = TensorName(user.name, 0)
    dims = boundary_at(index, here).shape.dims
    return here if dims is not None and len(dims) == _IMAGE_RANK else tensor


def pipeline_nodes(index: GraphIndex, names: Sequence[str], *, through_control: bool) -> list[str]:
    """Return the nodes of input pipelines that the named nodes need."""
    reached = index.reach(names, through_control=through_control)
    return sorted(name for name in reached if index.nodes[name].op in PIPELINE_OPS)
