"""The values that attrs of nodes and functions take.

An attr is one of

    bytes            a string (`s`); TensorFlow's attrs are bytes, text in UTF-8 by custom only
    int, float, bool
    DType            an element type
    Shape
    Tensor           the value of a Const and its like
    FunctionName     a function with attrs of its own
    AttrList         several values of one of the kinds above
    AttrPlaceholder  inside a library function: the name of the function's attr to take the value from
    OpaqueAttr       none of these: kept as bytes, so that nothing is lost

Source: attr_value.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tfthaw.dtypes import DType
from tfthaw.tensors import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a tensor as a graph states it.

    Attributes:
        dims: One size a dimension, None where it is unknown; `dims` itself is None where the rank is unknown.
        names: The names that old graphs give to dimensions, or None.
        opaque: Fields that this version does not know.
    """

    dims: tuple[int | None, ...] | None
    names: tuple[str, ...] | None = None
    opaque: bytes = b""

    @property
    def is_static(self) -> bool:
        """Whether every dimension is known."""
        return self.dims is not None and None not in self.dims


@dataclass(slots=True)
class FunctionName:
    """A function as the value of an attr.

    Attributes:
        name: The function in the library (or an op).
        attrs: The attrs that it is called with.
        opaque: Fields that this version does not know.
    """

    name: str
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    opaque: bytes = b""


@dataclass(slots=True)
class AttrList:
    """Several values of one kind.

    Attributes:
        kind: The field that holds them: `s`, `i`, `f`, `b`, `type`, `shape`, `tensor` or `func`; an empty list has
            none.
        items: The values.
        opaque: Whatever else the list holds (values of other kinds, unknown fields).
    """

    kind: str
    items: list[Attr]
    opaque: bytes = b""


@dataclass(frozen=True, slots=True)
class AttrPlaceholder:
    """An attr of a node in a library function that takes the value of the function's own attr of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class OpaqueAttr:
    """An attr value of a kind that this version does not know, as its bytes."""

    data: bytes


Attr: TypeAlias = (
    "bytes | int | float | bool | DType | Shape | Tensor | FunctionName | AttrList | AttrPlaceholder | OpaqueAttr"
)
