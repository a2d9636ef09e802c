"""Asset variables: variables that do nothing but hold the path of an asset become that path.

TensorFlow 2 writes each asset into a SavedModel's graph three times: a placeholder that loaders feed with the path, a
variable, and an assignment between them that the init op runs. Whoever uses the path reads the variable.

    before                                     after
    path = Placeholder                         path = Placeholder
    v = VarHandleOp
    v/Assign = AssignVariableOp(v, path)
    r = ReadVariableOp(v, ^v/Assign)           r = Identity(path)

Source: asset handling in save.py of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import HANDLE_OPS
from tfthaw.tensors import ArrayTensor


def resolve_asset_variables(graph: Graph, assets: Collection[TensorName]) -> Graph:
    """Let whoever reads a variable that only holds the path of an asset take the path itself.

    A variable that is assigned twice, or used in any other way than read, stays as it is.

    Args:
        graph: The graph.
        assets: The tensors that loaders feed with the paths.
    """
    index = GraphIndex(graph.nodes)
    paths: dict[str, TensorName] = {}
    for node in graph.nodes:
        if node.op in HANDLE_OPS and node.dtype("dtype") is DType.string:
            path = _path_in(index, node.name, assets)
            if path is not None:
                paths[node.name] = path
    if not paths:
        return graph
    gone = {*paths, *(user.name for name in paths for user, _ in index.consumers(name) if user.op != "ReadVariableOp")}
    nodes = []
    for node in graph.nodes:
        if node.name in gone:
            continue
        if node.op == "ReadVariableOp" and TensorName.parse(node.inputs[0]).node in paths:
            path = paths[TensorName.parse(node.inputs[0]).node]
            nodes.append(Node(node.name, "Identity", [path.as_input()], node.device, {"T": DType.string}))
        else:
            kept = [text for text in node.inputs if not (text.startswith("^") and text[1:] in gone)]
            nodes.append(node if kept == node.inputs else replace(node, inputs=kept))
    return graph.with_nodes(nodes)


def name_assets(graph: Graph, files: Mapping[str, str]) -> Graph:
    """Turn placeholders of assets into constants, which TensorFlow 1 wrote and every loader feeds as well.

    TensorFlow 2 lifts the init op of a graph into a function, and a placeholder that nobody feeds has no place there.

    Args:
        graph: The graph.
        files: placeholder -> the file's name.
    """
    nodes = []
    for node in graph.nodes:
        if node.op == "Placeholder" and node.name in files:
            value = ArrayTensor(np.array(files[node.name].encode(), object), DType.string)
            nodes.append(Node(node.name, "Const", [], node.device, {"dtype": DType.string, "value": value}))
        else:
            nodes.append(node)
    return graph.with_nodes(nodes)


def _path_in(index: GraphIndex, variable: str, assets: Collection[TensorName]) -> TensorName | None:
    """Return the asset's path that a variable holds and nothing else, or None."""
    paths = []
    for user, position in index.consumers(variable):
        if user.inputs[position].startswith("^") or user.op in ("ReadVariableOp", "VarIsInitializedOp"):
            continue
        if user.op != "AssignVariableOp" or position != 0:
            return None
        paths.append(TensorName.parse(user.inputs[1]))
    return paths[0] if len(paths) == 1 and paths[0] in assets else None
