"""Whether a graph can be meant: what TensorFlow's importer refuses, found before anything is built on it.

An inconsistent graph loads, so that it can be shown; it is refused when something is to be made of it. Every problem is
found, not the first one. Ops that no TensorFlow knows are taken as they are: only their inputs can be judged.

Source: graph_constructor.cc and node_def_util.cc of TensorFlow, and its op definitions (`tfthaw.ir.op_history`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from tfthaw.errors import StructureError
from tfthaw.ir.definitions import Definitions, spans
from tfthaw.ir.function_validation import function_problems, waiting_problems
from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.node_validation import attr_problems, name_problems
from tfthaw.ir.nodes import Node

_MOST_PROBLEMS = 10_000  # nobody reads more, and a hostile graph has millions


def require_consistent(graph: Graph, definitions: Definitions | None = None) -> None:
    """Refuse a graph that contradicts itself, or that reaches functions that do.

    Args:
        graph: The graph.
        definitions: What its ops take and give; None for what TensorFlow's ops and its own functions do.

    Raises:
        StructureError: With every problem of the main graph and of the functions that it reaches.
    """
    _refuse(graph_problems(graph, definitions))


def require_unique_names(graph: Graph, within: Collection[str]) -> None:
    """Refuse a graph in which a name that counts means several nodes, or in which such a node has no name.

    Args:
        graph: The graph.
        within: The names that count.

    Raises:
        StructureError: With every such name.
    """
    _refuse(name_problems(node for node in graph.nodes if node.name in within))


def _refuse(problems: Iterable[str]) -> None:
    found = list(islice(problems, _MOST_PROBLEMS))
    if found:
        raise StructureError(
            "the graph contradicts itself", problems=found,
            hint="TensorFlow refuses it too; it was damaged, or a tool cut it wrongly",
        )  # fmt: skip


def graph_problems(graph: Graph, definitions: Definitions | None = None) -> Iterator[str]:
    """Yield what is wrong with the main graph and with the functions that it reaches, one sentence each."""
    known = {node.name: node for node in graph.nodes}
    judge = _Judge(known, definitions or Definitions(graph.functions))
    yield from name_problems(graph.nodes)
    for node in graph.nodes:
        for problem in judge.problems(node):
            yield f"{node.name} ({node.op}): {problem}"
    # inputs were judged before, so that the short way of `GraphIndex` to their nodes is right
    needs = {
        node.name: {text[1:] if text[:1] == "^" else text.partition(":")[0] for text in node.inputs}
        for node in graph.nodes
    }
    yield from waiting_problems(needs, {name: node.op for name, node in known.items()})
    yield from function_problems(graph, judge.definitions)


class _Judge:
    """Judges the nodes of a main graph one by one."""

    def __init__(self, known: dict[str, Node], definitions: Definitions) -> None:
        self.known = known
        self.definitions = definitions

    def problems(self, node: Node) -> Iterator[str]:
        """Yield what is wrong with one node."""
        problems = [] if node.op in self.definitions.functions else list(attr_problems(node))
        yield from problems
        if problems:
            return  # what its attrs should count cannot be counted
        data = 0
        for position, text in enumerate(node.inputs):
            name = TensorName.parse(text)
            producer = self.known.get(name.node)
            if producer is None:
                yield f"input {position}, {text!r}, names no node"
            elif not name.is_control:
                outputs = self._count(producer, gives=True)
                if outputs is not None and name.output >= outputs:
                    yield f"input {position}, {text!r}, names an output that {producer.op} does not have"
            if not name.is_control:
                if data < position:
                    yield f"input {position}, {text!r}, comes after a control input"
                data += 1
        expected = self._count(node, gives=False)
        if expected is not None and data != expected:
            yield f"it has {data} inputs, its op takes {expected}"

    def _count(self, node: Node, *, gives: bool) -> int | None:
        """Return how many tensors a node gives or takes; None where nothing says it."""
        definition = self.definitions.find(node.op)
        if definition is None:
            return None
        arguments = definition.outputs if gives else definition.inputs
        if not any(item.number_attr or item.type_list_attr for item in arguments):
            return len(arguments)  # the common case
        found = spans(arguments, node.attrs, definition.defaults)
        return None if found is None else sum(span.count for span in found)
