"""Which value of one file fills which variable of another, for two layouts of the same Keras model.

What the configuration explains is matched by place. In a layer that it does not explain, a value and a variable belong
together where nothing else could: they alone have this type and shape, or these and the same attribute path or name.
What stays open is refused, with what a map would have to say; nothing is guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tfthaw.errors import RestoreError
from tfthaw.ir.object_graph import VALUE_KEY
from tfthaw.restore.keras_layouts import Located, Place, Slot, layer_names
from tfthaw.restore.keras_tree import KerasLayer
from tfthaw.tensors import Tensor

_FAMILIES: tuple[tuple[str, ...], ...] = (
    ("gamma", "beta", "moving_mean", "moving_variance"),
    ("gamma", "beta"),
    ("kernel", "recurrent_kernel", "bias"),
    ("depthwise_kernel", "pointwise_kernel", "bias"),
    ("kernel", "bias"),
)
"""Names of the variables of Keras's own layers, in the order in which these make them."""


@dataclass
class Assignment:
    """Which value fills which variable.

    Attributes:
        pairs: Target's name -> source's name.
        missing: Targets without value.
        unused: Values without target.
        open: Targets of which it cannot be known which value fills them, as sentences.
        notes: What was concluded from less than the configuration.
    """

    pairs: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Item(NamedTuple):
    """A name in a region, with what can be known of it.

    Attributes:
        name: The whole name.
        path: The path below the region.
        tensor: Its value.
        container: The attributes that lead to it, as far as the layout tells.
        leaf: Its own name, as far as the layout tells.
    """

    name: str
    path: str
    tensor: Tensor
    container: str | None
    leaf: str | None


def assign(
    tree: KerasLayer, target: Located, source: Located, targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]
) -> Assignment:
    """Match the variables of two files of one model.

    Args:
        tree: The model's layers.
        target: Where the variables to fill are.
        source: Where the values are.
        targets: The tensors that are there now, by name.
        sources: The values by name.
    """
    result = Assignment(missing=list(target.missing), unused=list(source.rest), open=list(source.misnamed))
    regions = _shared_regions(target, source)
    for slot, name in target.slots.items():
        if any(slot.place[: len(place)] == place for place in regions):
            continue
        value = source.slots.get(slot)
        if value is None:
            result.missing.append(name)
        else:
            result.pairs[name] = value
    for place in regions:
        _assign_region(result, tree, place, _items(target, place, targets), _items(source, place, sources))
    return result


def require_fitting(assignment: Assignment, targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], *,
                    path: str) -> None:  # fmt: skip
    """Refuse an assignment that leaves something open, or fills a variable with another type or shape.

    Raises:
        RestoreError: With everything that does not fit.
    """
    misfits = [
        f"{name}: {_kind(targets[name])}, the value {value} has {_kind(sources[value])}"
        for name, value in assignment.pairs.items()
        if name in targets and _signature(targets[name]) != _signature(sources[value])
    ]
    if assignment.missing or assignment.unused or assignment.open or misfits:
        hint = 'a map says it: "name of the value" = "name of the variable"' if assignment.open else None
        raise RestoreError(
            "the values are not those of this model", missing=assignment.missing, unused=assignment.unused,
            mismatched=[*misfits, *assignment.open], path=path, hint=hint,
        )  # fmt: skip


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype.name}{list(tensor.shape)}"


def _signature(tensor: Tensor) -> tuple[Hashable, ...]:
    return (tensor.dtype, tensor.shape)


def _shared_regions(one: Located, other: Located) -> list[Place]:
    """Return the outermost places that one of two files does not explain."""
    places = sorted({*one.regions, *other.regions}, key=len)
    kept: list[Place] = []
    for place in places:
        if not any(place[: len(outer)] == outer for outer in kept):
            kept.append(place)
    return sorted(kept)


def _items(located: Located, place: Place, tensors: Mapping[str, Tensor]) -> list[_Item]:
    """Return all names of a region, those that the file explains included."""
    names = located.regions.get(place, {})
    if not names:
        every = [name for slot, name in located.slots.items() if slot.place[: len(place)] == place]
        every += [name for where, region in located.regions.items() if where[: len(place)] == place
                  for name in region.values()]  # fmt: skip
        prefix = _common_prefix(every)
        names = {name[len(prefix) :]: name for name in every}
    return [_item(located.layout, path, name, tensors[name]) for path, name in names.items() if name in tensors]


def _common_prefix(names: Sequence[str]) -> str:
    """Return the groups that all names begin with."""
    if not names:
        return ""
    shared = names[0].split("/")[:-1]
    for name in names[1:]:
        parts = name.split("/")[:-1]
        count = next((position for position, (a, b) in enumerate(zip(shared, parts, strict=False)) if a != b),
                     min(len(shared), len(parts)))  # fmt: skip
        shared = shared[:count]
    if "vars" in shared:
        shared = shared[: shared.index("vars")]
    return "/".join(shared) + "/" if shared else ""


def _item(layout: str, path: str, name: str, tensor: Tensor) -> _Item:
    """Read what a path tells: attributes and own name; of legacy names the latter only."""
    path = path.removesuffix(VALUE_KEY)
    head, _, leaf = path.rpartition("/")
    if layout == "saved":
        return _Item(name, path, tensor, _plain(head.removesuffix("vars").rstrip("/")), None)
    if layout == "legacy":  # the names of layers are no attributes
        return _Item(name, path, tensor, None, leaf.partition(":")[0])
    return _Item(name, path, tensor, _plain(head), leaf.lstrip("_"))


def _plain(path: str) -> str:
    return "/".join(part.lstrip("_") for part in path.split("/"))


def _assign_region(result: Assignment, tree: KerasLayer, place: Place, targets: list[_Item],
                   sources: list[_Item]) -> None:  # fmt: skip
    layer = layer_names(tree, place)
    targets, sources = _with_families(result, layer, targets, sources)
    left: list[tuple[list[_Item], list[_Item]]] = [(targets, sources)]
    # the same path is proof; so is being the only one of a type and shape, alone or with a path or name in common
    keys: list[Callable[[_Item], Hashable]] = [
        lambda item: item.path,
        lambda item: _signature(item.tensor),
        lambda item: item.container,
        lambda item: item.leaf,
    ]
    for key in keys:
        left = [rest for group in left for rest in _split(result, *group, key)]
    for some, others in left:
        if len(some) == len(others):
            result.open.append(
                f"layer {layer}: which of {', '.join(item.name for item in others)} is "
                f"{', '.join(item.name for item in some)}: nothing tells"
            )
        else:
            result.missing += [item.name for item in some]
            result.unused += [item.name for item in others]


def _split(result: Assignment, targets: list[_Item], sources: list[_Item], key: Callable[[_Item], Hashable]
           ) -> list[tuple[list[_Item], list[_Item]]]:  # fmt: skip
    """Pair what a key tells apart on both sides, and return what is left in groups."""
    groups: dict[Hashable, tuple[list[_Item], list[_Item]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((targets, sources)):
        for item in items:
            groups[key(item)][side].append(item)
    if any(len(some) != len(others) for some, others in groups.values()) and not _is_strict(key, targets, sources):
        return [(targets, sources)]  # the key means different things on the two sides
    left = []
    for some, others in groups.values():
        is_pair = len(some) == len(others) == 1
        if is_pair and _signature(some[0].tensor) == _signature(others[0].tensor):
            result.pairs[some[0].name] = others[0].name
        elif some or others:
            left.append((some, others))
    return left


def _is_strict(key: Callable[[_Item], Hashable], targets: list[_Item], sources: list[_Item]) -> bool:
    """Whether a key must agree on both sides: type and shape do."""
    return all(key(item) == _signature(item.tensor) for item in (*targets, *sources))


def _with_families(result: Assignment, layer: str, targets: list[_Item], sources: list[_Item]
                   ) -> tuple[list[_Item], list[_Item]]:  # fmt: skip
    """Name numbered variables after those of the other side, where these are the variables of a layer of Keras's."""
    sides = [targets, sources]
    for number, side in enumerate(sides):
        other = sides[1 - number]
        named: dict[str, str] = {}
        for container in {item.container for item in side if item.leaf is None and item.container}:
            mine = [item for item in side if item.container == container and item.leaf is None]
            leaves = {item.leaf for item in other if item.container == container}
            family = next((names for names in _FAMILIES if set(names) == leaves and len(mine) == len(names)), None)
            if family is not None:
                ordered = sorted(mine, key=lambda item: int(item.path.rpartition("/")[2]))
                named.update({item.name: leaf for item, leaf in zip(ordered, family, strict=True)})
                result.notes.append(f"{layer}/{container} was taken for a layer of Keras's own, since its variables "
                                    f"are {', '.join(family)}")  # fmt: skip
        sides[number] = [item._replace(leaf=named.get(item.name, item.leaf)) for item in side]
    return sides[0], sides[1]


def by_slot(target: Mapping[Slot, str], source: Located, path: str) -> dict[str, str]:
    """Return which value goes under which new name, for a layout that is written from the configuration alone.

    Args:
        target: Where each variable goes.
        source: Where the values are.
        path: The source, for errors.

    Raises:
        RestoreError: Some have no value, or values are left.
    """
    missing = [name for slot, name in target.items() if slot not in source.slots]
    if missing or source.rest or source.misnamed:
        raise RestoreError("the configuration and the values are not of the same model", missing=missing,
                           unused=source.rest, mismatched=source.misnamed, path=path)  # fmt: skip
    return {name: source.slots[slot] for slot, name in target.items()}
