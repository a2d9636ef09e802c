"""Which tensors of a graph stand for a variable, and who uses them how.

A variable reaches its users as a reference (v1) or as a resource handle, often through nodes that only hand it on:
control flow of loops and conds, identities, functions. This is analysis: it changes nothing.

Source: the op definitions of state_ops.cc, resource_variable_ops.cc, control_flow_ops.cc and functional_ops.cc of
TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

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


@dataclass(frozen=True, slots=True)
class HandedIn:
    """What becomes of a tensor that a node hands to functions.

    Attributes:
        reads: Whether one of them reads it, were it a variable.
        writes: Whether one of them writes it.
        outputs: The node's outputs that may be that very tensor.
        problem: What stands in the way of telling, as a sentence, or None.
    """

    reads: bool = False
    writes: bool = False
    outputs: tuple[int, ...] = ()
    problem: str | None = None


class Functions(Protocol):
    """The library, as far as variables go through it."""

    def handed_in(self, node: Node, position: int) -> HandedIn | None:
        """Return what becomes of a node's input; None for a node that hands nothing to functions."""


@dataclass(slots=True)
class Carriers:
    """Where the variables of a graph are.

    Attributes:
        tensors: A tensor that stands for a variable -> that variable's node.
        through: Nodes that only hand a variable on -> that variable's node.
        reads: Nodes that read a variable -> the variables that they read.
        writes: Nodes that write a variable -> the variables that they write.
        calls: Nodes that hand a variable to a function of which nothing is known -> the variables.
        problems: Of those nodes: why nothing is known.
        mixed: Nodes that may hand on one of several variables.
    """

    tensors: dict[TensorName, str] = field(default_factory=dict)
    through: dict[str, str] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    writes: dict[str, set[str]] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)
    mixed: dict[str, set[str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def find_carriers(
    index: GraphIndex, within: set[str], functions: Functions | None = None, variables: Iterable[str] | None = None
) -> Carriers:
    """Follow every variable of a graph to its users.

    Args:
        index: The graph.
        within: The nodes that count.
        functions: What is known of the library; without it every function is unknown.
        variables: The nodes that are variables; None for all whose ops say so.
    """
    found = Carriers()
    if variables is None:
        variables = [name for name in within if index.nodes[name].op in REF_VARIABLE_OPS | HANDLE_OPS]
    waiting = [TensorName(name, 0) for name in variables]
    found.tensors.update((tensor, tensor.node) for tensor in waiting)
    while waiting:
        tensor = waiting.pop()
        variable = found.tensors[tensor]
        is_ref = index.nodes[variable].op in REF_VARIABLE_OPS
        for node, position in index.consumers(tensor.node):
            if node.name not in within or TensorName.parse(node.inputs[position]) != tensor:
                continue
            if node.op in (REF_PASS_THROUGH if is_ref else HANDLE_PASS_THROUGH) and not _is_predicate(node, position):
                outputs = range(_OUTPUTS.get(node.op, 1))  # that of Merge is the index of the live input
                waiting += _hand_on(found, node, variable, outputs)
            elif is_ref:
                # a function takes the value of a reference
                uses = found.writes if takes_ref(node, position) and node.op not in REF_QUESTIONS else found.reads
                uses.setdefault(node.name, set()).add(variable)
            else:
                waiting += _use_handle(found, node, position, variable, functions)
    return found


def _use_handle(
    found: Carriers, node: Node, position: int, variable: str, functions: Functions | None
) -> list[TensorName]:
    """Note how a node uses a handle; return the tensors that are the handle as well and were not known."""
    handed = functions.handed_in(node, position) if functions is not None else None
    if handed is None:
        if node.called():
            found.calls.setdefault(node.name, set()).add(variable)
        else:
            uses = found.reads if node.op in HANDLE_READS else found.writes
            uses.setdefault(node.name, set()).add(variable)
        return []
    if handed.problem is not None:
        found.calls.setdefault(node.name, set()).add(variable)
        found.problems[node.name] = handed.problem
        return []
    if handed.writes:
        found.writes.setdefault(node.name, set()).add(variable)
    if handed.reads or not handed.writes:
        found.reads.setdefault(node.name, set()).add(variable)
    return _hand_on(found, node, variable, handed.outputs, is_through=False)


def _is_predicate(node: Node, position: int) -> bool:
    return node.op in ("Switch", "RefSwitch") and position == 1


def _hand_on(
    found: Carriers, node: Node, variable: str, outputs: Iterable[int], *, is_through: bool = True
) -> list[TensorName]:
    """Mark outputs of a node as tensors that stand for a variable; return those that were not known."""
    if is_through:
        found.through.setdefault(node.name, variable)
    fresh = []
    for position in outputs:
        tensor = TensorName(node.name, position)
        old = found.tensors.get(tensor)
        if old is None:
            found.tensors[tensor] = variable
            fresh.append(tensor)
        elif old != variable:
            found.mixed.setdefault(node.name, {old}).add(variable)
    return fresh


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
