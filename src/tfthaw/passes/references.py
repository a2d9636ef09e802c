"""References: where the v1 variables of a graph go, and who reads, writes or merely hands on each of them.

A reference is the variable itself, not its value. `Assign` and its like take one and give one; loops and conds hand it
on, and may choose between several; everything else takes the value that is there when it runs. This is analysis: it
changes nothing.

Source: the op definitions of state_ops.cc, control_flow_ops.cc and training_ops.cc of TensorFlow; state_ops.cc and
resource_mgr.h for which variable a shared name stands for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from tfthaw.ir.functions import Function
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.ir.variables import REF_VARIABLE_OPS
from tfthaw.passes.carriers import REF_PASS_THROUGH, REF_QUESTIONS, takes_ref

State: TypeAlias = tuple[str, str]
"""Which variable it is: its container, and its name in there."""


@dataclass(slots=True)
class References:
    """Where the references of a graph are.

    Attributes:
        states: variable's node -> which variable it is: two nodes with one shared name are one variable.
        tensors: A tensor that is a reference -> the nodes of the variables that it may be.
        through: Nodes that only hand a reference on.
        writes: Nodes that write through a reference -> the nodes of the variables that they may write.
        questions: Nodes that ask something of the variable itself.
        reads: Nodes that take the value of a reference -> the positions of the inputs where they do.
        library: The functions of the library.
        problems: Uses of a reference that cannot be understood, one sentence each.
    """

    states: dict[str, State] = field(default_factory=dict)
    tensors: dict[TensorName, set[str]] = field(default_factory=dict)
    through: set[str] = field(default_factory=set)
    writes: dict[str, set[str]] = field(default_factory=dict)
    questions: set[str] = field(default_factory=set)
    reads: dict[str, set[int]] = field(default_factory=dict)
    library: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)

    def states_of(self, tensor: TensorName) -> set[State]:
        """Return which variables a reference may be."""
        return {self.states[name] for name in self.tensors[tensor]}

    def writers(self) -> dict[State, list[str]]:
        """Return the nodes that may write each variable that is written."""
        found: dict[State, list[str]] = {}
        for name, variables in sorted(self.writes.items()):
            for state in {self.states[variable] for variable in variables}:
                found.setdefault(state, []).append(name)
        return found


def find_references(index: GraphIndex, functions: Iterable[Function] = ()) -> References:
    """Follow every reference to a variable to its users.

    Args:
        index: The graph.
        functions: The functions of its library.
    """
    library = {function.name: function for function in functions}
    found = References(library=set(library))
    waiting = []
    for node in index.nodes.values():
        if node.op in REF_VARIABLE_OPS:
            found.states[node.name] = state_of(node)
            found.tensors[TensorName(node.name, 0)] = {node.name}
            waiting.append(TensorName(node.name, 0))
    while waiting:
        tensor = waiting.pop()
        variables = found.tensors[tensor]
        for node, position in index.consumers(tensor.node):
            if TensorName.parse(node.inputs[position]) != tensor:
                continue
            for output in _use(found, node, position, variables, library):
                known = found.tensors.setdefault(output, set())
                if not variables <= known:
                    known |= variables
                    waiting.append(output)
    _refuse_strangers(found, index)
    return found


def state_of(node: Node) -> State:
    """Return what two nodes of one variable have in common."""
    return node.text("container"), node.text("shared_name") or node.name


def _use(
    found: References, node: Node, position: int, variables: set[str], library: dict[str, Function]
) -> list[TensorName]:
    """Note how a node uses a reference; return the references that it gives for it."""
    if node.op in REF_PASS_THROUGH and not (node.op == "RefSwitch" and position == 1):
        found.through.add(node.name)
        # the second output of RefMerge is the index of the live input
        return [TensorName(node.name, output) for output in range(2 if node.op == "RefSwitch" else 1)]
    history = op_history(node.op)
    if node.op in library:
        arguments = library[node.op].arguments
        if position < len(arguments) and arguments[position].is_ref:
            found.problems[node.name] = f"{node.name} hands {_names(variables)} itself to the function {node.op}"
    elif history is None:
        # a graph gives a reference itself only to an op that asks for one; what is read goes through an Identity
        found.problems[node.name] = f"{node.name} ({node.op}) takes {_names(variables)} itself, and may write to it"
    elif takes_ref(node, position):
        if node.op in REF_QUESTIONS:
            found.questions.add(node.name)
            return []
        found.writes.setdefault(node.name, set()).update(variables)
        gives_reference = position == 0 and bool(history.outputs) and history.outputs[0].is_ref
        return [TensorName(node.name, 0)] if gives_reference else []
    found.reads.setdefault(node.name, set()).add(position)
    return []


def _refuse_strangers(found: References, index: GraphIndex) -> None:
    """Note nodes that take a variable beside a reference to something else, such as a temporary variable."""
    for name in sorted(found.through | set(found.writes)):
        node = index.nodes[name]
        for position, text in enumerate(node.inputs):
            if text.startswith("^") or TensorName.parse(text) in found.tensors:
                continue
            handed_on = name in found.through and not (node.op == "RefSwitch" and position == 1)
            if handed_on or takes_ref(node, position):
                found.problems[name] = f"{name} ({node.op}) takes {text} too, which is a reference to no variable"


def _names(variables: set[str]) -> str:
    return " or ".join(sorted(variables))
