"""Graphs: nodes, and how they hang together.

A `Graph` keeps its nodes in the order in which they were written, and may be inconsistent: duplicate names and inputs
that lead nowhere load, so that they can be shown and mended (`tfthaw.ir.validation` names them). Links are by name,
as in GraphDef; `GraphIndex` is the use-def view of a graph at one moment.

Inputs are spelled as GraphDef spells them: `node` or `node:1` for an output, `^node` for a control input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tfthaw.ir.functions import Function, Gradient, RegisteredGradient
from tfthaw.ir.nodes import Node

__all__ = ["Graph", "GraphIndex", "Node", "TensorName", "Versions", "control_inputs", "data_inputs"]


class TensorName(NamedTuple):
    """An output of a node: `TensorName("dense/MatMul", 0)` is `dense/MatMul:0`."""

    node: str
    output: int

    @classmethod
    def parse(cls, text: str) -> TensorName:
        """Read `node`, `node:1`, or a control input `^node` (output -1)."""
        if text.startswith("^"):
            return cls(text[1:], -1)
        name, colon, index = text.rpartition(":")
        if colon and index.isascii() and index.isdigit() and len(index) < 10:  # the wire has 32 bits for it
            return cls(name, int(index))
        return cls(text, 0)

    @property
    def is_control(self) -> bool:
        """Whether this is a control input rather than a tensor."""
        return self.output < 0

    def as_input(self) -> str:
        """Return the spelling of a node's input: `node`, `node:1` or `^node`."""
        if self.output < 0:
            return f"^{self.node}"
        return self.node if self.output == 0 else f"{self.node}:{self.output}"

    def __str__(self) -> str:
        return f"{self.node}:{self.output}"


@dataclass(slots=True)
class Versions:
    """Which version of the graph format wrote a graph, and which may read it.

    Attributes:
        producer: The graph version of the TensorFlow that wrote it; 0 where it does not say.
        min_consumer: The lowest graph version that may read it.
        bad_consumers: Versions that must not read it.
        opaque: Fields that this version does not know.
    """

    producer: int = 0
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()
    opaque: bytes = b""


@dataclass(slots=True)
class Graph:
    """A graph with its function library.

    Attributes:
        nodes: The nodes, in the order in which they were written.
        functions: The library's functions.
        gradients: Which function is the gradient of which.
        registered_gradients: Which function is the gradient of nodes that name it by their `_gradient_op_type`.
        versions: The format versions, or None where the graph has no such field.
        opaque: Everything else that the graph carried (debug info, unknown fields).
        library_opaque: Everything else that the library carried; None where there was no library at all.
    """

    nodes: list[Node] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    registered_gradients: list[RegisteredGradient] = field(default_factory=list)
    versions: Versions | None = None
    opaque: bytes = b""
    library_opaque: bytes | None = None

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """Return a graph that differs in its nodes alone."""
        return replace(self, nodes=list(nodes))

    def walk(self) -> Iterator[Node]:
        """Yield every node of the main graph and of every function of the library."""
        yield from self.nodes
        for function in self.functions:
            yield from function.nodes


class GraphIndex:
    """The use-def links of a graph at one moment; changing the graph does not change its index.

    Attributes:
        nodes: name -> node. Of duplicates the first wins, as in TensorFlow's importer errors.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes: dict[str, Node] = {}
        for node in nodes:
            self.nodes.setdefault(node.name, node)
        self._consumers: dict[str, list[tuple[Node, int]]] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def producer(self, text: str) -> Node | None:
        """Return the node that an input names, or None where there is no such node."""
        return self.nodes.get(TensorName.parse(text).node)

    def consumers(self, name: str) -> list[tuple[Node, int]]:
        """Return the nodes that use a node, each with the position of the input that does."""
        if self._consumers is None:
            users: dict[str, list[tuple[Node, int]]] = {}
            for node in self.nodes.values():
                for position, text in enumerate(node.inputs):
                    source = text[1:] if text[:1] == "^" else text.partition(":")[0]
                    users.setdefault(source, []).append((node, position))
            self._consumers = users
        return self._consumers.get(name, [])

    def reach(self, names: Iterable[str], *, through_control: bool = True, stop: Iterable[str] = ()) -> set[str]:
        """Return every node that the named nodes need, themselves included.

        Args:
            names: Nodes to begin at.
            through_control: Whether control inputs count.
            stop: Nodes whose own inputs are not followed.
        """
        halted = set(stop)
        seen: set[str] = set()
        waiting = [name for name in names if name in self.nodes]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in halted:
                continue
            for text in self.nodes[name].inputs:
                if text[:1] != "^":
                    source = text.partition(":")[0]
                elif through_control:
                    source = text[1:]
                else:
                    continue
                if source not in seen and source in self.nodes:
                    waiting.append(source)
        return seen

    def descend(self, names: Iterable[str]) -> set[str]:
        """Return every node that comes after any of the named nodes, by data or control."""
        seen: set[str] = set()
        waiting = list(names)
        while waiting:
            for node, _ in self.consumers(waiting.pop()):
                if node.name not in seen:
                    seen.add(node.name)
                    waiting.append(node.name)
        return seen


def data_inputs(node: Node) -> list[str]:
    """Return a node's inputs without the control inputs."""
    return [text for text in node.inputs if not text.startswith("^")]


def control_inputs(node: Node) -> list[str]:
    """Return the names of the nodes that must run before a node."""
    return [text[1:] for text in node.inputs if text.startswith("^")]


