"""Functions from a graph: the part of a main graph that some tensors need, as a library function.

What is fed becomes arguments, and so does what is shared with the rest of the graph (variables, tables, asset paths):
those are captures, the last arguments, which whoever calls the function hands in. The graph itself is not changed.

    main graph                             function (x, w) -> (y)
    x = Placeholder                        y_read = ReadVariableOp(w)
    w = VarHandleOp                        y_mul  = MatMul(x, y_read:value:0)
    y_read = ReadVariableOp(w)             Identity = Identity(y_mul:product:0)
    y_mul = MatMul(x, y_read)              return y = Identity:output:0

Control flow of TensorFlow 1 is taken as it is. Nodes that keep state of their own (queues, iterators) are taken as
well; each function then has its own.

Source: graph_to_functiondef.cc and function.cc of TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr, AttrList, FunctionName, Shape
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.function_bodies import ARGUMENT_OP, Body, close_body
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.passes.prune import PLACEHOLDER_OPS, free_name, without_lost_colocations
from tfthaw.tensors import ArrayTensor

_CLASS = "_class"


@dataclass(frozen=True, slots=True)
class Taken:
    """A tensor that a function takes as an argument.

    Attributes:
        tensor: Where it is in the graph.
        dtype: Its element type.
        shape: What is known of its shape.
    """

    tensor: TensorName
    dtype: DType
    shape: Shape


@dataclass(frozen=True, slots=True)
class Capture:
    """A node whose first output is shared between functions, and so is an argument of each that uses it.

    Attributes:
        node: The node.
        dtype: The element type of its output, `resource` for handles.
        described: What the argument's definition says besides, as bytes (what a handle is a handle of).
    """

    node: str
    dtype: DType
    described: bytes = b""


@dataclass(frozen=True, slots=True)
class Call:
    """What to make a function of.

    Attributes:
        name: The function's name in the library.
        takes: argument name -> the tensor that is fed; in the order of the arguments.
        gives: result name -> the tensor that is returned; in the order of the results. None stands for the number 1,
            which gives callers something to wait for.
        dtypes: result name -> its element type, where nothing else says it.
        runs: Nodes that have run when the call has, whether a result needs them or not.
    """

    name: str
    takes: Mapping[str, Taken] = field(default_factory=dict)
    gives: Mapping[str, TensorName] | None = None
    dtypes: Mapping[str, DType] = field(default_factory=dict)
    runs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MadeFunction:
    """A function that was made of a part of a graph.

    Attributes:
        function: The function; its last arguments are the captures.
        captures: The nodes that it captures, in the order of those arguments.
        nodes: The nodes of the graph that its body was made of.
        result_dtypes: The element types of what it gives.
    """

    function: Function
    captures: tuple[str, ...]
    nodes: tuple[str, ...]
    result_dtypes: tuple[DType, ...]


def function_from_graph(
    index: GraphIndex, call: Call, captures: Mapping[str, Capture], definitions: Definitions
) -> MadeFunction:
    """Make a function of the part of a graph that some tensors need.

    Args:
        index: The graph.
        call: What goes in and out.
        captures: The nodes that are handed in, by name.
        definitions: What the ops of the graph take and give.

    Raises:
        UnsupportedError: Nothing says what an op in it gives, or TensorFlow takes ops in it no longer: functions are
            always of the newest version of GraphDef, whatever the graph was.
    """
    return _Making(index, call, captures, definitions).function()


def call_node(name: str, made: MadeFunction, inputs: Sequence[str]) -> Node:
    """Return a node that calls a function.

    Args:
        name: The node's name.
        made: The function.
        inputs: What it is called with, captures included.
    """
    arguments: list[Attr] = [argument.dtype or DType.invalid for argument in made.function.arguments]
    attrs: dict[str, Attr] = {
        "Tin": AttrList("type", arguments), "Tout": AttrList("type", [*made.result_dtypes]),
        "f": FunctionName(made.function.name),
    }  # fmt: skip
    op = "StatefulPartitionedCall" if made.function.is_stateful else "PartitionedCall"
    return Node(name, op, [*inputs], "", attrs)


def calling_function(name: str, made: MadeFunction) -> MadeFunction:
    """Return a function that calls another one, and is the same to whoever calls it.

    Args:
        name: Its name in the library.
        made: The function that it calls.
    """
    known = made.function
    inputs = [argument.name for argument in known.arguments]
    call = call_node(free_name(set(inputs), "call"), made, inputs)
    returns = {result.name: f"{call.name}:output:{place}" for place, result in enumerate(known.results)}
    function = Function(
        name, list(known.arguments), list(known.results), [call], returns, argument_attrs=dict(known.argument_attrs),
        is_stateful=known.is_stateful,
    )  # fmt: skip
    return MadeFunction(function, made.captures, (), made.result_dtypes)


def needed_nodes(index: GraphIndex, call: Call, captures: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the nodes that a function is made of, and those that it captures, both in the graph's order.

    Args:
        index: The graph.
        call: What goes in and out.
        captures: The nodes that are handed in.
    """
    fed = {taken.tensor for taken in call.takes.values()}
    # nothing waits for an argument; of other nodes that are fed, what waits for them keeps waiting
    held = {name.node for name in fed if name.node not in index or index.nodes[name.node].op in PLACEHOLDER_OPS}
    seen: set[str] = set()
    captured: set[str] = set()
    waiting = [*(call.gives or {}).values(), *(TensorName(name, -1) for name in call.runs)]
    while waiting:
        name = waiting.pop()
        if name in fed or name.node in seen or (name.is_control and name.node in held):
            continue
        if name.node in captures:
            captured.add(name.node)
            continue
        seen.add(name.node)
        waiting += [TensorName.parse(text) for text in index.nodes[name.node].inputs]
    return [name for name in index.nodes if name in seen], [name for name in index.nodes if name in captured]


class _Making:
    """One function that is being made."""

    def __init__(
        self, index: GraphIndex, call: Call, captures: Mapping[str, Capture], definitions: Definitions
    ) -> None:
        self.index = index
        self.call = call
        self.captures = captures
        self.definitions = definitions
        self.inside, self.captured = needed_nodes(index, call, captures)
        self.own = frozenset(self.inside)
        self.taken = set(self.inside)
        self.arguments: list[Node] = []
        self.moved: dict[TensorName, str] = {}

    def function(self) -> MadeFunction:
        """Return the function."""
        call = self.call
        described: list[Argument] = []
        attrs: dict[int, Mapping[str, Attr]] = {}
        for name, taken in call.takes.items():
            attrs[len(described)] = _argument_attrs(name, taken.shape)
            described.append(Argument(self._take(name, taken.tensor, taken.dtype), taken.dtype))
        for node in self.captured:
            capture = self.captures[node]
            attrs[len(described)] = _argument_attrs(node, None if capture.dtype is DType.resource else Shape(()))
            name = self._take(node, TensorName(node, 0), capture.dtype)
            described.append(Argument(name, capture.dtype, opaque=capture.described))
        _refuse_removed([self.index.nodes[name] for name in self.inside])
        nodes = without_lost_colocations([self._rewired(self.index.nodes[name]) for name in self.inside])
        results, dtypes, returned, added = self._results()
        body = Body(call.name, [*self.arguments, *nodes, *added], [node.name for node in self.arguments], returned)
        closed, texts = close_body(body, self.definitions)
        function = Function(
            call.name, described, results, closed,
            returns={result.name: text for result, text in zip(results, texts, strict=True)},
            control_returns={name: name for name in call.runs},
            argument_attrs=attrs,
            is_stateful=any(self.definitions.is_stateful(node) for node in nodes),
        )  # fmt: skip
        return MadeFunction(function, tuple(self.captured), tuple(self.inside), tuple(dtypes))

    def _take(self, wanted: str, tensor: TensorName, dtype: DType) -> str:
        """Add an argument for a tensor and return its name."""
        name = free_name(self.taken, argument_name(wanted))
        self.taken.add(name)
        self.arguments.append(Node(name, ARGUMENT_OP, [], "", {"T": dtype, "index": len(self.arguments)}))
        self.moved.setdefault(tensor, name)
        return name

    def _rewired(self, node: Node) -> Node:
        """Return a node of the graph that takes arguments where it took what is fed or captured."""
        inputs = []
        for text in node.inputs:
            name = TensorName.parse(text)
            if name in self.moved:
                inputs.append(self.moved[name])
            elif not name.is_control or name.node in self.own:  # arguments are there when the body begins
                inputs.append(text)
        return node if inputs == node.inputs else replace(node, inputs=inputs)

    def _results(self) -> tuple[list[Argument], list[DType], list[TensorName], list[Node]]:
        """Return the results, and for each an identity, which may wait for what has to run."""
        controls = [f"^{name}" for name in self.call.runs]
        results: list[Argument] = []
        dtypes: list[DType] = []
        added: list[Node] = []
        names: set[str] = set()
        for wanted, tensor in self._given(added).items():
            name = free_name(names, argument_name(wanted))
            names.add(name)
            dtype = self._dtype(wanted, tensor)
            source = self.moved.get(tensor, tensor.as_input())
            identity = free_name(self.taken, "Identity")
            self.taken.add(identity)
            added.append(Node(identity, "Identity", [source, *controls], "", {"T": dtype}))
            results.append(Argument(name, dtype))
            dtypes.append(dtype)
        return results, dtypes, [TensorName(node.name, 0) for node in added if node.op == "Identity"], added

    def _given(self, added: list[Node]) -> Mapping[str, TensorName]:
        """Return what the function gives, which may be a constant that nothing in the graph is."""
        if self.call.gives is not None:
            return self.call.gives
        name = free_name(self.taken, "done")
        self.taken.add(name)
        added.append(Node(name, "Const", [], "", {"dtype": DType.int32, "value": ArrayTensor(np.int32(1))}))
        return {"done": TensorName(name, 0)}

    def _dtype(self, result: str, tensor: TensorName) -> DType:
        if self.call.gives is None:
            return DType.int32
        for taken in self.call.takes.values():
            if taken.tensor == tensor:
                return taken.dtype
        if tensor.node in self.captures:
            return self.captures[tensor.node].dtype
        found = self.definitions.output_dtypes(self.index.nodes[tensor.node])
        if found is not None and tensor.output < len(found):
            return found[tensor.output].base
        return self.call.dtypes.get(result, DType.invalid)


def _refuse_removed(nodes: Sequence[Node]) -> None:
    """Refuse ops that TensorFlow takes in graphs of older versions alone."""
    problems = []
    for node in nodes:
        history = op_history(node.op)
        if history is not None and history.deprecated is not None:
            version, why = history.deprecated
            problems.append(f"{node.name} ({node.op}) was removed in version {version} of GraphDef: {why}")
    if problems:
        raise UnsupportedError(
            "TensorFlow 2 takes these ops in no function", problems=problems,
            hint="keep the graph as it is, for sessions: --style v1",
        )  # fmt: skip


def argument_name(name: str) -> str:
    """Return a name as arguments of functions may have it: small letters, digits and underscores."""
    plain = re.sub("[^a-z0-9_]", "_", name.lower())
    return plain if plain[:1].isalpha() else f"arg_{plain}"


def _argument_attrs(name: str, shape: Shape | None) -> dict[str, Attr]:
    attrs: dict[str, Attr] = {"_user_specified_name": name.encode()}
    if shape is not None:
        attrs["_output_shapes"] = AttrList("shape", [Shape(shape.dims)])
    return attrs
