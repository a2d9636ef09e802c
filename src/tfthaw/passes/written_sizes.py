"""Sizes that a training graph has written into itself: of the batches and images that it was built for.

A graph that was built for `float32[24, 300, 300, 3]` may hold these numbers in reshapes, in the arrays of loops, in
constants, in functions; then only such batches give right results. It may also lack what other sizes would need: a
resize to the very size that comes in is no part of it. Nothing is changed here.

Source: the op definitions of array_ops.cc, data_flow_ops.cc, image_ops.cc, list_ops.cc and math_ops.cc of TensorFlow;
`map_fn` of TensorFlow, which counts a batch when the graph is built where it can.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import GraphIndex, Node, TensorName, data_inputs
from tfthaw.tensors import Tensor

_RESIZES = frozenset({
    "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate",
})  # fmt: skip
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2"})  # the second factor is a weight
_OF_SINGLE_PIXELS = frozenset({  # what gives the same for images that are resized later, or carries them around
    "Identity", "StopGradient", "Cast", "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum",
    "ClipByValue", "ExpandDims", "Squeeze", "Reshape", "StridedSlice", "ReverseV2", "Split", "Unpack", "Pack",
    "ConcatV2", "Switch", "Merge", "Enter", "Exit", "NextIteration", "TensorArrayScatterV3",
    "TensorArrayReadV3", "TensorArrayWriteV3", "TensorArrayGatherV3", "TensorArraySizeV3",
})  # fmt: skip
_SIZE_INPUTS = {
    "Reshape": 1, "Fill": 0, "BroadcastTo": 1, "Range": 1, "Tile": 1, "Slice": 2, "ScatterNd": 2,
}  # fmt: skip
_IMAGE_DIMENSIONS = 0b111  # batch, height and width, as masks of slices count them
_SHAPE_OPS = frozenset({"Shape", "ShapeN", "Size", "Rank"})
_TO_SINGLE_IMAGES = frozenset({"TensorArrayScatterV3", "TensorListFromTensor", "Where", "NonMaxSuppressionV3",
                               "NonMaxSuppressionV4", "NonMaxSuppressionV5"})  # fmt: skip
_TO_A_BATCH = frozenset({"TensorArrayGatherV3", "TensorListStack"})
_NUMBERING = {"CropAndResize": 2, "GatherNd": 1}
_ARRAY_SIZE_INPUTS = {"TensorArrayV3": 0, "TensorArrayV2": 0, "TensorListReserve": 1}
_COUNTED_BY_ATTR = {"Unpack": "num", "Split": "num_split"}
_ELEMENTWISE = frozenset({
    "Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "ConcatV2", "Pack", "Select", "SelectV2",
})  # fmt: skip


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
    """Return the nodes between a batch and outputs that have the number of its images written in.

    With another number they fail, or give something else.

    Args:
        index: The graph.
        tensor: The batch.
        outputs: The outputs.
        batch: How many images it has.
    """
    between = _between(index, tensor, outputs)
    batches = _batches(index, tensor, between)
    found = [
        node.name for node in index.nodes.values()
        if node.name in between and (_holds_batch(index, node, batch) or _picks(index, node, batches))
    ]  # fmt: skip
    if batch > 1:  # what joins from the side; ones are everywhere, and grow to any batch
        needed = index.reach([name.node for name in outputs], stop=[tensor.node]) - between
        aside = [node for node in index.nodes.values()
                 if node.name in needed and node.op in _SIZE_INPUTS and not _counts_turns(index, node)]  # fmt: skip
        found += [node.name for node in aside if node.name != tensor.node and _holds_batch(index, node, batch)]
    apart = [name.node for name in outputs if name.node not in between and _may_be_batch(index, name, batch)]
    return list(dict.fromkeys([*found, *apart]))


def arrays_of_batch(index: GraphIndex, tensor: TensorName, outputs: Sequence[TensorName], batch: int) -> list[str]:
    """Return the arrays of loops that have room for the number of images of a batch; with another number they fail.

    Args:
        index: The graph.
        tensor: The batch.
        outputs: The outputs.
        batch: How many images it has.
    """
    needed = index.reach([name.node for name in outputs], stop=[tensor.node])
    return [
        node.name for node in index.nodes.values()
        if node.op in _ARRAY_SIZE_INPUTS and node.name in needed
        and _is_sized(index, node, _ARRAY_SIZE_INPUTS[node.op], batch)
    ]  # fmt: skip


def takes_any_size(index: GraphIndex, tensor: TensorName, outputs: Sequence[TensorName]) -> bool:
    """Whether images of any height and width become images of one size before anything else is made of them.

    Args:
        index: The graph.
        tensor: The batch of images.
        outputs: The outputs.
    """
    needed = index.reach([name.node for name in outputs])
    seen: set[str] = set()
    waiting = [tensor.node]
    while waiting:
        name = waiting.pop()
        for node, position in index.consumers(name):
            text = node.inputs[position]
            is_ours = name != tensor.node or TensorName.parse(text) == tensor
            if text.startswith("^") or node.name in seen or node.name not in needed or not is_ours:
                continue
            seen.add(node.name)
            if node.op in _RESIZES or node.op == "Shape":  # which asks for the sizes when the graph runs
                continue
            if node.op not in _OF_SINGLE_PIXELS or _has_a_shape(index, node) or _crops(node):
                return False
            waiting.append(node.name)
    return not seen & {name.node for name in outputs} and any(index.nodes[name].op in _RESIZES for name in seen)


def _between(index: GraphIndex, tensor: TensorName, outputs: Sequence[TensorName]) -> set[str]:
    return index.descend([tensor.node]) & index.reach([name.node for name in outputs])


def _batches(index: GraphIndex, tensor: TensorName, between: set[str]) -> set[str]:
    """Return the nodes that give something for each image of a batch, as far as ops tell, the batch itself included."""
    found = {tensor.node}
    waiting = [tensor.node, *(name for name in between if index.nodes[name].op in _TO_A_BATCH)]
    while waiting:
        for node, position in index.consumers(waiting.pop()):
            if node.name in found or node.name not in between or node.inputs[position].startswith("^"):
                continue
            if node.op not in _SHAPE_OPS | _TO_SINGLE_IMAGES:
                found.add(node.name)
                waiting.append(node.name)
    return found


def _picks(index: GraphIndex, node: Node, batches: set[str]) -> bool:
    """Whether a node takes images of a batch by numbers that are written in."""
    inputs = data_inputs(node)
    if not inputs or TensorName.parse(inputs[0]).node not in batches:
        return False
    if node.op in ("GatherV2", "Gather", "DynamicPartition"):
        axis = _constant(index, inputs[2]) if node.op == "GatherV2" and len(inputs) > 2 else None
        is_first = axis is None or not axis.numpy().any()
        return is_first and len(inputs) > 1 and _constant(index, inputs[1]) is not None
    if node.op != "StridedSlice" or len(inputs) < 3:
        return False
    masks = {name: node.attrs.get(name) for name in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask")}
    firsts = {name: isinstance(mask, int) and bool(mask & 1) for name, mask in masks.items()}
    if firsts["ellipsis_mask"] or firsts["new_axis_mask"]:
        return False
    return not (firsts["begin_mask"] and firsts["end_mask"])


def _may_be_batch(index: GraphIndex, tensor: TensorName, batch: int) -> bool:
    """Whether an output that no image changes may have something for each image of a batch."""
    source = index.nodes.get(tensor.node)
    for _ in range(8):  # a damaged graph may have rings
        if source is None or source.op not in ("Identity", "ReadVariableOp") or not source.inputs:
            break
        source = index.producer(source.inputs[0])
    if source is None:
        return False
    constant = source.tensor() if source.op == "Const" else None
    dims = constant.shape if constant is not None else (source.shape() or Shape(None)).dims
    return dims is None or (bool(dims) and dims[0] in (None, batch))


def _counts_turns(index: GraphIndex, node: Node) -> bool:
    """Whether a node is for the arrays of loops alone, which refuse other numbers themselves."""
    users = [user.op for user, _ in index.consumers(node.name)]
    return bool(users) and all(op.startswith("TensorArray") for op in users)


def _crops(node: Node) -> bool:
    """Whether a node may take a part of an image that is of a certain size."""
    if node.op != "StridedSlice":
        return False
    masks = [node.attrs.get(name, 0) for name in ("begin_mask", "end_mask")]
    keeps_all = all(isinstance(mask, int) and mask & _IMAGE_DIMENSIONS == _IMAGE_DIMENSIONS for mask in masks)
    return not keeps_all and node.attrs.get("ellipsis_mask", 0) != 1


def _has_a_shape(index: GraphIndex, node: Node) -> bool:
    """Whether a node says of what shape its tensors must be."""
    if any(isinstance(value, Shape) and value.dims for name, value in node.attrs.items() if name != "_output_shapes"):
        return True
    return node.op == "Reshape" and len(node.inputs) > 1 and _constant(index, node.inputs[1]) is not None


def _holds_batch(index: GraphIndex, node: Node, batch: int) -> bool:
    if node.op in _COUNTED_BY_ATTR:
        return node.attrs.get(_COUNTED_BY_ATTR[node.op]) == batch
    if node.op in _NUMBERING and len(node.inputs) > _NUMBERING[node.op] and batch > 1:
        numbers = _constant(index, node.inputs[_NUMBERING[node.op]])  # one for each image, such as which box is whose
        return numbers is not None and bool(numbers.shape) and numbers.shape[0] == batch
    place = _SIZE_INPUTS.get(node.op)
    if place is not None and _is_sized(index, node, place, batch):
        return True
    if node.op not in _ELEMENTWISE | _PRODUCTS or batch == 1:
        return False
    inputs = data_inputs(node)[: 1 if node.op in _PRODUCTS else None]
    constants = [_constant(index, text) for text in inputs]
    # a constant for each image, such as anchors
    return any(tensor is not None and len(tensor.shape) > 1 and tensor.shape[0] == batch for tensor in constants)


def _is_sized(index: GraphIndex, node: Node, place: int, batch: int) -> bool:
    """Whether the size or shape that a node takes as an input is, or begins with, that of the batch."""
    if place >= len(node.inputs):
        return False
    source = index.producer(node.inputs[place])
    for _ in range(8):  # a damaged graph may have rings
        if source is None or source.op not in ("Pack", "ConcatV2") or not source.inputs:
            break
        source = index.producer(source.inputs[0])
    first = 0
    if source is not None and source.op == "StridedSlice" and len(source.inputs) > 1:  # one size out of a known shape
        begin = _constant(index, source.inputs[1])
        first = int(begin.numpy().reshape(-1)[0]) if begin is not None and begin.size == 1 else 0
        source = index.producer(source.inputs[0])
    tensor = source.tensor() if source is not None and source.op == "Const" else None
    if tensor is None or tensor.dtype not in (DType.int32, DType.int64) or len(tensor.shape) > 1:
        return False
    return 0 <= first < tensor.size and int(tensor.numpy().reshape(-1)[first]) == batch


def _constant(index: GraphIndex, text: str) -> Tensor | None:
    source = index.producer(text)
    return source.tensor() if source is not None and source.op == "Const" else None
