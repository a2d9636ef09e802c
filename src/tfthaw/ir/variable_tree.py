"""Variable trees: a place in an object graph for each name of a graph.

Graphs have flat names with slashes, object graphs have objects with attributes: `dense/kernel` becomes the attribute
`kernel` of the attribute `dense` of the root. A variable has no attributes, and the root has some already, so names
that ask for either get a place nearby:

    name                place
    dense/kernel        dense / kernel
    w                   w
    w/Adam              w_Adam               `w` is a variable and can hold nothing
    variables           variables_1          the root's list of all variables
    dense/_kernel       dense / v_kernel     attributes that begin with an underscore are TensorFlow's own

Places depend on the names and their order alone. They become checkpoint keys, so they never change for the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

Place = tuple[str, ...]

UNNAMED = "variable"


def places(names: Sequence[str], reserved: Collection[str] = ()) -> list[Place]:
    """Return a place for each name, in the order of the names; no two are the same, and none is inside another.

    Args:
        names: The names; they need not differ.
        reserved: Attributes that the root has already.
    """
    wanted = [_wanted(name, reserved) for name in names]
    state = _Places(wanted)
    return [state.place(path) for path in wanted]


def _wanted(name: str, reserved: Collection[str]) -> Place:
    parts = [f"v{part}" if part.startswith("_") else part for part in name.split("/") if part] or [UNNAMED]
    if parts[0] in reserved:
        parts[0] += "_1"
    return tuple(parts)


class _Places:
    """Which places are taken."""

    def __init__(self, wanted: Iterable[Place]) -> None:
        self.variables = set(wanted)
        self.given: set[Place] = set()
        staying = [path for path in self.variables if self._outside_variables(path) == path]
        self.folders = {path[:length] for path in staying for length in range(1, len(path))}

    def place(self, path: Place) -> Place:
        """Return the place for a path, and take it."""
        outside = self._outside_variables(path)
        free = outside
        number = 0
        while free in self.given or free in self.folders or (free != path and free in self.variables):
            number += 1
            free = (*outside[:-1], f"{outside[-1]}_{number}")
        self.given.add(free)
        self.folders.update(free[:length] for length in range(1, len(free)))
        return free

    def _outside_variables(self, path: Place) -> Place:
        """Return a path none of whose folders is a variable: what lies in one moves beside it."""
        result: list[str] = []
        for part in path:
            if result and (tuple(result) in self.variables or tuple(result) in self.given):
                result[-1] = f"{result[-1]}_{part}"
            else:
                result.append(part)
        return tuple(result)
