"""Which tensors of a graph stand for a variable, and who uses them how.

A variable reaches its users as a reference (v1) or as a resource handle, often through nodes that only hand it on:
control flow of loops and conds, identities. This is analysis: it changes nothing.

Source: the op definitions of state_ops.cc, resource_variable_ops.cc and control_flow_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.ir.variables import HANDLE_OPS, REF_VARIABLE_OPS

REF_PASS_THROUGH = {
    "RefIdentity": "Identity", "RefEnter": "Enter", "RefExit": "Exit", "RefSwitch": "Switch", "RefMerge": "Merge",
    "RefNextIteration": "NextIteration",
}  # fmt: skip
"""Ops that hand a reference on, and the op that does the same with a value."""

HANDLE_PASS_THROUGH = frozenset({"Identity", "Enter", "Exit", "Switch", "Merge", "NextIteration", "StopGradient"})
HANDLE_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp",
                          "DisableCopyOnRead"})  # fmt: skip
REF_QUESTIONS = frozenset({"IsVariableInitialized"})

_OUTPUTS = {"Switch": 2, "RefSwitch": 2}


@dataclass(slots=True)
class Carriers:
    """Where the variables of a graph are.

    Attributes:
        tensors: A tensor that stands for a variable -> that variable's node.
        through: Nodes that only hand a variable on -> that variable's node.
        reads: Nodes that read a variable -> the variables that they read.
        writes: Nodes that write a variable -> the variables that they write.
        calls: Nodes that hand a variable to a function -> the variables.
        mixed: Nodes that may hand on one of several variables.
    """

    tensors: dict[TensorName, str] = field(default_factory=dict)
    through: dict[str, str] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    writes: dict[str, set[str]] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)
    mixed: dict[str, set[str]] = field(default_factory=dict)


def find_carriers(index: GraphIndex, within: set[str], functions: Iterable[str] = ()) -> Carriers:
    """Follow every variable of a graph to its users.

    Args:
        index: The graph.
        within: The nodes that count.
        functions: The names of the library's functions.
    """
    found = Carriers()
    library = set(functions)
    waiting: list[TensorName] = []
    for name in within:
        if index.nodes[name].op in REF_VARIABLE_OPS | HANDLE_OPS:
            found.tensors[TensorName(name, 0)] = name
            waiting.append(TensorName(name, 0))
    while waiting:
        tensor = waiting.pop()
        variable = found.tensors[tensor]
        is_ref = index.nodes[variable].op in REF_VARIABLE_OPS
        for node, position in index.consumers(tensor.node):
            if node.name not in within or TensorName.parse(node.inputs[position]) != tensor:
                continue
            if node.op in (REF_PASS_THROUGH if is_ref else HANDLE_PASS_THROUGH) and not _is_predicate(node, position):
                waiting += _hand_on(found, node, variable)
            else:
                _use(found, node, position, variable, is_ref=is_ref, library=library)
    return found


def _is_predicate(node: Node, position: int) -> bool:
    return node.op in ("Switch", "RefSwitch") and position == 1


def _hand_on(found: Carriers, node: Node, variable: str) -> list[TensorName]:
    """Mark the outputs of a node that hands a variable on; return those that were not known."""
    old = found.through.get(node.name)
    if old is not None and old != variable:
        found.mixed.setdefault(node.name, {old}).add(variable)
        return []
    found.through[node.name] = variable
    # the second output of Merge is the index of the live input, not the variable
    outputs = [TensorName(node.name, position) for position in range(_OUTPUTS.get(node.op, 1))]
    fresh = [name for name in outputs if name not in found.tensors]
    found.tensors.update(dict.fromkeys(fresh, variable))
    return fresh


def _use(found: Carriers, node: Node, position: int, variable: str, *, is_ref: bool, library: set[str]) -> None:
    """Note how a node uses a variable."""
    if node.op in library or node.called():
        uses = found.reads if is_ref else found.calls  # a function takes the value of a reference
    elif is_ref:
        uses = found.writes if takes_ref(node, position) and node.op not in REF_QUESTIONS else found.reads
    else:
        uses = found.reads if node.op in HANDLE_READS else found.writes
    uses.setdefault(node.name, set()).add(variable)


def takes_ref(node: Node, position: int) -> bool:
    """Whether a node takes its input at a position as a reference, which it may write through."""
    history = op_history(node.op)
    if history is None:
        return False
    here = 0
    for argument in history.inputs:
        count = 1
        if argument.number_attr:
            value = node.attrs.get(argument.number_attr)
            count = value if isinstance(value, int) else 1
        elif argument.type_list_attr:
            value = node.attrs.get(argument.type_list_attr)
            count = len(getattr(value, "items", ()))
        if here <= position < here + count:
            return argument.is_ref
        here += count
    return False
