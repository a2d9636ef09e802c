"""What becomes other when parts of a graph become functions, as sentences for the user."""

from __future__ import annotations

from collections.abc import Mapping

from tfthaw.ir.definitions import Definitions
from tfthaw.ir.graph import GraphIndex
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.passes.functions_from_graph import MadeFunction
from tfthaw.passes.tables import FILLING_OPS, TABLE_OPS

_LOOP_OPS = frozenset({"Enter", "RefEnter"})
_MOST_NAMES = 3


def function_notes(index: GraphIndex, functions: Mapping[str, MadeFunction], definitions: Definitions) -> list[str]:
    """Return what users of functions that were made of a graph should know.

    Args:
        index: The graph that they were made of.
        functions: signature -> its function.
        definitions: What the ops of the graph take and give.
    """
    users: dict[str, list[str]] = {}
    for key, made in functions.items():
        for name in made.nodes:
            users.setdefault(name, []).append(key)
    notes = []
    for name, keys in users.items():
        if len(keys) > 1 and _keeps_state(index.nodes[name], definitions):
            op = index.nodes[name].op
            notes.append(f"{name} ({op}) keeps state; of the signatures {', '.join(keys)} each has its own now")
    loops = [name for name in users if index.nodes[name].op in _LOOP_OPS]
    trained = any(made.captures for made in functions.values())
    if loops and trained:
        first = ", ".join(loops[:_MOST_NAMES]) + (" ..." if len(loops) > _MOST_NAMES else "")
        notes.append(f"TensorFlow 2 computes no gradients through loops of TensorFlow 1: {first}")
    return notes


def _keeps_state(node: Node, definitions: Definitions) -> bool:
    """Whether a node makes something that outlives a call: a queue, an iterator, a barrier."""
    found = definitions.find(node.op)
    if found is None or not found.is_stateful or node.op in VARIABLE_OPS | TABLE_OPS | FILLING_OPS:
        return False
    if any(not text.startswith("^") for text in node.inputs):
        return False
    return any(output.is_ref or (output.dtype is not None and not output.dtype.is_numeric) for output in found.outputs)
