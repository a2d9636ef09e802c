"""Lookup tables: make them initialise themselves.

A table is filled by a node that nothing in the model waits for; a session has to run it first. A graph that stands
alone (frozen, or imported without its SavedModel) has nobody who would. This pass puts an identity behind the table's
handle that waits for the filling node. Filling a table again with the same entries is allowed and changes nothing.

Source: lookup_ops.cc, and InitializableLookupTable of lookup_table_op.cc, of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import Attr
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.passes.prune import free_name

TABLE_OPS = frozenset({"HashTable", "HashTableV2"})
MUTABLE_TABLE_OPS = frozenset(
    f"{name}{version}"
    for name in ("MutableHashTable", "MutableHashTableOfTensors", "MutableDenseHashTable")
    for version in ("", "V2")
)
_FILLED_FROM_TENSORS = frozenset({"InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2"})
_FILLED_FROM_FILE = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
FILLING_OPS = _FILLED_FROM_TENSORS | _FILLED_FROM_FILE | {"InitializeTableFromDataset"}


@dataclass(slots=True)
class SelfFilling:
    """What the pass did.

    Attributes:
        graph: The graph.
        tables: Each table's node, with the node that fills it.
    """

    graph: Graph
    tables: dict[str, str] = field(default_factory=dict)


_HANDING_ON = frozenset({"Identity", "RefIdentity"})


def table_tensors(index: GraphIndex) -> dict[TensorName, str]:
    """Return every tensor that is the handle of a table, as the table gives it or handed on, with the table's node."""
    found = {
        TensorName(node.name, 0): node.name for node in index.nodes.values() if node.op in TABLE_OPS | MUTABLE_TABLE_OPS
    }
    waiting = list(found)
    while waiting:
        tensor = waiting.pop()
        for node, position in index.consumers(tensor.node):
            handed = TensorName(node.name, 0)
            if node.op in _HANDING_ON and TensorName.parse(node.inputs[position]) == tensor and handed not in found:
                found[handed] = found[tensor]
                waiting.append(handed)
    return found


def fillers(index: GraphIndex, within: Iterable[str]) -> dict[str, list[Node]]:
    """Return, for every table among the named nodes, the nodes that fill it."""
    names = set(within)
    result: dict[str, list[Node]] = {}
    for tensor, table in table_tensors(index).items():
        if table in names:
            users = (node for node, position in index.consumers(tensor.node) if position == 0)
            result.setdefault(table, []).extend(node for node in users if node.op in FILLING_OPS)
    return result


def refuse_mutable_tables(index: GraphIndex, within: Iterable[str]) -> None:
    """Refuse tables that change while the model runs: what they hold is in the checkpoint, and is no variable.

    Raises:
        UnsupportedError: With every such table.
    """
    tables = sorted(name for name in within if index.nodes[name].op in MUTABLE_TABLE_OPS)
    if tables:
        raise UnsupportedError(
            "lookup tables that change while the model runs are not converted yet",
            problems=[f"{name} ({index.nodes[name].op})" for name in tables],
            hint="choose outputs that do not need them",
        )  # fmt: skip


def fill_tables(graph: Graph, outputs: Iterable[TensorName]) -> SelfFilling:
    """Make the tables that the outputs use fill themselves.

    Args:
        graph: The whole graph, filling nodes included.
        outputs: The tensors that will be asked for.

    Raises:
        UnsupportedError: A table is filled from a file, by one of several nodes or by none, or changes while the model
            runs.
    """
    index = GraphIndex(graph.nodes)
    found = fillers(index, index.reach([name.node for name in outputs]))
    problems, chosen = [], {}
    for table, nodes in sorted(found.items()):
        op = index.nodes[table].op
        tensors = [node for node in nodes if node.op in _FILLED_FROM_TENSORS]
        if op in MUTABLE_TABLE_OPS:
            problems.append(f"{table} ({op}) changes while the model runs")
        elif len(tensors) > 1 and not _fill_the_same(index, tensors):
            fillers_said = ", ".join(node.name for node in tensors)
            problems.append(f"{table} ({op}) may be filled by any of {fillers_said}")
        elif tensors:
            chosen[table] = tensors[0].name
        elif nodes:
            problems.append(f"{table} ({op}) is filled by {nodes[0].name} ({nodes[0].op}) from outside the graph")
        else:
            problems.append(f"{table} ({op}) is filled by no node of the graph")
    if problems:
        raise UnsupportedError(
            "lookup tables cannot travel in a graph that stands alone", problems=problems,
            hint="convert to saved-model, which keeps vocabularies and initialises tables when it is loaded",
        )  # fmt: skip
    if not chosen:
        return SelfFilling(graph)
    return SelfFilling(_wired(graph, index, chosen), chosen)


def _fill_the_same(index: GraphIndex, nodes: list[Node]) -> bool:
    """Whether nodes that fill a table fill it with the same constants."""
    contents = []
    for node in nodes:
        sources = [index.producer(text) for text in node.inputs[1:3]]
        tensors = [source.tensor() if source is not None and source.op == "Const" else None for source in sources]
        contents.append([tensor.numpy() if tensor is not None else None for tensor in tensors])
    first = contents[0]
    return all(
        one is not None and other is not None and np.array_equal(one, other)
        for each in contents[1:]
        for one, other in zip(first, each, strict=True)
    )


def _wired(graph: Graph, index: GraphIndex, chosen: dict[str, str]) -> Graph:
    """Put a waiting identity behind each chosen table's handle."""
    taken = set(index.nodes)
    ready = {}
    new: dict[str, Node] = {}
    for table, filler in chosen.items():
        name = free_name(taken, f"{table}/filled")
        taken.add(name)
        ready[table] = name
        is_ref = index.nodes[table].op == "HashTable"
        attrs: dict[str, Attr] = {"T": DType.string if is_ref else DType.resource}
        new[table] = Node(name, "RefIdentity" if is_ref else "Identity", [table, f"^{filler}"], "", attrs)
    tables = {tensor: ready[table] for tensor, table in table_tensors(index).items() if table in ready}
    fill_inputs = index.reach(chosen.values())
    nodes = []
    for node in graph.nodes:
        if node.name not in fill_inputs:
            renamed = [tables.get(TensorName.parse(text), text) for text in node.inputs]
            nodes.append(node if renamed == node.inputs else replace(node, inputs=renamed))
        else:
            nodes.append(node)
        if node.name in new:
            nodes.append(new[node.name])
    return replace(graph, nodes=nodes)
