"""What an input pipeline does to the values of pixels on their way to a model.

Images that are fed at the end of a pipeline get nothing of what it does. So each step that is not known to keep pixels
as they are counts as a change, and so does a source of floats, of which nothing says what was done to them before.

    decoded, or integers from anywhere                        the pixels themselves
    cast, reshaped, resized, cropped, padded, mirrored        the same pixels
    everything else                                           told

The way back from a tensor goes through queues, staging areas, iterators, datasets and their functions, component by
component, so that what happens to boxes and labels does not count.

Source: the op definitions of array_ops.cc, data_flow_ops.cc, dataset_ops.cc, functional_ops.cc and image_ops.cc of
TensorFlow for what is given at which position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.errors import TfthawError
from tfthaw.ir.attrs import AttrList, FunctionName
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.function_bodies import ARGUMENT_OP, open_body
from tfthaw.ir.graph import Graph, GraphIndex, TensorName, data_inputs
from tfthaw.ir.nodes import Node
from tfthaw.ir.types import output_dtype
from tfthaw.passes.input_boundary import DECODE_OPS, READER_OPS
from tfthaw.passes.prune import PLACEHOLDER_OPS

_FIRST = frozenset({
    "Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape", "ExpandDims", "Squeeze",
    "Reshape", "Cast", "Switch", "RefSwitch", "Slice", "StridedSlice", "ReverseV2", "Pad", "PadV2", "MirrorPad",
    "Round", "Unpack", "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate",
    "CropAndResize", "ImageProjectiveTransformV2", "ImageProjectiveTransformV3",
})  # fmt: skip
_BOUNDS = frozenset({"Maximum", "Minimum", "ClipByValue"})
_DEPENDING = _BOUNDS | {"ReverseV2", "StridedSlice", "Pack", "Unpack", "Cast"}
_HANDING_ON = frozenset({"Switch", "RefSwitch", "Identity", "Enter"})
_PIXEL_TYPES = (DType.uint8, DType.string)
_ALL = frozenset({"Pack", "Merge", "RefMerge"})
_CHOICES = frozenset({"Select", "SelectV2"})
_BRANCHES = {"If": 1, "StatelessIf": 1, "Case": 1, "StatelessCase": 1, "PartitionedCall": 0,
             "StatefulPartitionedCall": 0}  # fmt: skip
_SAME_COMPONENTS = re.compile(
    r"(Experimental)?(Batch|ParallelBatch|PaddedBatch|Repeat|Shuffle|ShuffleAndRepeat|Prefetch|Cache|Take|Skip|Shard|"
    r"Filter|TakeWhile|FilterByLastComponent|ParallelFilter|Options|Model|Optimize|Unbatch|Rebatch|AutoShard|"
    r"IgnoreErrors|LatencyStats|Assert(Next|Prev|Cardinality)|"
    r"MaxIntraOpParallelism|PrivateThreadPool|ThreadPool|Concatenate|Snapshot|Sampling|"
    r"SetStatsAggregator|BytesProducedStats|FinalizeTFData|Finalize)Dataset(V\d)?"
)
_MAPS = re.compile(r"(Experimental)?(Parallel)?Map(AndBatch)?Dataset(V\d)?")
_FLAT_MAPS = re.compile(r"(Experimental)?(FlatMap|(Legacy)?(Parallel)?Interleave)Dataset(V\d)?")
_SLICES = frozenset({"TensorDataset", "TensorSliceDataset"})
_DEEPEST = 32
_BRIGHTEST = 255.0
_IMAGE_RANK = 3


@dataclass(frozen=True)
class _Item:
    """Something on the way back.

    Attributes:
        frame: Where it is.
        tensor: The tensor; or the dataset, where a component of its elements is meant.
        component: The component, or None for the tensor itself.
    """

    frame: _Frame
    tensor: TensorName
    component: int | None = None


@dataclass(eq=False)
class _Frame:
    """The main graph, or a function as one node calls it.

    Attributes:
        index: Its nodes.
        returns: What it gives.
        give: The position of an argument -> what it is outside.
        depth: How many calls lead here.
        called: caller's node and function -> the frame of that call.
    """

    index: GraphIndex
    returns: list[TensorName] = field(default_factory=list)
    give: Callable[[int], _Item | None] = lambda _: None
    depth: int = 0
    called: dict[tuple[str, str], _Frame | None] = field(default_factory=dict)

    def tensors(self, node: Node) -> list[_Item]:
        """Return what a node takes."""
        return [_Item(self, TensorName.parse(text)) for text in data_inputs(node)]


def pixel_changes(graph: Graph, index: GraphIndex, tensor: TensorName) -> list[str]:
    """Return the ops in front of a tensor that change the values of pixels, or give numbers of unknown meaning.

    Args:
        graph: The graph.
        index: Its nodes.
        tensor: The tensor.
    """
    way = _Way(graph)
    waiting, seen = [_Item(_Frame(index), tensor)], set()
    while waiting:
        item = waiting.pop()
        if item not in seen:
            seen.add(item)
            waiting += way.before(item)
    return list(way.changes)


class _Way:
    """The way back from a tensor to the pixels that it began with."""

    def __init__(self, graph: Graph) -> None:
        self.changes: dict[str, None] = {}
        self._definitions = Definitions(graph.functions)

    def before(self, item: _Item) -> Iterator[_Item]:
        """Yield what something is made of; where that changes pixels, remember it."""
        node = item.frame.index.nodes.get(item.tensor.node)
        if node is None:
            return
        if node.op == ARGUMENT_OP:
            position = node.attrs.get("index")
            outside = item.frame.give(position) if isinstance(position, int) else None
            if outside is None or (item.component is not None and outside.component is not None):
                self._tell("a dataset of datasets")
            else:
                component = item.component if outside.component is None else outside.component
                yield _Item(outside.frame, outside.tensor, component)
        elif item.component is not None:
            yield from self._component(item.frame, node, item.component)
        else:
            yield from self._tensor(item.frame, node, item.tensor.output)

    def _tell(self, what: str) -> None:
        self.changes[what] = None

    def _tensor(self, frame: _Frame, node: Node, output: int) -> Iterator[_Item]:
        inputs = frame.tensors(node)
        functions = [node.op] if node.op in self._definitions.functions else node.called()
        fillers = self._fillers(frame, node, output)
        if fillers is not None:
            yield from fillers
        elif (functions and node.op in _BRANCHES) or node.op in functions:
            for name in functions:
                inner = self._call(frame, node, name, _offset(inputs, _BRANCHES.get(node.op, 0)))
                yield from self._returned(inner, output)
        elif node.op in _ALL and _keeps_pixels(frame.index, node):
            yield from inputs
        elif node.op == "IdentityN" and output < len(inputs):
            yield inputs[output]
        elif node.op in _CHOICES:
            yield from inputs[1:3]
        elif node.op in _BOUNDS and inputs and _keeps_pixels(frame.index, node):
            yield inputs[_image_of(frame.index, node)]
        elif node.op in _FIRST and inputs and _keeps_pixels(frame.index, node):
            yield inputs[0]
        elif not _is_source(node, inputs) or _gives_floats(node, output):
            self._tell(node.op)

    def _component(self, frame: _Frame, node: Node, component: int) -> Iterator[_Item]:
        """Yield what a component of a dataset's elements is made of."""
        inputs = frame.tensors(node)
        if _MAPS.fullmatch(node.op) and inputs:
            inner = self._mapped(frame, node, inputs)
            yield from self._returned(inner, component)
        elif _FLAT_MAPS.fullmatch(node.op) and inputs:
            inner = self._mapped(frame, node, inputs)
            yield from (_Item(item.frame, item.tensor, component) for item in self._returned(inner, 0))
        elif node.op in _SLICES and component < len(inputs):
            yield inputs[component]
        elif node.op == "ZipDataset":
            for part in inputs:
                count = len(_types(frame.index.nodes.get(part.tensor.node)))
                if component < count:
                    yield _Item(frame, part.tensor, component)
                    return
                component -= count
            self._tell(node.op)
        elif (node.op == "Identity" or _SAME_COMPONENTS.fullmatch(node.op)) and inputs:
            sets = inputs[: 2 if node.op == "ConcatenateDataset" else 1]
            yield from (_Item(frame, part.tensor, component) for part in sets)
        elif _may_be_floats(_types(node), component):
            self._tell(node.op)

    def _fillers(self, frame: _Frame, node: Node, output: int) -> list[_Item] | None:
        """Return what fills a queue, a staging area or an iterator with what a node hands out; None for other nodes."""
        index = frame.index
        if node.op.startswith("QueueDequeue") and node.inputs:
            users = _users(index, TensorName.parse(node.inputs[0]).node)
            filled = [frame.tensors(user) for user in users if user.op.startswith("QueueEnqueue")]
            found = [inputs[1 + output] for inputs in filled if len(inputs) > 1 + output]
            if not found:
                self._tell(node.op)
        elif node.op == "Unstage":
            places = [user for user in index.nodes.values() if user.op == "Stage" and _place(user) == _place(node)]
            found = [inputs[output] for user in places if len(inputs := frame.tensors(user)) > output]
        elif node.op in ("IteratorGetNext", "IteratorGetNextSync") and node.inputs:
            found = self._iterated(frame, index.producer(node.inputs[0]), output)
        else:
            return None
        if not found and _gives_floats(node, output):
            self._tell(node.op)
        return found

    def _iterated(self, frame: _Frame, iterator: Node | None, output: int) -> list[_Item]:
        """Return the components of datasets that an iterator hands out."""
        if iterator is None:
            return []
        if iterator.op == "OneShotIterator":
            factory = iterator.attrs.get("dataset_factory")
            inner = self._call(frame, iterator, factory.name, _offset([], 0)) if isinstance(
                factory, FunctionName) else None  # fmt: skip
            return [_Item(item.frame, item.tensor, output) for item in self._returned(inner, 0)]
        makers = [user for user, _ in frame.index.consumers(iterator.name) if user.op == "MakeIterator"]
        return [_Item(frame, TensorName.parse(user.inputs[0]), output) for user in makers]

    def _mapped(self, frame: _Frame, node: Node, inputs: list[_Item]) -> _Frame | None:
        """Return the frame of the function that a dataset is mapped with; its first arguments are an element."""
        function = node.attrs.get("f")
        captured = node.attrs.get("Targuments")
        if not isinstance(function, FunctionName):
            return None
        count = len(captured.items) if isinstance(captured, AttrList) else 0
        known = self._definitions.functions.get(function.name)
        components = len(known.arguments) - count if known is not None else 0

        def give(position: int) -> _Item | None:
            if position < components:
                return _Item(frame, inputs[0].tensor, position)
            place = 1 + position - components
            return inputs[place] if place < len(inputs) else None

        return self._call(frame, node, function.name, give)

    def _call(self, frame: _Frame, node: Node, name: str, give: Callable[[int], _Item | None]) -> _Frame | None:
        """Return the frame of a function that a node calls; None where it cannot be looked into."""
        key = (node.name, name)
        if key not in frame.called:
            frame.called[key] = self._opened(name, give, frame.depth + 1)
        return frame.called[key]

    def _opened(self, name: str, give: Callable[[int], _Item | None], depth: int) -> _Frame | None:
        function = self._definitions.functions.get(name)
        if function is None or depth > _DEEPEST:
            return None
        try:
            body = open_body(function, self._definitions)
        except TfthawError:  # of ops that nothing describes, or of a damaged graph
            return None
        return _Frame(GraphIndex(body.nodes), body.returns, give, depth)

    def _returned(self, inner: _Frame | None, position: int) -> list[_Item]:
        """Return what a function gives; where nothing says that, it is told."""
        if inner is None or position >= len(inner.returns):
            self._tell("a function that cannot be looked into")
            return []
        return [_Item(inner, inner.returns[position])]


def _offset(inputs: list[_Item], first: int) -> Callable[[int], _Item | None]:
    """Return what gives the arguments of a call, the first of which is at a position of its inputs."""
    return lambda position: inputs[first + position] if first + position < len(inputs) else None


def _place(node: Node) -> tuple[object, object]:
    """Return what a staging area is known by."""
    return node.attrs.get("container", b""), node.attrs.get("shared_name", b"")


def _types(node: Node | None) -> list[object]:
    attrs = node.attrs if node is not None else {}
    types = attrs.get("output_types", attrs.get("Toutput_types"))
    return list(types.items) if isinstance(types, AttrList) else []


def _may_be_floats(types: list[object], component: int) -> bool:
    dtype = types[component] if component < len(types) else None
    return dtype is None or bool(getattr(dtype, "is_float", True))


def _gives_floats(node: Node, output: int) -> bool:
    """Whether an output may hold floats of three dimensions or more, such as an image."""
    tensor = node.tensor() if node.op == "Const" else None
    if tensor is not None and len(tensor.shape) < _IMAGE_RANK:
        return False
    dtype = output_dtype(node, output)
    if node.op in DECODE_OPS and node.op.startswith("Decode"):  # other types have other ranges
        return dtype not in _PIXEL_TYPES
    return dtype is None or dtype.is_float


def _is_source(node: Node, inputs: list[_Item]) -> bool:
    """Whether a node makes its numbers itself, or decodes them, instead of changing those that it takes."""
    return not inputs or node.op in DECODE_OPS | READER_OPS | PLACEHOLDER_OPS or "PyFunc" in node.op


def _keeps_pixels(index: GraphIndex, node: Node) -> bool:
    """Whether a node that can keep pixels as they are does, as far as its constants say."""
    if node.op not in _DEPENDING:
        return True
    if node.op in ("Pack", "Unpack"):  # along a batch; along another dimension it may be the channels
        return node.attrs.get("axis", 0) == 0 or node.attrs.get("N") == 1
    if node.op == "Cast":
        return node.dtype("DstT") is not DType.bool
    values = [None if value is None else value.astype(np.float64) for value in _constants(index, node)]
    if node.op == "ReverseV2":  # of an image, the first two dimensions are never the channels
        return len(values) > 1 and values[1] is not None and bool(np.isin(values[1], (0, 1)).all())
    if node.op == "StridedSlice":
        steps = values[3] if len(values) > 3 else None
        if steps is None:
            return False
        # from its beginning, the first two dimensions of an image are never the channels
        is_plain = not node.attrs.get("ellipsis_mask", 0) and not node.attrs.get("new_axis_mask", 0)
        return bool((steps[2 if is_plain else 0 :] > 0).all())
    bound = values[1 - _image_of(index, node)] if node.op != "ClipByValue" and len(values) > 1 else None
    low = [bound] if node.op == "Maximum" else values[1:2] if node.op == "ClipByValue" else []
    high = [bound] if node.op == "Minimum" else values[2:3] if node.op == "ClipByValue" else []
    return all(value is not None and bool((value <= 0).all()) for value in low) and all(
        value is not None and bool((value >= _BRIGHTEST).all()) for value in high
    )


def _image_of(index: GraphIndex, node: Node) -> int:
    """Return which input of a node that bounds values is the image: not the constant one."""
    source = index.producer(node.inputs[0])
    return 1 if source is not None and source.op == "Const" and len(data_inputs(node)) == 2 else 0


def _users(index: GraphIndex, name: str) -> list[Node]:
    """Return what takes a queue, also through conds and loops."""
    found: dict[str, Node] = {}
    waiting = [name]
    while waiting:
        for user, _ in index.consumers(waiting.pop()):
            if user.name not in found:
                found[user.name] = user
                waiting += [user.name] if user.op in _HANDING_ON else []
    return list(found.values())


def _constants(index: GraphIndex, node: Node) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None]:
    """Yield the numbers that a node takes, where they are constants."""
    for text in data_inputs(node):
        source = index.producer(text)
        tensor = source.tensor() if source is not None and source.op == "Const" else None
        yield tensor.numpy() if tensor is not None and tensor.dtype is not DType.string else None
