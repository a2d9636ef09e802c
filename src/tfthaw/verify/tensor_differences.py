"""How two sets of named tensors differ: equal, changed and by how much, only in one.

Tensors are compared by their bits, chunk by chunk, so memory stays flat whatever their size. Only those that turn out
unequal are read a second time and measured. Which tensors were renamed is the affair of `tfthaw.verify.renames`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfthaw import proto
from tfthaw._files import CHUNK_BYTES, Bytes, Progress
from tfthaw.dtypes import DType
from tfthaw.errors import TfthawError
from tfthaw.serde.tensors import ProtoTensor
from tfthaw.tensors import Array, Tensor
from tfthaw.verify.weights import aligned, same_bytes

_COMPLEX = (DType.complex64, DType.complex128)
_STEP_ELEMENTS = 1 << 15  # measuring goes over them a dozen times in 64 bits; they should stay in the cache


@dataclass(frozen=True)
class Named:
    """A tensor with what to call it in an error.

    Attributes:
        name: Its name in its artifact.
        tensor: The tensor.
        path: The artifact.
    """

    name: str
    tensor: Tensor
    path: str

    @property
    def kind(self) -> tuple[DType, tuple[int, ...]]:
        """The element type and shape."""
        return self.tensor.dtype, self.tensor.shape

    @property
    def is_array(self) -> bool:
        """Whether its elements have a fixed size."""
        return self.tensor.dtype.is_numeric

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield its bytes, and the encoding of what is no array."""
        with self._naming():
            if not self.is_array and isinstance(self.tensor, ProtoTensor):
                yield np.frombuffer(proto.serialize(self.tensor.message), np.uint8)
                return
            yield from self.tensor.chunks(chunk_bytes)

    def elements(self) -> Iterator[Array]:
        """Yield its elements in order, as short one-dimensional arrays of its type."""
        itemsize = self.tensor.dtype.itemsize
        step = itemsize * _STEP_ELEMENTS
        rest = np.empty(0, np.uint8)
        for chunk in self.chunks():
            joined = np.concatenate([rest, chunk]) if len(rest) else chunk
            whole = len(joined) // itemsize * itemsize
            rest = joined[whole:].copy()
            for start in range(0, whole, step):
                yield joined[start : min(start + step, whole)].view(self.tensor.dtype.numpy)

    def strings(self) -> Array:
        """Return the elements of a string tensor, in order."""
        with self._naming():
            return self.tensor.numpy().reshape(-1)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Say in an error which tensor of which file it is, where the error does not."""
        try:
            yield
        except TfthawError as error:
            error.path = error.path or self.path
            error.where = error.where or f"tensor {self.name!r}"
            raise


@dataclass(frozen=True)
class TensorChange:
    """A tensor that both sides have and that is not the same.

    Values are measured where both sides have numbers in the same shape, even of different types.

    Attributes:
        name: Its name.
        dtypes: Its element type in A and in B.
        shapes: Its shape in A and in B.
        different: How many elements differ (by their bits where the types are the same); None where the shapes do.
        max_abs: The largest |a - b| among elements that are finite on both sides; None where nothing was measured.
        max_rel: The largest |a - b| / max(|a|, |b|) among them.
        change: ‖b - a‖ / ‖a‖ over them: how far the whole tensor moved. None where a is all zeros.
        not_finite: How many of the different elements are infinite or no number on a side.
    """

    name: str
    dtypes: tuple[DType, DType]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    different: int | None = None
    max_abs: float | None = None
    max_rel: float | None = None
    change: float | None = None
    not_finite: int = 0

    @property
    def is_of_one_kind(self) -> bool:
        """Whether only the values differ, not type or shape."""
        return self.dtypes[0] is self.dtypes[1] and self.shapes[0] == self.shapes[1]

    @property
    def elements(self) -> int:
        """The number of elements in A."""
        return math.prod(self.shapes[0])

    def as_dict(self) -> dict[str, Any]:
        """Return it as `diff --json` prints it."""
        sides = zip(self.dtypes, self.shapes, strict=True)
        a, b = ({"dtype": dtype.name, "shape": list(shape)} for dtype, shape in sides)
        return {
            "name": self.name, "a": a, "b": b, "elements": self.elements, "different": self.different,
            "max_abs": self.max_abs, "max_rel": self.max_rel, "change": self.change, "not_finite": self.not_finite,
        }  # fmt: skip


@dataclass(frozen=True)
class TensorDifferences:
    """What comparing two sets of tensors found.

    Attributes:
        equal: Names of tensors that are the same bit for bit.
        equal_bytes: Their bytes.
        changed: Tensors that both have and that are not the same.
        only_in_a: Names that B does not have, with the tensor.
        only_in_b: Names that A does not have, with the tensor.
    """

    equal: tuple[str, ...] = ()
    equal_bytes: int = 0
    changed: tuple[TensorChange, ...] = ()
    only_in_a: Mapping[str, Named] = field(default_factory=dict)
    only_in_b: Mapping[str, Named] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return not (self.changed or self.only_in_a or self.only_in_b)


def compare(a: Mapping[str, Named], b: Mapping[str, Named], progress: Progress | None = None) -> TensorDifferences:
    """Compare tensors of equal names.

    Args:
        a: The one side, by name.
        b: The other side.
        progress: Called with the number of bytes just compared, of one side.

    Raises:
        TfthawError: A tensor cannot be read.
    """
    equal, changed, equal_bytes = [], [], 0
    for name, one in a.items():
        other = b.get(name)
        if other is None:
            continue
        change = compare_pair(one, other)
        if change is None:
            equal.append(name)
            equal_bytes += one.tensor.nbytes
        else:
            changed.append(change)
        if progress is not None:
            progress(one.tensor.nbytes)
    return TensorDifferences(
        equal=tuple(equal), equal_bytes=equal_bytes, changed=tuple(changed),
        only_in_a={name: one for name, one in a.items() if name not in b},
        only_in_b={name: other for name, other in b.items() if name not in a},
    )  # fmt: skip


def compare_pair(one: Named, other: Named) -> TensorChange | None:
    """Return how two tensors differ, or None where they are the same bit for bit."""
    if one.kind == other.kind and _is_same(one, other):
        return None
    dtypes = (one.tensor.dtype, other.tensor.dtype)
    shapes = (one.tensor.shape, other.tensor.shape)
    if shapes[0] != shapes[1]:
        return TensorChange(one.name, dtypes, shapes)
    if one.is_array and other.is_array:
        return _measure(one, other)
    if dtypes == (DType.string, DType.string):
        pairs = zip(one.strings(), other.strings(), strict=True)
        return TensorChange(one.name, dtypes, shapes, different=sum(a != b for a, b in pairs))
    return TensorChange(one.name, dtypes, shapes)


def _is_same(one: Named, other: Named) -> bool:
    if one.tensor.dtype is DType.string:
        return bool((one.strings() == other.strings()).all())
    for chunk, others in aligned(one.chunks(), other.chunks()):
        if chunk is None or others is None or not same_bytes(chunk, others):
            return False
    return True


def _measure(one: Named, other: Named) -> TensorChange:
    """Measure by how much the elements of two tensors of one shape differ."""
    dtypes = (one.tensor.dtype, other.tensor.dtype)
    exact = _compares_as_integers(*dtypes)
    different = not_finite = 0
    largest: list[float] = []
    ratios: list[float] = []
    moved = norm = 0.0
    for mine, theirs in aligned(one.elements(), other.elements()):
        if mine is None or theirs is None:  # shapes are equal, so are the numbers of elements
            break
        x, y = mine, theirs
        wide_x, wide_y = _widened(x, dtypes[0]), _widened(y, dtypes[1])
        unequal = _unequal_bits(x, y) if dtypes[0] is dtypes[1] else _unequal_values(wide_x, wide_y)
        finite = np.isfinite(wide_x) & np.isfinite(wide_y)
        if not finite.all():
            not_finite += int(np.count_nonzero(unequal & ~finite))
            x, y, wide_x, wide_y = x[finite], y[finite], wide_x[finite], wide_y[finite]
        norm += _square_sum(wide_x)
        different += (count := int(np.count_nonzero(unequal)))
        if not count or not (unequal & finite).any():
            continue
        # elements that are equal count too, at a distance of zero: leaving them out takes longer
        with np.errstate(over="ignore"):  # a distance beyond float64 is infinite, and is told as such
            distance = np.abs(wide_x - wide_y)
        moved += _square_sum(distance)
        largest.append(_integer_distance(x, y) if exact else float(distance.max()))
        scale = np.maximum(np.abs(wide_x), np.abs(wide_y))
        scale[scale == 0] = 1.0
        ratios.append(float((distance / scale).max()))
    return TensorChange(
        one.name, dtypes, (one.tensor.shape, other.tensor.shape), different=different, not_finite=not_finite,
        max_abs=max(largest, default=None), max_rel=max(ratios, default=None),
        change=math.sqrt(moved / norm) if norm and math.isfinite(moved) and math.isfinite(norm) else None,
    )  # fmt: skip


def _compares_as_integers(*dtypes: DType) -> bool:
    """Whether differences must be taken of integers: float64 rounds those of 64 bits."""
    unsigned = [dtype is DType.uint64 for dtype in dtypes]
    return not any(dtype.is_float or dtype in _COMPLEX for dtype in dtypes) and all(unsigned) == any(unsigned)


def _widened(values: Array, dtype: DType) -> Array:
    with np.errstate(invalid="ignore"):  # signalling NaNs become quiet ones, which is no news
        return values.astype(np.complex128 if dtype in _COMPLEX else np.float64)


def _unequal_bits(x: Array, y: Array) -> Array:
    width = x.dtype.itemsize
    if width <= 8:
        unsigned = np.dtype(f"u{width}")
        return np.asarray(x.view(unsigned) != y.view(unsigned))
    return np.asarray((x.view(np.uint64) != y.view(np.uint64)).reshape(-1, width // 8).any(axis=1))


def _unequal_values(x: Array, y: Array) -> Array:
    return np.asarray((x != y) & ~(np.isnan(x) & np.isnan(y)))


def _square_sum(values: Array) -> float:
    with np.errstate(over="ignore"):
        if values.dtype == np.complex128:
            return _square_sum(values.real) + _square_sum(values.imag)
        return float(np.einsum("i,i->", values, values))  # np.dot would start threads for each short array


def _integer_distance(x: Array, y: Array) -> int:
    """Return the largest distance of integers, exactly: in 64 bits without sign, where it cannot overflow."""
    wide = np.uint64 if x.dtype == np.uint64 else np.int64
    low, high = np.minimum(x.astype(wide), y.astype(wide)), np.maximum(x.astype(wide), y.astype(wide))
    return int((high.view(np.uint64) - low.view(np.uint64)).max())
