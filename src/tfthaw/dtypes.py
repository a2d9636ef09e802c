"""Element types of tensors and their names in every format that tfthaw knows.

`DType` is TensorFlow's DataType enum with the translations to numpy (with ml_dtypes) and safetensors. A number
that this version does not know survives as an unnamed member, so that graphs of a newer TensorFlow stay whole.

Source: types.proto of TensorFlow (numbers), `tf.dtypes` (names), the safetensors specification (its names).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from tfthaw._optional import lazy_module
from tfthaw.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

REF_OFFSET = 100  # DT_FLOAT_REF is DT_FLOAT + 100, and so for every type


class DType(enum.IntEnum):
    """The element type of a tensor, numbered as in TensorFlow's DataType.

    Members are named like TensorFlow's Python dtypes. Reference types (a number above 100: the output of a v1
    variable) have no member of their own name; they compare, survive and print as `float32_ref`.
    """

    invalid = 0
    float32 = 1
    float64 = 2
    int32 = 3
    uint8 = 4
    int16 = 5
    int8 = 6
    string = 7
    complex64 = 8
    int64 = 9
    bool = 10
    qint8 = 11
    quint8 = 12
    qint32 = 13
    bfloat16 = 14
    qint16 = 15
    quint16 = 16
    uint16 = 17
    complex128 = 18
    float16 = 19
    resource = 20
    variant = 21
    uint32 = 22
    uint64 = 23
    float8_e5m2 = 24
    float8_e4m3fn = 25
    float8_e4m3fnuz = 26
    float8_e4m3b11fnuz = 27
    float8_e5m2fnuz = 28
    int4 = 29
    uint4 = 30
    int2 = 31
    uint2 = 32
    float4_e2m1fn = 33

    @classmethod
    def _missing_(cls, value: object) -> DType | None:
        if not isinstance(value, int):
            return None
        base = cls._value2member_map_.get(value - REF_OFFSET)
        member = int.__new__(cls, value)
        member._name_ = f"{base.name}_ref" if isinstance(base, cls) and value > REF_OFFSET else f"dtype_{value}"
        member._value_ = value
        # setdefault: two threads may both arrive here, and one member must win
        known = cls._value2member_map_.setdefault(value, member)
        return known if isinstance(known, cls) else None

    @property
    def is_ref(self) -> bool_:
        """Whether this is the reference form of another type."""
        return REF_OFFSET < self < 2 * REF_OFFSET

    @property
    def base(self) -> DType:
        """The type itself, without the reference."""
        return DType(self - REF_OFFSET) if self.is_ref else self

    @property
    def is_float(self) -> bool_:
        """Whether elements are real floating point numbers."""
        return self in _FLOATS

    @property
    def is_numeric(self) -> bool_:
        """Whether elements have a fixed size and a numpy type (all but strings, resources and variants)."""
        return self in _NUMPY_NAMES

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory and in a checkpoint; 0 where that is not fixed.

        The 2- and 4-bit types take one byte each, as in TensorFlow's own tensors.
        """
        return _ITEMSIZES.get(self, 0)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian numpy type of the elements; strings and the rest are Python objects.

        Raises:
            UnsupportedError: The installed ml_dtypes is too old for the type.
        """
        found = _numpy_types.get(self)
        if found is None:
            found = _numpy_types[self] = _make_numpy(_NUMPY_NAMES.get(self))
        return found

    @property
    def safetensors(self) -> str | None:
        """The name in a safetensors header, or None where that format has no such type."""
        return _SAFETENSORS_NAMES.get(self)

    @classmethod
    def from_numpy(cls, dtype: np.dtype[Any]) -> DType:
        """Return the DType of a numpy array's dtype; object, bytes and str arrays are strings.

        Raises:
            KeyError: TensorFlow has no such type.
        """
        if dtype.kind in "OSUT":
            return cls.string
        return cls[dtype.name]

    @classmethod
    def from_safetensors(cls, name: str) -> DType:
        """Return the DType of a name in a safetensors header.

        Raises:
            KeyError: TensorFlow has no such type.
        """
        return _FROM_SAFETENSORS[name]


bool_ = bool  # inside the class body `bool` is the member

_NUMPY_NAMES: dict[DType, str] = {
    dtype: dtype.name
    for dtype in DType
    if dtype not in (DType.invalid, DType.string, DType.resource, DType.variant)
}
_NUMPY_NAMES.update(
    {DType.qint8: "int8", DType.quint8: "uint8", DType.qint16: "int16", DType.quint16: "uint16", DType.qint32: "int32"}
)

# known here, so that sizes need neither numpy nor ml_dtypes; whatever is not named has one byte
_ITEMSIZES = dict.fromkeys(_NUMPY_NAMES, 1) | {
    dtype: size
    for size, names in (
        (2, ("int16", "uint16", "float16", "bfloat16", "qint16", "quint16")),
        (4, ("int32", "uint32", "float32", "qint32")),
        (8, ("int64", "uint64", "float64", "complex64")),
        (16, ("complex128",)),
    )
    for dtype in map(DType.__getitem__, names)
}

_FLOATS = frozenset(dtype for dtype in DType if dtype.name.startswith(("float", "bfloat")))

_SAFETENSORS_NAMES = {
    DType.bool: "BOOL", DType.uint8: "U8", DType.int8: "I8", DType.int16: "I16", DType.uint16: "U16",
    DType.float16: "F16", DType.bfloat16: "BF16", DType.int32: "I32", DType.uint32: "U32", DType.float32: "F32",
    DType.complex64: "C64", DType.float64: "F64", DType.int64: "I64", DType.uint64: "U64",
    DType.float8_e5m2: "F8_E5M2", DType.float8_e4m3fn: "F8_E4M3",
    DType.float8_e5m2fnuz: "F8_E5M2FNUZ", DType.float8_e4m3fnuz: "F8_E4M3FNUZ",
}  # fmt: skip
_FROM_SAFETENSORS = {name: dtype for dtype, name in _SAFETENSORS_NAMES.items()}

_numpy_types: dict[DType, np.dtype[Any]] = {}


def _make_numpy(name: str | None) -> np.dtype[Any]:
    """Make the numpy dtype of a name of numpy or ml_dtypes; object where there is no name."""
    if name is None:
        return np.dtype(object)
    found: np.dtype[Any]
    try:
        found = np.dtype(name).newbyteorder("<")
    except TypeError:
        import ml_dtypes  # only here: it takes 10 ms, and most models need none of it

        if not hasattr(ml_dtypes, name):
            raise UnsupportedError(
                f"the installed ml_dtypes {ml_dtypes.__version__} has no {name}", hint="pip install --upgrade ml_dtypes"
            ) from None
        found = np.dtype(getattr(ml_dtypes, name))
    return found
