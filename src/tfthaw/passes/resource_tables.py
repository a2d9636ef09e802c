"""Resource tables: lookup tables whose handles are references become tables whose handles are resources.

TensorFlow before 1.5 wrote the former. A function cannot take their handles, so a SavedModel of TensorFlow 2 cannot
hold them. Every node keeps its name; what is in a table, and when it is filled, stays the same.

Source: the op definitions of lookup_ops.cc and control_flow_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import Attr
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.passes.carriers import REF_PASS_THROUGH, takes_ref
from tfthaw.passes.tables import MUTABLE_TABLE_OPS, TABLE_OPS

_REFERENCES = frozenset(op for op in TABLE_OPS | MUTABLE_TABLE_OPS if not op.endswith("V2"))
_SHAPE_HINTS = "_output_shapes"


@dataclass(frozen=True, slots=True)
class ResourceTables:
    """What the pass did.

    Attributes:
        graph: The graph.
        tables: The nodes whose handles were references, in the graph's order.
    """

    graph: Graph
    tables: tuple[str, ...] = ()


def to_resource_tables(graph: Graph) -> ResourceTables:
    """Turn tables whose handles are references into tables whose handles are resources.

    Args:
        graph: The graph; only the nodes of the main graph are changed.

    Raises:
        UnsupportedError: Something else than a lookup takes such a handle; with all such nodes.
    """
    tables = tuple(node.name for node in graph.nodes if node.op in _REFERENCES)
    if not tables:
        return ResourceTables(graph)
    index = GraphIndex(graph.nodes)
    through, users, problems = _follow(index, tables)
    if problems:
        raise UnsupportedError(
            "handles of lookup tables are used in ways that tables of TensorFlow 2 do not have",
            problems=[problems[name] for name in sorted(problems)],
            hint="choose outputs that need none of these nodes, or keep references: --style v1",
        )
    nodes = [_rewritten(node, through, {*users, *tables}) for node in graph.nodes]
    return ResourceTables(replace(graph, nodes=nodes), tables)


def _follow(index: GraphIndex, tables: tuple[str, ...]) -> tuple[set[str], set[str], dict[str, str]]:
    """Return the nodes that hand a table on, those that look into one or fill it, and what is wrong with others."""
    handles = {TensorName(name, 0) for name in tables}
    through: set[str] = set()
    users: set[str] = set()
    problems: dict[str, str] = {}
    waiting = list(handles)
    while waiting:
        tensor = waiting.pop()
        for node, position in index.consumers(tensor.node):
            if TensorName.parse(node.inputs[position]) != tensor:
                continue
            if node.op in REF_PASS_THROUGH:
                through.add(node.name)
                outputs = {TensorName(node.name, output) for output in range(2 if node.op == "RefSwitch" else 1)}
                waiting += outputs - handles
                handles |= outputs
            elif takes_ref(node, position) and op_history(f"{node.op}V2") is not None:
                users.add(node.name)
            else:
                problems[node.name] = f"{node.name} ({node.op}) takes the handle of {tensor.node}"
    problems |= {
        name: f"{name} (RefMerge) takes {text} beside a lookup table, which is none"
        for name, text in _strangers(index, through, handles)
    }
    return through, users, problems


def _strangers(index: GraphIndex, through: set[str], handles: set[TensorName]) -> Iterator[tuple[str, str]]:
    for name in through:
        node = index.nodes[name]
        for text in node.inputs:
            if node.op == "RefMerge" and not text.startswith("^") and TensorName.parse(text) not in handles:
                yield name, text


def _rewritten(node: Node, through: set[str], users: set[str]) -> Node:
    """Return what stands in a node's place."""
    if node.name in users:
        attrs: dict[str, Attr] = dict(node.attrs)
        if node.op in _REFERENCES:
            attrs.pop(_SHAPE_HINTS, None)
        return replace(node, op=f"{node.op}V2", attrs=attrs)
    if node.name in through:
        kept = {name: attr for name, attr in node.attrs.items() if name != _SHAPE_HINTS}
        return replace(node, op=REF_PASS_THROUGH[node.op], attrs=kept | {"T": DType.resource})
    return node
