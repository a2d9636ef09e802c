"""The order in which variables were trained, as evidence for which is which.

Checkpoints of Keras 3 leave out layers in lists and dicts; an optimizer has their variables nevertheless, in a list.
So has what `model.export` writes. A compiled model gives its optimizer `model.trainable_variables`, which the code's
model has in the same order: that is taken, with a note. Of any other optimizer nobody knows which model's variables it
was given, and in which order: its list is taken where the user names it, or where order does not matter since no two of
its variables are alike.

The other Keras walks lists and dicts in another order. There, variables that are alike must be of layers that are
numbered as they come, since both Keras number layers as they are made.

Source: `Trainer.compile` and `BaseOptimizer.build` of Keras 3; `trainable_variables` of both Keras.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from tfthaw.ir.live_objects import ASIDE, TRAINED, LiveObjects, LiveVariable
from tfthaw.restore.live_name_keys import layer_number, within_model
from tfthaw.restore.live_walk import StoredView, TrainedList
from tfthaw.tensors import Tensor

_MOST_TOLD = 3
_OF_EXPORTS = ("variables", "trainable_variables", "non_trainable_variables", "serve")
_WRITING_KERAS = 3  # the one whose checkpoints have such lists


@dataclass
class Order:
    """What the order of training says.

    Attributes:
        keys: live object's position -> checkpoint key, of variables that nothing else has found.
        problems: Why it says nothing, where it could have, as sentences.
        notes: What was concluded.
    """

    keys: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def order_of_training(
    objects: LiveObjects, view: StoredView, values: Mapping[str, Tensor], found: Mapping[int, str], *,
    owners: Collection[int], chosen: int | None,
) -> Order:  # fmt: skip
    """Find variables in the list of what was trained.

    Args:
        objects: The live objects.
        view: The object graph of the checkpoint.
        values: Its tensors by key.
        found: live object's position -> checkpoint key, as everything else says.
        owners: What the live root is in the checkpoint.
        chosen: The object of the checkpoint that the user named.
    """
    return _Search(objects, view, values, found).order(set(owners), chosen)


class _Search:
    """Looks through the lists of a checkpoint."""

    def __init__(
        self, objects: LiveObjects, view: StoredView, values: Mapping[str, Tensor], found: Mapping[int, str]
    ) -> None:
        self._objects = objects
        self._view = view
        self._values = values
        self._found = found
        self._names = {key: name for _, key, name in view.stored_variables()}
        place = objects.nodes[0].other_children.get(TRAINED) if objects.nodes else None
        listed = objects.nodes[place].other_children if place is not None else {}
        self._places = [listed[str(number)] for number in range(len(listed))]

    def order(self, owners: set[int], chosen: int | None) -> Order:
        """Choose a list and take what it says."""
        elsewhere = self._view.keys_of_objects()
        lists = [each for each in self._view.trained_lists() if self._fits(each)]
        lists = [each for each in lists if not any(key in elsewhere for _, key in self._fresh(each))]
        if not lists:
            return Order()
        own = [each for each in lists if self._is_own(each, owners, chosen)]
        named = [each for each in lists if each.owner == chosen]
        if named or len(own) == 1:
            return self._taken((named or own)[0], is_known=True)
        if not own and chosen is None and len(lists) == 1 and len(self._fresh(lists[0])) < len(self._places):
            return self._taken(lists[0], is_known=False)
        said = " or ".join(f"--checkpoint-root {path}" for each in own or lists
                           if (path := self._view.path_of(each.owner)))  # fmt: skip
        return Order(problems=[
            f"order: {len(self._fresh(lists[0]))} variables are in the checkpoint only in a list of what was trained, "
            f"and nothing says that it was this model{': ' + said + ' takes them in that order' if said else ''}"
        ])  # fmt: skip

    def _fits(self, each: TrainedList) -> bool:
        """Whether a list may be that of the live model: as many variables of the same shapes and last names."""
        return len(each.keys) == len(self._places) and all(
            self._found.get(place, key) == key and self._is_likely(place, key)
            for place, key in zip(self._places, each.keys, strict=True)
        )

    def _is_likely(self, place: int, key: str) -> bool:
        variable, tensor = self._variable(place), self._values.get(key)
        if tensor is None or not variable.fits(tensor):
            return False
        return self._names[key].rpartition("/")[2] in {name.rpartition("/")[2] for name in variable.names}

    def _variable(self, place: int) -> LiveVariable:
        variable = self._objects.nodes[place].variable
        assert variable is not None  # the list holds variables alone
        return variable

    def _fresh(self, each: TrainedList) -> list[tuple[int, str]]:
        """Return the places and keys of a list that nothing else has found."""
        pairs = zip(self._places, each.keys, strict=True)
        return [(place, key) for place, key in pairs if place not in self._found]

    def _is_own(self, each: TrainedList, owners: set[int], chosen: int | None) -> bool:
        """Whether a list is that of the model itself: of the optimizer that it was compiled with, or an export's."""
        models = {chosen} if chosen is not None else owners
        if not each.is_optimizer:
            return each.owner in models or (not models and self._may_be_live(each.owner))
        return any(
            each.owner in self._view.optimizers_of(model)
            for model in models or filter(self._may_be_live, self._view.paths()) if model is not None
        )

    def _may_be_live(self, node: int) -> bool:
        """Whether an object of the checkpoint has nothing that the live model has not."""
        item = self._objects.nodes[0]
        mine = {*item.children, *item.other_children, *ASIDE}
        return all(name in mine or name.startswith("_") or name in _OF_EXPORTS for name in self._view.children(node))

    def _taken(self, each: TrainedList, *, is_known: bool) -> Order:
        """Take what a list says.

        Args:
            each: The list.
            is_known: Whether it has the order of the model's own trainable variables.
        """
        fresh = self._fresh(each)
        strange = [(place, key) for place, key in fresh if not self._is_called_alike(place, key)]
        if strange:
            return Order(problems=[
                f"order: {self._label(place)} is at the place of {self._names[key]!r} in the list of what was trained: "
                "the layers have other names" for place, key in strange
            ])  # fmt: skip
        groups = self._alike(fresh)
        if is_known:
            groups = [] if self._objects.keras == _WRITING_KERAS else [
                places for places in groups if not _are_increasing([self._label(place) for place in places])
            ]  # fmt: skip
        if groups:
            alike = groups[0]
            said = ", ".join(map(self._label, alike[:_MOST_TOLD])) + (" ..." if len(alike) > _MOST_TOLD else "")
            path = self._view.path_of(each.owner)
            way = f"; --checkpoint-root {path} takes them in that order" if path and not is_known else ""
            return Order(problems=[
                f"order: the checkpoint has {said} only in a list of what was trained, where they are alike, and "
                f"nothing says that it has the code's order{way}"
            ])  # fmt: skip
        notes = [f"{len(fresh)} variables are in the checkpoint only in a list of what was trained; they were found by "
                 "their order there"] if fresh else []  # fmt: skip
        return Order(dict(fresh), notes=notes)

    def _alike(self, fresh: list[tuple[int, str]]) -> list[list[int]]:
        """Return groups of variables that have one shape and one last name, each in order."""
        groups: dict[tuple[tuple[int, ...], str], list[int]] = defaultdict(list)
        for place, key in fresh:
            groups[tuple(self._values[key].shape), self._names[key].rpartition("/")[2]].append(place)
        return [places for places in groups.values() if len(places) > 1]

    def _is_called_alike(self, place: int, key: str) -> bool:
        """Whether a variable's layer has the name that the checkpoint says, numbers and the outermost model apart."""
        return within_model(self._names[key]) in {within_model(name) for name in self._variable(place).names}

    def _label(self, place: int) -> str:
        return self._variable(place).label


def _are_increasing(names: list[str]) -> bool:
    """Whether the layers of variables are numbered as they come."""
    numbers = [layer_number(name) for name in names]
    return all(one < other for one, other in pairwise(numbers))
