"""The part of an object-based checkpoint that is a model: what `tf.train.Checkpoint(model=model)` would have saved.

    root ─ model ─ ...       everything below it, the optimizer's state apart
         └ save_counter      as `tf.train.Checkpoint` has one

Keys stay as they are: whoever restores finds them by objects.

Source: trackable_object_graph.proto and checkpoint.py of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tfthaw.ir.object_graph import Child, TrackableObject, TrackableObjectGraph
from tfthaw.ir.variables import optimizer_keys
from tfthaw.tensors import Tensor

_SAVE_COUNTER = "save_counter"
_TRAINING = ("optimizer", "_optimizer")  # a compiled Keras model has one


@dataclass(frozen=True, slots=True)
class ModelSubtree:
    """A model out of a checkpoint.

    Attributes:
        graph: Its object graph.
        tensors: Its values by key.
        dropped: How many values were left out.
    """

    graph: TrackableObjectGraph
    tensors: dict[str, Tensor]
    dropped: int


def model_subtree(
    stored: TrackableObjectGraph, values: Mapping[str, Tensor], path: str | None, needed: Collection[str] = ()
) -> ModelSubtree:
    """Take a model out of a checkpoint.

    Args:
        stored: The object graph of the checkpoint.
        values: Its tensors by key, the object graph apart.
        path: Where the model is, `a/b` from the root, empty for the root itself; None where nothing says it: then it
            is the root's `model`, or the root.
        needed: Keys that are the model's own, whatever they look like.
    """
    place = _at(stored, "model" if path is None else path)
    if place is None:
        place = 0
    kept = _below(stored, place)
    numbers = {old: new for new, old in enumerate(kept, 1)}
    state = optimizer_keys(values) - set(needed)
    nodes = [TrackableObject([Child(1, "model")])]
    tensors: dict[str, Tensor] = {}
    for old in kept:
        item = stored.nodes[old]
        attributes = [
            entry for entry in item.attributes if entry.checkpoint_key in values and entry.checkpoint_key not in state
        ]
        children = [child._replace(node=numbers[child.node]) for child in item.children if child.node in numbers]
        nodes.append(replace(item, children=children, attributes=attributes, slot_variables=[],
                             has_checkpoint_values=None))  # fmt: skip
        tensors.update({entry.checkpoint_key: values[entry.checkpoint_key] for entry in attributes})
    counter = _at(stored, _SAVE_COUNTER)
    if counter is not None and counter not in numbers:
        item = stored.nodes[counter]
        nodes[0] = TrackableObject([Child(1, "model"), Child(len(nodes), _SAVE_COUNTER)])
        nodes.append(replace(item, children=[], slot_variables=[], has_checkpoint_values=None))
        tensors.update({entry.checkpoint_key: values[entry.checkpoint_key] for entry in item.attributes
                        if entry.checkpoint_key in values})  # fmt: skip
    return ModelSubtree(TrackableObjectGraph(nodes), tensors, len(values) - len(tensors))


def _at(stored: TrackableObjectGraph, path: str) -> int | None:
    """Return the number of the object at a path, or None where there is none."""
    place = 0
    for name in path.split("/") if path else ():
        found = [child.node for child in stored.nodes[place].children if child.name == name]
        if not found or not 0 <= found[0] < len(stored.nodes):
            return None
        place = found[0]
    return place


def _below(stored: TrackableObjectGraph, place: int) -> list[int]:
    """Return an object and everything below it, in the order in which it is found."""
    found = {place: None}
    waiting = [place]
    while waiting:
        for child in stored.nodes[waiting.pop(0)].children:
            is_known = child.node in found or not 0 <= child.node < len(stored.nodes)
            if not is_known and child.name not in _TRAINING:
                found[child.node] = None
                waiting.append(child.node)
    return list(found)
