"""Element types of single tensors among those that an op or a function takes or gives.

Unlike the lists of `tfthaw.ir.definitions`, nothing here is as long as an attr claims.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from tfthaw.dtypes import DType
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr, AttrList
from tfthaw.ir.definitions import Definitions, spans
from tfthaw.ir.nodes import Node


def dtype_within(
    argument: Argument, position: int, attrs: Mapping[str, Attr], defaults: Mapping[str, Attr]
) -> DType | None:
    """Return the element type of one of the tensors that an argument stands for; None where nothing says it."""
    value: Attr | None = argument.dtype
    if argument.type_list_attr is not None:
        listed = attrs.get(argument.type_list_attr, defaults.get(argument.type_list_attr))
        value = listed.items[position] if isinstance(listed, AttrList) and position < len(listed.items) else None
    elif value is None and argument.type_attr is not None:
        value = attrs.get(argument.type_attr, defaults.get(argument.type_attr))
    return value if isinstance(value, DType) else None


def each_dtype(
    arguments: Sequence[Argument], attrs: Mapping[str, Attr], defaults: Mapping[str, Attr]
) -> Iterator[DType | None]:
    """Yield the element type of every tensor that arguments stand for, as long as somebody asks."""
    for argument, span in zip(arguments, spans(arguments, attrs, defaults) or (), strict=False):
        for position in range(span.count):
            yield dtype_within(argument, position, attrs, defaults)


class OutputTypes:
    """The element types of what nodes give."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._firsts: dict[str, list[int]] = {}

    def find(self, node: Node, position: int) -> DType | None:
        """Return the element type of a node's output, None where nothing says it or there is no such output."""
        definition = self._definitions.find(node.op)
        if definition is None:
            return None
        firsts = self._firsts.get(node.op)
        if firsts is None:
            every = spans(definition.outputs, node.attrs, definition.defaults)
            if every is None:
                return None
            firsts = [span.first for span in every]
            if not any(item.number_attr or item.type_list_attr for item in definition.outputs):
                self._firsts[node.op] = firsts  # the same for every node of the op
        place = bisect_right(firsts, position) - 1
        if place < 0:
            return None
        return dtype_within(definition.outputs[place], position - firsts[place], node.attrs, definition.defaults)
