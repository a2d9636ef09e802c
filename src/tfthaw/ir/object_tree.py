"""Object trees: one readable path for each object of an object graph.

An object has many paths from the root: Keras 2 keeps the kernel of a layer at `layer_with_weights-0/kernel`,
`layer-1/kernel`, `variables/0`, `keras_api/layers/1/kernel` and more. Its readable path is the one that leads through
the fewest of such aliases, then the shortest, then the first by name, with the names that Keras gave to layers in place
of their positions: `dense/kernel`. Paths are unique, and depend on names alone, not on the order in which a file has
its objects. Cycles are legal.

Names are escaped as in checkpoint keys (`.` doubled, `/` written `.S`), so that a path without aliases is the
checkpoint key without its ending.

Source: the attributes under which tf.keras 2.x and Keras 3 track their parts; `_escape_local_name` of
tensorflow/python/checkpoint/trackable_view.py.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from tfthaw.ir.object_graph import Child, SlotVariable

MAX_DEPTH = 256
"""Objects further from the root than this have no readable path: Python, which made them, cannot nest as deep."""

MAX_PATH_LENGTH = 1024
"""Longer paths are not readable."""

# everything below an object once more, in one list
_LISTS_OF_ALL = frozenset({
    "variables", "trainable_variables", "non_trainable_variables", "_all_variables", "_variables",
    "_trainable_variables", "_non_trainable_variables", "weights", "_weights", "_self_tracked_trackables", "_tracked",
    "regularization_losses",
})  # fmt: skip
# what Keras puts between a model and its layers: it is no part of a readable path
_BETWEEN = frozenset({"_functional", "_operations", "_layers"})
_KERAS_API = "keras_api"  # the parts of a layer once more, lists of layers and metrics among them
_POSITION = re.compile(r"layer(_with_weights)?-\d+")

_ALIAS, _LIST_ALIAS = 1, 8  # no chain of positions is as bad as a list of everything


class TreeObject(Protocol):
    """What both kinds of objects have."""

    @property
    def children(self) -> Sequence[Child]:
        """Its attributes."""

    @property
    def slot_variables(self) -> Sequence[SlotVariable]:
        """Its slot variables."""


class Edge(NamedTuple):
    """How the tree reaches an object: as the attribute `name` of the object `parent`."""

    parent: int
    name: str


def escaped(name: str) -> str:
    """Return an attribute's name as checkpoint keys and paths have it."""
    return name.replace(".", "..").replace("/", ".S")


def spanning_tree(objects: Sequence[TreeObject], without: Iterable[int] = ()) -> dict[int, Edge]:
    """Choose one way to each object that can be reached from the root.

    Args:
        objects: The objects; the root is at 0.
        without: Objects that the tree leaves out.

    Returns:
        object -> its edge, in the order of their rank (fewest aliases, then shortest, then by name); the root, which
        has none, is not in it.
    """
    if not len(objects):
        return {}
    count, skipped = len(objects), set(without) | {0}
    edges: dict[int, Edge] = {}
    # (aliases, depth) -> (rank of the parent, whether the name is private, name, object, parent)
    waiting: dict[tuple[int, int], list[tuple[int, bool, str, int, int]]] = {}
    levels: list[tuple[int, int]] = []
    aliases, depth = 0, 0
    reached = [0]
    rank = 0
    while True:
        for node in reached:
            rank += 1
            for name, child in _named_children(objects[node].children):
                if 0 <= child < count and child not in skipped and child not in edges and depth < MAX_DEPTH:
                    level = (aliases + _cost(name), depth + 1)
                    if level not in waiting:
                        heapq.heappush(levels, level)
                    waiting.setdefault(level, []).append((rank, name.startswith("_"), name, child, node))
        if not levels:
            return edges
        aliases, depth = heapq.heappop(levels)
        reached = []
        for _, _, name, child, parent in sorted(waiting.pop((aliases, depth))):
            if child not in edges:
                edges[child] = Edge(parent, name)
                reached.append(child)


def _named_children(children: Sequence[Child]) -> Iterator[tuple[str, int]]:
    """Yield the name and the object of each edge; of several edges of one name the first counts."""
    seen = set()
    for child in children:
        if child.name not in seen:
            seen.add(child.name)
            yield child.name, child.node


def _cost(name: str) -> int:
    if name in _LISTS_OF_ALL or name in (_KERAS_API, "signatures"):
        return _LIST_ALIAS
    return _ALIAS if name in _BETWEEN or _POSITION.fullmatch(name) else 0


class ObjectTree:
    """The readable paths of an object graph.

    Args:
        objects: The objects.
        variable_names: The names that variables have of their own in Python, such as `sequential/dense/kernel`.
        layer_names: The names of layers that Keras' metadata say.
        without: Objects that get no path here.

    Attributes:
        edges: object -> the edge by which the tree reaches it.
        paths: object -> its readable path; the root's is empty.
    """

    def __init__(self, objects: Sequence[TreeObject], variable_names: Mapping[int, str],
                 layer_names: Mapping[int, str] | None = None, without: Iterable[int] = ()) -> None:
        self.edges = spanning_tree(objects, without)
        self.paths: dict[int, str] = {0: ""} if len(objects) else {}
        self._optimizers = set(find_optimizers(objects))
        self._variable_names = variable_names
        self._layer_names = {**self._told_names(), **(layer_names or {})}
        self._scopes: dict[int, str] = {0: ""}  # where the layers of an object are, in readable paths
        self._copies: dict[str, int] = {"": 1}  # path -> how many objects wanted it
        for node, edge in self.edges.items():
            self._place(node, edge)

    def add(self, node: int, path: str) -> None:
        """Give an object that the tree does not reach a path, with a number behind it where it is taken."""
        path = path[:MAX_PATH_LENGTH]
        wanted = path
        while path in self._copies:
            self._copies[wanted] += 1
            path = f"{wanted}~{self._copies[wanted]}"
        self._copies[path] = 1
        self.paths[node] = path

    def _place(self, node: int, edge: Edge) -> None:
        if edge.parent not in self.paths:
            return
        scope = self._scopes[edge.parent]
        path = _joined(self.paths[edge.parent], escaped(edge.name))
        named = self._named(node, edge, scope)
        if named is not None and named not in self._copies:
            path = named
        if len(path) > MAX_PATH_LENGTH:
            return
        self.add(node, path)
        self._scopes[node] = scope if self._is_see_through(edge) else self.paths[node]

    def _named(self, node: int, edge: Edge, scope: str) -> str | None:
        """Return the path of an object with the name that Keras gave it, or None where it gave none."""
        above = self.edges.get(edge.parent)
        own = self._variable_names.get(node)
        if own is not None:
            if above is not None and above.name in _LISTS_OF_ALL:
                return _joined(scope, own) if own else None
            bare = edge.name[1:]
            if edge.name.startswith("_") and (own.endswith(f"/{bare}") or edge.parent in self._optimizers):
                return _joined(self.paths[edge.parent], escaped(bare))
            return None
        if above is not None and above.name == _KERAS_API:
            return _joined(scope, escaped(edge.name))
        layer = self._layer_names.get(node)
        if layer is None:
            return None
        is_listed = edge.name.isdigit() and above is not None and (above.name in _BETWEEN or self._is_in_api(above))
        return _joined(scope, escaped(layer)) if is_listed or _POSITION.fullmatch(edge.name) else None

    def _is_see_through(self, edge: Edge) -> bool:
        """Whether what lies below an edge is named as if it lay above it."""
        if edge.name in _BETWEEN or edge.name in _LISTS_OF_ALL or edge.name == _KERAS_API:
            return True
        return edge.name == "layers" and self._is_in_api(edge)

    def _is_in_api(self, edge: Edge) -> bool:
        """Whether an edge is one of `keras_api`."""
        above = self.edges.get(edge.parent)
        return above is not None and above.name == _KERAS_API

    def _told_names(self) -> dict[int, str]:
        """Tell the names of layers from the names of their variables, where all of these agree.

        A variable two steps below a layer that is called `bidirectional/forward_lstm/kernel` says that the layer is
        called `bidirectional`.
        """
        told: dict[int, str | None] = {}
        for variable, own in self._variable_names.items():
            owner: int | None = variable
            for part in reversed(own.split("/")[:-1]):
                owner = None if owner is None else self._owner(owner)
                if owner is None:
                    break
                told[owner] = part if told.get(owner, part) == part else None
        return {node: name for node, name in told.items() if name}

    def _owner(self, node: int) -> int | None:
        """Return the object above another one, lists and what Keras puts between left out."""
        edge = self.edges.get(node)
        while edge is not None:
            above = self.edges.get(edge.parent)
            if not edge.name.isdigit() and (above is None or not self._is_see_through(above)):
                return edge.parent
            edge = above
        return None


def find_optimizers(objects: Sequence[TreeObject]) -> list[int]:
    """Return the objects that are optimizers of Keras 2.11 or newer, which their attributes tell."""
    wanted = {"_variables", "_iterations"}
    return [node for node, item in enumerate(objects) if wanted <= {child.name for child in item.children}]


def _joined(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope and name else scope or name
