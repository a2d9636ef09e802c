"""Transient state: variables that begin anew whenever a model is loaded, such as the counters of a metric.

No checkpoint holds them. A graph that keeps no state can give one answer only: that of the first call after loading.
This pass makes writes to such variables give that answer as plain arithmetic: `AssignAdd(total, x)` becomes
`Add(total, x)`. Each one is reported, because a second call to the original would add to the first.

It refuses nothing: writes that it cannot express this way stay, and `tfthaw.passes.writes` names them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.passes.carriers import Functions, find_carriers
from tfthaw.passes.order import reads_after
from tfthaw.passes.prune import free_name

_REF_ARITHMETIC = {"AssignAdd": "Add", "AssignSub": "Sub", "Assign": "Identity"}
_HANDLE_ARITHMETIC = {"AssignAddVariableOp": "Add", "AssignSubVariableOp": "Sub", "AssignVariableOp": "Identity"}


@dataclass(frozen=True, slots=True)
class FirstCall:
    """What the pass did.

    Attributes:
        graph: The graph.
        rewritten: The writes that are arithmetic now, by node name.
    """

    graph: Graph
    rewritten: tuple[str, ...]


def first_call(
    graph: Graph, outputs: Collection[TensorName], transient: Collection[str], functions: Functions | None = None
) -> FirstCall:
    """Express writes to transient variables as arithmetic.

    Args:
        graph: The graph, pruned to its outputs.
        outputs: The tensors that will be asked for.
        transient: The nodes of the variables that begin anew with every load.
        functions: What its functions do with variables.
    """
    if not transient:
        return FirstCall(graph, ())
    index = GraphIndex(graph.nodes)
    carriers = find_carriers(index, set(index.nodes), functions)
    needed = index.reach([name.node for name in outputs], through_control=False)
    changed: dict[str, list[Node]] = {}
    rewritten = []
    for variable in sorted(transient):
        writes = [name for name, written in carriers.writes.items() if variable in written]
        if len(writes) != 1 or TensorName.parse(index.nodes[writes[0]].inputs[0]).node != variable:
            continue
        node = index.nodes[writes[0]]
        later = reads_after(index, carriers, node.name, needed, outputs)
        if node.op not in _REF_ARITHMETIC:
            new = _handle_write(index, node, variable, later)
        else:  # gives the new value as its output, while other reads keep the value from before
            new = _ref_write(index, node, variable) if node.name in needed and not later else {}
        if new:
            changed.update(new)
            rewritten.append(node.name)
    nodes = [new for node in graph.nodes for new in changed.get(node.name, [node])]
    return FirstCall(replace(graph, nodes=nodes), tuple(rewritten))


def _ref_write(index: GraphIndex, node: Node, variable: str) -> dict[str, list[Node]]:
    """Rewrite a write that gives the new value as its output."""
    dtype = index.nodes[variable].attrs["dtype"]
    op = _REF_ARITHMETIC[node.op]
    inputs = node.inputs[1:] if op == "Identity" else node.inputs
    return {node.name: [Node(node.name, op, list(inputs), node.device, {"T": dtype}, node.opaque)]}


def _handle_write(index: GraphIndex, node: Node, variable: str, later: list[str]) -> dict[str, list[Node]]:
    """Rewrite a write that gives nothing: the reads that come after it take the new value."""
    op = _HANDLE_ARITHMETIC.get(node.op)
    after = [index.nodes[name] for name in later]
    if op is None or not after or any(read.op != "ReadVariableOp" for read in after):
        return {}
    dtype = index.nodes[variable].attrs["dtype"]
    old, new = free_name(index.nodes, f"{node.name}/before"), free_name(index.nodes, f"{node.name}/after")
    controls = [text for text in node.inputs if text.startswith("^")]
    value = [node.inputs[1]] if op == "Identity" else [old, node.inputs[1]]
    result = {
        node.name: [
            Node(old, "ReadVariableOp", [variable], node.device, {"dtype": dtype}),
            Node(new, op, [*value, *controls], node.device, {"T": dtype}),
            Node(node.name, "NoOp", [f"^{new}", *controls], node.device),
        ]
    }
    for read in after:
        inputs = [new, *(text for text in read.inputs[1:] if text.startswith("^"))]
        result[read.name] = [Node(read.name, "Identity", inputs, read.device, {"T": dtype}, read.opaque)]
    return result
