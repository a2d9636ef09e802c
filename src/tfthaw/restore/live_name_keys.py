"""Live variables and the names of a checkpoint.

Names match exactly or not at all. A variable has several, best first; a name of the checkpoint is used once. Two
variables that want one name, both at the same rank, are refused.

Keras numbers layers as they are made, so a second model in the same process has `dense_2` where the first had `dense`.
Such names may be those of other layers in the checkpoint; where all of them fit as well with other numbers, names tell
nothing, and that is refused too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Container, Mapping

from tfthaw.ir.live_objects import LiveVariable
from tfthaw.tensors import Tensor

_NUMBER = re.compile(r"_(\d{1,6})$")


def keys_by_names(
    variables: Mapping[str, LiveVariable], names: Container[str]
) -> tuple[dict[str, str], list[tuple[list[str], str]]]:
    """Find the name in a checkpoint of each variable.

    Args:
        variables: node -> the variable.
        names: The checkpoint's names.

    Returns:
        node -> name, and each name that several variables want at the same rank: these, and a sentence.
    """
    choices = {node: [name for name in variable.names if name in names] for node, variable in variables.items()}
    found: dict[str, str] = {}
    problems: list[tuple[list[str], str]] = []
    taken: set[str] = set()
    while True:
        wanted: dict[str, list[str]] = defaultdict(list)
        for node, possible in choices.items():
            first = next((name for name in possible if name not in taken), None)
            if node not in found and first is not None:
                wanted[first].append(node)
        if not wanted:
            return found, problems
        for name, nodes in wanted.items():
            ranks = {node: variables[node].names.index(name) for node in nodes}
            best = min(ranks.values())
            winners = [node for node in nodes if ranks[node] == best]
            taken.add(name)
            if len(winners) == 1:
                found[winners[0]] = name
            else:
                said = " and ".join(variables[node].names[0] for node in winners)
                problems.append((winners, f"name: {name!r} could fill {said}"))


def drifted_names(found: Mapping[str, str], tensors: Mapping[str, Tensor], claimed: Collection[str]) -> list[str]:
    """Say which numbered names may be those of other layers.

    Args:
        found: node -> the name in the checkpoint that was found for it.
        tensors: The checkpoint's tensors by name.
        claimed: Every name that some live variable has.
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for name in found.values():
        for stem, number, _ in _numbered(name):
            groups[stem][name] = number
    problems = []
    for stem, members in sorted(groups.items()):
        for offset in range(1, min(members.values()) + 1):
            shifted = {name: _renumbered(name, stem, -offset) for name in members}
            is_free = any(other not in claimed for other in shifted.values())
            if is_free and all(_are_alike(tensors.get(other), tensors[name]) for name, other in shifted.items()):
                name, other = min(shifted.items())
                problems.append(
                    f"name: {name!r} may be {other!r} in the checkpoint, which nothing else takes: the numbers of "
                    f"layers depend on what was built before"
                )
                break
    return problems + _more_layers(found, tensors, claimed)


def _more_layers(found: Mapping[str, str], tensors: Mapping[str, Tensor], claimed: Collection[str]) -> list[str]:
    """Say which names may be those of earlier layers, where the checkpoint has more of a class than the code.

    Only numbers that Keras gives: the first layer of a class has none.
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for name in found.values():
        for stem, number, _ in _counted(name):
            groups[stem][name] = number
    present: dict[str, set[int]] = defaultdict(set)
    for name in tensors:
        for stem, number, _ in _counted(name):
            if stem in groups:
                present[stem].add(number)
    problems = []
    for stem, members in sorted(groups.items()):
        for higher in sorted(present[stem]) if 0 in present[stem] else ():
            offset = higher - min(members.values())
            shifted = {name: _renumbered(name, stem, offset) for name in members} if offset > 0 else {}
            is_free = any(other not in claimed for other in shifted.values())
            if is_free and all(_are_alike(tensors.get(other), tensors[name]) for name, other in shifted.items()):
                name, other = min(shifted.items())
                problems.append(f"name: {name!r} may be {other!r} in the checkpoint, which has more such layers than "
                                "the code")  # fmt: skip
                break
    return problems


def without_numbers(name: str) -> str:
    """Return a name without the numbers that Keras gives to layers of one class."""
    return "/".join(_NUMBER.sub("", part) for part in name.split("/"))


def within_model(name: str) -> str:
    """Return a name without numbers, and without the model in front of a layer's name."""
    parts = without_numbers(name).split("/")
    return "/".join(parts[1:] if len(parts) > 2 else parts)


def _are_alike(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and one.dtype is other.dtype


def _numbered(name: str) -> list[tuple[str, int, int]]:
    """Return each part of a name that ends in a number: the name up to its stem, the number, the part's position."""
    parts, result = name.split("/"), []
    for position, part in enumerate(parts[:-1]):
        match = _NUMBER.search(part)
        if match:
            result.append(("/".join([*parts[:position], part[: match.start()]]), int(match.group(1)), position))
    return result


def _counted(name: str) -> list[tuple[str, int, int]]:
    """Return each part of a name as `_numbered` does, those without number as the first of their class."""
    numbered = {position: (stem, number, position) for stem, number, position in _numbered(name)}
    parts = name.split("/")
    return [numbered.get(position, ("/".join(parts[: position + 1]), 0, position))
            for position in range(len(parts) - 1)]  # fmt: skip


def _renumbered(name: str, stem: str, offset: int) -> str:
    for found, number, position in _counted(name):
        if found == stem:
            parts = name.split("/")
            plain = parts[position].removesuffix(f"_{number}") if number else parts[position]
            parts[position] = f"{plain}_{number + offset}" if number + offset else plain
            return "/".join(parts)
    return name
