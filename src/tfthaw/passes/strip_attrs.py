"""Strip attrs that say nothing: those at their default.

An older TensorFlow refuses an attr that it does not know, whatever its value, though at its default an attr that came
later means what the op always did. Attrs whose default changed between versions stay: without them, versions would
differ. So do attrs that begin with `_`, which every version takes.

Source: attr_value_util.cc and node_def_util.cc of TensorFlow (StripDefaultAttributes, AddDefaultsToNodeDef).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import Attr
from tfthaw.ir.definitions import Definition
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history, versions
from tfthaw.ir.readability import OLDEST, default_of_producer, same_attr, shown, unknown_attrs

UNKNOWN_ATTR_HINT = (
    "they come from a newer TensorFlow or a changed one; convert its SavedModel or .meta, which list the defaults, or "
    "write the model again with a TensorFlow that the table knows"
)


@dataclass(frozen=True, slots=True)
class Stripped:
    """What the pass did.

    Attributes:
        graph: The graph.
        dropped: `op.attr` -> how many nodes lost it.
    """

    graph: Graph
    dropped: Mapping[str, int]


def strip_attrs(graph: Graph, described: Mapping[str, Definition] | None = None) -> Stripped:
    """Drop every attr that is at its default, in the main graph and in the library.

    Args:
        graph: The graph.
        described: Ops as the producer of the graph describes them (the list of ops of a MetaGraph).

    Raises:
        UnsupportedError: Nodes have attrs that no TensorFlow of the table knows, and that are not at the default that
            the producer tells of, or of which it tells none; with every such attr.
    """
    functions = {function.name for function in graph.functions}
    told = described or {}
    dropped: Counter[str] = Counter()
    problems: list[str] = []

    def strip(node: Node, where: str) -> Node:
        if node.op in functions:
            return node
        problems.extend(
            f"{where}{node.name} ({node.op}): {name}={shown(node.attrs[name])}, {_why(node.op, name, told)}"
            for name in unknown_attrs(node)
            if not same_attr(node.attrs[name], default_of_producer(node.op, name, told))
        )
        idle = idle_attrs(node, told)
        dropped.update(f"{node.op}.{name}" for name in idle)
        return without_attrs(node, idle)

    changed = each_node(graph, strip)
    if problems:
        raise UnsupportedError(
            f"nodes have attrs that no TensorFlow up to {versions()[-1]} knows, so nobody can tell what they change",
            problems=problems, hint=UNKNOWN_ATTR_HINT,
        )  # fmt: skip
    return Stripped(changed, dict(dropped))


def each_node(graph: Graph, change: Callable[[Node, str], Node]) -> Graph:
    """Return a graph with every node changed, those of functions too.

    Args:
        graph: The graph.
        change: Takes a node and what to say before its name, and returns the node that takes its place.
    """

    def changed(function: Function) -> Function:
        where = f"in {function.name}: "
        return replace(function, nodes=[change(node, where) for node in function.nodes])

    nodes = [change(node, "") for node in graph.nodes]
    return replace(graph, nodes=nodes, functions=[changed(function) for function in graph.functions])


def idle_attrs(node: Node, described: Mapping[str, Definition]) -> list[str]:
    """Return the attrs of a node that are at a default which every version from 1.4 on agrees on."""
    defaults = _agreed_defaults(node.op)
    found = []
    for name, value in node.attrs.items():
        if name.startswith("_"):
            continue
        default = defaults[name] if name in defaults else default_of_producer(node.op, name, described)
        if same_attr(value, default):
            found.append(name)
    return found


def without_attrs(node: Node, names: Collection[str]) -> Node:
    """Return a node without some of its attrs."""
    if not names:
        return node
    return replace(node, attrs={name: value for name, value in node.attrs.items() if name not in names})


@lru_cache(maxsize=4096)
def _agreed_defaults(op: str) -> dict[str, Attr | None]:
    """Return the defaults of an op's attrs, None where versions differ or one has none."""
    history = op_history(op)
    since = versions().index(OLDEST)
    result: dict[str, Attr | None] = {}
    for attr in history.attrs if history is not None else ():
        held = [attr.default_in(version) for version in versions()[since:] if attr.is_in(version)]
        agreed = held[-1] if held else None
        is_agreed = agreed is not None and all(same_attr(agreed, value) for value in held)
        result[attr.name] = agreed if is_agreed else None
    return result


def _why(op: str, attr: str, described: Mapping[str, Definition]) -> str:
    default = default_of_producer(op, attr, described)
    return "whose default nobody tells" if default is None else f"which is not its default, {shown(default)}"
