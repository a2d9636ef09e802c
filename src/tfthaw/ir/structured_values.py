"""Structured values: nested Python values and type specs.

Functions of TensorFlow 2 describe with them what they take and give.

A structured value is one of

    None, bool, int, float, str
    Shape, DType
    TensorSpec, BoundedTensorSpec     a tensor: name, shape, dtype
    TypeSpec                          what is made of several tensors: sparse, ragged, datasets, user's own types
    TensorValue                       a tensor as a constant (in Python a Tensor or a numpy array)
    list, tuple, dict (keys are strings), NamedTuple
    OpaqueValue                       none of these: kept as bytes, so that nothing is lost

`Absent.ABSENT` stands where a message has no structured value at all, which is not the same as Python's None.

Source: struct.proto of TensorFlow.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.tensors import Tensor

TYPE_SPEC_KINDS = {
    1: "SparseTensorSpec", 2: "IndexedSlicesSpec", 3: "RaggedTensorSpec", 4: "TensorArraySpec", 5: "DatasetSpec",
    6: "IteratorSpec", 7: "OptionalSpec", 8: "PerReplicaSpec", 9: "VariableSpec", 10: "RowPartitionSpec",
    12: "RegisteredTypeSpec", 13: "ExtensionTypeSpec",
}  # fmt: skip
"""The numbers of `TypeSpec.kind`; 0 says nothing."""


class Absent(enum.Enum):
    """Where a structured value could be and is not."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that a function takes or gives.

    Attributes:
        name: Its name; empty where it has none.
        shape: Its shape, or None where the spec has no shape at all (an unknown rank is `Shape(None)`).
        dtype: Its element type.
        opaque: Fields that this version does not know.
    """

    name: str
    shape: Shape | None
    dtype: DType
    opaque: bytes = b""


@dataclass(slots=True)
class BoundedTensorSpec:
    """A tensor with the least and the greatest value of its elements.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Its element type.
        minimum: The least value, or None where the spec has none.
        maximum: The greatest value, or None.
        opaque: Fields that this version does not know.
    """

    name: str
    shape: Shape | None
    dtype: DType
    minimum: Tensor | None = None
    maximum: Tensor | None = None
    opaque: bytes = b""


@dataclass(slots=True)
class TypeSpec:
    """The type of a value that is made of several tensors.

    Attributes:
        kind: Which type, as numbered in `TYPE_SPEC_KINDS`.
        state: What the type says of itself, such as shape and dtype of a sparse tensor.
        class_name: The Python class.
        flat_components: How many tensors such a value has.
        opaque: Fields that this version does not know.
    """

    kind: int
    state: StructuredValue | Absent = ABSENT
    class_name: str = ""
    flat_components: int = 0
    opaque: bytes = b""


@dataclass(slots=True)
class TensorValue:
    """A constant among structured values.

    Attributes:
        tensor: The value.
        is_numpy: Whether Python sees a numpy array instead of a Tensor.
    """

    tensor: Tensor
    is_numpy: bool = False


@dataclass(slots=True)
class NamedTuple:
    """A tuple whose items have names.

    Attributes:
        name: The name of its class.
        items: (name, value) in order.
    """

    name: str
    items: list[tuple[str, StructuredValue | Absent]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OpaqueValue:
    """A structured value of a kind that this version does not know, as its bytes."""

    data: bytes


StructuredValue: TypeAlias = (
    "bool | int | float | str | Shape | DType | TensorSpec | BoundedTensorSpec | TypeSpec | TensorValue | NamedTuple"
    " | OpaqueValue | list[StructuredValue] | tuple[StructuredValue, ...] | dict[str, StructuredValue] | None"
)
