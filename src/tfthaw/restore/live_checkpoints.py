"""Checkpoints of live objects: by objects, as `tf.train.Checkpoint(model=model)` writes them, and by names.

Only objects and names are made here; the values are the caller's, and nothing is written. What a checkpoint of this
Keras would leave out without a word is refused.

Source: graph_view.py, save_util.py and checkpoint.py of tensorflow/python/checkpoint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tfthaw.errors import UnsupportedError
from tfthaw.ir.live_objects import LiveObjects, LiveVariable
from tfthaw.ir.object_graph import VALUE_KEY, Child, SerializedTensor, TrackableObject, TrackableObjectGraph
from tfthaw.ir.object_tree import escaped
from tfthaw.restore.keras_objects import SAVE_COUNTER_KEY
from tfthaw.tensors import ArrayTensor, Tensor

_VALUE = "VARIABLE_VALUE"


@dataclass
class ObjectCheckpoint:
    """An object-based checkpoint of live objects.

    Attributes:
        graph: Its object graph.
        tensors: Its values by key, the counter of `Checkpoint.save` among them.
    """

    graph: TrackableObjectGraph
    tensors: dict[str, Tensor]


def object_checkpoint(objects: LiveObjects, values: Mapping[int, Tensor]) -> ObjectCheckpoint:
    """Return what `tf.train.Checkpoint(model=model)` would save of live objects.

    Of Keras 2 the model's parts are the root's as well, so that `model.load_weights` takes the same checkpoint.

    Args:
        objects: The live objects.
        values: object's position -> its value; variables without one are objects without value.

    Raises:
        UnsupportedError: Checkpoints of this Keras leave some of the variables out.
    """
    paths = _paths(objects)
    lost = [place for place in values if place not in paths]
    if lost or not objects.nodes:
        named = [variable for place in lost if (variable := objects.nodes[place].variable) is not None]
        raise UnsupportedError(
            "object-based checkpoints of this Keras leave out layers that are in lists, so that they could not be "
            "restored" if lost else "the code has no objects that a checkpoint could have",
            problems=[variable.label for variable in named],
            hint="write a checkpoint by names with --keys names, or keras-weights",
        )  # fmt: skip
    numbers = {place: number for number, place in enumerate(paths, 1)}
    nodes, tensors = [TrackableObject([Child(1, "model")])], {}
    for place, path in paths.items():
        item = objects.nodes[place]
        attributes = []
        if place in values and item.variable is not None:
            key = f"{path}{VALUE_KEY}"
            tensors[key] = values[place]
            attributes.append(SerializedTensor(_VALUE, item.variable.label, key))
        children = [Child(numbers[child], name) for name, child in item.children.items()]
        nodes.append(TrackableObject(children, attributes))
    if objects.keras == 2:
        nodes[0].children = [*nodes[0].children, *nodes[1].children]
    nodes[0].children = [*nodes[0].children, Child(len(nodes), "save_counter")]
    nodes.append(TrackableObject([], [SerializedTensor(_VALUE, "save_counter", SAVE_COUNTER_KEY)]))
    tensors[SAVE_COUNTER_KEY] = ArrayTensor(np.int64(1))
    return ObjectCheckpoint(TrackableObjectGraph(nodes), tensors)


def _paths(objects: LiveObjects) -> dict[int, str]:
    """Return the objects that a checkpoint has, breadth first, each with the first path that leads to it."""
    paths = {0: "model"} if objects.nodes else {}
    for place in (waiting := list(paths)):
        for name, child in objects.nodes[place].children.items():
            if child not in paths:
                paths[child] = f"{paths[place]}/{escaped(name)}"
                waiting.append(child)
    return paths


def names_of(objects: LiveObjects) -> dict[str, str]:
    """Return the name under which a checkpoint by names has each variable that the traced graph has.

    Returns:
        variable's node -> its name.

    Raises:
        UnsupportedError: Several variables have one name.
    """
    names = {variable.node: variable.label for variable in objects.variables() if variable.node}
    _require_unique(names.items())
    return names


def names_by_key(stored: TrackableObjectGraph, keys: Iterable[str]) -> dict[str, str]:
    """Return the names that the variables of an object-based checkpoint have in Python.

    Args:
        stored: The checkpoint's object graph.
        keys: The checkpoint keys to name.

    Returns:
        checkpoint key -> name.

    Raises:
        UnsupportedError: Some have no name, or several have one.
    """
    said = {item.checkpoint_key: item.full_name for node in stored.nodes for item in node.attributes
            if item.name == _VALUE}  # fmt: skip
    names = {key: said.get(key, "") for key in keys}
    nameless = [key for key, name in names.items() if not name]
    if nameless:
        raise UnsupportedError("the object graph gives some values no name", problems=nameless,
                               hint="leave --keys out, which keeps the paths of objects")  # fmt: skip
    _require_unique(names.items())
    return names


def _require_unique(names: Iterable[tuple[str, str]]) -> None:
    owners: dict[str, list[str]] = defaultdict(list)
    for owner, name in names:
        owners[name].append(owner)
    problems = [f"{name!r}: {', '.join(each)}" for name, each in owners.items() if len(each) > 1]
    if problems:
        raise UnsupportedError("several variables have one name, and a checkpoint by names holds one value under each",
                               problems=problems, hint="leave --keys out, or use --keys objects")  # fmt: skip


def model_variables(objects: LiveObjects) -> dict[int, LiveVariable]:
    """Return the variables of live objects without what only training needs: object's position -> variable."""
    return {place: variable for place in objects.model_places()
            if (variable := objects.nodes[place].variable) is not None}  # fmt: skip
