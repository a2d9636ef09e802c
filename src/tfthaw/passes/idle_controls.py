"""Idle controls: take out control inputs that wait for nothing.

A function waits for its reads of variables, so a graph that was inlined and frozen is full of nodes that wait for
constants. Waiting for what only computes a value orders nothing. Graphs with the control flow of v1 are left as they
are: there a control input also says in which branch or loop a node runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node

_IDLE = frozenset({"Const", "Identity", "IdentityN", "NoOp"})
_DEAD = frozenset({"Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter", "Exit", "RefExit"})


def drop_idle_controls(graph: Graph, outputs: Iterable[TensorName]) -> Graph:
    """Take out control inputs from nodes that only hand on constants, and nodes that then nobody needs.

    Args:
        graph: The graph, pruned.
        outputs: The tensors that are asked for.
    """
    if any(node.op in _DEAD for node in graph.nodes):
        return graph
    index = GraphIndex(graph.nodes)
    idle = _idle_nodes(index)
    nodes = [_without(node, idle) for node in graph.nodes]
    if all(one is other for one, other in zip(nodes, graph.nodes, strict=True)):
        return graph
    used = GraphIndex(nodes).reach([name.node for name in outputs])
    gone = {node.name for node in nodes if node.name in idle and node.name not in used}
    return graph.with_nodes(node for node in nodes if node.name not in gone)


def _idle_nodes(index: GraphIndex) -> set[str]:
    """Return the nodes that only hand on constants: nothing is lost when nobody waits for them."""
    waiting_for = {name: len(node.inputs) for name, node in index.nodes.items() if node.op in _IDLE}
    idle: set[str] = set()
    ready = [name for name, count in waiting_for.items() if count == 0]
    while ready:
        name = ready.pop()
        idle.add(name)
        for user, _ in index.consumers(name):
            if user.name in waiting_for:
                waiting_for[user.name] -= 1
                if waiting_for[user.name] == 0:
                    ready.append(user.name)
    return idle


def _without(node: Node, idle: set[str]) -> Node:
    inputs = [text for text in node.inputs if text[:1] != "^" or text[1:] not in idle]
    return node if len(inputs) == len(node.inputs) else replace(node, inputs=inputs)
