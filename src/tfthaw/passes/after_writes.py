"""Which nodes come after a write: for them alone it matters what a call waited for.

A call runs after all that it takes and waits for, and who takes what it gives runs after that. A read that comes later
sees what was written before, even where nothing of the value that was written takes part.

Source: the op definitions of state_ops.cc and resource_variable_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tfthaw.ir.graph import GraphIndex
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.passes.carriers import HANDLE_READS, REF_PASS_THROUGH, REF_QUESTIONS


def after_writes(nodes: Iterable[Node], has_effect: Callable[[str], bool]) -> set[str]:
    """Return the nodes that may write a variable, and all that come after them.

    Args:
        nodes: The nodes of a graph or of an open body.
        has_effect: Whether a function of the library does more than to compute values.
    """
    every = list(nodes)
    writers = [node.name for node in every if writes(node) or any(map(has_effect, (node.op, *node.called())))]
    return {*writers, *GraphIndex(every).descend(writers)} if writers else set()


def writes(node: Node) -> bool:
    """Whether a node writes a variable itself, as far as its op says."""
    if node.op in HANDLE_READS or node.op in REF_PASS_THROUGH or node.op in REF_QUESTIONS:
        return False
    history = op_history(node.op)
    if history is None:
        return False
    return node.op.startswith(("Assign", "Resource")) or any(argument.is_ref for argument in history.inputs)
