"""Tensors whose bytes stay where they are until somebody asks for them.

A `Tensor` knows its element type, shape and size for free. Its values come as one array (`numpy`) or as a stream of
little-endian, row-major bytes in bounded memory (`chunks`). Readers make tensors, writers take them, and whatever stands
between hands them on untouched: that is how a conversion of any size runs in constant memory.

This module knows no format. Names belong to whoever holds the tensor.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from tfthaw._files import CHUNK_BYTES, Bytes, FileSlice
from tfthaw.dtypes import DType
from tfthaw.errors import ChecksumError, StructureError, UnsupportedError

Array = npt.NDArray[Any]


class Tensor(abc.ABC):
    """A value of known element type and shape, read when it is needed.

    Attributes:
        dtype: The element type.
        shape: The dimensions; `()` is a scalar.
    """

    dtype: DType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements; 0 for strings, whose size is known only once they are read."""
        return self.size * self.dtype.itemsize

    @abc.abstractmethod
    def numpy(self) -> Array:
        """Return the values as an array, read-only where it is a view of a file.

        Strings come as an object array of `bytes`.

        Raises:
            ChecksumError: The stored checksum does not fit the bytes.
            UnsupportedError: Resources and variants are no arrays.
        """

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield the bytes of a fixed-size type, little-endian and row-major, in bounded pieces.

        Each piece is valid until the next one is asked for. A checksum, where the source has one, is compared when the
        last piece has been taken.

        Raises:
            ChecksumError: The stored checksum does not fit the bytes.
        """
        flat = as_bytes(self.numpy())
        for start in range(0, len(flat), chunk_bytes):
            yield flat[start : start + chunk_bytes]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype.name}{list(self.shape)})"


class ArrayTensor(Tensor):
    """A tensor that is in memory already.

    Object arrays hold strings; `str` elements are encoded as UTF-8.
    """

    def __init__(self, array: npt.ArrayLike, dtype: DType | None = None) -> None:
        values = np.asarray(array)
        self.dtype = DType.from_numpy(values.dtype) if dtype is None else dtype
        self.shape = values.shape
        if self.dtype is DType.string:
            values = _bytes_array(values)
        elif values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("<"))
        self._array = values

    def numpy(self) -> Array:  # docstring inherited
        return self._array


class FileTensor(Tensor):
    """A tensor that is a range of a file.

    Attributes:
        slice: Where the bytes are. For variants and resources, which have no array form, the bytes of their encoding.
        crc32c: The checksum that the file gives for the range, unmasked; None where the format has none.
        name: What to call the tensor in an error.
    """

    def __init__(self, dtype: DType, shape: Sequence[int], part: FileSlice, *, crc32c: int | None = None,
                 name: str = "") -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.slice = part
        self.crc32c = crc32c
        self.name = name
        if dtype.is_numeric and part.length != self.size * dtype.itemsize:
            raise StructureError(
                f"{part.length} bytes are stored, {dtype.name}{list(shape)} needs {self.size * dtype.itemsize}",
                path=part.file.path, where=f"tensor {name!r}",
            )  # fmt: skip

    @property
    def nbytes(self) -> int:  # docstring inherited
        return self.slice.length

    def numpy(self, *, check: bool = True) -> Array:
        """Return a read-only view of the mapped file.

        Args:
            check: Compare the checksum first, which reads every byte.
        """
        if not self.dtype.is_numeric:
            raise UnsupportedError(
                f"a {self.dtype.name} tensor is no array", path=self.slice.file.path, where=f"tensor {self.name!r}"
            )
        flat = self.slice.view()
        if check and self.crc32c is not None:
            self._compare(google_crc32c.value(flat))
        return flat.view(self.dtype.numpy).reshape(self.shape)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:  # docstring inherited
        computed = 0
        for chunk in self.slice.chunks(chunk_bytes):
            if self.crc32c is not None:
                computed = google_crc32c.extend(computed, chunk)
            yield chunk
        if self.crc32c is not None:
            self._compare(computed)

    def _compare(self, computed: int) -> None:
        if computed != self.crc32c:
            raise ChecksumError(
                f"checksum mismatch (stored 0x{self.crc32c:08x}, computed 0x{computed:08x})",
                path=self.slice.file.path, where=f"tensor {self.name!r} at offset {self.slice.offset}",
                hint="the file was damaged or cut while it was copied",
            )  # fmt: skip


class LazyTensor(Tensor):
    """A tensor that a function computes each time it is asked for."""

    def __init__(self, dtype: DType, shape: Sequence[int], compute: Callable[[], Array]) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self._compute = compute

    def numpy(self) -> Array:  # docstring inherited
        return self._compute()


@dataclass(frozen=True)
class TensorPart:
    """One rectangular part of a partitioned tensor.

    Attributes:
        starts: Where the part begins in each dimension of the whole.
        tensor: Its values; the shape is the part's own.
    """

    starts: tuple[int, ...]
    tensor: Tensor


class JoinedTensor(Tensor):
    """A tensor that was saved in parts, joined when it is read.

    Parts must tile the whole: no hole, no overlap.
    """

    def __init__(self, dtype: DType, shape: Sequence[int], parts: Sequence[TensorPart], *, name: str = "") -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.parts = tuple(sorted(parts, key=lambda part: part.starts))
        self.name = name
        problems = list(self._problems())
        if problems:
            raise StructureError(f"the parts of tensor {name!r} do not make {list(shape)}", problems=problems)

    def numpy(self) -> Array:
        """Return the whole as a new array."""
        whole = np.empty(self.shape, self.dtype.numpy)
        for part in self.parts:
            whole[_region(part)] = part.tensor.numpy()
        return whole

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:  # docstring inherited
        if all(part.tensor.shape[1:] == self.shape[1:] for part in self.parts):
            for part in self.parts:  # split along the first dimension: the parts' bytes follow each other
                yield from part.tensor.chunks(chunk_bytes)
        else:
            yield from super().chunks(chunk_bytes)

    def _problems(self) -> Iterator[str]:
        for part in self.parts:
            inside = len(part.starts) == len(part.tensor.shape) == len(self.shape) and all(
                0 <= start and start + length <= whole
                for start, length, whole in zip(part.starts, part.tensor.shape, self.shape, strict=True)
            )
            if not inside:
                yield f"part at {list(part.starts)} of shape {list(part.tensor.shape)} leaves the whole"
                return
        stored = sum(part.tensor.size for part in self.parts)
        if stored != self.size:
            yield f"the parts hold {stored} elements, the whole has {self.size}"
        for index, part in enumerate(self.parts):
            for other in self.parts[index + 1 :]:
                if _overlap(part, other):
                    yield f"parts at {list(part.starts)} and {list(other.starts)} overlap"
                    return


class CastTensor(Tensor):
    """Another tensor's values, converted to another element type chunk by chunk."""

    def __init__(self, base: Tensor, dtype: DType) -> None:
        self.dtype = dtype
        self.shape = base.shape
        self.base = base

    def numpy(self) -> Array:
        """Return a new array."""
        return self.base.numpy().astype(self.dtype.numpy)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:  # docstring inherited
        # a chunk must hold whole elements; complex128, the largest type, has 16 bytes
        for chunk in self.base.chunks(max(16, chunk_bytes // 16 * 16)):
            yield as_bytes(chunk.view(self.base.dtype.numpy).astype(self.dtype.numpy))


def as_bytes(array: Array) -> Bytes:
    """Return an array's elements as uint8[nbytes], little-endian and row-major; a view where it can be one."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.byteorder == ">":
        flat = flat.astype(flat.dtype.newbyteorder("<"))
    return flat.view(np.uint8)


def _bytes_array(values: Array) -> Array:
    """Return an object array of bytes for an array of bytes, str or objects."""
    result = np.empty(values.shape, object)
    for index, value in np.ndenumerate(values):
        result[index] = value.encode() if isinstance(value, str) else bytes(value)
    return result


def _region(part: TensorPart) -> tuple[slice, ...]:
    return tuple(
        slice(start, start + length) for start, length in zip(part.starts, part.tensor.shape, strict=True)
    )


def _overlap(one: TensorPart, other: TensorPart) -> bool:
    return all(
        a < b + n and b < a + m
        for a, m, b, n in zip(one.starts, one.tensor.shape, other.starts, other.tensor.shape, strict=True)
    )


def slice_tensor(whole: Tensor, starts: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return a rectangular part of a tensor, without reading it.

    Args:
        whole: The tensor.
        starts: Where the part begins in each dimension.
        shape: The part's shape.

    Raises:
        StructureError: The part leaves the whole.
    """
    inside = len(starts) == len(shape) == len(whole.shape) and all(
        0 <= start and start + length <= size for start, length, size in zip(starts, shape, whole.shape, strict=True)
    )
    if not inside:
        raise StructureError(f"part at {list(starts)} of shape {list(shape)} leaves a tensor of {list(whole.shape)}")
    if tuple(shape) == whole.shape:
        return whole
    if isinstance(whole, JoinedTensor):
        for part in whole.parts:
            if part.starts == tuple(starts) and part.tensor.shape == tuple(shape):
                return part.tensor
    region = tuple(slice(start, start + length) for start, length in zip(starts, shape, strict=True))
    return LazyTensor(whole.dtype, shape, lambda: np.ascontiguousarray(whole.numpy()[region]))
