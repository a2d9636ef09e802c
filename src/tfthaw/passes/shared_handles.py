"""Shared handles: nodes that name one variable become one node.

Two `VarHandleOp`s with one shared name are handles of one variable, and two v1 variables with one shared name are one
buffer: what is written through the first is read through the second. Every other pass takes a node for a variable, so
the users of later nodes move to the first. It changes no value.

Source: resource_mgr.h (container and shared name are a resource's identity) and resource_variable_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.passes.prune import without_lost_colocations

_ANONYMOUS = "cd2c89b7"  # a shared name that begins so means "this very object"


@dataclass(slots=True)
class Merged:
    """What the pass did.

    Attributes:
        graph: The graph.
        merged: A node that went -> the node that stands for it.
    """

    graph: Graph
    merged: dict[str, str] = field(default_factory=dict)


def merge_shared_handles(graph: Graph) -> Merged:
    """Make one node of all nodes of a main graph that name one variable.

    Nodes of different types or shapes are left alone: TensorFlow refuses to run both.
    """
    merged = _same(graph.nodes)
    if not merged:
        return Merged(graph)
    nodes = [_moved(node, merged) for node in graph.nodes if node.name not in merged]
    return Merged(replace(graph, nodes=without_lost_colocations(nodes)), merged)


def _same(nodes: Iterable[Node]) -> dict[str, str]:
    first: dict[tuple[object, ...], Node] = {}
    merged = {}
    for node in nodes:
        if node.op not in VARIABLE_OPS or node.inputs:
            continue
        shared = node.text("shared_name")
        if not shared or shared.startswith(_ANONYMOUS):
            continue
        shape = node.shape()
        key = (node.op, node.text("container"), shared, node.dtype("dtype"), None if shape is None else shape.dims)
        other = first.setdefault(key, node)
        if other is not node:
            merged[node.name] = other.name
    return merged


def _moved(node: Node, merged: dict[str, str]) -> Node:
    inputs = []
    for text in node.inputs:
        name = TensorName.parse(text)
        inputs.append(name._replace(node=merged[name.node]).as_input() if name.node in merged else text)
    if inputs == node.inputs:
        return node
    controls = dict.fromkeys(text for text in inputs if text[:1] == "^")  # once each; importers refuse the rest
    return replace(node, inputs=[*(text for text in inputs if text[:1] != "^"), *controls])
