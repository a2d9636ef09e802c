"""Where each layout keeps the variables of a Keras model: HDF5 of Keras 3, legacy HDF5, object graphs.

    | layout  | the kernel of the first layer, for example                                           |
    | ------- | ------------------------------------------------------------------------------------ |
    | saved   | `layers/dense/vars/0`: layers by class and number, variables by number               |
    | legacy  | `model_weights/dense/dense/kernel:0`: any name; lists give the order of layers and of |
    |         | each layer's variables, those of its sublayers included, trained ones first          |
    | objects | `model/_operations/1/_kernel`: the attributes that lead to it                        |

`locate_*` find a model's variables among the names of a file. A variable is known by its `Slot`: the positions of the
layers that lead to it, and its own. A layer that the configuration does not explain is a *region*: whatever lies under
its name.

Source: saving_lib.py, legacy_h5_format.py and the trackables of Keras 3; the same of tf_keras.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.restore.keras_tree import KerasLayer, Path, has_weights, is_wholly_known

Place: TypeAlias = "tuple[int, ...]"
"""A layer: its position in its parent, the parent's in its own parent, and so on, outermost first."""


class Slot(NamedTuple):
    """A variable of a model.

    Attributes:
        place: The layer that has it.
        position: Which of the layer's own variables it is.
    """

    place: Place
    position: int


@dataclass
class Located:
    """The variables of a model among the names of one file.

    Attributes:
        layout: `saved`, `legacy` or `objects`.
        slots: Each variable's name.
        regions: For each layer that the configuration does not explain: its place -> path below it -> name.
        missing: Names that should be there.
        misnamed: Names that speak against the order in which they come, as sentences.
        rest: Names that belong to no layer.
        optimizer: The optimizer's variables, in its own order.
        aside: Names of metrics, counters and the like, which are no part of the model.
        notes: What was concluded from less than names.
    """

    layout: str
    slots: dict[Slot, str] = field(default_factory=dict)
    regions: dict[Place, dict[str, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    optimizer: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many variables were found."""
        return len(self.slots) + sum(map(len, self.regions.values()))


def walk(tree: KerasLayer) -> Iterator[tuple[Place, KerasLayer]]:
    """Yield every layer of a model with its place, each before those in it."""
    pending: list[tuple[Place, KerasLayer]] = [((), tree)]
    while pending:
        place, layer = pending.pop()
        yield place, layer
        inner = [((*place, position), item.layer) for position, item in enumerate(layer.sublayers)]
        pending += reversed(inner)


def layer_names(tree: KerasLayer, place: Place) -> str:
    """Return the names of the layers that lead to a place, for messages."""
    names = []
    for position in place:
        tree = tree.sublayers[position].layer
        names.append(tree.name)
    return "/".join(names) or tree.name


# Saved: the layout of `.weights.h5` and `.keras`


def locate_saved(tree: KerasLayer, names: Iterable[str]) -> Located:
    """Find a model's variables among the datasets of the layout of Keras 3."""
    every = list(names)
    groups, existing = {group for name in every for group in _groups(name)}, set(every)
    found = Located("saved")
    used: set[str] = set()
    for place, layer, prefix in _saved_prefixes(tree, groups):
        if not layer.is_known:
            region = {name[len(prefix) :]: name for name in every if name.startswith(prefix) and not is_aside(name)}
            found.regions[place] = region
            used.update(region.values())
        for position in range(len(layer.weights)):
            name = f"{prefix}vars/{position}"
            if name in existing:
                found.slots[Slot(place, position)] = name
            else:
                found.missing.append(name)
            used.add(name)
    found.optimizer = saved_optimizer(every)
    used.update(found.optimizer)
    for name in every:
        if name not in used:
            (found.aside if is_aside(name) else found.rest).append(name)
    return found


def saved_optimizer(names: Iterable[str]) -> list[str]:
    """Return the datasets of the optimizer in the order of its variables."""
    numbered = []
    for name in names:
        for head in ("optimizer/vars/", "_optimizer/vars/"):
            if name.startswith(head) and name[len(head) :].isdecimal():
                numbered.append((int(name[len(head) :]), name))
    return [name for _, name in sorted(numbered)]


def _saved_prefixes(tree: KerasLayer, groups: set[str]) -> Iterator[tuple[Place, KerasLayer, str]]:
    """Yield each layer with the path of its group; of several spellings the one that is there."""
    pending: list[tuple[Place, KerasLayer, str]] = [((), tree, "")]
    while pending:
        place, layer, prefix = pending.pop()
        yield place, layer, prefix
        for position, item in reversed(list(enumerate(layer.sublayers))):
            there = [name for name in item.saved if f"{prefix}{name}" in groups]
            pending.append(((*place, position), item.layer, f"{prefix}{(there or item.saved)[0]}/"))


def _groups(name: str) -> Iterator[str]:
    parent = name.rpartition("/")[0]
    while parent:
        yield parent
        parent = parent.rpartition("/")[0]


def is_aside(name: str) -> bool:
    """Whether a dataset belongs to an optimizer or to metrics, not to the model."""
    heads = ("optimizer/", "_optimizer/", "metrics/", "_metrics/", "compile_metrics/", "_compile_metrics/",
             "compiled_metrics/", "_loss_tracker/", "_loss/", "optimizer_weights/")  # fmt: skip
    return name.startswith(heads)


def saved_names(tree: KerasLayer) -> tuple[dict[Slot, str], dict[str, str]]:
    """Return where to write each variable, and the group of each layer's variables -> the layer's name."""
    slots, groups = {}, {}
    for place, layer, prefix in _saved_prefixes(tree, set()):
        groups[f"{prefix}vars"] = layer.name
        for position in range(len(layer.weights)):
            slots[Slot(place, position)] = f"{prefix}vars/{position}"
    return slots, groups


# Legacy: the layout of Keras 2


def locate_legacy(tree: KerasLayer, layer_weights: Mapping[str, Sequence[str]], names: Iterable[str],
                  generation: int) -> Located:  # fmt: skip
    """Find a model's variables by the order in which a legacy file lists them.

    Args:
        tree: The layers.
        layer_weights: Each layer's datasets, in order.
        names: All datasets.
        generation: 3 for Keras 3, whose order differs for layers in frozen ones.
    """
    found = Located("legacy")
    used: set[str] = set()
    tops = [((position,), item.layer) for position, item in enumerate(tree.sublayers)] if tree.is_known else []
    if not tree.is_known:
        listed = [name for weights in layer_weights.values() for name in weights]
        found.regions[()] = {name: name for name in listed}
        used.update(listed)
    groups = _groups_of(tops, layer_weights, found.notes)
    for place, layer in tops:
        listed = list(layer_weights.get(groups.get(place, layer.name), ()))
        used.update(listed)
        if not is_wholly_known(layer):
            found.regions[place] = {name: name for name in listed}
            continue
        slots = legacy_order(layer, place, generation)
        found.slots.update(zip(slots, listed, strict=False))
        found.missing += [f"{layer.name}: variable {position}" for position in range(len(listed), len(slots))]
        found.rest += listed[len(slots) :]
        found.misnamed += _misnamed(tree, dict(zip(slots, listed, strict=False)))
    for name in names:
        if name.startswith("optimizer_weights/"):
            found.aside.append(name)
        elif name not in used:
            found.rest.append(name)
    return found


def _groups_of(tops: Sequence[tuple[Place, KerasLayer]], layer_weights: Mapping[str, Sequence[str]],
               notes: list[str]) -> dict[Place, str]:  # fmt: skip
    """Return the group of each layer whose name the file does not have: by order, as Keras itself reads such files."""
    holders = [(place, layer) for place, layer in tops if has_weights(layer) or not is_wholly_known(layer)]
    filled = [name for name, weights in layer_weights.items() if weights]
    if all(layer.name in layer_weights for _, layer in holders) or len(holders) != len(filled):
        return {}
    notes.append("layers were matched by their order, since their names differ")
    return {place: name for (place, _), name in zip(holders, filled, strict=True)}


def _misnamed(tree: KerasLayer, slots: Mapping[Slot, str]) -> list[str]:
    """Say which datasets are named as other variables than the order makes them."""
    layers = dict(walk(tree))
    problems = []
    for slot, name in slots.items():
        expected = layers[slot.place].weights[slot.position].name
        said = name.rpartition("/")[2].partition(":")[0]
        stem, _, number = said.rpartition("_")
        if expected not in (said, stem if number.isdecimal() else said):
            problems.append(f"{expected} of {layer_names(tree, slot.place)}: {name} is in its place")
    return problems


def legacy_order(layer: KerasLayer, place: Place, generation: int) -> list[Slot]:
    """Return the variables of a layer and of those in it in the order of legacy files."""
    trained, others = _by_training(layer, place, generation >= 3)
    return [*trained, *others]


def _by_training(layer: KerasLayer, place: Place, is_new: bool) -> tuple[list[Slot], list[Slot]]:
    """Return what Keras calls `trainable_weights` and `non_trainable_weights`."""
    own = [Slot(place, position) for position in range(len(layer.weights))]
    inner = [_by_training(item.layer, (*place, position), is_new) for position, item in enumerate(layer.sublayers)]
    if not layer.is_trainable:
        if is_new:
            return [], weight_order(layer, place)
        return [], [*own, *(slot for pair in inner for part in pair for slot in part)]
    trained = [slot for slot in own if layer.weights[slot.position].is_trainable]
    others = [slot for slot in own if not layer.weights[slot.position].is_trainable]
    return (
        [*trained, *(slot for first, _ in inner for slot in first)],
        [*others, *(slot for _, second in inner for slot in second)],
    )


def weight_order(layer: KerasLayer, place: Place = ()) -> list[Slot]:
    """Return the variables of a layer and of those in it in the order of `weights` of Keras 3."""
    slots = [Slot(place, position) for position in range(len(layer.weights))]
    for position, item in enumerate(layer.sublayers):
        slots += weight_order(item.layer, (*place, position))
    return slots


def legacy_names(tree: KerasLayer, generation: int) -> tuple[dict[Slot, str], dict[str, list[str]]]:
    """Return where to write each variable, below the group of all weights, and each layer's datasets in order."""
    suffix = "" if generation >= 3 else ":0"
    slots: dict[Slot, str] = {}
    listed: dict[str, list[str]] = {}
    for position, item in enumerate(tree.sublayers):
        paths = _legacy_paths(item.layer, (position,), item.layer.name)
        order = legacy_order(item.layer, (position,), generation)
        taken: set[str] = set()
        for slot in order:
            name = paths[slot]
            number = 0
            while name in taken:  # two sublayers may have one name
                number += 1
                name = f"{paths[slot]}_{number}"
            taken.add(name)
            slots[slot] = f"{item.layer.name}/{name}{suffix}"
        listed[item.layer.name] = [slots[slot].removeprefix(f"{item.layer.name}/") for slot in order]
    return slots, listed


def _legacy_paths(layer: KerasLayer, place: Place, path: str) -> dict[Slot, str]:
    names = {Slot(place, position): f"{path}/{weight.name}" for position, weight in enumerate(layer.weights)}
    for position, item in enumerate(layer.sublayers):
        inner = f"{path}/{item.prefix}{item.layer.name}"
        names.update(_legacy_paths(item.layer, (*place, position), inner))
    return names


# Objects: the layout of object-based checkpoints


def locate_objects(tree: KerasLayer, graph: TrackableObjectGraph, keys: Iterable[str]) -> Located:
    """Find a model's variables in an object graph whose root is the model, or has it as an attribute.

    The root is the object under which the most of the model is found.
    """
    view = ObjectView(graph)
    every = list(keys)
    children = view.children(0)
    roots = dict.fromkeys([*(children[name] for name in ("model",) if name in children), 0, *children.values()])
    candidates = [_locate_below(tree, view, root) for root in roots]
    best = max(candidates, key=lambda item: (len(item.slots) + sum(map(len, item.regions.values())), -len(item.rest)))
    if not best.slots and is_wholly_known(tree):
        best = _locate_listed(tree, view) or best
    used = {*best.slots.values(), *(name for names in best.regions.values() for name in names.values())}
    best.optimizer = object_optimizer(graph)
    best.aside += [key for key in every if key not in used and key not in best.rest and key not in best.optimizer]
    return best


def _locate_listed(tree: KerasLayer, view: ObjectView) -> Located | None:
    """Find the variables in what `model.export` of Keras 3 writes: one list of them all, in the order of `weights`."""
    listed = view.follow(0, ("variables",))
    order, layers = weight_order(tree), dict(walk(tree))
    if listed is None or view.follow(0, ("_all_variables",)) is None:
        return None
    numbered = sorted((int(name), child) for name, child in view.children(listed).items() if name.isdecimal())
    named = [view.name(child).rpartition("/")[2] for _, child in numbered]
    kept = [(name, view.key(child)) for (_, child), name in zip(numbered, named, strict=True)
            if not name.startswith("seed_generator")]  # fmt: skip
    if [layers[slot.place].weights[slot.position].name for slot in order] != [name for name, _ in kept]:
        return None
    return Located("objects", {slot: key for slot, (_, key) in zip(order, kept, strict=True) if key is not None})


_LISTS = frozenset({"variables", "trainable_variables", "non_trainable_variables", "_all_variables", "_tracked"})
"""Attributes that list what other attributes hold."""


class ObjectView:
    """The edges and the values of an object graph.

    Edges that lead nowhere are no edges here.
    """

    def __init__(self, graph: TrackableObjectGraph) -> None:
        self._graph = graph
        self._children: dict[int, dict[str, int]] = {}

    def children(self, node: int) -> dict[str, int]:
        """Return the children of an object: attribute -> object."""
        if node not in self._children:
            count = len(self._graph.nodes)
            edges = self._graph.nodes[node].children if 0 <= node < count else ()
            self._children[node] = {edge.name: edge.node for edge in edges if 0 <= edge.node < count}
        return self._children[node]

    def follow(self, node: int, path: Path) -> int | None:
        """Return the object at the end of a path."""
        found: int | None = node
        for name in path:
            if found is None:
                return None
            found = self.children(found).get(name)
        return found

    def key(self, node: int | None) -> str | None:
        """Return the checkpoint key of a variable, or None where an object is none."""
        if node is None:
            return None
        values = [item for item in self._graph.nodes[node].attributes if item.name == "VARIABLE_VALUE"]
        return values[0].checkpoint_key if values else None

    def name(self, node: int) -> str:
        """Return what Python calls a variable."""
        return next((item.full_name for item in self._graph.nodes[node].attributes), "")

    def variables(self, node: int) -> dict[str, str]:
        """Return all variables below an object: the shortest path -> checkpoint key, each variable once."""
        found: dict[str, str] = {}
        seen = {node}
        pending: list[tuple[str, int]] = [("", node)]
        for path, here in pending:
            key = self.key(here)
            if key is not None:
                found[path] = key
            for name, child in self.children(here).items():
                if child not in seen and name not in _LISTS:
                    seen.add(child)
                    pending.append((f"{path}/{name}" if path else name, child))
        return found


_ASIDE_OBJECTS = frozenset({"optimizer", "_optimizer", "save_counter", "metrics", "_metrics", "keras_api", "signatures",
                            "loss_tracker", "_loss_tracker", "compiled_metrics", "_compile_metrics"})  # fmt: skip
_LAYER_ATTRIBUTES = ("layer-", "layer_with_weights-", "_operations", "_functional")


def _locate_below(tree: KerasLayer, view: ObjectView, root: int) -> Located:
    found = Located("objects")
    pending: list[tuple[Place, KerasLayer, int | None, str]] = [((), tree, root, "")]
    while pending:
        place, layer, node, path = pending.pop()
        for position, weight in enumerate(layer.weights):
            keys = [] if node is None else [view.key(view.follow(node, (name,))) for name in weight.attributes]
            spelled = [key for key in keys if key is not None]
            if spelled:
                found.slots[Slot(place, position)] = spelled[0]
            else:
                found.missing.append(f"{path}{weight.attributes[0]}")
        if not layer.is_known:
            inside = {} if node is None else view.variables(node)
            found.regions[place] = {name: key for name, key in inside.items() if _head(name) not in _ASIDE_OBJECTS}
        for position, item in enumerate(layer.sublayers):
            inner = None if node is None else next(
                (child for names in item.objects if (child := view.follow(node, names)) is not None), None)  # fmt: skip
            spelled_path = "/".join(item.objects[0]) if item.objects else item.saved[0]
            pending.append(((*place, position), item.layer, inner, f"{path}{spelled_path}/"))
    used = {*found.slots.values(), *(name for names in found.regions.values() for name in names.values())}
    for name, key in view.variables(root).items():
        head = _head(name)
        # the root may hold more than a model; an attribute of a checkpoint that is the model may not
        is_layer = head not in _ASIDE_OBJECTS and (root or head.startswith(_LAYER_ATTRIBUTES))
        if key not in used and is_layer:
            found.rest.append(key)
    return found


def _head(path: str) -> str:
    return path.partition("/")[0]


def object_optimizer(graph: TrackableObjectGraph) -> list[str]:
    """Return the checkpoint keys of the optimizer that the model, or what holds the model, has; in its own order."""
    view = ObjectView(graph)
    for owner in dict.fromkeys([0, *view.children(0).values()]):
        listed = view.follow(owner, ("optimizer", "_variables"))
        if listed is not None:
            numbered = sorted((int(name), child) for name, child in view.children(listed).items() if name.isdecimal())
            return [key for _, child in numbered if (key := view.key(child)) is not None]
    return []
