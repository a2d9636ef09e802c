"""Datasets of a Keras file of the layout of Keras 3, and the live variables to which their names lead.

    layers/dense_1/vars/0        the second Dense of a model's layers, its first variable
    encoder/vars/0               an attribute
    blocks/dense/vars/0          a list

Layers in lists are named by their class and counted. Keras 2 does not count those that it has saved before, under an
attribute; Keras 3 counts them and saves nothing there. A variable that two layers share may be in the file twice.

Source: saving_lib.py of Keras 3 and of tf_keras (`_save_state`, `_save_container_state`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tfthaw.ir.live_objects import LAYERS, VARIABLES, LiveObjects
from tfthaw.restore.keras_layouts import is_aside
from tfthaw.restore.live_name_keys import without_numbers

_OLD_LAYERS = "_layer_checkpoint_dependencies"  # what Keras 2.12 and 2.13 called the list of layers

_LISTS = frozenset({"list", "tuple", "dict", "List", "Dict", "Tuple", "ListWrapper", "_DictWrapper", "_TupleWrapper",
                    "TrackedList", "TrackedDict"})  # fmt: skip

Tree = dict[str, "Tree"]


@dataclass
class SavedWalk:
    """Where the names of datasets lead.

    Attributes:
        found: live variable's position -> its datasets, of which there are several where layers share it.
        owners: dataset -> position of the live layer that has the variable there.
    """

    found: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    owners: dict[str, int] = field(default_factory=dict)

    def without(self, places: Collection[int]) -> SavedWalk:
        """Return it without some variables."""
        found = {place: names for place, names in self.found.items() if place not in places}
        kept = {name for names in found.values() for name in names}
        return SavedWalk(found, {name: layer for name, layer in self.owners.items() if name in kept})


class _Here(NamedTuple):
    """A live object, and the part of the file that belongs to it.

    Attributes:
        place: The object's position.
        below: The names below it.
        path: The name that leads to it.
        layer: The layer that it is, or is a part of.
        is_list: Whether it is a list of layers.
    """

    place: int
    below: Tree
    path: str
    layer: int
    is_list: bool = False


def walk_saved_file(objects: LiveObjects, names: Iterable[str]) -> SavedWalk:
    """Follow the names of datasets through live objects, attributes first and then lists."""
    walk = SavedWalk()
    waiting = [_Here(0, _tree(names), "", 0)] if objects.nodes else []
    lists: list[_Here] = []
    visited: set[int] = set()
    while waiting or lists:
        here = waiting.pop() if waiting else lists.pop(0)
        numbered = _renumbered(objects, here, visited) if here.is_list else {}
        for part, below in here.below.items():
            child = numbered.get(part, step(objects, here.place, part))
            if child is None:
                continue
            path = f"{here.path}/{part}" if here.path else part
            item = objects.nodes[child]
            if item.variable is not None:
                walk.found[child].append(path)
                walk.owners[path] = here.layer
                continue
            is_list = item.class_name in _LISTS and part != VARIABLES
            if VARIABLES in below:
                visited.add(child)
            owner = child if item.name else here.layer
            (lists if is_list else waiting).append(_Here(child, below, path, owner, is_list))
    return walk


def _tree(names: Iterable[str]) -> Tree:
    tree: Tree = {}
    for name in names:
        here = tree
        for part in () if is_aside(name) else name.split("/"):
            here = here.setdefault(part, {})
    return tree


def step(objects: LiveObjects, place: int, part: str) -> int | None:
    """Return the child of an object to which a part of a dataset's name leads, or None."""
    item = objects.nodes[place]
    plain = LAYERS if part == _OLD_LAYERS else part.lstrip("_")
    for spelled in (part, plain, f"_{plain}"):
        for names in (item.children, item.other_children):
            if spelled in names:
                return names[spelled]
    return None


def _renumbered(objects: LiveObjects, here: _Here, visited: set[int]) -> dict[str, int]:
    """Return the layers of a list as Keras 2 numbers them, where the file does; nothing where it counts all."""
    counted = objects.nodes[here.place].other_children
    if all(part in counted and counted[part] not in visited for part in here.below):
        return {}
    seen: dict[str, int] = {}
    result = {}
    for name, child in counted.items():
        kind = without_numbers(name)
        if child not in visited:
            seen[kind] = seen.get(kind, -1) + 1
            result[f"{kind}_{seen[kind]}" if seen[kind] else kind] = child
    return result if here.below.keys() <= result.keys() else {}


def own_ways(objects: LiveObjects, walk: SavedWalk) -> list[str]:
    """Return the layers whose classes read their part of a file in a way of their own, as sentences."""
    layers = [objects.nodes[layer] for layer in dict.fromkeys(walk.owners.values())]
    return [f"file: {layer.class_name} ({layer.name}) reads its values in a way of its own (load_own_variables)"
            for layer in layers if layer.saves_itself]  # fmt: skip


def changed_places(objects: LiveObjects, walk: SavedWalk, layer_names: Mapping[str, str]) -> list[str]:
    """Return the layers that the file has under the names of others, as sentences.

    Args:
        objects: The live objects.
        walk: Where the datasets lead.
        layer_names: group of a layer's variables -> the layer's name in the file.
    """
    mine = {objects.nodes[layer].name for layer in walk.owners.values()}
    problems: dict[str, None] = {}
    for dataset, layer in walk.owners.items():
        live, name = objects.nodes[layer].name, layer_names.get(dataset.rpartition("/")[0], "")
        if name in mine and without_numbers(name) != without_numbers(live):
            said = f"order: the layer {live!r} is at the place of {name!r} in the file, which the code has elsewhere"
            problems[f"{said}: layers have changed places"] = None
    return list(problems)
