"""Definitions: what every op of one graph takes and gives, wherever that is said.

A node's op is a function of the graph's own library, an op that some TensorFlow registered, or an op that the artifact
describes itself (a MetaGraph lists the ops that it needs).

Source: op_def.proto and node_def_util.cc (NameRangesForNode) of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tfthaw.dtypes import DType
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr, AttrList
from tfthaw.ir.functions import Function
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history

_NO_LIMIT = 1 << 31


@dataclass(frozen=True, slots=True)
class Definition:
    """What an op or a function takes and gives.

    Attributes:
        inputs: What it takes, control inputs apart.
        outputs: What it gives.
        is_stateful: Whether it has state or side effects.
        defaults: The attrs that have a default.
    """

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    is_stateful: bool
    defaults: Mapping[str, Attr]


@dataclass(frozen=True, slots=True)
class Span:
    """The tensors that one argument of a node stands for: so many from a position on."""

    name: str
    first: int
    count: int


class Definitions:
    """What the ops of one graph take and give.

    Attributes:
        functions: The library by name.

    Args:
        functions: The graph's library.
        described: Ops that the artifact describes itself; they count where no TensorFlow knows the op.
    """

    def __init__(self, functions: Iterable[Function] = (), described: Mapping[str, Definition] | None = None) -> None:
        self.functions = {function.name: function for function in functions}
        self._described = described or {}
        self._found: dict[str, Definition | None] = {}

    def find(self, op: str) -> Definition | None:
        """Return the definition of an op, or None where nothing says it."""
        if op not in self._found:
            self._found[op] = self._find(op)
        return self._found[op]

    def _find(self, op: str) -> Definition | None:
        function = self.functions.get(op)
        if function is not None:
            return Definition(tuple(function.arguments), tuple(function.results), function.is_stateful, {})
        history = op_history(op)
        if history is None:
            return self._described.get(op)
        defaults = {attr.name: attr.default for attr in history.attrs if attr.default is not None}
        return Definition(history.inputs, history.outputs, history.is_stateful, defaults)

    def is_stateful(self, node: Node) -> bool:
        """Whether a node has state or side effects, as far as its op says; an unknown op is taken to have some."""
        found = self.find(node.op)
        return found is None or found.is_stateful

    def output_spans(self, node: Node) -> list[Span] | None:
        """Return which outputs of a node belong to which result of its op; None where nothing says it."""
        found = self.find(node.op)
        return None if found is None else spans(found.outputs, node.attrs, found.defaults)

    def output_dtypes(self, node: Node) -> list[DType] | None:
        """Return the element types of a node's outputs; None where nothing says them."""
        found = self.find(node.op)
        return None if found is None else dtypes_of(found.outputs, node.attrs, found.defaults)


def spans(
    arguments: Sequence[Argument], attrs: Mapping[str, Attr], defaults: Mapping[str, Attr] | None = None
) -> list[Span] | None:
    """Return how many tensors each argument stands for; None where an attr that says it is missing."""
    result, here = [], 0
    for argument in arguments:
        counting = argument.type_list_attr or argument.number_attr
        value: Attr | None = 1
        if counting is not None:
            value = attrs.get(counting, (defaults or {}).get(counting))
        count = len(value.items) if isinstance(value, AttrList) else value
        if not isinstance(count, int) or not 0 <= count < _NO_LIMIT:
            return None
        result.append(Span(argument.name, here, count))
        here += count
    return result


def dtypes_of(
    arguments: Sequence[Argument], attrs: Mapping[str, Attr], defaults: Mapping[str, Attr] | None = None
) -> list[DType] | None:
    """Return the element type of every tensor that arguments stand for; None where an attr that says it is missing."""
    result: list[DType] = []
    for argument in arguments:
        found = list(_dtypes(argument, attrs, defaults or {}))
        if None in found:
            return None
        result += [dtype for dtype in found if dtype is not None]
    return result


def _dtypes(argument: Argument, attrs: Mapping[str, Attr], defaults: Mapping[str, Attr]) -> Iterator[DType | None]:
    if argument.type_list_attr is not None:
        value = attrs.get(argument.type_list_attr, defaults.get(argument.type_list_attr))
        items = value.items if isinstance(value, AttrList) else [None]
        yield from (item if isinstance(item, DType) else None for item in items)
        return
    dtype: Attr | None = argument.dtype
    if dtype is None and argument.type_attr is not None:
        dtype = attrs.get(argument.type_attr, defaults.get(argument.type_attr))
    count = attrs.get(argument.number_attr, defaults.get(argument.number_attr)) if argument.number_attr else 1
    if not isinstance(count, int) or not 0 <= count < _NO_LIMIT:
        yield None
        return
    for _ in range(count):
        yield dtype if isinstance(dtype, DType) else None
