"""Which checkpoint key fills which variable of live objects.

By objects where the checkpoint has an object graph: live objects and stored ones are walked together (`live_walk`) from
the root under which the most variables are found. Then by names, exact ones alone (`live_name_keys`): the names of
variables in an object graph, those of the same root, or the keys of a checkpoint by names. Then by the order in which
an optimizer trained them (`live_training`). A map wins over everything.

Shapes are no evidence for a match and never a reason to look elsewhere: a variable whose value has another shape is
told of when the plan is made. What two ways of equal rank say differently is refused.

Source: restore.py of tensorflow/python/checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tfthaw.errors import NotFoundError, RestoreError, near_names
from tfthaw.ir.live_objects import LiveObjects, LiveVariable
from tfthaw.ir.object_graph import VALUE_KEY, TrackableObjectGraph
from tfthaw.restore.live_name_keys import (
    drifted_names,
    is_default_name,
    keys_by_names,
    names_of_models,
    without_numbers,
)
from tfthaw.restore.live_training import order_of_training
from tfthaw.restore.live_walk import StoredView, Walked, walk_together
from tfthaw.tensors import Tensor

_MOST_WRAPPED = 4
_MOST_DEEP = 3  # `Checkpoint(trainer=trainer)` with `trainer.model.encoder`
_MOST_RIVALS = 30
_MOST_ROOTS = 500  # a checkpoint holds a few models; what is beyond is found by --checkpoint-root
_MOST_COMPARED = 5  # wrong names of a map with those of the code; difflib takes its time
_HINT_ROOT = "say which one is meant with --checkpoint-root NAME"
_HINT_MAP = 'a map file says it: "checkpoint key" = "variable"'


@dataclass
class LiveMatches:
    """Which key fills which variable.

    Attributes:
        keys: variable's node -> checkpoint key.
        reasons: variable's node -> `map`, `object` (same path), `layer` (another Keras's path), `name`, or `trained`
            (its position among the variables that the optimizer trained).
        places: live object's position -> checkpoint key, of all variables that have one; those that no output reaches
            are matched as far as nothing stands in the way.
        root: The path of the object in the checkpoint that the live root is there; None for checkpoints by names.
        unused: Keys of variables that are the model's own in the checkpoint and that the code does not have, such as
            those of one layer more.
        notes: What was concluded from less than equal paths.
    """

    keys: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)
    root: str | None = None
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match_live(objects: LiveObjects, values: Mapping[str, Tensor], stored: TrackableObjectGraph | None, *,
               path: str | None = None, root: str | None = None,
               renames: Mapping[str, str] | None = None) -> LiveMatches:  # fmt: skip
    """Find the keys of the variables that the traced graph has; where it has none, of all.

    Variables that stay without key are left out; whether that may be is for the plan to say.

    Args:
        objects: The live objects.
        values: The checkpoint's tensors by key.
        stored: The checkpoint's object graph, or None for a checkpoint by names.
        path: The checkpoint, for errors.
        root: The path of the object in the checkpoint that is meant, such as `model` or `ema/model`.
        renames: checkpoint key -> a variable's node or any of its names.

    Raises:
        RestoreError: Several keys could fill a variable, or several objects of the checkpoint could be the model.
        NotFoundError: The checkpoint has no such root.
    """
    matcher = _Matcher(objects, values, path)
    matcher.by_map(renames or {})
    if stored is None or not len(stored.nodes):
        if root is not None:
            raise RestoreError(f"the checkpoint has no objects, so none is {root!r}", path=path)
        matcher.by_name({key: key for key in values})
        matcher.note_others()
    else:
        view = StoredView(stored)
        matcher.by_objects(view, root)
        names = _full_names(view, values, matcher.scope(view))
        matcher.compare_names(names)
        matcher.by_name(names)
        matcher.by_training(view, root)
        matcher.note_unused(view)
    return matcher.result()


def _full_names(view: StoredView, values: Mapping[str, Tensor], scope: Container[str] | None) -> dict[str, str]:
    """Return the variables of an object graph that have a name of their own: name -> checkpoint key.

    Args:
        view: The object graph.
        values: The checkpoint's tensors by key.
        scope: The keys that count; None for all.
    """
    found: dict[str, set[str]] = {}
    for _, key, name in view.stored_variables():
        if name and key in values and not is_default_name(name) and (scope is None or key in scope):
            found.setdefault(name, set()).add(key)
    return {name: next(iter(keys)) for name, keys in found.items() if len(keys) == 1}


class _Matcher:
    """Finds keys step by step; each step leaves alone what an earlier one found.

    Variables are known by their nodes, and by `#` and the position of their object where they have none.
    """

    def __init__(self, objects: LiveObjects, values: Mapping[str, Tensor], path: str | None) -> None:
        self._objects = objects
        self._values = values
        self._path = path
        self._found = LiveMatches()
        self._variables: dict[str, LiveVariable] = {}
        for place, item in enumerate(objects.nodes):
            if item.variable is not None:
                self._variables.setdefault(self._id(place), item.variable)
        for number, variable in enumerate(objects.loose):
            self._variables.setdefault(variable.node or f"#loose {number}", variable)
        reached = {name for name, variable in self._variables.items() if variable.node}
        self._needed = reached or set(self._variables)
        self._contested: dict[str, list[str]] = {}
        self._problems: list[str] = []
        self._walks_taken: list[Walked] = []
        self._chosen_root: int | None = None

    def _id(self, place: int) -> str:
        variable = self._objects.nodes[place].variable
        return variable.node if variable is not None and variable.node else f"#{place}"

    def by_map(self, renames: Mapping[str, str]) -> None:
        """Take what a map says."""
        found, problems = mapped(self._variables, self._values, renames)
        self._problems += problems
        for name, key in found.items():
            self._take(name, key, "map")

    def by_objects(self, view: StoredView, root: str | None) -> None:
        """Take what the object graphs say."""
        paths = view.paths()
        self._chosen_root = _root_at(view, root, self._path) if root is not None else None
        near = [place for place, path in paths.items() if path.count("/") < _MOST_DEEP]
        roots = near if self._chosen_root is None else [self._chosen_root]
        walks = next((found for start in self._starts() if (found := self._walks(view, roots, start))), [])
        if walks and self._chosen_root is None:
            most = max(walks, key=lambda walk: len(self._fitting(walk)))
            walks += self._walks(view, _built_like(view, most.root, paths, near), most.start)
        best = self._best(walks, paths) if walks else None
        is_complete = best is not None and len(self._fitting(best)) == len(self._needed)
        if not is_complete and root is None and self._is_container():
            self._apart(view, paths)
        elif best is not None:
            self._take_walk(best)
            self._found.root = root if root is not None else paths.get(best.root, "")
            if best.root and root is None and self._found.root != "model":
                self._found.notes.append(f"the model is {self._found.root!r} in the checkpoint")

    def _starts(self) -> list[int]:
        """Return the live objects that may be what was saved: the root, and what it wraps if that holds everything."""
        found = [0] if self._objects.nodes else []
        needed = {place for place, item in enumerate(self._objects.nodes)
                  if item.variable is not None and self._id(place) in self._needed}  # fmt: skip
        for place in found:
            if len(found) > _MOST_WRAPPED or not needed:
                break
            inner = [child for child in self._objects.nodes[place].children.values()
                     if needed <= self._objects.model_places(child).keys()]  # fmt: skip
            found += [child for child in dict.fromkeys(inner) if child not in found]
        return found

    def scope(self, view: StoredView) -> set[str] | None:
        """Return the keys that names may lead to: those of the same root; None where no root is known."""
        if self._chosen_root is None and not self._walks_taken:
            return None
        roots = {walk.root for walk in self._walks_taken}
        roots |= set() if self._chosen_root is None else {self._chosen_root}
        return {key for root in roots for key in view.keys_below(root)}

    def _is_container(self) -> bool:
        """Whether the code returned objects in a list, dict or plain object of Python's, which no checkpoint has."""
        return bool(self._objects.nodes) and self._objects.nodes[0].is_inner

    def _walks(self, view: StoredView, roots: list[int], start: int = 0) -> list[Walked]:
        """Walk from every object of the checkpoint that has a name in common with the live one."""
        if not self._objects.nodes:
            return []
        item = self._objects.nodes[start]
        names = item.children.keys() | item.other_children.keys()
        likely = [root for root in roots
                  if not (names.isdisjoint(view.children(root)) and names.isdisjoint(view.numbered(root)))]  # fmt: skip
        found = [walk_together(self._objects, view, root, start) for root in likely[:_MOST_ROOTS]]
        return [walk for walk in found if walk.keys or walk.contested]

    def _fitting(self, walk: Walked) -> dict[str, str]:
        """Return the keys that a walk found for variables that need one, and that fit: node -> key."""
        found = {}
        for place, key in walk.keys.items():
            variable = self._objects.nodes[place].variable
            if variable is not None and self._id(place) in self._needed and self._fits(variable, key):
                found[self._id(place)] = key
        return found

    def _fits(self, variable: LiveVariable, key: str) -> bool:
        tensor = self._values.get(key)
        return tensor is not None and variable.fits(tensor)

    def _best(self, walks: list[Walked], paths: Mapping[int, str]) -> Walked:
        """Return the walk that found the most; the root itself wins over what hangs on it, which is told.

        Raises:
            RestoreError: Several that found the same number of variables say different keys.
        """
        found = [(walk, self._fitting(walk)) for walk in walks]
        most = max(len(keys) for _, keys in found)
        ties = [(walk, keys) for walk, keys in found if len(keys) == most]
        different: dict[tuple[tuple[str, str], ...], Walked] = {}
        for walk, keys in ties:
            different.setdefault(tuple(sorted(keys.items())), walk)
        first, *others = different.values()
        if not most or not others:
            return first
        names = [repr(paths.get(walk.root, "")) for walk in different.values()]
        if first.root == 0:
            rivals = [name for name, walk in zip(names[1:], others, strict=True) if len(walk.keys) >= len(first.keys)]
            if rivals:
                self._found.notes.append(f"the model is the checkpoint itself; other values for all of it are in "
                                         f"{', '.join(rivals)} (--checkpoint-root)")  # fmt: skip
            return first
        raise RestoreError(
            f"{len(names)} objects of the checkpoint could be the model, with other values each: {', '.join(names)}",
            path=self._path, hint=_HINT_ROOT,
        )  # fmt: skip

    def _apart(self, view: StoredView, paths: Mapping[int, str]) -> None:
        """Match what a list or dict holds one by one, since the checkpoint calls them otherwise."""
        roots: dict[str, str] = {}
        for name, child in self._objects.nodes[0].children.items():
            walks = self._walks(view, list(paths), child)
            if walks:
                best = self._best(walks, paths)
                roots[name] = paths.get(best.root, "")
                self._take_walk(best)
        if len(set(roots.values())) < len(roots):
            said = ", ".join(f"{name}: {root!r}" for name, root in roots.items())
            self._problems.append(f"objects: several that the code returned are one in the checkpoint: {said}")
        self._found.notes += [f"{name} is {root!r} in the checkpoint" for name, root in roots.items() if name != root]

    def _take_walk(self, walk: Walked) -> None:
        self._walks_taken.append(walk)
        for place, key in walk.keys.items():
            if self._fits_or_is_needed(place, key):
                self._take(self._id(place), key, "object" if place in walk.exact else "layer")
        for place, keys in walk.contested.items():
            if self._id(place) not in self._found.keys:
                self._contested[self._id(place)] = keys

    def _fits_or_is_needed(self, place: int, key: str) -> bool:
        """Whether to take a key: of what is needed also one that does not fit, since that is to be told."""
        variable = self._objects.nodes[place].variable
        return self._id(place) in self._needed or (variable is not None and self._fits(variable, key))

    def _take(self, node: str, key: str, reason: str) -> None:
        known = self._found.keys.get(node)
        if known is None:
            self._found.keys[node] = key
            self._found.reasons[node] = reason
        elif known != key and self._found.reasons[node] == reason:
            self._contested[node] = [known, key]

    def compare_names(self, names: Mapping[str, str]) -> None:
        """Refuse what paths say where names say that layers changed places.

        Paths number the layers of lists and of functional models; code that has them in another order has other layers
        at the same paths. Names that Keras numbers are no evidence, since they depend on what was built before.

        Args:
            names: name -> checkpoint key.
        """
        stored = {key: name for name, key in names.items()}
        takers = {key: self._variables[node] for node, key in self._found.keys.items()}
        claimed = {name for variable in self._variables.values() for name in variable.names}
        for node in self._needed & self._found.keys.keys():
            key, variable = self._found.keys[node], self._variables[node]
            here = stored.get(key, "")
            if self._found.reasons[node] == "map" or here not in claimed or here in variable.names:
                continue
            for name in variable.names:
                other = takers.get(names.get(name, ""))
                if other is not None and name not in other.names and without_numbers(name) != without_numbers(here):
                    self._problems.append(f"objects: {variable.label} is {key!r} by its path in the checkpoint, and "
                                          f"{names[name]!r} by its name: layers have changed places")  # fmt: skip
                    break

    def by_name(self, names: Mapping[str, str]) -> None:
        """Take what names say, for variables that are still without key.

        Args:
            names: name -> checkpoint key.
        """
        left = {name: variable for name, variable in self._variables.items()
                if name not in self._found.keys and name not in self._contested}  # fmt: skip
        used = set(self._found.keys.values())
        free = {name: key for name, key in names.items() if key not in used}
        found, contested = keys_by_names(left, free)
        self._problems += [problem for nodes, problem in contested if not self._needed.isdisjoint(nodes)]
        claimed = {name for variable in self._objects.variables() for name in variable.names}
        needed = {node: name for node, name in found.items() if node in self._needed}
        numbered = {node for node in needed if self._variables[node].is_numbered}
        tensors = {name: self._values[key] for name, key in free.items()}
        self._problems += drifted_names(needed, tensors, claimed, numbered)
        for node, name in found.items():
            self._take(node, free[name], "name")

    def by_training(self, view: StoredView, root: str | None) -> None:
        """Take the order in which an optimizer, or an export, of Keras 3 keeps what is trained.

        Args:
            view: The object graph.
            root: What the user named.
        """
        if all(name in self._found.keys for name in self._needed):
            return
        keys = {place: self._found.keys[self._id(place)] for place in range(len(self._objects.nodes))
                if self._id(place) in self._found.keys}  # fmt: skip
        owners = {walk.root for walk in self._walks_taken if walk.start == 0}
        found = order_of_training(self._objects, view, self._values, keys, owners=owners, chosen=self._chosen_root)
        self._problems += found.problems
        self._found.notes += found.notes
        for place, key in found.keys.items():
            self._take(self._id(place), key, "trained")

    def note_unused(self, view: StoredView) -> None:
        """Note the variables of the model in the checkpoint that the code does not have.

        A live object without any variable that nothing has called yet is a layer that nothing exported calls.
        """
        walks = self._walks_taken
        used = set(self._found.keys.values())
        for walk in walks:
            used.update(walk.keys.values(), *walk.contested.values())
        unbuilt = {node for walk in walks for place, nodes in walk.partners.items() for node in nodes
                   if not self._objects.nodes[place].is_built and not self._holds_variables(place)}  # fmt: skip
        roots = [walk.root for walk in walks] or _smallest_holding(view, self._found.keys.values())
        for root in roots:
            nearest = {view.key(child) for child in view.children(root).values()}
            self._found.unused += [
                key for key in view.keys_below(root, unbuilt)
                if key not in used and not (key in nearest and key in self._values and _is_counter(self._values[key]))
            ]  # fmt: skip

    def note_others(self) -> None:
        """Tell of what a checkpoint by names has besides: nothing says whether it belongs to the same model."""
        used = set(self._found.keys.values())
        claimed = {name for variable in self._variables.values() for name in variable.names}
        others = [name for name in names_of_models(self._values) if name not in used and name not in claimed]
        if used and others:
            said = ", ".join(others[:_MOST_COMPARED]) + (" ..." if len(others) > _MOST_COMPARED else "")
            self._found.notes.append(f"{len(others)} more variables are in the checkpoint, and the code does not have "
                                     f"them: {said}")  # fmt: skip

    def _holds_variables(self, place: int) -> bool:
        return any(self._objects.nodes[below].variable is not None for below in self._objects.model_places(place))

    def result(self) -> LiveMatches:
        """Return what was found.

        Raises:
            RestoreError: With everything that two ways say differently.
        """
        for name, keys in self._contested.items():
            said = " or ".join(repr(key) for key in keys)
            if name in self._needed:
                self._problems.append(f"objects: {self._variables[name].label} is {said} in the checkpoint")
        if self._problems:
            raise RestoreError(
                "it cannot be known which value fills which variable", mismatched=self._problems, path=self._path,
                hint=_HINT_MAP,
            )  # fmt: skip
        found = self._found
        for place, item in enumerate(self._objects.nodes):
            key = found.keys.get(self._id(place)) if item.variable is not None else None
            if key is not None and self._id(place) not in self._contested:
                found.places[place] = key
        found.notes += self._doubled()
        used = set(found.keys.values())
        found.unused = [key for key in dict.fromkeys(found.unused) if key not in used and key in self._values]
        found.keys = {name: key for name, key in found.keys.items() if self._variables[name].node}
        found.reasons = {name: found.reasons[name] for name in found.keys}
        return found

    def _doubled(self) -> list[str]:
        """Tell of values that a map gives to a second variable."""
        takers: dict[str, list[str]] = {}
        for name, key in self._found.keys.items():
            takers.setdefault(key, []).append(name)
        return [
            f"{key!r} fills {' and '.join(self._variables[name].label for name in names)}, as the map says"
            for key, names in takers.items()
            if len(names) > 1 and "map" in {self._found.reasons.get(name) for name in names}
        ]


def _built_like(view: StoredView, root: int, paths: Iterable[int], known: Container[int]) -> list[int]:
    """Return further objects that have the same parts as one: another copy of the same model, however deep."""
    parts = view.children(root).keys()
    found = (node for node in paths if node not in known and view.children(node).keys() == parts)
    return list(islice(found, _MOST_RIVALS))


def _smallest_holding(view: StoredView, keys: Collection[str]) -> list[int]:
    """Return the object near the root that holds variables and the fewest others; none where there is no such one."""
    wanted = set(keys)
    if not wanted:
        return []
    near = islice((node for node, path in view.paths().items() if path.count("/") < _MOST_DEEP), _MOST_RIVALS)
    found = [(len(below), node) for node in near if wanted <= (below := set(view.keys_below(node)))]
    return [min(found)[1]] if found else []


def _is_counter(tensor: Tensor) -> bool:
    """Whether a value counts something, such as steps, and is no part of what a model computes."""
    return not tensor.shape and tensor.dtype.numpy.kind in "iu"


def mapped(variables: Mapping[str, LiveVariable], values: Collection[str],
           renames: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:  # fmt: skip
    """Find the variables that a map names.

    Args:
        variables: node -> the variable.
        values: The keys that there are.
        renames: key, with or without the ending of object-based ones -> a variable's node or any of its names.

    Returns:
        node -> key, and what is wrong with the map, as sentences.
    """
    owners: dict[str, list[str]] = {}
    for node, variable in variables.items():
        for name in variable.names:
            owners.setdefault(name, []).append(node)
    found: dict[str, str] = {}
    problems: list[str] = []
    for said, target in renames.items():
        key = f"{said}{VALUE_KEY}" if said not in values and f"{said}{VALUE_KEY}" in values else said
        nodes = [target] if target in variables else owners.get(target, [])
        if not nodes:
            near = near_names(target, owners, 2) if len(problems) < _MOST_COMPARED else []
            problems.append(f"map: the code has no variable {target!r}{_nearest(near)}")
        elif len(nodes) > 1:
            problems.append(f"map: {target!r} is the name of {len(nodes)} variables: {', '.join(nodes)}")
        elif key not in values:
            near = near_names(key, values, 2) if len(problems) < _MOST_COMPARED else []
            problems.append(f"map: {target} shall take {key!r}, which the checkpoint does not have{_nearest(near)}")
        elif nodes[0] in found:
            problems.append(f"map: {target} shall take {found[nodes[0]]!r} and {key!r}")
        else:
            found[nodes[0]] = key
    return found, problems


def _nearest(names: Sequence[str]) -> str:
    return f"; near: {', '.join(name.removesuffix(VALUE_KEY) for name in names)}" if names else ""


def _root_at(view: StoredView, root: str, path: str | None) -> int:
    """Return the object of a checkpoint at a path; `.` is its root.

    Raises:
        NotFoundError: There is none.
    """
    found = view.follow_path(root)
    if found is None:
        known = view.paths().values()
        raise NotFoundError.named("object", root, [name for name in known if name], path=path)
    return found
