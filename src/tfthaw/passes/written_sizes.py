"""Sizes that a training graph has written into itself: of the batches and images that it was built for.

A graph that was built for `float32[24, 300, 300, 3]` may hold these numbers in reshapes, in constants, in functions;
then only such batches give right results. Nothing is changed here.

Source: the op definitions of array_ops.cc, math_ops.cc and functional_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfthaw.dtypes import DType
from tfthaw.ir.graph import GraphIndex, Node, TensorName, data_inputs

_SHAPED_BY_INPUT = {"Reshape": 1, "Fill": 0, "BroadcastTo": 1, "Range": 1, "Tile": 1}
_COUNTED_BY_ATTR = {"Unpack": "num", "Split": "num_split"}


def has_functions_on(index: GraphIndex, tensor: TensorName, outputs: Sequence[TensorName]) -> list[str]:
    """Return the nodes between a tensor and outputs whose functions may have its sizes in them.

    Args:
        index: The graph.
        tensor: The tensor.
        outputs: The outputs.
    """
    between = _between(index, tensor, outputs)
    return [node.name for node in index.nodes.values() if node.name in between and node.called()]


def nodes_of_batch(index: GraphIndex, tensor: TensorName, outputs: Sequence[TensorName], batch: int) -> list[str]:
    """Return the nodes between a tensor and outputs that have the number of its images written in.

    Args:
        index: The graph.
        tensor: The batch.
        outputs: The outputs.
        batch: How many images it has.
    """
    between = _between(index, tensor, outputs)
    return [
        node.name for node in index.nodes.values() if node.name in between and _holds_batch(index, node, batch)
    ]  # fmt: skip


def _between(index: GraphIndex, tensor: TensorName, outputs: Sequence[TensorName]) -> set[str]:
    return index.descend([tensor.node]) & index.reach([name.node for name in outputs])


def _holds_batch(index: GraphIndex, node: Node, batch: int) -> bool:
    if node.op in _COUNTED_BY_ATTR:
        return node.attrs.get(_COUNTED_BY_ATTR[node.op]) == batch
    for place, text in enumerate(data_inputs(node)):
        source = index.producer(text)
        tensor = source.tensor() if source is not None and source.op == "Const" else None
        if tensor is None or not tensor.size:
            continue
        if len(tensor.shape) > 1 and tensor.shape[0] == batch:
            return True  # a constant for each image, such as anchors
        is_size = place == _SHAPED_BY_INPUT.get(node.op) and tensor.dtype in (DType.int32, DType.int64)
        if is_size and len(tensor.shape) < 2 and int(tensor.numpy().reshape(-1)[0]) == batch:
            return True
    return False
