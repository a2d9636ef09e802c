r"""Weights as npz: a zip archive of .npy files, one a tensor.

    | bytes of a .npy | what                                                                              |
    | --------------- | --------------------------------------------------------------------------------- |
    | 6               | `\x93NUMPY`                                                                       |
    | 2               | version: 1.0, 2.0 or 3.0                                                          |
    | 2 (1.0) or 4    | length n of the header                                                            |
    | n               | Python literal `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, padded |
    |                 | with spaces and a newline so that the data begin at a multiple of 64              |
    | the rest        | the elements                                                                      |

The member of tensor `a/b:0` is `a/b:0.npy`, as `numpy.savez` names it, and `numpy.load(path).files` are the tensors'
names, no more and no less. What is written needs no pickle to be read; what needs pickle is never read.

What numpy has no type for:

- bfloat16, float8 and the 4- and 2-bit types are written as raw bytes of their width (`|V2`, `|V1`), as numpy writes an
  array of `ml_dtypes` (for float8_e5m2 it writes a header that it cannot read again; this module does not).
  `numpy.load(path)["x"].view(ml_dtypes.bfloat16)` gives the values. Back here, `|V2` can only be bfloat16 and is read
  as such; `|V1` could be a dozen types and is refused.
- Strings are written as fixed-width bytes (`S`), which cannot end in a zero byte; a tensor with such an element is
  refused.
- Quantized types (`qint8` and so on) are written as their integers.

The CRC-32 of a member covers its tensor and is compared whenever the tensor is read.

Source: numpy/lib/format.py and `numpy.savez` of NumPy 2.
"""

from __future__ import annotations

import ast
import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

import numpy as np

from tfthaw._files import CHUNK_BYTES, Bytes, Progress, SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, LimitError, StructureError, TruncatedError, UnsupportedError
from tfthaw.formats.zip_archive import ZipArchive, ZipMember
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Array, FileTensor, LazyTensor, Tensor

_SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000  # numpy's own default: parsing a longer literal may not be safe
_MAX_EXTENT = (1 << 63) - 1  # numpy counts elements and bytes in a signed 64-bit integer
_DESCR = re.compile(r"[<>|=]?(\?|[biufcSUVO]\d{0,10})")
_MAX_NAME_BYTES = 65535 - len(_SUFFIX)  # the length of a member's name has 16 bits


@dataclass(frozen=True)
class NpzFile:
    """What an npz file says.

    Attributes:
        path: The file.
        tensors: Every array by its name; read when asked for.
        pickled: Names of arrays of Python objects; they are in `tensors`, and raise UnsupportedError when read.
        others: Members that are no arrays.
    """

    path: str
    tensors: Mapping[str, Tensor]
    pickled: tuple[str, ...]
    others: tuple[str, ...]


def read_npz(path: str, limits: Limits = DEFAULT_LIMITS) -> NpzFile:
    """Read the directory and the headers of an npz file; the arrays stay where they are.

    Args:
        path: The file.
        limits: What to accept.

    Returns:
        The arrays as tensors. Stored row-major ones are ranges of the file; compressed ones are inflated as a stream.
        `S` and `U` arrays are strings, `U` encoded as UTF-8. An array of a type that TensorFlow does not have, or that
        only pickle can read, has the dtype `invalid` and raises UnsupportedError when it is read.

    Raises:
        FormatError: The archive or a header is not what the format says.
        LimitError: An array claims more than the limits allow.
        UnsupportedError: The archive is encrypted or compressed otherwise than by DEFLATE.
    """
    source = SourceFile(path)
    archive = ZipArchive(source, limits, contained=False)
    tensors: dict[str, Tensor] = {}
    pickled, others = [], []
    for member in archive.members.values():
        if not member.name.endswith(_SUFFIX):
            others.append(member.name)
            continue
        name = member.name.removesuffix(_SUFFIX)
        header = _read_npy_header(archive, member, limits)
        tensors[name] = _tensor(name, _Npy(archive, member, header))
        if header.dtype.kind == "O":
            pickled.append(name)
    return NpzFile(source.path, MappingProxyType(tensors), tuple(pickled), tuple(others))


def write_npz(
    file: BinaryIO, tensors: Mapping[str, Tensor], progress: Progress | None = None
) -> dict[str, tuple[int, int]]:
    """Write tensors as an uncompressed npz, streaming, in the order of the mapping.

    For types that numpy has, the bytes are those that `numpy.savez` writes.

    Args:
        file: A seekable file; its position must be 0.
        tensors: What to write.
        progress: Called with the number of bytes of tensors just written.

    Returns:
        For each tensor the offset and the length of its elements in the file.

    Raises:
        UnsupportedError: The format cannot hold some of the tensors; all of them are named, and nothing was written.
        StructureError: A tensor gave another number of bytes than its shape says.
    """
    descriptions = _describe_all(tensors)
    places = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in tensors.items():
            description = descriptions[name]
            # zipfile writes the header before it knows the size: room for 64 bits must be made, as numpy does too
            with archive.open(name + _SUFFIX, "w", force_zip64=True) as member:
                member.write(_npy_header(description.descr, tensor.shape))
                start = file.tell()
                for chunk in description.chunks():
                    member.write(chunk.data)
                    if progress is not None:
                        progress(len(chunk))
                places[name] = (start, file.tell() - start)
            if places[name][1] != description.nbytes:
                raise StructureError(
                    f"{places[name][1]} bytes came, {tensor.dtype.name}{list(tensor.shape)} has {description.nbytes}",
                    where=f"tensor {name!r}",
                )  # fmt: skip
    return places


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class _NpyHeader:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    text: bytes  # everything before the elements, for the CRC-32


@dataclass(frozen=True)
class _Npy:
    archive: ZipArchive
    member: ZipMember
    header: _NpyHeader

    def chunks(self, chunk_bytes: int) -> Iterator[Bytes]:
        """Yield the stored bytes of the elements, checked, every piece but the last one full."""
        buffer = np.empty(min(chunk_bytes, self.member.nbytes), np.uint8)
        skip, filled = len(self.header.text), 0
        for piece in self.archive.chunks(self.member, chunk_bytes):
            start = min(skip, len(piece))
            skip -= start
            while start < len(piece):
                part = piece[start : start + len(buffer) - filled]
                buffer[filled : filled + len(part)] = part
                start, filled = start + len(part), filled + len(part)
                if filled == len(buffer):
                    yield buffer
                    filled = 0
        if filled:
            yield buffer[:filled]

    def stored_array(self) -> Array:
        """Return the array as it is stored, checked, of numpy's own dtype."""
        whole = np.empty(self.member.nbytes - len(self.header.text), np.uint8)
        done = 0
        for chunk in self.chunks(CHUNK_BYTES):
            whole[done : done + len(chunk)] = chunk
            done += len(chunk)
        flat = whole.view(self.header.dtype) if len(whole) else np.empty(0, self.header.dtype)
        return flat.reshape(self.header.shape, order="F" if self.header.fortran_order else "C")


class _StoredTensor(FileTensor):
    """A row-major array that lies uncompressed in the archive; the member's CRC-32 covers its header too."""

    def __init__(self, dtype: DType, npy: _Npy, name: str) -> None:
        skip = len(npy.header.text)
        part = npy.archive.source.slice(npy.member.offset + skip, npy.member.nbytes - skip)
        super().__init__(dtype, npy.header.shape, part, name=name)
        self._npy = npy

    def numpy(self, *, check: bool = True) -> Array:  # docstring inherited
        if check:
            self._npy.archive.compare(self._npy.member, zlib.crc32(self.slice.view().data, self._seed()))
        return super().numpy(check=False)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:  # docstring inherited
        computed = self._seed()
        for chunk in super().chunks(chunk_bytes):
            computed = zlib.crc32(chunk.data, computed)
            yield chunk
        self._npy.archive.compare(self._npy.member, computed)

    def _seed(self) -> int:
        return zlib.crc32(self._npy.header.text)


class _StreamedTensor(Tensor):
    """An array that is compressed, column-major or big-endian."""

    def __init__(self, dtype: DType, npy: _Npy) -> None:
        self.dtype = dtype
        self.shape = npy.header.shape
        self._npy = npy

    def numpy(self) -> Array:  # docstring inherited
        stored = self._npy.stored_array()
        return stored.astype(stored.dtype.newbyteorder("<"), copy=False).view(self.dtype.numpy)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:  # docstring inherited
        if self._npy.header.fortran_order or self._npy.header.dtype.byteorder == ">":
            yield from super().chunks(chunk_bytes)
        else:
            yield from self._npy.chunks(chunk_bytes)


def _tensor(name: str, npy: _Npy) -> Tensor:
    header = npy.header
    dtype = _element_type(header.dtype)
    if dtype is DType.string:
        return LazyTensor(dtype, header.shape, lambda: _strings(npy))
    if dtype is DType.invalid:

        def refuse() -> NoReturn:
            raise UnsupportedError(
                _refusal(header.dtype), path=npy.archive.source.path, where=f"tensor {name!r}",
                hint="save it again as a plain array",
            )  # fmt: skip

        return LazyTensor(dtype, header.shape, refuse)
    # only what is stored as `chunks` must yield it can be a range of the file
    is_plain = not npy.member.deflated and header.dtype.byteorder != ">" and not header.fortran_order
    return _StoredTensor(dtype, npy, name) if is_plain else _StreamedTensor(dtype, npy)


def _element_type(dtype: np.dtype[Any]) -> DType:
    """Return TensorFlow's type for one of numpy's, `invalid` where there is none."""
    if dtype.kind == "V" and dtype.itemsize == 2:
        return DType.bfloat16
    if dtype.kind == "O":
        return DType.invalid
    try:
        return DType.from_numpy(dtype)
    except KeyError:
        return DType.invalid


def _refusal(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "O":
        return "it holds Python objects, which only pickle can read, and pickle runs code; it was not read"
    if dtype.kind == "V":
        return f"raw bytes ({dtype.str}) do not say which element type they are"
    return f"TensorFlow has no element type for numpy's {dtype.str}"


def _strings(npy: _Npy) -> Array:
    """Return a fixed-width array as an object array of bytes."""
    stored = npy.stored_array()
    result = np.empty(stored.shape, object)
    try:
        for index, value in np.ndenumerate(stored):
            result[index] = bytes(value) if stored.dtype.kind == "S" else str(value).encode()
    except (ValueError, SystemError) as error:
        raise FormatError(f"its text is not Unicode: {error}", path=npy.archive.source.path,
                          where=f"member {npy.member.name!r}") from error  # fmt: skip
    return result


def _read_npy_header(archive: ZipArchive, member: ZipMember, limits: Limits) -> _NpyHeader:
    """Read and check the header of one .npy against the member's size."""
    where: dict[str, Any] = {"path": archive.source.path, "where": f"member {member.name!r}"}
    head = archive.head(member, 12 + _MAX_HEADER_BYTES)
    if head[:6] != _MAGIC:
        raise FormatError(f"expected {_MAGIC!r}, found {head[:6]!r}", **where)
    version = tuple(head[6:8])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise FormatError(f"the .npy version {version} is not known", **where)
    start = 10 if version == (1, 0) else 12
    length = int.from_bytes(head[8:start], "little")
    if length > _MAX_HEADER_BYTES:
        raise LimitError(f"its header claims {length} bytes, at most {_MAX_HEADER_BYTES} are allowed", **where)
    if len(head) < start + length:
        raise TruncatedError(f"its header claims {length} bytes, {max(0, len(head) - start)} are there", **where)
    try:
        text = head[start : start + length].decode("utf-8" if version == (3, 0) else "latin-1")
        dtype, fortran_order, shape = _header_values(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise FormatError(f"its header is not valid: {error}", **where) from error
    if len(shape) > limits.max_rank:
        raise LimitError(f"{len(shape)} dimensions, at most {limits.max_rank} are allowed", **where)
    header = _NpyHeader(dtype, shape, fortran_order, head[: start + length])
    _check_size(header, member, limits, where)
    return header


def _header_values(values: Any) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Check the three values of a header; raises ValueError and its like."""
    if not isinstance(values, dict) or set(values) != {"descr", "fortran_order", "shape"}:
        raise ValueError("expected a dict of descr, fortran_order and shape")
    shape = values["shape"]
    if not isinstance(shape, tuple) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"the shape {shape!r} is no tuple of non-negative integers")
    if not isinstance(values["fortran_order"], bool):
        raise ValueError(f"fortran_order is {values['fortran_order']!r}")
    descr = values["descr"]
    if isinstance(descr, list):
        return np.dtype([("", "V1")]), values["fortran_order"], shape  # a record of fields; only its refusal matters
    if not isinstance(descr, str) or not _DESCR.fullmatch(descr):
        raise ValueError(f"the descr {descr!r} is not known")
    return np.dtype(descr), values["fortran_order"], shape


def _check_size(header: _NpyHeader, member: ZipMember, limits: Limits, where: dict[str, Any]) -> None:
    """Hold that the elements take exactly the rest of the member."""
    if math.prod(extent for extent in header.shape if extent) * max(16, header.dtype.itemsize) > _MAX_EXTENT:
        raise FormatError(f"the shape {header.shape} has more elements than memory has addresses", **where)
    if header.dtype.kind == "O" or header.dtype.fields is not None:
        return  # never read
    size = math.prod(header.shape)
    nbytes = size * header.dtype.itemsize
    if nbytes > limits.max_tensor_bytes:
        raise LimitError(f"{nbytes} bytes, at most {limits.max_tensor_bytes} are allowed", **where)
    rest = member.nbytes - len(header.text)
    if nbytes != rest or (size and not nbytes):
        kind = TruncatedError if nbytes > rest else FormatError
        raise kind(f"{header.dtype.str}{list(header.shape)} needs {nbytes} bytes, {rest} follow its header", **where)


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class _Description:
    descr: str
    nbytes: int
    chunks: Callable[[], Iterator[Bytes]]


def _describe_all(tensors: Mapping[str, Tensor]) -> dict[str, _Description]:
    """Say how each tensor is written, or raise with everything that cannot be; strings are read for it."""
    result: dict[str, _Description] = {}
    problems = []
    for name, tensor in tensors.items():
        problem = _name_problem(name, tensors)
        if problem is None:
            try:
                result[name] = _describe(tensor)
            except UnsupportedError as error:
                problem = error.message
        if problem is not None:
            problems.append(f"{name!r}: {problem}")
    if problems:
        raise UnsupportedError(
            f"npz cannot hold {len(problems)} of {len(tensors)} tensors", problems=problems, hint="leave them out"
        )
    return result


def _name_problem(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) in tensors:
        return f"numpy.load would give {name.removesuffix(_SUFFIX)!r} for it"
    if "\0" in name:
        return "a member's name cannot hold a zero byte"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "the name is not Unicode text"
    return f"the name has {length} bytes, {_MAX_NAME_BYTES} fit" if length > _MAX_NAME_BYTES else None


def _describe(tensor: Tensor) -> _Description:
    if tensor.dtype is DType.string:
        return _describe_strings(tensor)
    if not tensor.dtype.is_numeric:
        raise UnsupportedError(f"numpy has no arrays of {tensor.dtype.name}")
    dtype = tensor.dtype.numpy
    # the types of ml_dtypes have strings like '<f1', which numpy itself does not understand
    descr = dtype.str if dtype.type.__module__ == "numpy" else f"|V{dtype.itemsize}"
    return _Description(descr, tensor.nbytes, tensor.chunks)


def _describe_strings(tensor: Tensor) -> _Description:
    width, size = 1, 0  # numpy has no strings of width 0
    for value in tensor.numpy().flat:
        if value.endswith(b"\0"):
            raise UnsupportedError("an element ends in a zero byte, which numpy's fixed-width strings drop")
        width, size = max(width, len(value)), size + 1
    return _Description(f"|S{width}", size * width, lambda: _padded(tensor.numpy(), width))


def _padded(values: Array, width: int) -> Iterator[Bytes]:
    """Yield strings padded with zero bytes to one width."""
    batch = max(1, CHUNK_BYTES // width)
    flat = values.reshape(-1)
    for start in range(0, len(flat), batch):
        text = b"".join(value.ljust(width, b"\0") for value in flat[start : start + batch])
        yield np.frombuffer(text, np.uint8)


def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
