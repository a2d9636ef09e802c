"""Resource variables: v1 reference variables become variables that TensorFlow 2 knows.

A variable's node keeps its name and gives a handle; loops and conds hand the handle on; who takes the value gets a read
of its own, placed where the reference was looked up, or shares one where that is the same thing. Every old name of a
value stays the name of that value.

    v1                                  now
    w = VariableV2                      w = VarHandleOp
    w/read = Identity(w)                w/read = ReadVariableOp(w)
    y = MatMul(x, w)                    y = MatMul(x, w/read)
    s = AssignAdd(w, one)               s/AssignAddVariableOp = AssignAddVariableOp(w, one)
                                        s = ReadVariableOp(w, ^s/AssignAddVariableOp)
    m = RefMerge(a, b)                  m = Merge(a, b), of handles
    i = IsVariableInitialized(w)        i = VarIsInitializedOp(w)

It does not touch the bodies of library functions, and it is no proof of order where a graph has none: of two nodes that
nothing orders, either may still run first. A resource assignment does not compare its value's shape with the
variable's when it runs, as `Assign` does.

Source: the op definitions of state_ops.cc, resource_variable_ops.cc and training_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import Attr, Shape
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import OpHistory, op_history
from tfthaw.ir.variables import HANDLE_OPS, REF_VARIABLE_OPS
from tfthaw.passes.aliases import Aliases, Read
from tfthaw.passes.carriers import REF_PASS_THROUGH
from tfthaw.passes.prune import PLACEHOLDER_OPS, free_name
from tfthaw.passes.references import References, State, find_references, state_of

_SHAPE_HINTS = "_output_shapes"
_MERGES = frozenset({"Merge", "RefMerge"})


_Place: TypeAlias = tuple[str, frozenset[str]]
"""When a value is read: through which handle, and after which nodes."""


@dataclass(frozen=True, slots=True)
class ResourceVariables:
    """What the pass did.

    Attributes:
        graph: The graph.
        variables: The nodes that were reference variables and are handles now, in the graph's order.
        writes: The nodes that wrote through a reference -> the nodes that write now.
        reads: The reads that were added, in the graph's order; identities that became reads are not among them.
        outputs: Each of the outputs that was a reference -> the tensor that is its value now.
    """

    graph: Graph
    variables: tuple[str, ...] = ()
    writes: dict[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    outputs: dict[TensorName, TensorName] = field(default_factory=dict)


def to_resource_variables(graph: Graph, *runs: Collection[TensorName]) -> ResourceVariables:
    """Turn the reference variables of a main graph into resource variables.

    A variable whose value may take another shape (`validate_shape=False`; a scalar of the oldest op, `Variable`, which
    says the same of scalars and of unknown shapes) has an unknown shape in its handle.

    Args:
        graph: The graph.
        *runs: The tensors that are taken, those of one run together. What none of them needs cannot stand in the way.
            Without any every node counts.

    Raises:
        UnsupportedError: A variable is used in a way that resource variables do not have, or a use sees a later write
            only because references are not copied; with all such nodes.
    """
    outputs = {name: None for run in runs for name in run}
    index = GraphIndex(graph.nodes)
    if not any(node.op in REF_VARIABLE_OPS for node in index.nodes.values()):
        return ResourceVariables(graph)
    references = find_references(index, graph.functions)
    twins = _twins(index, references)
    rewriting = _Rewriting(index, references, twins, outputs)
    nodes = [new for node in graph.nodes for new in rewriting.rewritten(node)]
    moved = {name: rewriting.fetched(name) for name in outputs if name in references.tensors}
    nodes += rewriting.take_new()
    late = rewriting.aliases.late_uses(rewriting.taken, runs or [()])
    if late:
        raise UnsupportedError(
            "variables are written while tensors that were read before still share their memory, and a resource "
            "variable would give those the value from before", problems=late,
            hint=f"{_flags(graph)}choose outputs that need none of these nodes, or keep references: --style v1",
        )  # fmt: skip
    return ResourceVariables(
        replace(graph, nodes=nodes),
        tuple(node.name for node in graph.nodes if node.op in REF_VARIABLE_OPS),
        rewriting.written,
        tuple(rewriting.added),
        {old: new for old, new in moved.items() if old != new},
    )


def _flags(graph: Graph) -> str:
    """Return the advice to settle the flags that a graph takes, such as whether it is being trained."""
    flags = [node.name for node in graph.nodes if node.op in PLACEHOLDER_OPS and node.dtype("dtype") is DType.bool]
    said = " ".join(f"--set {name}=false" for name in flags)
    return f"settle what may decide over the writes ({said}), " if flags else ""


def _twins(index: GraphIndex, references: References) -> dict[str, OpHistory]:
    """Return, for every node that writes, the op that does the same to resource variables.

    Raises:
        UnsupportedError: References are used in ways that resource variables do not have; with all such nodes.
    """
    twins: dict[str, OpHistory] = {}
    problems = dict(references.problems)
    for name, variables in references.writes.items():
        op = index.nodes[name].op
        twin = _twin(op)
        if twin is not None:
            twins[name] = twin
        elif name not in problems:
            told = " or ".join(sorted(variables))
            problems[name] = f"{name} ({op}) takes {told} itself, and no op does that with a resource variable"
    if problems:
        raise UnsupportedError(
            "references to variables are used in ways that resource variables do not have",
            problems=[problems[name] for name in sorted(problems)],
            hint="choose outputs that need none of these nodes, or keep references: --style v1",
        )
    return twins


@lru_cache(maxsize=256)
def _twin(op: str) -> OpHistory | None:
    """Return the op that does the same to resource variables, or None."""
    original = op_history(op)
    for name in (f"{op}VariableOp", f"Resource{op}"):
        twin = op_history(name)
        if original is None or twin is None or len(original.inputs) != len(twin.inputs):
            continue
        pairs = zip(original.inputs, twin.inputs, strict=True)
        if all(one.is_ref == (other.dtype is DType.resource) for one, other in pairs):
            return twin
    return None


def _twin_attrs(node: Node, twin: OpHistory) -> dict[str, Attr]:
    """Return the attrs with which the twin of a node's op does what the node did."""
    attrs: dict[str, Attr] = {}
    original = op_history(node.op)
    for attr in twin.attrs:
        name = "T" if attr.name == "dtype" and "T" in node.attrs else attr.name
        before = original.attr(name) if original is not None else None
        if attr.name == "validate_shape":
            continue  # TensorFlow before 2.8 does not know it
        if name in node.attrs:
            attrs[attr.name] = node.attrs[name]
        elif before is not None and before.default is not None and before.default != attr.default:
            attrs[attr.name] = before.default  # what was left out meant something else
    return attrs


class _Rewriting:
    """One run of the pass over one graph."""

    def __init__(
        self, index: GraphIndex, references: References, twins: dict[str, OpHistory], outputs: Iterable[TensorName]
    ) -> None:
        self.index = index
        self.references = references
        self.twins = twins
        self.outputs = frozenset(outputs)
        self.aliases = Aliases(index, references)
        self.used = set(index.nodes)
        self.added: list[str] = []
        self.written: dict[str, str] = {}
        self.taken: list[Read] = []
        self._new: list[Node] = []
        self._handles: dict[str, str] = {}
        self._reads = self._plain_reads()
        self._shared_names = self._free_shared_names()
        self._unsettled = {
            variable
            for name, variables in references.writes.items()
            if index.nodes[name].attrs.get("validate_shape", True) is False
            for variable in variables
        }

    def rewritten(self, node: Node) -> list[Node]:
        """Return what stands in a node's place."""
        if node.op in REF_VARIABLE_OPS:
            new = self._handle(node)
        elif node.name in self.references.through:
            kept: dict[str, Attr] = {name: attr for name, attr in node.attrs.items() if name != _SHAPE_HINTS}
            inputs = [self._handed(text) for text in node.inputs]
            new = replace(node, op=REF_PASS_THROUGH[node.op], inputs=inputs, attrs=kept | {"T": DType.resource})
        elif node.name in self.references.writes:
            return [*self._write(node), *self.take_new()]
        elif node.name in self.references.questions:
            new = replace(node, op="VarIsInitializedOp", inputs=self._inputs(node), attrs=_private(node))
        elif self._becomes_read(node):
            reference = TensorName.parse(node.inputs[0])
            self._note(node.name, reference, (TensorName.parse(text).node for text in node.inputs))
            new = replace(node, op="ReadVariableOp", attrs=self._read_attrs(node, reference))
        elif node.name in self.references.reads:
            new = replace(node, inputs=self._inputs(node))
        else:
            new = node
        return [*self.take_new(), new]

    def take_new(self) -> list[Node]:
        """Return the nodes that were made since it was asked last."""
        new, self._new = self._new, []
        return new

    def fetched(self, name: TensorName) -> TensorName:
        """Return where the value of a reference that is fetched can be fetched now."""
        self._note(name.node, name, (name.node,))
        if name.node in self.references.writes:
            return name
        return TensorName(self._read(name.as_input(), (), name), 0)

    def _handle(self, node: Node) -> Node:
        """Return the handle that stands in a variable's place."""
        shape = node.shape() or Shape(None)
        unsettled = node.name in self._unsettled or (node.op != "VariableV2" and not shape.dims)
        attrs: dict[str, Attr] = {
            **_private(node), "container": node.attrs.get("container", b""),
            "dtype": node.attrs["dtype"], "shape": Shape(None) if unsettled else shape,
            "shared_name": self._shared_names[self.references.states[node.name]].encode(),
        }  # fmt: skip
        return replace(node, op="VarHandleOp", attrs=attrs)

    def _free_shared_names(self) -> dict[State, str]:
        """Return the name that every variable is shared under; resource variables may have taken the one it had."""
        taken = {state_of(node) for node in self.index.nodes.values() if node.op in HANDLE_OPS}
        states = set(self.references.states.values())
        result = {state: state[1] for state in states}
        for container, name in states & taken:
            elsewhere = {shared for place, shared in taken | states if place == container}
            result[container, name] = free_name(elsewhere, name)
        return result

    def _dtype(self, reference: TensorName) -> Attr:
        return self.index.nodes[min(self.references.tensors[reference])].attrs["dtype"]

    # reads

    def _plain_reads(self) -> dict[_Place, str]:
        """Return the identities that will be the reads which every user of their reference may share."""
        found: dict[_Place, str] = {}
        for name in self.references.reads:
            node = self.index.nodes[name]
            if len(node.inputs) == 1 and self._becomes_read(node):
                place = (TensorName.parse(node.inputs[0]).as_input(), frozenset[str]())
                found[place] = min(found.get(place, name), name)
        return found

    def _becomes_read(self, node: Node) -> bool:
        """Whether a node is an Identity that can be the read of a resource variable itself."""
        if node.op != "Identity" or 0 not in self.references.reads.get(node.name, ()):
            return False
        source = self.index.nodes[TensorName.parse(node.inputs[0]).node]
        # a handle stays where its variable is, so an Identity on another device copies what is read there
        return source.name not in self.references.writes and node.device in ("", source.device)

    def _value(self, node: Node, reference: TensorName) -> str:
        """Return the tensor that is the value which a node takes from a reference."""
        handle, write = self._resolved(reference)
        source = TensorName.parse(handle).node
        waits = set() if write is None else {write}
        if node.op not in _MERGES:  # it starts with the first input that comes; others start when all are there
            names = {TensorName.parse(text).node for text in node.inputs} - {source}
            waits.update(self.aliases.after_writes(reference, names))
        self._note(node.name, reference, (source, *waits))
        return self._read(handle, waits, reference)

    def _read(self, handle: str, waits: Iterable[str], reference: TensorName) -> str:
        """Return the read of a handle that waits for some nodes, making it where there is none."""
        place = (handle, frozenset(waits))
        if place[1] == {reference.node} and reference.node in self.references.writes:
            return reference.node
        if place not in self._reads:
            source = TensorName.parse(handle).node
            name = self._new_name(f"{source}/Read/ReadVariableOp")
            inputs = [handle, *(f"^{other}" for other in sorted(place[1]))]
            device = self.index.nodes[source].device
            self._new.append(Node(name, "ReadVariableOp", inputs, device, {"dtype": self._dtype(reference)}))
            self.added.append(name)
            self._reads[place] = name
        return self._reads[place]

    def _note(self, user: str, reference: TensorName, waits: Iterable[str]) -> None:
        self.taken.append(Read(user, reference, tuple(waits)))

    # handles

    def _resolved(self, reference: TensorName) -> tuple[str, str | None]:
        """Return the handle of a reference, and the write that gave the reference, if one did."""
        name, write = reference, None
        while name.node in self.references.writes:
            write = write or name.node
            name = TensorName.parse(self.index.nodes[name.node].inputs[0])
        return name.as_input(), write

    def _handed(self, text: str) -> str:
        """Return an input of a node that hands a reference on; what a write gives is handed on when it has run."""
        name = TensorName.parse(text)
        if name not in self.references.tensors:
            return text
        handle, write = self._resolved(name)
        if write is None:
            return text
        if write not in self._handles:
            self._handles[write] = self._new_name(f"{write}/handle")
            device = self.index.nodes[write].device
            attrs: dict[str, Attr] = {"T": DType.resource}
            self._new.append(Node(self._handles[write], "Identity", [handle, f"^{write}"], device, attrs))
        return self._handles[write]

    # users

    def _inputs(self, node: Node) -> list[str]:
        """Return a node's inputs, each reference now the handle or the value that the node takes."""
        inputs, waits = [], []
        for position, text in enumerate(node.inputs):
            name = TensorName.parse(text)
            if name not in self.references.tensors:
                inputs.append(text)
            elif position in self.references.reads.get(node.name, ()):
                inputs.append(self._value(node, name))
            else:
                handle, write = self._resolved(name)
                inputs.append(handle)
                waits += [] if write is None else [f"^{write}"]
        return list(inputs) + [text for text in dict.fromkeys(waits) if text not in inputs]

    def _write(self, node: Node) -> list[Node]:
        """Return what stands in the place of a node that writes."""
        twin = self.twins[node.name]
        attrs = _twin_attrs(node, twin) | _private(node)
        inputs = self._inputs(node)
        output = TensorName(node.name, 0)
        users = self.index.consumers(node.name)
        is_taken = (
            output in self.outputs
            or not users
            or any(
                position in self.references.reads.get(user.name, ())
                and TensorName.parse(user.inputs[position]) == output
                for user, position in users
            )
        )
        self.written[node.name] = node.name
        if output not in self.references.tensors or not is_taken:
            return [*self.take_new(), replace(node, op=twin.name, inputs=inputs, attrs=attrs)]
        name = self.written[node.name] = self._new_name(f"{node.name}/{twin.name}")
        handle, _ = self._resolved(output)
        return [
            *self.take_new(),
            Node(name, twin.name, inputs, node.device, attrs),
            replace(node, op="ReadVariableOp", inputs=[handle, f"^{name}"], attrs=self._read_attrs(node, output)),
        ]

    def _read_attrs(self, node: Node, reference: TensorName) -> dict[str, Attr]:
        """Return the attrs of a node that is a read now; what is said of its value stays true."""
        hints = {_SHAPE_HINTS: node.attrs[_SHAPE_HINTS]} if _SHAPE_HINTS in node.attrs else {}
        return {"dtype": self._dtype(reference)} | _private(node) | hints

    def _new_name(self, wanted: str) -> str:
        name = free_name(self.used, wanted)
        self.used.add(name)
        return name


def _private(node: Node) -> dict[str, Attr]:
    """Return the attrs that are the graph's own notes (colocation and such), hints of shapes left out."""
    return {name: attr for name, attr in node.attrs.items() if name.startswith("_") and name != _SHAPE_HINTS}
