"""Live variables and the names of a checkpoint.

Names match exactly or not at all. A variable has several, best first; a name of the checkpoint is used once. Two
variables that want one name, both at the same rank, are refused.

Keras numbers layers as they are made, so a second model in the same process has `dense_2` where the first had `dense`.
Such names may be those of other layers in the checkpoint; where all of them fit as well with other numbers, names tell
nothing, and that is refused too. TensorFlow numbers equally named variables of a graph in the same way (`W`, `W_1`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Container, Mapping

from tfthaw.dtypes import DType
from tfthaw.ir.live_objects import LiveVariable
from tfthaw.tensors import Tensor

_OF_TRAINING = (
    "/Adam", "/Adam_1", "/Momentum", "/RMSProp", "/RMSProp_1", "/Adagrad", "/Ftrl", "/Ftrl_1", "/Adadelta",
    "/Adadelta_1", "/ExponentialMovingAverage",
)  # fmt: skip
_STATE = ("beta1_power", "beta2_power", "global_step", "iteration", "learning_rate", "save_counter")
_DEFAULT = re.compile(r"Variable(_\d+)?")
_NUMBER = re.compile(r"_(\d{1,6})$")


def names_of_models(values: Mapping[str, Tensor]) -> list[str]:
    """Return the names of a checkpoint that may be those of a model's variables, and not what only training needs."""
    names = (name for name, tensor in values.items() if tensor.dtype is not DType.string)
    return [name for name in names if not name.endswith(_OF_TRAINING) and name.rpartition("/")[2] not in _STATE]


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


def drifted_names(
    found: Mapping[str, str], tensors: Mapping[str, Tensor], claimed: Collection[str], numbered: Collection[str] = ()
) -> list[str]:  # fmt: skip
    """Say which numbered names may be those of other layers.

    Args:
        found: node -> the name in the checkpoint that was found for it.
        tensors: The checkpoint's tensors by name.
        claimed: Every name that some live variable has.
        numbered: Nodes of variables that TensorFlow itself may have numbered.
    """
    whole = {name for node, name in found.items() if node in numbered}
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for name in found.values():
        for stem, number, _ in _numbered(name, is_whole=name in whole):
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
    return problems + _more_layers(found, tensors, claimed, whole)


def _more_layers(
    found: Mapping[str, str], tensors: Mapping[str, Tensor], claimed: Collection[str], whole: Collection[str]
) -> list[str]:  # fmt: skip
    """Say which names may be those of earlier layers, where the checkpoint has more of a class than the code.

    Only numbers that Keras and TensorFlow give: the first one has none.
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for name in found.values():
        for stem, number, _ in _counted(name, is_whole=name in whole):
            groups[stem][name] = number
    present: dict[str, set[int]] = defaultdict(set)
    own: set[str] = set()
    for name in tensors:
        for stem, number, is_written in _counted(name, is_whole=True):
            if stem in groups:
                present[stem].add(number)
                own.update([stem] if is_written and not number else [])
    problems = []
    for stem, members in sorted(groups.items()):
        for higher in sorted(present[stem]) if 0 in present[stem] and stem not in own else ():
            offset = higher - min(members.values())
            shifted = {name: _renumbered(name, stem, offset) for name in members} if offset > 0 else {}
            is_free = any(other not in claimed for other in shifted.values())
            if is_free and all(_are_alike(tensors.get(other), tensors[name]) for name, other in shifted.items()):
                name, other = min(shifted.items())
                problems.append(f"name: {name!r} may be {other!r} in the checkpoint, which has more such layers than "
                                "the code")  # fmt: skip
                break
    return problems


def is_default_name(name: str) -> bool:
    """Whether it is TensorFlow that called a variable so, because nobody gave it a name."""
    return _DEFAULT.fullmatch(name.rpartition("/")[2]) is not None


def without_numbers(name: str) -> str:
    """Return a name without the numbers that Keras gives to layers of one class."""
    return "/".join(_NUMBER.sub("", part) for part in name.split("/"))


def layer_number(name: str) -> tuple[int, ...]:
    """Return the numbers in the names of a variable's layers, 0 where there is none."""
    return tuple(int(match[1]) if (match := _NUMBER.search(part)) else 0 for part in name.split("/")[:-1])


def within_model(name: str) -> str:
    """Return a name without numbers, and without the model in front of a layer's name."""
    parts = without_numbers(name).split("/")
    return "/".join(parts[1:] if len(parts) > 2 else parts)


def _are_alike(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and one.dtype is other.dtype


def _numbered(name: str, *, is_whole: bool = False) -> list[tuple[str, int, int]]:
    """Return each part of a name that ends in a number: the name up to its stem, the number, the part's position.

    Args:
        name: The name.
        is_whole: Whether its last part counts, which is the variable's own name.
    """
    parts, result = name.split("/"), []
    for position, part in enumerate(parts if is_whole else parts[:-1]):
        match = _NUMBER.search(part)
        if match:
            result.append(("/".join([*parts[:position], part[: match.start()]]), int(match.group(1)), position))
    return result


def _counted(name: str, *, is_whole: bool = False) -> list[tuple[str, int, bool]]:
    """Return each part of a name: the name up to its stem, its number, and whether that is written; 0 mostly is not."""
    numbered = {position: (stem, number) for stem, number, position in _numbered(name, is_whole=is_whole)}
    parts = name.split("/")
    return [
        (*numbered[position], True) if position in numbered else ("/".join(parts[: position + 1]), 0, False)
        for position in range(len(parts) - (not is_whole))
    ]  # fmt: skip


def _renumbered(name: str, stem: str, offset: int) -> str:
    """Return a name with another number behind a stem."""
    parts = name.split("/")
    position = stem.count("/")
    number = next((found for other, found, _ in _counted(name, is_whole=True) if other == stem), None)
    if number is None:
        return name
    plain = stem.rpartition("/")[2]
    parts[position] = f"{plain}_{number + offset}" if number + offset else plain
    return "/".join(parts)
