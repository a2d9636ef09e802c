"""Tensors whose bytes stay where they are until somebody asks for them.

A `Tensor` knows its element type, shape and size for free. Its values come as one array (`numpy`) or as a stream of
little-endian, row-major bytes in bounded memory (`chunks`). Readers make tensors, writers take them, and whatever
stands between hands them on untouched: that is how a conversion of any size runs in constant memory.

This module knows no format. Names belong to whoever holds the tensor.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import google_crc32c

from tfthaw._files import CHUNK_BYTES, Bytes, FileSlice, Progress
from tfthaw._optional import lazy_module
from tfthaw.dtypes import DType
from tfthaw.errors import ChecksumError, LimitError, StructureError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy_module("numpy")

Array: TypeAlias = "npt.NDArray[Any]"


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
            UnsupportedError: Strings have no fixed size.
        """
        if not self.dtype.is_numeric:
            raise UnsupportedError(f"a {self.dtype.name} tensor has no row of bytes")
        flat = self.numpy().reshape(-1)  # a view, also where one stored value stands for all
        step = max(1, chunk_bytes // self.dtype.itemsize)
        for start in range(0, len(flat), step):
            yield as_bytes(flat[start : start + step])

    def check(self) -> None:  # noqa: B027  # nothing to refuse is the rule
        """Refuse a tensor whose stored values cannot fit its type and shape, without reading them.

        Tensors that were checked when they were made have nothing to refuse.

        Raises:
            TfthawError: They cannot.
        """

    def copy_to(self, file: BinaryIO, progress: Progress | None = None) -> int:
        """Append the bytes of a fixed-size type to a file.

        Where they come from a file as they are, nothing looks at them on their way, their checksum included: whoever
        writes with this proves afterwards what was written.

        Args:
            file: The file, whose position is its end.
            progress: Called with the number of bytes just written.

        Returns:
            How many bytes were written.
        """
        done = 0
        for chunk in self.chunks():
            file.write(chunk.data)
            done += len(chunk)
            if progress is not None:
                progress(len(chunk))
        return done

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype.name}{list(self.shape)})"


class ArrayTensor(Tensor):
    """A tensor that is in memory already.

    Object arrays hold strings; `str` elements are encoded as UTF-8.

    Raises:
        UnsupportedError: TensorFlow has no element type like the array's.
    """

    def __init__(self, array: npt.ArrayLike, dtype: DType | None = None) -> None:
        values = np.asarray(array)
        try:
            self.dtype = DType.from_numpy(values.dtype) if dtype is None else dtype
        except KeyError as error:
            raise UnsupportedError(f"TensorFlow has no element type like numpy's {values.dtype}") from error
        self.shape = values.shape
        if self.dtype is DType.string:
            values = _bytes_array(values)
        elif values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("<"))
        self._array = values

    def numpy(self) -> Array:
        """Return the array itself."""
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
    def nbytes(self) -> int:
        """Bytes in the file, also of variants and resources."""
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
        return reshape(flat.view(self.dtype.numpy), self.shape)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield the bytes without mapping the file; the checksum is compared after the last piece."""
        computed = 0
        for chunk in self.slice.chunks(chunk_bytes):
            if self.crc32c is not None:
                computed = google_crc32c.extend(computed, chunk)
            yield chunk
        if self.crc32c is not None:
            self._compare(computed)

    def copy_to(self, file: BinaryIO, progress: Progress | None = None) -> int:
        """Append the bytes to a file, inside the kernel where they lie in one."""
        return self.slice.copy_to(file, progress)

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

    def numpy(self) -> Array:
        """Return what the function gives."""
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

    Raises:
        StructureError: They do not.
    """

    def __init__(self, dtype: DType, shape: Sequence[int], parts: Sequence[TensorPart], *, name: str = "") -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.parts = tuple(sorted(parts, key=lambda part: part.starts))
        self.name = name
        problem = _tiling_problem(self.shape, self.parts)
        if problem is not None:
            raise StructureError(f"the parts of tensor {name!r} do not make {list(shape)}", problems=[problem])

    def numpy(self) -> Array:
        """Return the whole as a new array.

        Raises:
            LimitError: It does not fit in memory; `chunks` may still give it.
        """
        try:
            whole = reshape(np.empty(self.size, self.dtype.numpy), self.shape)
        except MemoryError as error:
            raise LimitError(f"no memory for the {self.nbytes} bytes of tensor {self.name!r}") from error
        for part in self.parts:
            whole[_region(part)] = part.tensor.numpy()
        return whole

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield the bytes of the whole in bounded pieces, whichever dimension is split.

        Checksums are compared as the parts are read: before the first piece where an inner dimension is split.
        """
        if all(part.tensor.shape[1:] == self.shape[1:] for part in self.parts):
            for part in self.parts:  # split along the first dimension: the parts' bytes follow each other
                yield from part.tensor.chunks(chunk_bytes)
            return
        arrays = [part.tensor.numpy() for part in self.parts]  # views of the files, for tensors of files
        row_bytes = self.nbytes // self.shape[0] if self.size else 1
        rows = max(1, chunk_bytes // row_bytes)
        for first in range(0, self.shape[0] if self.size else 0, rows):
            block = np.empty((min(rows, self.shape[0] - first), *self.shape[1:]), self.dtype.numpy)
            for part, array in zip(self.parts, arrays, strict=True):
                low = max(first, part.starts[0])
                high = min(first + len(block), part.starts[0] + len(array))
                if low < high:
                    region = (slice(low - first, high - first), *_region(part)[1:])
                    block[region] = array[low - part.starts[0] : high - part.starts[0]]
            flat = as_bytes(block)
            for start in range(0, len(flat), chunk_bytes):
                yield flat[start : start + chunk_bytes]


class CastTensor(Tensor):
    """Another tensor's floating values, converted to another floating type chunk by chunk.

    Reading it raises UnsupportedError where a finite value becomes infinite.
    """

    def __init__(self, base: Tensor, dtype: DType, *, name: str = "") -> None:
        self.dtype = dtype
        self.shape = base.shape
        self.base = base
        self.name = name

    def numpy(self) -> Array:
        """Return a new array."""
        return self._cast(self.base.numpy())

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield converted pieces."""
        # a chunk must hold whole elements; complex128, the largest type, has 16 bytes
        for chunk in self.base.chunks(max(16, chunk_bytes // 16 * 16)):
            yield as_bytes(self._cast(chunk.view(self.base.dtype.numpy)))

    def _cast(self, values: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # the first is looked for, signalling NaNs become quiet ones
            cast = values.astype(self.dtype.numpy)
            lost = int((np.isinf(cast) & np.isfinite(values)).sum())
        if lost:
            raise UnsupportedError(
                f"{lost} values are beyond the range of {self.dtype.name}", where=f"tensor {self.name!r}",
                hint="bfloat16 has the range of float32" if self.dtype is DType.float16 else None,
            )  # fmt: skip
        return cast


def as_bytes(array: Array) -> Bytes:
    """Return an array's elements as uint8[nbytes], little-endian and row-major; a view where it can be one."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.byteorder == ">":
        flat = flat.astype(flat.dtype.newbyteorder("<"))
    return flat.view(np.uint8)


def reshape(flat: Array, shape: Sequence[int]) -> Array:
    """Return a view of an array in a shape that fits its number of elements.

    Raises:
        UnsupportedError: numpy has no such array: TensorFlow allows 254 dimensions, numpy 64 (32 before 2.0).
    """
    try:
        return flat.reshape(shape)
    except ValueError as error:
        raise UnsupportedError(f"numpy has no array of the shape {list(shape)}: {error}") from error


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


def _tiling_problem(shape: tuple[int, ...], parts: Sequence[TensorPart]) -> str | None:
    """Say why parts do not tile a whole, or None where they do.

    Each box adds one at every other of its corners and takes one away at the rest. Boxes tile the whole exactly when
    these numbers add up, at every point, to those of the whole: the sum is the mixed derivative of how often each
    element is covered. That takes one pass, where comparing each part with each other takes the square of their number.
    """
    for part in parts:
        if not _is_inside(part.starts, part.tensor.shape, shape):
            return f"the part at {list(part.starts)} of shape {list(part.tensor.shape)} leaves the whole"
    stored, size = sum(part.tensor.size for part in parts), math.prod(shape)
    if stored != size:
        return f"the parts hold {stored} elements, the whole has {size}"
    boxes = [(part.starts, part.tensor.shape) for part in parts if part.tensor.size]
    split = [axis for axis, whole in enumerate(shape) if any(box[axis] != whole for _, box in boxes)]
    if len(boxes) << len(split) > _MAX_CORNERS:
        return f"{len(boxes)} parts split {len(split)} dimensions, more than can be checked"
    corners: dict[tuple[int, ...], int] = {}
    for starts, box in boxes:
        _add_corners(corners, [(starts[axis], starts[axis] + box[axis]) for axis in split], 1)
    if boxes:
        _add_corners(corners, [(0, shape[axis]) for axis in split], -1)
    uneven = min((point for point, count in corners.items() if count), default=None)
    if uneven is None:
        return None
    place = dict(zip(split, uneven, strict=True))
    return f"parts overlap or leave a hole at {[place.get(axis, 0) for axis in range(len(shape))]}"


_MAX_CORNERS = 1 << 21  # 100,000 parts in four split dimensions; checked in about two seconds


def _add_corners(corners: dict[tuple[int, ...], int], intervals: Sequence[tuple[int, int]], sign: int) -> None:
    """Count the corners of a box, those with an odd number of ends against the sign."""
    points: list[tuple[tuple[int, ...], int]] = [((), sign)]
    for start, end in intervals:
        points = [((*point, start), weight) for point, weight in points] + [
            ((*point, end), -weight) for point, weight in points
        ]
    for point, weight in points:
        corners[point] = corners.get(point, 0) + weight


def _is_inside(starts: Sequence[int], part: Sequence[int], whole: Sequence[int]) -> bool:
    return len(starts) == len(part) == len(whole) and all(
        start >= 0 and length >= 0 and start + length <= size
        for start, length, size in zip(starts, part, whole, strict=True)
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
    if not _is_inside(starts, shape, whole.shape):
        raise StructureError(f"part at {list(starts)} of shape {list(shape)} leaves a tensor of {list(whole.shape)}")
    if tuple(shape) == whole.shape:
        return whole
    if isinstance(whole, JoinedTensor):
        for part in whole.parts:
            if part.starts == tuple(starts) and part.tensor.shape == tuple(shape):
                return part.tensor
    region = tuple(slice(start, start + length) for start, length in zip(starts, shape, strict=True))
    return LazyTensor(whole.dtype, shape, lambda: np.ascontiguousarray(whole.numpy()[region]))
