"""The variables of an object graph: their readable paths, checkpoint keys, slots, and whether they are trainable.

What an optimizer keeps of a variable (a slot variable) is said by the object graph itself: optimizers up to Keras 2.10
list their slots (`slot_variables`); the newer ones keep lists in the order of their `_trainable_variables` (Keras 3),
or name each after its variable (`Adam/m/dense/kernel`, Keras 2.11 to 2.15).

Source: optimizer.py of tf.keras 2.11 and Keras 3, and tensorflow/python/checkpoint/graph_view.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.object_graph import ObjectGraph, TrackableObjectGraph, VariableObject
from tfthaw.ir.object_tree import ObjectTree, TreeObject, find_optimizers

_VALUE = "VARIABLE_VALUE"


class Slot(NamedTuple):
    """What a slot variable is: the slot `name` that `optimizer` keeps of `owner`."""

    owner: int
    name: str
    optimizer: int


@dataclass(frozen=True, slots=True)
class ObjectVariable:
    """A variable of an object graph.

    Attributes:
        node: Its object.
        path: Its readable path, or None where nothing leads to it.
        name: The name that it has of its own in Python; not unique.
        key: Its key in the checkpoint, or None where none is known.
        dtype: Its element type; None in a checkpoint, whose index says it.
        shape: Its shape; None likewise.
        trainable: Whether an optimizer may change it; None where the graph does not say.
        slot: For a slot variable: what it is.
    """

    node: int
    path: str | None
    name: str
    key: str | None
    dtype: DType | None = None
    shape: Shape | None = None
    trainable: bool | None = None
    slot: Slot | None = None


def object_variables(graph: ObjectGraph, stored: TrackableObjectGraph | None = None,
                     layer_names: Mapping[int, str] | None = None) -> tuple[ObjectTree, list[ObjectVariable]]:
    """Return the tree and the variables of a SavedModel.

    Args:
        graph: The SavedModel's object graph.
        stored: The object graph of its checkpoint, which says the keys.
        layer_names: The names of layers by object, where Keras' metadata say them.
    """
    kinds = {node: item.kind for node, item in enumerate(graph.nodes) if isinstance(item.kind, VariableObject)}
    names = {node: kind.name for node, kind in kinds.items()}
    slots = find_slots(graph.nodes, names)
    tree = _tree(graph.nodes, names, slots, layer_names)
    keys = checkpoint_keys(graph, stored) if stored is not None else {}
    variables = [
        ObjectVariable(node, tree.paths.get(node), kind.name, keys.get(node), kind.dtype, kind.shape, kind.trainable,
                       slots.get(node))
        for node, kind in kinds.items()
    ]  # fmt: skip
    return tree, variables


def checkpoint_variables(stored: TrackableObjectGraph) -> tuple[ObjectTree, list[ObjectVariable]]:
    """Return the tree and the variables of an object-based checkpoint."""
    values = {
        node: attribute
        for node, item in enumerate(stored.nodes)
        for attribute in item.attributes
        if attribute.name == _VALUE
    }
    names = {node: attribute.full_name for node, attribute in values.items()}
    slots = find_slots(stored.nodes, names)
    lists = {child.node for item in stored.nodes for child in item.children if child.name == "_trainable_variables"}
    trained = {node for each in lists for node in _items(stored.nodes, each)}
    tree = _tree(stored.nodes, names, slots, None)
    variables = [
        ObjectVariable(node, tree.paths.get(node), names[node], attribute.checkpoint_key,
                       trainable=True if node in trained else None, slot=slots.get(node))
        for node, attribute in values.items()
    ]  # fmt: skip
    return tree, variables


def _tree(objects: Sequence[TreeObject], names: Mapping[int, str], slots: Mapping[int, Slot],
          layer_names: Mapping[int, str] | None) -> ObjectTree:
    tree = ObjectTree(objects, names, layer_names, without=slots)
    for node, slot in sorted(slots.items(), key=lambda item: item[1].name):
        optimizer, owner = tree.paths.get(slot.optimizer), tree.paths.get(slot.owner)
        if optimizer is not None and owner is not None:
            tree.add(node, "/".join(part for part in (optimizer, slot.name, owner) if part))
    return tree


def find_slots(objects: Sequence[TreeObject], names: Mapping[int, str]) -> dict[int, Slot]:
    """Tell which variables are slots of optimizers.

    Args:
        objects: The objects.
        names: The names that variables have of their own, by object; what is not in it is no variable.

    Returns:
        object of the slot variable -> what it is.
    """
    result: dict[int, Slot] = {}
    for node, item in enumerate(objects):
        for slot in item.slot_variables:
            if slot.variable in names and slot.original in names:
                result.setdefault(slot.variable, Slot(slot.original, slot.slot, node))
    optimizers = find_optimizers(objects)
    if optimizers:
        counts = Counter(names.values())
        owners = {name: node for node, name in names.items() if counts[name] == 1}
        seen: set[int] = set()
        for node in optimizers:
            for variable, slot_of in _listed_slots(objects, node, names, owners, seen):
                if variable in names and variable != slot_of.owner:
                    result.setdefault(variable, slot_of)
    return result


def _listed_slots(objects: Sequence[TreeObject], node: int, names: Mapping[int, str], owners: Mapping[str, int],
                  seen: set[int]) -> Iterator[tuple[int, Slot]]:
    """Yield the slots of an optimizer that keeps them in lists; a list that was seen with another one is its own."""
    lists = {child.name: child.node for child in objects[node].children if child.name.startswith("_")}
    fresh: dict[str, int] = {}
    for name, each in lists.items():
        if each not in seen:
            seen.add(each)
            fresh[name] = each
    trained = _items(objects, lists["_trainable_variables"]) if "_trainable_variables" in fresh else []
    for name, each in fresh.items():
        items = _items(objects, each) if trained and name not in ("_variables", "_trainable_variables") else []
        if len(items) == len(trained):
            for variable, owner in zip(items, trained, strict=True):
                # Keras 3 calls the slot `adam/dense_kernel_momentum` in the list `_momentums`
                _, _, said = names.get(variable, "").rpartition(names.get(owner, "").replace("/", "_") + "_")
                yield variable, Slot(owner, said if said and "/" not in said else name[1:], node)
    for variable in _items(objects, fresh.get("_variables", -1)):
        _, _, rest = names.get(variable, "").partition("/")
        said, _, owner_name = rest.partition("/")
        if said and owner_name in owners:
            yield variable, Slot(owners[owner_name], said, node)


def _items(objects: Sequence[TreeObject], node: int) -> list[int]:
    """Return the items of an object that is a list; nothing where it is none."""
    if not 0 <= node < len(objects):
        return []
    found = {entry.name: entry.node for entry in objects[node].children}
    items = [found.get(str(position), -1) for position in range(len(found))]
    return [] if -1 in items else items


def checkpoint_keys(graph: ObjectGraph, stored: TrackableObjectGraph, root: int = 0) -> dict[int, str]:
    """Tell under which key a checkpoint has each variable of a SavedModel.

    Both graphs are walked from their roots along the same names; the numbers of objects need not be the same.

    Args:
        graph: The object graph of the SavedModel.
        stored: The object graph of the checkpoint.
        root: The object of the checkpoint that the SavedModel's root is there.

    Returns:
        object of the SavedModel -> key.
    """
    if not len(graph.nodes) or not 0 <= root < len(stored.nodes):
        return {}
    partners = {0: root}
    waiting = [0]
    for node in waiting:
        item, partner = graph.nodes[node], stored.nodes[partners[node]]
        there = {child.name: child.node for child in partner.children}
        found = [(child.node, there[child.name]) for child in item.children if child.name in there]
        for one, other in found:
            if 0 <= one < len(graph.nodes) and 0 <= other < len(stored.nodes) and one not in partners:
                partners[one] = other
                waiting.append(one)
    for node, other in list(partners.items()):
        slots = {(slot.original, slot.slot): slot.variable for slot in stored.nodes[other].slot_variables}
        for slot in graph.nodes[node].slot_variables:
            variable = slots.get((partners.get(slot.original, -1), slot.slot), -1)
            if 0 <= variable < len(stored.nodes) and 0 <= slot.variable < len(graph.nodes):
                partners.setdefault(slot.variable, variable)
    return {
        node: attribute.checkpoint_key
        for node, other in partners.items()
        for attribute in stored.nodes[other].attributes
        if attribute.name == _VALUE
    }
