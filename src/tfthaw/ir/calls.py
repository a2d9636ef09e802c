"""Calls: which functions a node calls, with which attrs, and what it gives and expects.

A node calls a function by being named after it (its op is the function), or by naming it in attrs (`f`, `then_branch`,
`body`). Of the ops that TensorFlow's own tools write this module also knows the types that the function must have.

Source: the op definitions of functional_ops.cc, batch_ops.cc and tpu_functional_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Attr, AttrList, AttrPlaceholder, FunctionName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history

_Types = tuple["str | DType", ...]  # attrs that list types, and types that are fixed

_BRANCH: tuple[_Types, _Types] = (("Tin",), ("Tout",))
_CONDITION: tuple[_Types, None] = (("T",), None)
_BODY: tuple[_Types, _Types] = (("T",), ("T",))
_TYPES: dict[str, dict[str, tuple[_Types, _Types | None]]] = {
    "PartitionedCall": {"f": _BRANCH}, "StatefulPartitionedCall": {"f": _BRANCH}, "RemoteCall": {"f": _BRANCH},
    "TPUPartitionedCall": {"f": _BRANCH}, "BatchFunction": {"f": (("Tin", "Tcaptured"), ("Tout",))},
    "If": {"then_branch": _BRANCH, "else_branch": _BRANCH}, "Case": {"branches": _BRANCH},
    "StatelessIf": {"then_branch": _BRANCH, "else_branch": _BRANCH}, "StatelessCase": {"branches": _BRANCH},
    "While": {"cond": _CONDITION, "body": _BODY}, "StatelessWhile": {"cond": _CONDITION, "body": _BODY},
    "For": {"body": ((DType.int32, "T"), ("T",))},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function by a node.

    Attributes:
        function: The function.
        attr: The attr of the node that names it, or None where the node's op is the function.
        attrs: The attrs that the function is called with.
        takes: The types of what the function is given, or None where the node's attrs do not say.
        gives: The types of what is expected of it, or None.
        is_condition: Whether it is the condition of a loop.
    """

    function: str
    attr: str | None = None
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    takes: Sequence[DType] | None = None
    gives: Sequence[DType] | None = None
    is_condition: bool = False


def calls_of(node: Node, library: Collection[str]) -> Iterator[Call]:
    """Yield every call that a node makes, of functions that are not there too.

    Args:
        node: The node; of a function for several types, with the attrs that its caller gives.
        library: The names of the functions that are there.
    """
    is_function = node.op in library or _is_function(node.op)
    if is_function:
        yield Call(node.op, None, node.attrs)
    named = None if is_function else _function_attrs(node.op)
    if named is not None and not named:
        return  # the common case
    types = _TYPES.get(node.op, {})
    for attr in node.attrs if named is None else named:
        value = node.attrs.get(attr)
        for item in value.items if isinstance(value, AttrList) else (value,):
            if isinstance(item, FunctionName) and (item.name or attr in types):  # else an empty name is no function
                takes, gives = types.get(attr, (None, None))
                is_condition = attr in types and gives is None
                yield Call(item.name, attr, item.attrs, _listed(node, takes), _listed(node, gives), is_condition)


@lru_cache(maxsize=4096)
def _function_attrs(op: str) -> tuple[str, ...] | None:
    """Return the attrs of an op that name functions, or None where no TensorFlow knows the op."""
    history = op_history(op)
    return None if history is None else tuple(attr.name for attr in history.attrs if "func" in attr.type)


def _is_function(op: str) -> bool:
    """Whether an op can be nothing but a function: the names of ops begin with a capital letter."""
    return op[:1].islower() or op.startswith("__")


def _listed(node: Node, types: _Types | None) -> list[DType] | None:
    """Return the types that attrs of a node list; None where they do not."""
    if types is None:
        return None
    result: list[DType] = []
    for item in types:
        if isinstance(item, DType):
            result.append(item)
            continue
        value = node.attrs.get(item)
        found = [each for each in value.items if isinstance(each, DType)] if isinstance(value, AttrList) else []
        if not isinstance(value, AttrList) or len(found) != len(value.items):
            return None
        result += found
    return result


def has_placeholders(nodes: Sequence[Node]) -> bool:
    """Whether nodes take attrs from the caller of the function that they are the body of."""
    return any(_is_open(value) for node in nodes for value in node.attrs.values())


def _is_open(value: Attr) -> bool:
    if isinstance(value, AttrPlaceholder):
        return True
    if isinstance(value, FunctionName):
        return any(_is_open(item) for item in value.attrs.values())
    return isinstance(value, AttrList) and value.kind == "func" and any(_is_open(item) for item in value.items)
