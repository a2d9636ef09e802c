"""Writes: take out the side effects on variables that no output's value needs.

A training graph writes variables while it runs: moving averages, counters, the optimizer's step. Frozen, there is
nothing left to write to. A write that outputs only wait for (a control input) can go when no output needs the variable;
the outputs are then the same. A write whose value flows into an output cannot, and neither can one that is read
afterwards: in the same call, or, of a resource variable, in the next. (The graphs of TensorFlow 1 have their training
in them, on the other side of a cond or behind a control input; what they leave for the next call, they leave when they
are trained.)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tfthaw.errors import UnsupportedError
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import HANDLE_OPS, VARIABLE_OPS
from tfthaw.passes.carriers import Carriers, Functions, find_carriers
from tfthaw.passes.order import cond_sides, never_both, reads_after
from tfthaw.passes.prune import without_lost_colocations


@dataclass(frozen=True, slots=True)
class Writes:
    """What the pass did.

    Attributes:
        graph: The graph without the writes.
        dropped: The writing nodes that went, each with its variables.
    """

    graph: Graph
    dropped: dict[str, tuple[str, ...]]


def drop_writes(
    graph: Graph,
    outputs: Collection[TensorName],
    functions: Functions | None = None,
    variables: Collection[str] | None = None,
) -> Writes:
    """Drop the writes that no output's value needs.

    Args:
        graph: The graph, pruned to its outputs.
        outputs: The tensors whose values must stay the same.
        functions: What its functions do with variables.
        variables: The variables whose writes go; None for all.

    Raises:
        UnsupportedError: A written value flows into an output, of this call or of the next; with every such node.
    """
    index = GraphIndex(graph.nodes)
    within = set(index.nodes)
    carriers = find_carriers(index, within, functions, variables)
    if not carriers.writes:
        return Writes(graph, {})
    needed = index.reach([name.node for name in outputs], through_control=False)
    _refuse(index, carriers, needed, outputs)
    gone = _cone(index, set(carriers.writes), needed)
    nodes = [_without_inputs(index, node, gone) for node in graph.nodes if node.name not in gone]
    reached = GraphIndex(nodes).reach([name.node for name in outputs])
    kept = [node for node in nodes if node.name in reached]
    dropped = {name: tuple(sorted(carriers.writes[name])) for name in sorted(carriers.writes)}
    return Writes(replace(graph, nodes=without_lost_colocations(kept)), dropped)


def drop_idle_variables(graph: Graph, outputs: Collection[TensorName], variables: Collection[str]) -> Writes:
    """Drop variables that no output's value needs, with all that uses them.

    Outputs of a traced function wait for everything in it that has an effect, such as the state of a random generator
    that only training uses. A variable stays where something that uses it writes another one.

    Args:
        graph: The graph, pruned to its outputs.
        outputs: The tensors whose values must stay the same.
        variables: The variables that may go, by node.
    """
    index = GraphIndex(graph.nodes)
    needed = index.reach([name.node for name in outputs], through_control=False)
    writes = find_carriers(index, set(index.nodes)).writes
    gone: set[str] = set()
    dropped: dict[str, tuple[str, ...]] = {}
    for variable in sorted(set(variables) - needed):
        cone = _cone(index, {variable}, needed)
        if all(writes.get(name, {variable}) <= {variable} for name in cone):
            gone |= cone
            dropped |= {name: (variable,) for name in sorted(cone) if name in writes}
    if not gone:
        return Writes(graph, {})
    nodes = [_without_inputs(index, node, gone) for node in graph.nodes if node.name not in gone]
    reached = GraphIndex(nodes).reach([name.node for name in outputs])
    kept = [node for node in nodes if node.name in reached]
    return Writes(replace(graph, nodes=without_lost_colocations(kept)), dropped)


def _refuse(index: GraphIndex, carriers: Carriers, needed: set[str], outputs: Collection[TensorName]) -> None:
    problems = []
    for name, variables in sorted(carriers.writes.items()):
        node = index.nodes[name]
        if name in needed:
            problems.append(f"{name} ({node.op}) writes {', '.join(sorted(variables))}, and an output needs its value")
            continue
        readers = reads_after(index, carriers, name, needed, outputs)
        if readers:
            problems.append(
                f"{name} ({node.op}) writes {', '.join(sorted(variables))}, which {readers[0]} reads after it"
            )
            continue
        before = _reads_before(index, carriers, name, needed)
        if before:
            problems.append(
                f"{name} ({node.op}) writes {', '.join(sorted(variables))}, which {before[0]} reads in the next call"
            )
    if problems:
        raise UnsupportedError(
            "the graph writes variables on the way to its outputs, and a frozen graph has nothing to write to",
            problems=problems,
            hint="choose outputs that come before the write, or convert to saved-model, which keeps variables",
        )


def _reads_before(index: GraphIndex, carriers: Carriers, write: str, needed: set[str]) -> list[str]:
    """Return the needed reads of a resource variable that see, in the next call, what a write left in this one."""
    variables = {name for name in carriers.writes[write] if index.nodes[name].op in HANDLE_OPS}
    reads = sorted(name for name, seen in carriers.reads.items() if name in needed and seen & variables)
    sides = cond_sides(index, write) if reads else set()
    return [name for name in reads if not never_both(cond_sides(index, name), sides)]


def _cone(index: GraphIndex, writes: set[str], needed: set[str]) -> set[str]:
    """Return the writes and every node that uses their results, up to the nodes that outputs need."""
    gone = set(writes)
    waiting = list(writes)
    while waiting:
        name = waiting.pop()
        for node, position in index.consumers(name):
            if node.inputs[position].startswith("^") or node.name in gone or node.name in needed:
                continue
            gone.add(node.name)
            waiting.append(node.name)
    return gone


def _without_inputs(index: GraphIndex, node: Node, gone: set[str]) -> Node:
    """Return the node without its control inputs from nodes that are gone.

    A node without any other input takes over what the dropped nodes depended on: in a loop or a cond, its control
    inputs are all that says when it runs.
    """
    lost = [text[1:] for text in node.inputs if text.startswith("^") and text[1:] in gone]
    if not lost:
        return node
    inputs = [text for text in node.inputs if not (text.startswith("^") and text[1:] in gone)]
    if not inputs:
        inputs = [f"^{name}" for name in _anchors(index, lost, gone)]
    return replace(node, inputs=inputs)


def _anchors(index: GraphIndex, lost: list[str], gone: set[str]) -> list[str]:
    """Return the nearest nodes that stay and that the dropped nodes came after."""
    anchors: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(lost)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in index:
            continue
        seen.add(name)
        for text in index.nodes[name].inputs:
            source = TensorName.parse(text).node
            if source in gone:
                waiting.append(source)
            elif source in index and index.nodes[source].op not in VARIABLE_OPS:  # a variable is always there
                anchors[source] = None
    return list(anchors)
