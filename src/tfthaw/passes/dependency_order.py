"""Dependency order: every node after what it needs.

Importers written in Python (TensorFlow up to 1.7) infer shapes node by node as they come, and fail on a node that comes
before what it needs. Loops have no such order; the edge that closes one, from NextIteration to Merge, is left out.

Source: importer.py of TensorFlow 1.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfthaw.ir.node_validation import MERGE_OPS, NEXT_OPS
from tfthaw.ir.nodes import Node


def in_dependency_order(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes of a main graph in an order in which each comes after what it needs.

    Nodes that are in order already stay where they are.
    """
    known = {node.name: node for node in nodes}
    placed: set[str] = set()
    result: list[Node] = []
    for root in nodes:
        waiting: list[tuple[Node, Iterator[Node]]] = []
        if root.name not in placed:
            placed.add(root.name)
            waiting.append((root, _needs(root, known)))
        while waiting:
            node, needs = waiting[-1]
            for need in needs:
                if need.name not in placed:
                    placed.add(need.name)
                    waiting.append((need, _needs(need, known)))
                    break
            else:
                result.append(node)
                waiting.pop()
    return result


def _needs(node: Node, known: dict[str, Node]) -> Iterator[Node]:
    for text in node.inputs:
        name = text[1:] if text[:1] == "^" else text.partition(":")[0]
        need = known.get(name)
        if need is not None and not (node.op in MERGE_OPS and need.op in NEXT_OPS):
            yield need
