"""Inspection of object graphs: the objects of a TensorFlow 2 model as plain values.

The report names objects by their readable paths (`tfthaw.ir.object_tree`) and shows what can be shown of a damaged
graph.

    objects     how many there are
    tree        every object: node, path, kind, class, children (name -> node)
    variables   node, path, name (its own in Python), key (in the checkpoint), dtype, shape, trainable, slot_of (the
                path of the variable that it is a slot of), slot
    functions   node, path, traces (their names in the library)
    traces      name in the library -> call and result (`(x: float32[?, 784], training=False)`, `float32[?, 10]`),
                captures (what it takes besides its arguments, by path)
    assets      node, path, file
    tables      node, path, class
    layers      node, path, class, name, config (of Keras)
    problems    what is wrong with it, one sentence each

`path` is null where nothing leads to an object. Kinds are `object`, `variable`, `function`, `concrete-function`,
`constant`, `asset`, `resource`, `captured-tensor`, and `unknown` for what is none of these.

Source: none; what the messages hold is in `tfthaw.ir.object_graph`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfthaw.formats.checkpoint_reader import CheckpointEntry
from tfthaw.ir.model import Model
from tfthaw.ir.object_graph import (
    AssetObject,
    CapturedTensorObject,
    ConcreteFunctionObject,
    ConstantObject,
    FunctionObject,
    FunctionSpec,
    ObjectGraph,
    ResourceObject,
    SavedObject,
    UserObject,
    VariableObject,
)
from tfthaw.ir.object_graph_validation import model_object_problems, stored_graph_problems
from tfthaw.ir.object_variables import ObjectVariable
from tfthaw.ir.structured_text import call_text, result_text
from tfthaw.serde.object_views import Objects

_KINDS: dict[type, str] = {
    UserObject: "object", VariableObject: "variable", FunctionObject: "function",
    ConcreteFunctionObject: "concrete-function", ConstantObject: "constant", AssetObject: "asset",
    ResourceObject: "resource", CapturedTensorObject: "captured-tensor",
}  # fmt: skip


def object_report(objects: Objects, model: Model | None, entries: Mapping[str, CheckpointEntry]) -> dict[str, Any]:
    """Describe the objects of an artifact.

    Args:
        objects: The objects.
        model: The model of a SavedModel; None for a checkpoint.
        entries: What the checkpoint has, by key.
    """
    graph = objects.graph
    document: dict[str, Any] = {
        "objects": len(graph.nodes if graph is not None else objects.stored.nodes if objects.stored else ()),
        "tree": _saved_tree(objects, graph) if graph is not None else _stored_tree(objects),
        "variables": _variables(objects, entries),
        "functions": [],
        "traces": {},
        "assets": [],
        "tables": [],
        "layers": [
            {"node": node, "path": objects.tree.paths.get(node), "class": layer.class_name or layer.identifier,
             "name": layer.name, "config": layer.config}
            for node, layer in sorted(objects.layers.items())
        ],
        "problems": _problems(objects, model, entries),
    }  # fmt: skip
    if graph is not None:
        _describe_kinds(document, objects, graph, model)
    return document


def _saved_tree(objects: Objects, graph: ObjectGraph) -> list[dict[str, Any]]:
    return [
        {
            "node": node, "path": objects.tree.paths.get(node), "kind": _KINDS.get(type(item.kind), "unknown"),
            "class": _class_name(objects, node, item), "children": {child.name: child.node for child in item.children},
        }
        for node, item in enumerate(graph.nodes)
    ]  # fmt: skip


def _class_name(objects: Objects, node: int, item: SavedObject) -> str | None:
    """Return the class of an object as well as the graph says it."""
    if node in objects.layers and objects.layers[node].class_name:
        return objects.layers[node].class_name
    if item.registered_name:
        return item.registered_name
    return item.kind.identifier if isinstance(item.kind, UserObject) else None


def _stored_tree(objects: Objects) -> list[dict[str, Any]]:
    variables = {item.node for item in objects.variables}
    return [
        {
            "node": node, "path": objects.tree.paths.get(node), "kind": "variable" if node in variables else "object",
            "class": None, "children": {child.name: child.node for child in item.children},
        }
        for node, item in enumerate(objects.stored.nodes if objects.stored else ())
    ]  # fmt: skip


def _variables(objects: Objects, entries: Mapping[str, CheckpointEntry]) -> list[dict[str, Any]]:
    paths = objects.tree.paths
    return [_variable(item, paths, entries.get(item.key) if item.key else None) for item in objects.variables]


def _variable(item: ObjectVariable, paths: Mapping[int, str], entry: CheckpointEntry | None) -> dict[str, Any]:
    dtype, shape = (item.dtype, item.shape.dims if item.shape is not None else None)
    if entry is not None and dtype is None:
        dtype, shape = entry.dtype, entry.shape
    return {
        "node": item.node, "path": item.path, "name": item.name, "key": item.key,
        "dtype": dtype.name if dtype is not None else None, "shape": list(shape) if shape is not None else None,
        "trainable": item.trainable, "slot_of": paths.get(item.slot.owner) if item.slot else None,
        "slot": item.slot.name if item.slot else None,
    }  # fmt: skip


def _describe_kinds(document: dict[str, Any], objects: Objects, graph: ObjectGraph, model: Model | None) -> None:
    """Add functions, traces, assets and tables."""
    paths = objects.tree.paths
    specs: dict[str, tuple[FunctionSpec | None, Sequence[str]]] = {}  # by trace: a `tf.function` knows best what it is
    for node, item in enumerate(graph.nodes):
        entry: dict[str, Any] = {"node": node, "path": paths.get(node)}
        kind = item.kind
        if isinstance(kind, FunctionObject):
            specs.update(dict.fromkeys(kind.concrete_functions, (kind.spec, ())))
            document["functions"].append({**entry, "traces": list(kind.concrete_functions)})
        elif isinstance(kind, ConcreteFunctionObject):
            specs.setdefault(kind.name, (kind.spec, kind.argument_keywords))
            document["functions"].append({**entry, "traces": [kind.name]})
        elif isinstance(kind, AssetObject):
            files = model.assets if model is not None else []
            name = files[kind.index].filename if 0 <= kind.index < len(files) else None
            document["assets"].append({**entry, "file": name})
        elif isinstance(kind, ResourceObject):
            document["tables"].append({**entry, "class": item.registered_name or None})
    for name, function in graph.concrete_functions.items():
        spec, keywords = specs.get(name, (None, ()))
        document["traces"][name] = {
            "call": call_text(function, spec, keywords), "result": result_text(function),
            "captures": [paths.get(node) or f"object {node}" for node in function.bound_inputs],
        }  # fmt: skip


def _problems(objects: Objects, model: Model | None, entries: Mapping[str, CheckpointEntry]) -> list[str]:
    problems = list(objects.notes)
    if model is not None:
        problems += model_object_problems(model)
    if objects.stored is not None:
        problems += [f"checkpoint: {text}" for text in stored_graph_problems(objects.stored, entries)]
    return problems
