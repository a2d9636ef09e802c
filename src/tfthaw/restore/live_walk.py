"""Live objects and the object graph of a checkpoint, walked together from one object of each.

First along the names that both have. What that leaves open is walked again, along the names that another Keras gives
the same children. Where the second walk leads one object to two places it leads nowhere: what contradicts itself is no
evidence.

The layers of a model that lists them are counted on both sides, those with variables alone: what is `_operations/3` in
a checkpoint of Keras 3 is `layer_with_weights-1` in one of Keras 2. Both order layers alike, while layers without
variables and the operations between layers, which the other numbers count as well, may differ. Models that do not have
as many such layers as each other are not matched by these numbers.

Source: restore.py of tensorflow/python/checkpoint; functional.py of both Keras (`map_graph_network`, `map_graph`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tfthaw.ir.live_objects import ASIDE, FILE_NAMES, TRAINED, LiveObjects
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.restore.keras_layouts import ObjectView

INNER = "_functional"
"""What a Sequential of Keras 3 has between itself and its layers."""

_NUMBERED = "layer_with_weights-"
_SECOND_COPY = "_all_variables/"  # where `model.export` of Keras 3 saves all values once more
_TRAINED_LISTS = (TRAINED, "trainable_variables")
_VARIABLE_LISTS = frozenset({*_TRAINED_LISTS, "_variables", "variables", "non_trainable_variables", "_all_variables"})
_LAYER_LISTS = ("_operations", "_layers")
_OF_KERAS_2 = frozenset({"keras_api", "_index_dict", "train_function"})
_OF_KERAS_3 = frozenset({INNER, "_operations", "_tracked", "_kernel", "_embeddings", "_compiled_trainable_state"})
_OPTIMIZER = ("optimizer", "_optimizer")
_OF_OPTIMIZERS = frozenset({
    "iter", "beta_1", "beta_2", "decay", "learning_rate", "momentum", "rho", "_iterations", "_learning_rate",
    "_trainable_variables", "_momentums", "_velocities", "_variables", "_current_learning_rate", "inner_optimizer",
    "_optimizer", "dynamic_counter", "step_counter",
})  # fmt: skip
_MOST_PARTNERS = 8  # an object has one place in a checkpoint, or a few where the checkpoint holds it twice


@dataclass
class Walked:
    """What a walk found.

    Attributes:
        root: The object of the checkpoint that the live root is there.
        keys: live variable's position -> checkpoint key.
        exact: The positions that were found along the same names.
        contested: live variable's position -> the keys that different ways lead to.
        partners: live object's position -> what it is in the checkpoint.
        start: The live object from which it began.
    """

    root: int
    keys: dict[int, str] = field(default_factory=dict)
    exact: set[int] = field(default_factory=set)
    contested: dict[int, list[str]] = field(default_factory=dict)
    partners: dict[int, list[int]] = field(default_factory=dict)
    start: int = 0


class TrainedList(NamedTuple):
    """A list of the variables that were trained.

    Attributes:
        owner: The object that has it: an optimizer, or what an export wrote.
        is_optimizer: Whether that is an optimizer.
        keys: Their checkpoint keys, in order.
    """

    owner: int
    is_optimizer: bool
    keys: tuple[str, ...]


class StoredView(ObjectView):
    """The object graph of a checkpoint, with the layers of models under the names of Keras 2 as well."""

    def __init__(self, graph: TrackableObjectGraph) -> None:
        super().__init__(graph)
        self._count = len(graph.nodes)
        self._numbered: dict[int, dict[str, int]] = {}
        self._holders: set[int] | None = None

    def numbered(self, node: int) -> dict[str, int]:
        """Return the layers with variables of a Keras model, as Keras 2 numbers them; nothing for other objects."""
        if node not in self._numbered:
            found = self.children(node)
            self._numbered[node] = {name: child for name, child in found.items() if name.startswith(_NUMBERED)}
            inner = self.children(found[INNER]) if INNER in found else found
            listed = next((inner[name] for name in _LAYER_LISTS if name in inner), None)
            if listed is not None and not self._numbered[node]:
                layers = enumerate(self._layers(listed))
                self._numbered[node] = {f"{_NUMBERED}{number}": layer for number, layer in layers}
        return self._numbered[node]

    def _layers(self, node: int) -> list[int]:
        """Return the items of a list that have variables, in order."""
        numbered = sorted((int(name), item) for name, item in self.children(node).items() if _is_number(name))
        if self._holders is None:
            self._holders = self._with_variables()
        return [item for _, item in numbered if item in self._holders]

    def _with_variables(self) -> set[int]:
        """Return the objects that are variables or have some below them, apart from what only training needs."""
        parents: dict[int, list[int]] = defaultdict(list)
        for node in range(self._count):
            for name, child in self.children(node).items():
                if name not in ASIDE:
                    parents[child].append(node)
        pending = [node for node in range(self._count) if self.key(node) is not None]
        found = set(pending)
        for node in pending:
            fresh = [parent for parent in parents[node] if parent not in found]
            found.update(fresh)
            pending += dict.fromkeys(fresh)
        return found

    def keys_below(self, top: int, but: Container[int] = ()) -> list[str]:
        """Return the keys of all variables of an object, apart from what only training needs; nearest first.

        Args:
            top: The object.
            but: Objects to leave out, with what only they hold.
        """
        keys, waiting = [], [top]
        seen = set(waiting)
        for here in waiting:
            key = self.key(here)
            if key is not None and not key.startswith(_SECOND_COPY):
                keys.append(key)
            for name, child in self.children(here).items():
                if name not in ASIDE and child not in seen and child not in but and not self.is_optimizer(child):
                    seen.add(child)
                    waiting.append(child)
        return keys

    def follow_path(self, path: str) -> int | None:
        """Return the object at a path of names with slashes between; an empty one and `.` are the root."""
        return self.follow(0, tuple(part for part in path.split("/") if part not in ("", ".")))

    def path_of(self, node: int) -> str | None:
        """Return the shortest path that leads to an object, whatever is on it; None where none does."""
        found = {0: ""} if self._count else {}
        for here in (waiting := list(found)):
            if here == node:
                return found[here] or "."
            for name, child in self.children(here).items():
                if child not in found:
                    found[child] = f"{found[here]}/{name}" if found[here] else name
                    waiting.append(child)
        return None

    def stored_variables(self) -> Iterator[tuple[int, str, str]]:
        """Yield each variable: the object, its checkpoint key, and what Python called it; exports have each twice."""
        for node in range(self._count):
            key = self.key(node)
            if key is not None and not key.startswith(_SECOND_COPY):
                yield node, key, self.name(node)

    def keys_of_objects(self) -> set[str]:
        """Return the keys of the variables that have a place in an object, not in a list of variables alone."""
        pending = [0] if self._count else []
        seen, keys = set(pending), set()
        for node in pending:
            key = self.key(node)
            keys.update([key] if key is not None else [])
            fresh = {child: None for name, child in self.children(node).items()
                     if name not in _VARIABLE_LISTS and name not in ASIDE and child not in seen}  # fmt: skip
            seen.update(fresh)
            pending += fresh
        return keys

    def keras(self) -> int:
        """Return which Keras wrote the checkpoint, as far as its objects say: 2, 3, or 0."""
        names = {name for node in range(self._count) for name in self.children(node)}
        if names & _OF_KERAS_3:
            return 3
        return 2 if names & _OF_KERAS_2 or any(name.startswith(_NUMBERED) for name in names) else 0

    def is_optimizer(self, node: int) -> bool:
        """Whether an object is an optimizer, whatever it is called."""
        return len(_OF_OPTIMIZERS & self.children(node).keys()) > 1

    def trained_lists(self) -> list[TrainedList]:
        """Return the lists of what was trained that optimizers and exports of Keras 3 have, each in its order."""
        owners: dict[int, tuple[int, str]] = {}
        for node in range(self._count):
            for name in _TRAINED_LISTS:
                if name in self.children(node):
                    owners.setdefault(self.children(node)[name], (node, name))
        result = []
        for listed, (owner, name) in owners.items():
            found = self.children(listed)
            keys = [self.key(found.get(str(number))) for number in range(len(found))]
            result.append(TrainedList(owner, name == TRAINED, tuple(key for key in keys if key is not None)))
        return [each for each in result if each.keys]

    def optimizers_of(self, node: int) -> set[int]:
        """Return the optimizers that a compiled model has, those that others wrap among them."""
        found = {child for name, child in self.children(node).items() if name in _OPTIMIZER}
        for here in (waiting := list(found)):
            inner = {child for name, child in self.children(here).items() if "optimizer" in name} - found
            found |= inner
            waiting += inner
        return found

    def paths(self) -> dict[int, str]:
        """Return the objects of models, nearest to the root first: object -> the names that lead to it."""
        found = {0: ""} if self._count else {}
        for node in (waiting := list(found)):
            for name, child in self.children(node).items():
                if child not in found and name not in ASIDE and name != TRAINED:
                    found[child] = f"{found[node]}/{name}" if found[node] else name
                    waiting.append(child)
        return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def walk_together(objects: LiveObjects, view: StoredView, root: int, start: int = 0) -> Walked:
    """Walk live objects and a checkpoint's from one object of each.

    Args:
        objects: The live objects.
        view: The checkpoint's.
        root: Where to begin in the checkpoint.
        start: Where to begin among the live objects.
    """
    exact = _follow({start: [root]}, lambda place, node: _same_names(objects, view, place, node), {})
    known = {place: list(nodes) for place, nodes in exact.items()}
    others = _follow(known, lambda place, node: _any_names(objects, view, place, node), exact)
    result = Walked(root, partners=others, start=start)
    for place, nodes in others.items():
        if objects.nodes[place].variable is None:
            continue
        keys = list(dict.fromkeys(key for node in nodes if (key := view.key(node)) is not None))
        if len(keys) == 1:
            result.keys[place] = keys[0]
            if place in exact:
                result.exact.add(place)
        elif keys:
            result.contested[place] = keys
    return result


class _Step(NamedTuple):
    """A live object and what it is in the checkpoint, and whether the numbers of layers say so."""

    child: int
    target: int
    is_numbered: bool = False


def _follow(partners: dict[int, list[int]], steps: Callable[[int, int], Iterable[_Step]],
            settled: Mapping[int, list[int]]) -> dict[int, list[int]]:  # fmt: skip
    """Take steps from pairs of objects until nothing new comes; what is settled gets no other partner.

    What the numbers of layers say overrules plain positions, which count operations as well.
    """
    waiting = [(place, node) for place, nodes in partners.items() for node in nodes]
    numbered: set[int] = set()
    for place, node in waiting:
        for child, target, is_numbered in steps(place, node):
            known = partners.setdefault(child, [])
            if is_numbered:
                numbered.add(child)
            elif child in numbered:
                continue
            if target not in known and len(known) < _MOST_PARTNERS and child not in settled:
                known.append(target)
                waiting.append((child, target))
    return partners


def _same_names(objects: LiveObjects, view: StoredView, place: int, node: int) -> Iterator[_Step]:
    there, layers = view.children(node), view.numbered(node)
    numbered = _same_count(objects, place, layers)
    for name, child in numbered.items():
        yield _Step(child, layers[name], is_numbered=True)
    mine = objects.nodes[place].children
    shared = [name for name in mine if name in there and name not in numbered]
    for name in sorted(shared, key=lambda name: not name.startswith(_NUMBERED)):
        yield _Step(mine[name], there[name], name.startswith(_NUMBERED))


def _any_names(objects: LiveObjects, view: StoredView, place: int, node: int) -> Iterator[_Step]:
    item, there = objects.nodes[place], view.children(node)
    yield from _same_names(objects, view, place, node)
    taken = {child for name, child in item.children.items() if name in there}
    targets: dict[int, set[int]] = defaultdict(set)
    for name, child in item.other_children.items():
        if name in there and child not in taken and name not in FILE_NAMES and not name.startswith(_NUMBERED):
            targets[child].add(there[name])
    for child, found in targets.items():
        if len(found) == 1:
            yield _Step(child, next(iter(found)))


def _same_count(objects: LiveObjects, place: int, layers: Mapping[str, int]) -> dict[str, int]:
    """Return the numbered layers of a model, where the checkpoint's has as many of them; else nothing is known."""
    item = objects.nodes[place]
    mine = {name: child for names in (item.children, item.other_children) for name, child in names.items()
            if name.startswith(_NUMBERED)}  # fmt: skip
    return mine if mine.keys() == layers.keys() else {}
