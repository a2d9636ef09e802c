"""Vocabularies: a table that is filled from a file is filled from constants with the file's content.

A graph that stands alone has no files beside it. The nodes keep their names; the keys and values are what TensorFlow
reads from the file.

Source: TextFileLineIterator of lookup_util.cc of TensorFlow (which column is what, and what is refused).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.errors import StructureError
from tfthaw.ir.attrs import Attr
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.passes.prune import free_name
from tfthaw.passes.tables import table_tensors
from tfthaw.tensors import ArrayTensor, Tensor

FROM_FILE_OPS = {
    "InitializeTableFromTextFile": "InitializeTable",
    "InitializeTableFromTextFileV2": "InitializeTableV2",
}
WHOLE_LINE = -2
LINE_NUMBER = -1


@dataclass(slots=True)
class Embedded:
    """What the pass did.

    Attributes:
        graph: The graph.
        tables: The filling nodes that were changed, with how many entries each has now.
    """

    graph: Graph
    tables: dict[str, int] = field(default_factory=dict)


def file_names(graph: Graph) -> dict[str, TensorName]:
    """Return, for every node that fills a table from a file, the tensor that names the file."""
    index = GraphIndex(graph.nodes)
    return {
        node.name: _origin(index, node) for node in graph.nodes if node.op in FROM_FILE_OPS and len(node.inputs) > 1
    }


def embed_vocabularies(graph: Graph, files: Mapping[TensorName, Sequence[bytes]]) -> Embedded:
    """Fill tables from constants instead of from files.

    Args:
        graph: The graph.
        files: The tensor that names a file -> the file's lines. Tables filled from other files are left as they are.

    Raises:
        StructureError: A file is not what its table asks for.
    """
    index = GraphIndex(graph.nodes)
    tables = table_tensors(index)
    taken = set(index.nodes)
    done: dict[str, int] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        lines = files.get(_origin(index, node)) if node.op in FROM_FILE_OPS and len(node.inputs) > 1 else None
        table = index.nodes.get(tables.get(TensorName.parse(node.inputs[0]), "")) if lines is not None else None
        if lines is None or table is None:
            nodes.append(node)
            continue
        keys, values = _entries(node, table, lines)
        names = [free_name(taken, f"{node.name}/{part}") for part in ("keys", "values")]
        taken.update(names)
        for name, tensor in zip(names, (keys, values), strict=True):
            nodes.append(Node(name, "Const", [], node.device, {"dtype": tensor.dtype, "value": tensor}))
        attrs: dict[str, Attr] = {"Tkey": keys.dtype, "Tval": values.dtype}
        inputs = [node.inputs[0], *names]  # it waited for the path, if for anything
        nodes.append(Node(node.name, FROM_FILE_OPS[node.op], inputs, node.device, attrs, node.opaque))
        done[node.name] = keys.size
    return Embedded(replace(graph, nodes=nodes), done)


def _origin(index: GraphIndex, node: Node) -> TensorName:
    """Return the tensor that a filling node takes its file's name from.

    It may come by identities, and by a variable of its own that is set to the name when the model is loaded.
    """
    name = TensorName.parse(node.inputs[1])
    for _ in range(8):
        source = index.nodes.get(name.node)
        if source is None or not source.inputs:
            break
        if source.op == "Identity":
            name = TensorName.parse(source.inputs[0])
            continue
        set_to = _set_to(index, source.inputs[0]) if source.op == "ReadVariableOp" else None
        if set_to is None:
            break
        name = set_to
    return name


def _set_to(index: GraphIndex, variable: str) -> TensorName | None:
    """Return the only tensor that a variable is ever set to, or None where there are several or none."""
    values = {
        TensorName.parse(node.inputs[1])
        for node, position in index.consumers(TensorName.parse(variable).node)
        if node.op == "AssignVariableOp" and position == 0 and len(node.inputs) > 1
    }
    return values.pop() if len(values) == 1 else None


def _entries(node: Node, table: Node, lines: Sequence[bytes]) -> tuple[Tensor, Tensor]:
    """Return the keys and values of a table as TensorFlow reads them from the lines of a file."""
    size = _number(node, "vocab_size", -1)
    if 0 <= len(lines) < size:
        raise StructureError(f"{size} lines are expected, the vocabulary has {len(lines)}", where=f"node {node.name!r}")
    wanted = list(lines) if size < 0 else list(lines[:size])
    delimiter = node.attrs.get("delimiter", b"\t")
    columns = [_number(node, "key_index", 0), _number(node, "value_index", 0)]
    split = [line.split(delimiter) for line in wanted] if max(columns) >= 0 and isinstance(delimiter, bytes) else []
    for number, line in enumerate(wanted):
        if not line:
            raise StructureError(f"line {number + 1} of the vocabulary is empty", where=f"node {node.name!r}")
        if split and len(split[number]) <= max(columns):
            raise StructureError(
                f"line {number + 1} of the vocabulary has {len(split[number])} columns, {max(columns) + 1} are needed",
                where=f"node {node.name!r}",
            )
    offset = _number(node, "offset", 0)
    tensors: list[Tensor] = []
    for column, attr in zip(columns, ("key_dtype", "value_dtype"), strict=True):
        dtype = table.dtype(attr) or DType.string
        if column == LINE_NUMBER:
            tensors.append(ArrayTensor(np.arange(len(wanted), dtype=np.int64) + offset, DType.int64))
            continue
        fields = wanted if column == WHOLE_LINE else [parts[column] for parts in split]
        tensors.append(_column(fields, dtype, offset, node.name))
    return tensors[0], tensors[1]


def _column(fields: Sequence[bytes], dtype: DType, offset: int, name: str) -> Tensor:
    """Return one column as a tensor of a table's type."""
    if dtype is DType.string:
        return ArrayTensor(np.array([*fields, None], object)[:-1], DType.string)
    try:
        if dtype in (DType.int32, DType.int64):
            added = offset if dtype is DType.int32 else 0  # TensorFlow adds it to numbers of this type alone
            return ArrayTensor(np.array([int(item) + added for item in fields], dtype.numpy), dtype)
        return ArrayTensor(np.array([float(item) for item in fields], dtype.numpy), dtype)
    except (ValueError, OverflowError) as error:
        raise StructureError(f"the vocabulary has an entry that is no {dtype.name}: {error}",
                             where=f"node {name!r}") from error  # fmt: skip


def _number(node: Node, attr: str, default: int) -> int:
    value = node.attrs.get(attr, default)
    return value if isinstance(value, int) else default
