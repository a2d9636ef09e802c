"""Clear devices: nodes no longer ask for the machine that they were trained on.

A graph that insists on a GPU, or on a task of a cluster, does not run where there is none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from tfthaw.ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Cleared:
    """What the pass did.

    Attributes:
        graph: The graph.
        devices: device -> how many nodes of the main graph and its functions asked for it.
    """

    graph: Graph
    devices: dict[str, int]


def clear_devices(graph: Graph) -> Cleared:
    """Take the devices off every node, those of library functions included."""
    devices = Counter(node.device for node in graph.walk() if node.device)
    if not devices:
        return Cleared(graph, {})
    nodes = [replace(node, device="") for node in graph.nodes]
    functions = [
        replace(function, nodes=[replace(node, device="") for node in function.nodes]) for function in graph.functions
    ]
    return Cleared(replace(graph, nodes=nodes, functions=functions), dict(devices))
