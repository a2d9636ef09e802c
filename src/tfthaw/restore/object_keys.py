"""Which checkpoint key each variable of a TensorFlow 2 SavedModel has, read from the object graphs of both.

The Saver of a SavedModel says the keys of its own checkpoint. A checkpoint of the same model that was written apart has
other keys: what was the root there may be one of several objects here (`tf.train.Checkpoint(model=model)` puts `model/`
in front). The same objects have the same names below that, and variables have the same full names.

Source: restore.py and trackable_view.py of tensorflow/python/checkpoint (objects are the same where their names are).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tfthaw.ir.attrs import FunctionName
from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.object_graph import ObjectGraph, TrackableObjectGraph, VariableObject
from tfthaw.ir.object_variables import checkpoint_keys
from tfthaw.ir.variables import HANDLE_OPS, variable_name

_VALUE = "VARIABLE_VALUE"


def keys_by_node(graph: Graph, objects: ObjectGraph, stored: TrackableObjectGraph) -> dict[str, str]:
    """Return under which key a checkpoint has the variables of a SavedModel's graph.

    Args:
        graph: The graph.
        objects: The SavedModel's object graph.
        stored: The object graph of the checkpoint.

    Returns:
        variable's node -> key, for variables that the checkpoint has.
    """
    keys = object_keys(objects, stored)
    return {node: keys[place] for node, place in variable_objects(graph, objects).items() if place in keys}


def variable_objects(graph: Graph, objects: ObjectGraph) -> dict[str, int]:
    """Return which object each variable of a SavedModel's graph is.

    Calls of concrete functions say it: what they bind are the last inputs of the call, in order. Where no call does, a
    name that only one object and one node have says it.
    """
    nodes = {node.name: node for node in graph.nodes if node.op in HANDLE_OPS}
    result: dict[str, int] = {}
    for node in graph.nodes:
        target = node.attrs.get("f")
        called = objects.concrete_functions.get(target.name) if isinstance(target, FunctionName) else None
        data = [text for text in node.inputs if text[:1] != "^"]
        if called is None or not called.bound_inputs or len(called.bound_inputs) > len(data):
            continue
        for text, place in zip(data[-len(called.bound_inputs) :], called.bound_inputs, strict=True):
            if TensorName.parse(text).node in nodes:
                result.setdefault(TensorName.parse(text).node, place)
    names = {place: item.kind.name for place, item in enumerate(objects.nodes) if isinstance(item.kind, VariableObject)}
    places = {name: place for place, name in names.items() if name in _unique(names.values())}
    shared = {name: variable_name(node) for name, node in nodes.items()}
    unique = _unique(shared.values())
    bound = set(result.values())
    for node_name, name in shared.items():
        candidate = places.get(name, -1) if name in unique else -1
        if candidate >= 0 and candidate not in bound and node_name not in result:
            kind = objects.nodes[candidate].kind
            if isinstance(kind, VariableObject) and kind.dtype is nodes[node_name].dtype("dtype"):
                result[node_name] = candidate
    return result


def object_keys(graph: ObjectGraph, stored: TrackableObjectGraph) -> dict[int, str]:
    """Return under which key a checkpoint has the variables of a SavedModel.

    Args:
        graph: The object graph of the SavedModel.
        stored: The object graph of the checkpoint.

    Returns:
        variable's object -> key, for variables that the checkpoint has.
    """
    names = {place: item.kind.name for place, item in enumerate(graph.nodes) if isinstance(item.kind, VariableObject)}
    result: dict[int, str] = {}
    for root in _roots(stored):
        keys = checkpoint_keys(graph, stored, root)
        found = {place: key for place, key in keys.items() if place in names}
        if len(found) > len(result):
            result = found
    said = [
        (attribute.full_name, attribute.checkpoint_key)
        for item in stored.nodes
        for attribute in item.attributes
        if attribute.name == _VALUE
    ]
    unique, known = _unique(names.values()), _unique(name for name, _ in said)
    places = {name: place for place, name in names.items() if name in unique}
    for name, key in said:
        if name in places and name in known:
            result.setdefault(places[name], key)
    return result


def _roots(stored: TrackableObjectGraph) -> list[int]:
    """Return the objects of a checkpoint that may be the model: its root, and what hangs on it."""
    if not len(stored.nodes):
        return []
    return list(dict.fromkeys([0, *(child.node for child in stored.nodes[0].children)]))


def _unique(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count == 1 and name}
