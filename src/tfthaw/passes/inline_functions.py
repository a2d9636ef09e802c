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
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from tfthaw.dtypes import DType
from tfthaw.errors import LimitError, StructureError
from tfthaw.ir.attrs import Attr, AttrList
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.function_bodies import ARGUMENT_OP, close_body, open_body
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.passes.after_writes import after_writes
from tfthaw.passes.called_functions import CalledFunctions, Callee, called_function
from tfthaw.passes.prune import free_name, prune_library
from tfthaw.tensors import Tensor

_BRANCHES = {
    "If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",), "StatelessCase": ("branches",),
}  # fmt: skip
_LONGEST_SCOPE = 400  # letters of a call's name under which its nodes are named
_IDENTITIES = 100  # as many as may stand between a constant and the choice that it is
_FRAMES = frozenset({"Enter", "RefEnter", "Switch", "RefSwitch"})


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


class _State(CalledFunctions):
    """What the inlining of all graphs shares."""

    def __init__(self, definitions: Definitions, limits: Limits) -> None:
        super().__init__(definitions)
        self.limits = limits
        self.calls: Counter[str] = Counter()

    def require_room(self, nodes: int) -> None:
        """Refuse graphs that grow past all bounds.

        Raises:
            LimitError: There are too many nodes.
        """
        if nodes > self.limits.max_nodes:
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
        self.known = {node.name: node for node in self.source}
        self.late = after_writes(self.source, state.has_effect)

    def run(self) -> list[Node]:
        """Return the nodes without calls.

        Raises:
            LimitError: There would be too many.
        """
        self.state.require_room(self.state.inlined_size(self.source))
        pending = [(node, self.is_main) for node in reversed(self.source)]
        while pending:
            node, is_main = pending.pop()
            node = self._settled(node)
            called = called_function(node, self.state.definitions)
            if called is None:
                self.nodes.append(node)
                self.state.require_room(len(self.nodes))  # branches that are settled were not counted before
                continue
            self.state.calls[called.name] += 1
            inner = self._expanded(node, self.state.callee(called, node), is_main=is_main)
            pending += [(each, False) for each in reversed(inner)]
            self.known.update((each.name, each) for each in inner)
        emitted = {node.name for node in self.nodes}
        return [self._rewired(node, emitted) for node in self.nodes]

    def resolved(self, tensor: TensorName) -> TensorName:
        """Return where a tensor is now."""
        passed = []
        while tensor.node in self.moved:
            outputs = self.moved[tensor.node]
            if tensor.output >= len(outputs):
                raise StructureError(f"the call gives {len(outputs)} tensors, {tensor} is asked for",
                                     where=f"node {tensor.node!r}")  # fmt: skip
            passed.append(tensor)
            moved = outputs[tensor.output]
            if moved.node == tensor.node:
                tensor = moved
                break
            tensor = moved
        for old in passed[:-1]:  # the next one need not go the same way
            self.moved[old.node][old.output] = tensor
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
        first = node.attrs.get(attrs[0])
        if isinstance(first, AttrList):
            branch = first.items[int(number) if 0 <= number < len(first.items) else -1] if first.items else None
        else:
            branch = node.attrs.get(attrs[0 if number else 1])
        if branch is None:
            return node
        return replace(node, op="StatefulPartitionedCall", inputs=node.inputs[1:], attrs={"f": branch})

    def _constant(self, text: str) -> Tensor | None:
        """Return the value of a tensor that is a constant, behind identities, or None."""
        tensor = self.resolved(TensorName.parse(text))
        for _ in range(_IDENTITIES):
            node = self.known.get(tensor.node)
            if node is not None and node.op == "Identity" and node.inputs:
                tensor = self.resolved(TensorName.parse(node.inputs[0]))
                continue
            return node.tensor() if node is not None and node.op == "Const" else None
        return None

    def is_reference(self, text: str) -> bool:
        """Whether a tensor is a reference: what reads it sees the value of that moment."""
        tensor = self.resolved(TensorName.parse(text))
        node = self.known.get(tensor.node)
        found = self.state.definitions.find(node.op) if node is not None else None
        return found is not None and any(output.is_ref for output in found.outputs)

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

    def _expanded(self, call: Node, callee: Callee, *, is_main: bool) -> list[Node]:
        """Note where the outputs of a call are now, and return the nodes of its body, which may be calls."""
        body = callee.body
        data = [text for text in call.inputs if text[:1] != "^"]
        if len(data) != len(body.arguments):
            raise StructureError(
                f"it gives {len(data)} tensors to {body.name}, which takes {len(body.arguments)}",
                where=f"node {call.name!r}",
            )  # fmt: skip
        names = dict(zip(body.arguments, data, strict=True))
        scope = call.name
        if len(scope) > _LONGEST_SCOPE:  # calls inside of calls, a hundred deep
            scope = free_name(self.taken, f"{scope.partition('/')[0]}/deep")
            self.taken.add(scope)
        for node in body.nodes:
            if node.op != ARGUMENT_OP:
                names[node.name] = free_name(self.taken, f"{scope}/{node.name}")
                self.taken.add(names[node.name])
        place = _Place(self, call, callee, names, data)
        inner = [place.placed(node) for node in body.nodes if node.op != ARGUMENT_OP]
        if place.ties:
            self.late.update(node.name for node in (*place.gate, *inner))
        elif callee.has_effect:
            self.late.update(names[name] for name in after_writes(body.nodes, self.state.has_effect))
        self.waited.update(names[name] for name in callee.waited if name in names)
        self._give(call, callee, place, is_main=is_main)
        return [*place.gate, *inner]

    def _give(self, call: Node, callee: Callee, place: _Place, *, is_main: bool) -> None:
        """Put nodes where others find the outputs of a call, and its end, where such nodes are needed."""
        returns = [place.tensor(tensor) for tensor in callee.body.returns]
        waited = call.name in self.waited
        listed = callee.controls(call)
        controls = [f"^{place.names[name]}" for name in listed] if waited or (listed and callee.has_effect) else []
        # what waited for the call's inputs itself need not be waited for twice
        ties = [*place.start, *([] if any(text in place.gated for text in controls) else place.ties)]
        if returns and (is_main or controls or waited or ties):
            names = [call.name]
            for position in range(1, len(returns)):
                names.append(free_name(self.taken, f"{call.name}_{position}"))
                self.taken.add(names[-1])
            for name, tensor, dtype in zip(names, returns, callee.dtypes, strict=True):
                inputs = _unique_controls([tensor.as_input(), *controls, *ties])
                self.nodes.append(Node(name, "Identity", inputs, call.device, {"T": dtype.base}))
            self.late.update(names if place.ties or call.name in self.late else ())
            self.moved[call.name] = [TensorName(name, 0) for name in names]
            return
        if waited or (is_main and not returns):
            inputs = _unique_controls([*controls, *ties]) or _controls(call)
            self.nodes.append(Node(call.name, "NoOp", inputs, call.device))
        self.moved[call.name] = returns


class _Place:
    """Where the body of one call goes."""

    def __init__(self, graph: _Inlining, call: Node, callee: Callee, names: dict[str, str], data: list[str]) -> None:
        self.graph = graph
        self.call = call
        self.names = names
        self.arguments = set(callee.body.arguments)
        self.gate: list[Node] = []
        graph.has_frames = graph.has_frames or any(node.op in _FRAMES for node in callee.body.nodes)
        self.start: list[str] = []
        self.ties: list[str] = []  # what came after a write, where the call waits for such
        self.gated: set[str] = set()
        if graph.has_frames:
            self._take_inputs_in_frames(callee)
            self._before: list[str] = []
        else:
            self._read_references(callee, data)
            late = dict.fromkeys(TensorName.parse(text).node for text in call.inputs)
            waited = _unique_controls([*_controls(call), *(f"^{name}" for name in late if name in graph.late)])
            self._before = self._gated(waited)
            self.ties = self._before if any(name in graph.late for name in late) else []

    def _read_references(self, callee: Callee, data: list[str]) -> None:
        """Put identities before the body where it would take references, which are read when the call runs."""
        for position, (text, argument) in enumerate(zip(data, _arguments(callee), strict=True)):
            if self.graph.is_reference(text):
                others = [f"^{TensorName.parse(other).node}" for other in data if other != text]
                self._take(f"input_{position}", argument, [text, *_controls(self.call), *others])

    def _take_inputs_in_frames(self, callee: Callee) -> None:
        """Put identities before the body so that it runs where the call does, in a loop or a cond of v1.

        A call is dead where any of its inputs is. What takes no input would not be in the loop or branch at all, and a
        control input from what gives an input (a Switch) would not say in which branch.
        """
        arguments = _arguments(callee)
        for position, argument in enumerate(arguments):
            self._take(f"input_{position}", argument, [self.names[argument.name]])
        self.start = self._gated([*(f"^{node.name}" for node in self.gate), *_controls(self.call)])
        if len(self.start) and (len(arguments) > 1 or _controls(self.call)):
            for position, argument in enumerate(arguments):
                self._take(f"argument_{position}", argument, [self.names[argument.name], *self.start])

    def _take(self, wanted: str, argument: Node, inputs: list[str]) -> None:
        """Put an identity in the place of an argument."""
        name = self._free(wanted)
        dtype = argument.attrs["T"]
        attrs: dict[str, Attr] = {"T": dtype.base if isinstance(dtype, DType) else dtype}
        self.gate.append(Node(name, "Identity", _unique_controls(inputs), self.call.device, attrs))
        self.names[argument.name] = name

    def _free(self, wanted: str) -> str:
        name = free_name(self.graph.taken, f"{self.call.name}/{wanted}")
        self.graph.taken.add(name)
        return name

    def _gated(self, controls: list[str]) -> list[str]:
        """Return one control input that stands for several."""
        if len(controls) < 2:
            return controls
        name = self._free("start")
        self.gate.append(Node(name, "NoOp", list(dict.fromkeys(controls)), self.call.device))
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
        if not inputs:
            inputs += self.start  # whatever has inputs comes after these
        if self.graph.state.may_wait(node):
            inputs += self._before
            self.gated.add(f"^{self.names[node.name]}")
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


def _arguments(callee: Callee) -> list[Node]:
    return [node for node in callee.body.nodes if node.op == ARGUMENT_OP]


def _controls(node: Node) -> list[str]:
    return [text for text in node.inputs if text[:1] == "^"]


def _unique_controls(inputs: list[str]) -> list[str]:
    """Return inputs with each control input once, behind the data inputs."""
    controls = dict.fromkeys(text for text in inputs if text[:1] == "^")
    return [*(text for text in inputs if text[:1] != "^"), *controls]
