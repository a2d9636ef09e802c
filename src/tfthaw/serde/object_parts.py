"""What the messages of both kinds of object graph have in common: edges, slots, and being read object by object.

Source: ObjectReference and SlotVariableReference of trackable_object_graph.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

from tfthaw.ir.object_graph import Child, SlotVariable
from tfthaw.serde.attrs import has_unknown_inside, rest_of
from tfthaw.serde.tensors import Payloads

_Item = TypeVar("_Item")


class MessageObjects(Sequence[_Item], Generic[_Item]):
    """The objects of a graph as their messages have them, each read when it is asked for.

    Attributes:
        messages: The messages; they must not be changed.
        payloads: The bytes that tokens in them stand for.
    """

    __slots__ = ("_found", "_read", "messages", "payloads")

    def __init__(self, messages: Any, read: Callable[[Any], _Item], payloads: Payloads) -> None:
        self.messages = messages
        self.payloads = payloads
        self._read = read
        self._found: dict[int, _Item] = {}

    @overload
    def __getitem__(self, position: int) -> _Item: ...
    @overload
    def __getitem__(self, position: slice) -> list[_Item]: ...
    def __getitem__(self, position: int | slice) -> _Item | list[_Item]:
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        place = range(len(self.messages))[position]  # counts negative positions from the end, and refuses others
        item = self._found.get(place)
        if item is None:
            item = self._found[place] = self._read(self.messages[place])
        return item

    def __iter__(self) -> Iterator[_Item]:
        found, read = self._found, self._read
        for place, message in enumerate(self.messages):
            item = found.get(place)
            if item is None:
                item = found[place] = read(message)
            yield item

    def __len__(self) -> int:
        return len(self.messages)


def count_parts(objects: Sequence[Any]) -> int:
    """Return how many objects and edges a graph has; objects that were not read yet are not read."""
    items = objects.messages if isinstance(objects, MessageObjects) else objects
    edges = sum(len(item.children) + len(item.slot_variables) for item in items)
    return len(objects) + edges + sum(len(getattr(item, "dependencies", ())) for item in items)


class PartsReader:
    """Reads the parts of one object graph.

    Args:
        message: The whole graph.
        payloads: The bytes that were left in the file.
    """

    def __init__(self, message: Any, payloads: Payloads) -> None:
        self._message = message
        self.payloads = payloads

    @cached_property
    def careful(self) -> bool:
        """Whether the graph has unknown fields anywhere; if not, nothing needs to look for them."""
        return has_unknown_inside(self._message)

    def rest(self, message: Any, *fields: str) -> bytes:
        """Return the bytes of a message without the named fields; nothing where the graph has no unknown fields."""
        return rest_of(message, *fields) if self.careful else b""

    def children(self, messages: Sequence[Any]) -> Sequence[Child]:
        """Return the edges of ObjectReferences."""
        if not messages:
            return ()  # most objects of a large graph have none: these take no memory
        if not self.careful:
            return [Child(item.node_id, item.local_name) for item in messages]
        return [Child(item.node_id, item.local_name, rest_of(item, "node_id", "local_name")) for item in messages]

    def slots(self, messages: Sequence[Any]) -> Sequence[SlotVariable]:
        """Return the slots of SlotVariableReferences."""
        if not messages:
            return ()
        return [
            SlotVariable(
                item.original_variable_node_id, item.slot_name, item.slot_variable_node_id,
                self.rest(item, "original_variable_node_id", "slot_name", "slot_variable_node_id"),
            )
            for item in messages
        ]  # fmt: skip


def children_to_proto(children: Iterable[Child], target: Any) -> None:
    """Write edges into a repeated field of ObjectReferences."""
    for child in children:
        entry = target.add(node_id=child.node, local_name=child.name)
        if child.opaque:
            entry.MergeFromString(child.opaque)


def slots_to_proto(slots: Iterable[SlotVariable], target: Any) -> None:
    """Write slots into a repeated field of SlotVariableReferences."""
    for slot in slots:
        entry = target.add(
            original_variable_node_id=slot.original, slot_name=slot.slot, slot_variable_node_id=slot.variable
        )
        entry.MergeFromString(slot.opaque)
