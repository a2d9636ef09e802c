"""Inline: put the bodies of called functions in the place of the calls.

A call is a `PartitionedCall`, a `StatefulPartitionedCall`, or a node whose op is a function of the library. Its nodes
are named under it (`call/matmul`). What a call promises stays true: its nodes that have side effects run after what the
call waited for, and what waits for the call waits for them. A call of the main graph leaves its name behind: `call:0`
is what it was; further outputs are `call_1:0` and so on. Functions that control flow names (the branches of If and
Case, the condition and body of While) stay functions; calls inside of them are inlined there. An If or Case whose
choice is a constant (a placeholder was set to it) is a call of the branch that it takes.

It changes no value. Functions that call themselves have no end: `tfthaw.ir.validation` refuses them before.

Source: inline_function_utils.cc and function.proto of TensorFlow (what a call waits for).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from tfthaw.dtypes import DType
from tfthaw.errors import LimitError, StructureError, UnsupportedError
from tfthaw.ir.attrs import Attr, AttrList, FunctionName
from tfthaw.ir.definitions import Definitions, dtypes_of
from tfthaw.ir.function_bodies import ARGUMENT_OP, Body, close_body, open_body
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.passes.carriers import HANDLE_READS
from tfthaw.passes.prune import free_name, prune_library
from tfthaw.tensors import Tensor

CALL_OPS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = {
    "If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",), "StatelessCase": ("branches",),
}  # fmt: skip
_SETTLED = frozenset({"Const", "Identity"})
_IDENTITIES = 100  # as many as may stand between a constant and the choice that it is
_FRAMES = frozenset({"Enter", "RefEnter", "Switch", "RefSwitch"})
_PURE = frozenset({"VarHandleOp", "HashTableV2", "Placeholder", ARGUMENT_OP})
"""Ops that count as stateful, and of which it does not matter when they run."""
_NO_EFFECT = HANDLE_READS | _PURE
"""Ops that nobody misses when nothing takes what they give."""


@dataclass(frozen=True, slots=True)
class Inlined:
    """What the pass did.

    Attributes:
        graph: The graph.
        moved: Outputs of calls of the main graph -> where they are now, where that is another tensor.
        calls: function -> how many calls of it were replaced.
    """

    graph: Graph
    moved: dict[TensorName, TensorName]
    calls: dict[str, int]


def inline_functions(
    graph: Graph, definitions: Definitions, *, keep: Collection[str] = (), limits: Limits = DEFAULT_LIMITS
) -> Inlined:
    """Inline every call, in the main graph and in the functions that stay.

    Args:
        graph: The graph.
        definitions: What its ops take and give.
        keep: Nodes of the main graph that are waited for from outside of it.
        limits: How many nodes may come out.

    Raises:
        StructureError: A call does not fit its function.
        UnsupportedError: A function cannot be inlined: it computes gradients symbolically, or nothing says what its ops
            give.
        LimitError: Calls of calls grow past all bounds.
    """
    if not any(node.op in _BRANCHES or called_function(node, definitions) for node in graph.walk()):
        return Inlined(graph, {}, {})
    state = _State(definitions, limits)
    waited = {text[1:] for node in graph.nodes for text in node.inputs if text[:1] == "^"} | set(keep)
    main = _Inlining(state, graph.nodes, waited, is_main=True)
    nodes = main.run()
    moved = {
        TensorName(name, position): main.resolved(tensor)
        for name in {node.name for node in graph.nodes} & main.moved.keys()
        for position, tensor in enumerate(main.moved[name])
    }
    result = prune_library(replace(graph, nodes=nodes))
    result = replace(result, functions=[state.without_calls(function) for function in result.functions])
    return Inlined(
        prune_library(result), {old: new for old, new in moved.items() if old != new}, dict(state.calls)
    )  # fmt: skip


def called_function(node: Node, definitions: Definitions) -> FunctionName | None:
    """Return the function that a node calls, with the attrs that it gives; None for a node that is no call."""
    if node.op in definitions.functions:
        return FunctionName(node.op, node.attrs)
    if node.op in CALL_OPS:
        target = node.attrs.get("f")
        if isinstance(target, FunctionName):
            return target
    return None


@dataclass(slots=True)
class _Callee:
    """What is known of a function before it is put anywhere.

    Attributes:
        body: Its body.
        dtypes: The element types of what it gives.
        controls: The nodes that have run when a call has.
        waited: Nodes that others in the body wait for.
        has_effect: Whether something in it does more than to compute a value.
    """

    body: Body
    dtypes: list[DType]
    controls: list[str]
    waited: set[str]
    has_effect: bool


@dataclass
class _State:
    """What the inlining of all graphs shares."""

    definitions: Definitions
    limits: Limits
    calls: Counter[str] = field(default_factory=Counter)
    made: int = 0
    _callees: dict[str, _Callee] = field(default_factory=dict)
    _effects: dict[tuple[str, frozenset[str]], bool] = field(default_factory=dict)

    def callee(self, called: FunctionName, node: Node) -> _Callee:
        """Return what is known of the function that a node calls."""
        function = self.definitions.functions.get(called.name)
        if function is None:
            raise StructureError(f"it calls {called.name!r}, which is not in the library", where=f"node {node.name!r}")
        if function.signature:  # made for several types: each call may mean another
            return self._described(function, called.attrs)
        if function.name not in self._callees:
            self._callees[function.name] = self._described(function, {})
        return self._callees[function.name]

    def _described(self, function: Function, attrs: Mapping[str, Attr]) -> _Callee:
        body = open_body(function, self.definitions, attrs)
        waited = {text[1:] for node in body.nodes for text in node.inputs if text[:1] == "^"}
        controls = list(dict.fromkeys(body.controls.values())) or [
            node.name for node in body.nodes if node.op != ARGUMENT_OP and self.may_wait(node)
        ]
        gradients = [node.name for node in body.nodes if node.op == "SymbolicGradient"]
        if gradients:
            raise UnsupportedError(
                "it computes gradients of a function symbolically, which only TensorFlow's runtime can",
                where=f"function {function.name!r}", problems=gradients,
                hint="choose outputs that need no gradients",
            )  # fmt: skip
        dtypes = dtypes_of(function.results, attrs)
        if dtypes is None or len(dtypes) != len(body.returns):
            raise StructureError("nothing says the types of what it gives", where=f"function {function.name!r}")
        return _Callee(body, dtypes, controls, waited.union(controls), self.has_effect(function.name))

    def may_wait(self, node: Node) -> bool:
        """Whether it matters when a node runs: it, or a function that it names, reads or writes something."""
        called = [node.op] if node.op in self.definitions.functions else node.called()
        if not called:
            return self.definitions.is_stateful(node)
        return any(self._has(name, _PURE) for name in called)

    def has_effect(self, name: str) -> bool:
        """Whether a call of a function does more than to compute values."""
        return self._has(name, _NO_EFFECT)

    def _has(self, name: str, ignored: frozenset[str]) -> bool:
        """Whether a function, or one that it names, has stateful nodes of other ops than those that are ignored."""
        if (name, ignored) in self._effects:
            return self._effects[name, ignored]
        inside: set[str] = set()
        waiting = [name]
        found = False
        while waiting and not found:
            function = self.definitions.functions.get(waiting.pop())
            if function is None or function.name in inside:
                continue
            inside.add(function.name)
            for node in function.nodes:
                called = [node.op] if node.op in self.definitions.functions else node.called()
                waiting += called
                found = found or (not called and node.op not in ignored and self.definitions.is_stateful(node))
        if not found:
            self._effects.update({(each, ignored): False for each in inside})
        self._effects[name, ignored] = found
        return found

    def count(self, added: int) -> None:
        """Count nodes that came out.

        Raises:
            LimitError: There are too many.
        """
        self.made += added
        if self.made > self.limits.max_nodes:
            raise LimitError(
                f"its functions call each other so often that more than {self.limits.max_nodes:,} nodes come out"
            )

    def _may_go(self, node: Node) -> bool:
        """Whether a node of a function is a call, or a branch whose choice does not come from outside."""
        settled = node.op in _BRANCHES and bool(node.inputs) and ":" in node.inputs[0]
        return settled or called_function(node, self.definitions) is not None

    def without_calls(self, function: Function) -> Function:
        """Return a function that stays, the calls in its body inlined."""
        if function.signature or not any(map(self._may_go, function.nodes)):
            return function
        body = open_body(function, self.definitions)
        waited = {text[1:] for node in body.nodes for text in node.inputs if text[:1] == "^"}
        work = _Inlining(self, body.nodes, waited | set(body.controls.values()), is_main=False)
        body.nodes = work.run()
        body.returns = [work.resolved(tensor) for tensor in body.returns]
        nodes, returns = close_body(body, self.definitions)
        return replace(function, nodes=nodes, returns=dict(zip(function.outputs, returns, strict=True)))


class _Inlining:
    """Inlining of the calls of one graph."""

    def __init__(self, state: _State, nodes: Iterable[Node], waited: set[str], *, is_main: bool) -> None:
        self.state = state
        self.source = list(nodes)
        self.waited = waited
        self.is_main = is_main
        self.taken = {node.name for node in self.source}
        self.has_frames = any(node.op in _FRAMES for node in self.source)
        self.nodes: list[Node] = []
        self.moved: dict[str, list[TensorName]] = {}
        self.known = {node.name: node for node in self.source if node.op in _SETTLED}

    def run(self) -> list[Node]:
        """Return the nodes without calls."""
        pending = [(node, self.is_main) for node in reversed(self.source)]
        while pending:
            node, is_main = pending.pop()
            node = self._settled(node)
            called = called_function(node, self.state.definitions)
            if called is None:
                self.nodes.append(node)
                self.state.count(1)
                continue
            self.state.calls[called.name] += 1
            inner = self._expanded(node, self.state.callee(called, node), is_main=is_main)
            self.state.count(1)
            pending += [(each, False) for each in reversed(inner)]
            self.known.update((each.name, each) for each in inner if each.op in _SETTLED)
        emitted = {node.name for node in self.nodes}
        return [self._rewired(node, emitted) for node in self.nodes]

    def resolved(self, tensor: TensorName) -> TensorName:
        """Return where a tensor is now."""
        while tensor.node in self.moved:
            outputs = self.moved[tensor.node]
            if tensor.output >= len(outputs):
                raise StructureError(f"the call gives {len(outputs)} tensors, {tensor} is asked for",
                                     where=f"node {tensor.node!r}")  # fmt: skip
            moved = outputs[tensor.output]
            if moved.node == tensor.node:
                return moved
            tensor = moved
        return tensor

    def _settled(self, node: Node) -> Node:
        """Return a call of the branch that a node always takes; any other node as it is."""
        attrs = _BRANCHES.get(node.op)
        if attrs is None or not node.inputs:
            return node
        choice = self._constant(node.inputs[0])
        if choice is None or choice.size != 1 or choice.dtype is DType.string:
            return node
        number = choice.numpy().reshape(-1)[0]
        branches = [node.attrs.get(name) for name in attrs]
        if isinstance(branches[0], AttrList):
            branches = list(branches[0].items)
            taken = int(number) if 0 <= number < len(branches) else len(branches) - 1
        else:
            taken = 0 if number else 1
        return replace(node, op="StatefulPartitionedCall", inputs=node.inputs[1:], attrs={"f": branches[taken]})

    def _constant(self, text: str) -> Tensor | None:
        """Return the value of a tensor that is a constant, behind identities, or None."""
        tensor = self.resolved(TensorName.parse(text))
        for _ in range(_IDENTITIES):
            node = self.known.get(tensor.node)
            if node is None or node.op == "Const":
                return node.tensor() if node is not None else None
            tensor = self.resolved(TensorName.parse(node.inputs[0]))
        return None

    def _rewired(self, node: Node, emitted: set[str]) -> Node:
        """Return a node with its inputs taken from where they are now."""
        if not any(text.lstrip("^").partition(":")[0] in self.moved for text in node.inputs):
            return node
        inputs = []
        for text in node.inputs:
            name = TensorName.parse(text)
            if name.node not in self.moved:
                inputs.append(text)
            elif not name.is_control:
                inputs.append(self.resolved(name).as_input())
            elif name.node in emitted:
                inputs.append(text)
            elif self.moved[name.node]:
                inputs.append(f"^{self.resolved(TensorName(name.node, 0)).node}")
        return replace(node, inputs=_unique_controls(inputs))

    def _expanded(self, call: Node, callee: _Callee, *, is_main: bool) -> list[Node]:
        """Note where the outputs of a call are now, and return the nodes of its body, which may be calls."""
        body = callee.body
        data = [text for text in call.inputs if text[:1] != "^"]
        if len(data) != len(body.arguments):
            raise StructureError(
                f"it gives {len(data)} tensors to {body.name}, which takes {len(body.arguments)}",
                where=f"node {call.name!r}",
            )  # fmt: skip
        names = dict(zip(body.arguments, data, strict=True))
        for node in body.nodes:
            if node.op != ARGUMENT_OP:
                names[node.name] = free_name(self.taken, f"{call.name}/{node.name}")
                self.taken.add(names[node.name])
        place = _Place(self, call, callee, names, data)
        inner = [place.placed(node) for node in body.nodes if node.op != ARGUMENT_OP]
        self.waited.update(names[name] for name in callee.waited if name in names)
        self._give(call, callee, place, is_main=is_main)
        return [*place.gate, *inner]

    def _give(self, call: Node, callee: _Callee, place: _Place, *, is_main: bool) -> None:
        """Put nodes where others find the outputs of a call, and its end, where such nodes are needed."""
        returns = [place.tensor(tensor) for tensor in callee.body.returns]
        waited = call.name in self.waited
        controls = [f"^{place.names[name]}" for name in callee.controls] if waited or callee.has_effect else []
        if returns and (is_main or callee.has_effect or waited):
            names = [call.name]
            for position in range(1, len(returns)):
                names.append(free_name(self.taken, f"{call.name}_{position}"))
                self.taken.add(names[-1])
            for name, tensor, dtype in zip(names, returns, callee.dtypes, strict=True):
                inputs = [tensor.as_input(), *controls]
                self.nodes.append(Node(name, "Identity", inputs, call.device, {"T": dtype.base}))
            self.moved[call.name] = [TensorName(name, 0) for name in names]
            return
        if waited or (is_main and not returns):
            self.nodes.append(Node(call.name, "NoOp", controls or _controls(call), call.device))
        self.moved[call.name] = returns


class _Place:
    """Where the body of one call goes."""

    def __init__(self, graph: _Inlining, call: Node, callee: _Callee, names: dict[str, str], data: list[str]) -> None:
        self.graph = graph
        self.call = call
        self.callee = callee
        self.names = names
        self.arguments = set(callee.body.arguments)
        self.gate: list[Node] = []
        graph.has_frames = graph.has_frames or any(node.op in _FRAMES for node in callee.body.nodes)
        # in a loop or a cond of v1, a node without inputs would be outside of it
        self._first = [f"^{TensorName.parse(text).node}" for text in data[:1]] if graph.has_frames else []
        self._before = self._gated(_controls(call))

    def _gated(self, controls: list[str]) -> list[str]:
        if len(controls) < 2:
            return controls
        name = free_name(self.graph.taken, f"{self.call.name}/start")
        self.graph.taken.add(name)
        self.gate.append(Node(name, "NoOp", controls, self.call.device))
        return [f"^{name}"]

    def tensor(self, tensor: TensorName) -> TensorName:
        """Return a tensor of the body as a tensor of the graph."""
        if tensor.node in self.arguments:
            return TensorName.parse(self.names[tensor.node])
        return TensorName(self.names[tensor.node], tensor.output)

    def placed(self, node: Node) -> Node:
        """Return a node of the body as a node of the graph."""
        inputs = []
        for text in node.inputs:
            name = TensorName.parse(text)
            if not name.is_control:
                inputs.append(self.tensor(name).as_input())
            elif name.node in self.arguments:
                inputs.append(f"^{TensorName.parse(self.names[name.node]).node}")
            else:
                inputs.append(f"^{self.names[name.node]}")
        if self.graph.state.may_wait(node) or (self.graph.has_frames and not inputs):
            inputs += self._before or ([] if inputs else self._first)
        attrs = dict(node.attrs) if node.attrs.keys() & {"_class", "frame_name"} else node.attrs
        if isinstance(attrs, dict):
            self._rename(attrs, node.op)
        device = node.device or self.call.device
        return Node(self.names[node.name], node.op, _unique_controls(inputs), device, attrs, node.opaque)

    def _rename(self, attrs: dict[str, Attr], op: str) -> None:
        """Name in attrs what has another name now: colocated nodes, and loops, which must not be taken for one."""
        frame, colocated = attrs.get("frame_name"), attrs.get("_class")
        if isinstance(frame, bytes) and op in ("Enter", "RefEnter"):
            attrs["frame_name"] = self.call.name.encode() + b"/" + frame
        if isinstance(colocated, AttrList):
            items: list[Attr] = []
            for item in colocated.items:
                if isinstance(item, bytes) and item.startswith(b"loc:@"):
                    name = self.names.get(item[5:].decode(errors="replace"))
                    items += [b"loc:@" + TensorName.parse(name).node.encode()] if name is not None else []
                else:
                    items.append(item)
            del attrs["_class"]
            if items:
                attrs["_class"] = AttrList(colocated.kind, items)


def _controls(node: Node) -> list[str]:
    return [text for text in node.inputs if text[:1] == "^"]


def _unique_controls(inputs: list[str]) -> list[str]:
    """Return inputs with each control input once, behind the data inputs."""
    controls = dict.fromkeys(text for text in inputs if text[:1] == "^")
    return [*(text for text in inputs if text[:1] != "^"), *controls]
