"""V1 checkpoints, the format of TensorFlow 0.x and of `Saver(write_version=V1)`: reading.

One table (see `tfthaw.formats.table`), or several as shards named `path-00000-of-00002`:

    ""                                SavedTensorSlices.meta: name, shape, type and slices of each tensor
    slice key (`ordered_code`)        SavedTensorSlices.data: a TensorProto with the elements in its typed list

A tensor that was saved whole has one slice that takes all of each dimension. Elements of the integer types are varints,
and so are the bits of those of half precision; nothing is left out or repeated, as it may be in the TensorProto of a
graph. There is no writer: TensorFlow itself advises against the format.

Source: util/tensor_slice_{reader,writer}.cc, util/saved_tensor_slice_util.{h,cc} and util/saved_tensor_slice.proto of
TensorFlow.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfthaw import proto
from tfthaw._files import Bytes, SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import (
    FormatError,
    LimitError,
    NotFoundError,
    StructureError,
    TfthawError,
    TruncatedError,
    UnsupportedError,
)
from tfthaw.formats.checkpoint_reader import (
    CheckpointReader,
    LazyMapping,
    UnreadableTensor,
    Versions,
    check_shape,
    check_versions,
    join,
    numeric_nbytes,
    resolve_slice,
)
from tfthaw.formats.ordered_code import WHOLE, Extent, encode_slice_key, extents_of
from tfthaw.formats.table import Table
from tfthaw.formats.varint import decode_varints, read_varint
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Array, Tensor, TensorPart, reshape

CHECKPOINT_VERSION = 1
"""Version of the format that is read; TensorFlow has had no other."""

_SHARD = re.compile(r"(?P<prefix>.*)-(?P<shard>\d{5})-of-(?P<count>\d{5})\Z", re.DOTALL)
_MAX_INFLATION = 64  # elements for one byte of file: a varint has one byte, and snappy cannot make more of it than this

_DATA_IN_SAVED_TENSOR_SLICES = 2
_DATA_IN_SAVED_SLICE = 3


class _Field(NamedTuple):
    """The typed list of a TensorProto that holds the elements of a type.

    Attributes:
        number: Its field number.
        bits: Where elements are varints, the type whose bits they give; empty where they have a fixed size.
    """

    number: int
    bits: str = ""


_FIELDS = {
    DType.float32: _Field(5), DType.float64: _Field(6), DType.complex64: _Field(9), DType.complex128: _Field(12),
    DType.string: _Field(8), DType.bool: _Field(11, "u1"), DType.float16: _Field(13, "<u2"),
    DType.bfloat16: _Field(13, "<u2"), DType.int32: _Field(7, "<i4"), DType.qint32: _Field(7, "<i4"),
    DType.int16: _Field(7, "<i2"), DType.qint16: _Field(7, "<i2"), DType.uint16: _Field(7, "<u2"),
    DType.quint16: _Field(7, "<u2"), DType.int8: _Field(7, "i1"), DType.qint8: _Field(7, "i1"),
    DType.uint8: _Field(7, "u1"), DType.quint8: _Field(7, "u1"), DType.int64: _Field(10, "<i8"),
    DType.uint32: _Field(16, "<u4"), DType.uint64: _Field(17, "<u8"),
}  # fmt: skip


class _Part(NamedTuple):
    """A slice and the index of the file that holds it."""

    extents: tuple[Extent, ...]
    table: int


class SlicesEntry(NamedTuple):
    """What the meta of the shards says of one tensor.

    Attributes:
        dtype: The element type.
        shape: The dimensions of the whole tensor.
        nbytes: Bytes of its elements; 0 for strings, of which the format does not tell.
        slices: The parts of a partitioned tensor; empty for one that was saved whole.
        parts: The slices with their files, also where the only one is the whole tensor.
    """

    dtype: DType
    shape: tuple[int, ...]
    nbytes: int
    slices: tuple[tuple[Extent, ...], ...]
    parts: tuple[_Part, ...]


class TensorSlicesReader(CheckpointReader):
    """A V1 checkpoint opened for reading.

    Opening reads the meta of each shard; elements are decoded when they are asked for.

    Attributes:
        path: The path, as given.
        missing_shards: Files of the checkpoint that are not there.
    """

    entries: Mapping[str, SlicesEntry]

    def __init__(self, path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> None:
        """Read the meta of every shard that is there.

        Args:
            path: The file; or one of several shards, or the part of their names before `-00000-of-`. Every character
                stands for itself.
            limits: What to accept.

        Raises:
            NotFoundError: There is no such file.
            FormatError: A file is damaged or something else.
            StructureError: The shards contradict each other.
        """
        self.path = os.fspath(path)
        self._limits = limits
        self._tables: list[Table] = []
        self.versions = Versions(0, 0)
        names, self.missing_shards = _shard_names(self.path)
        known: dict[str, SlicesEntry] = {}
        try:
            for name in names:
                self._tables.append(Table(SourceFile(name), limits))
                self._read_meta(len(self._tables) - 1, known)
        except TfthawError:
            self.close()
            raise
        self._entries = dict(sorted(known.items()))
        self.entries = self._entries
        self.tensors = LazyMapping(self._entries, self.tensor)

    @property
    def num_shards(self) -> int:
        """Files that the checkpoint should have."""
        return len(self._tables) + len(self.missing_shards)

    def tensor(self, key: str) -> Tensor:
        """Return one tensor; its elements are decoded later.

        Where a shard with a part of it is missing, the tensor is returned too, and raises when it is read.

        Raises:
            NotFoundError: There is no such key.
            StructureError: The slices contradict the whole.
            LimitError: The files are too small for what the tensor claims.
            UnsupportedError: The format has no elements of this type.
        """
        entry = self._entries.get(key)
        if entry is None:
            raise self._missing(key)
        path = self._tables[entry.parts[0].table].file.path
        where = f"tensor {key!r}"
        if entry.dtype not in _FIELDS:
            raise UnsupportedError(f"a V1 checkpoint cannot hold {entry.dtype.name}", path=path, where=where)
        parts = []
        for extents, number in entry.parts:
            place = resolve_slice(extents, entry.shape)
            if place is None or min(place[1], default=0) < 0:
                raise StructureError(f"the slice {list(extents)} does not fit {list(entry.shape)}", path=path,
                                     where=where)  # fmt: skip
            slice_key = encode_slice_key(key.encode(), extents)
            part = SliceTensor(entry.dtype, place[1], self._tables[number], slice_key, key)
            parts.append(TensorPart(place[0], part))
        if len(parts) == 1 and parts[0].tensor.shape == entry.shape and not any(parts[0].starts):
            return parts[0].tensor
        claimed = sum(part.tensor.size for part in parts)
        stored = sum(table.file.size for table in self._tables)
        if claimed > stored * _MAX_INFLATION:
            raise LimitError(f"{stored} bytes cannot hold a tensor of {list(entry.shape)}", path=path, where=where)
        if self.missing_shards and claimed < math.prod(entry.shape):
            reason = NotFoundError(
                "a part of the tensor is in this shard, which is missing", path=self.missing_shards[0], where=where
            )
            return UnreadableTensor(entry, reason)
        return join(entry, parts, key=key, path=path)

    def files(self) -> list[Path]:
        """Return the shards that are there."""
        return [Path(table.file.path) for table in self._tables]

    def close(self) -> None:
        """Close the files."""
        for table in self._tables:
            table.file.close()

    def _read_meta(self, number: int, known: dict[str, SlicesEntry]) -> None:
        """Add what one file holds to what is known of each tensor."""
        table = self._tables[number]
        path = table.file.path
        value = table.view(b"") or b""
        if len(value) > self._limits.max_message_bytes:
            raise LimitError(f"the meta has {len(value)} bytes, more than the {self._limits.max_message_bytes} allowed",
                             path=path)  # fmt: skip
        message = proto.parse(proto.SavedTensorSlices, value, path=path, where="meta")
        if not message.HasField("meta"):
            raise FormatError(
                "the table has no meta of a V1 checkpoint", path=path,
                hint="if it is the index of a V2 checkpoint, its name should end in .index",
            )  # fmt: skip
        version = message.meta.versions
        self.versions = Versions(version.producer, version.min_consumer, tuple(version.bad_consumers))
        check_versions(self.versions, CHECKPOINT_VERSION, path)
        for meta in message.meta.tensor:
            entry = self._decode_meta(meta, number, path)
            other = known.get(meta.name, entry)
            if (other.dtype, other.shape) != (entry.dtype, entry.shape):
                raise StructureError(
                    f"{entry.dtype.name}{list(entry.shape)} here, {other.dtype.name}{list(other.shape)} before",
                    path=path, where=f"tensor {meta.name!r}",
                )  # fmt: skip
            if other is not entry:
                parts = other.parts + entry.parts
                entry = entry._replace(parts=parts, slices=tuple(part.extents for part in parts))
            known[meta.name] = entry

    def _decode_meta(self, meta: Any, number: int, path: str) -> SlicesEntry:
        where = f"tensor {meta.name!r}"
        shape = tuple([dimension.size for dimension in meta.shape.dim])
        check_shape(shape, self._limits, path, where)
        slices = tuple(extents_of(part.extent) for part in meta.slice)
        if not slices:
            raise StructureError("the tensor has no slice", path=path, where=where)
        dtype = DType(meta.type)
        is_whole = len(slices) == 1 and all(length == WHOLE for _, length in slices[0])
        parts = tuple(_Part(extents, number) for extents in slices)
        return SlicesEntry(dtype, shape, numeric_nbytes(dtype, shape), () if is_whole else slices, parts)


class SliceTensor(Tensor):
    """The elements of one slice in a V1 checkpoint.

    They are decoded, with the checksum of their block, each time they are read.
    """

    def __init__(self, dtype: DType, shape: Sequence[int], table: Table, key: bytes, name: str) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self._table = table
        self._key = key
        self._name = name

    def numpy(self) -> Array:
        """Return the elements: a read-only view of the file for large floats, a new array for the rest.

        Raises:
            FormatError: The block or the message is damaged.
            StructureError: There are more or fewer elements than the shape needs.
        """
        path, where = self._table.file.path, f"tensor {self._name!r}"
        value = self._table.view(self._key)
        if value is None:
            raise StructureError("the slice has no data", path=path, where=where)
        try:
            return reshape(self._decode(memoryview(value)), self.shape)
        except TfthawError as error:
            raise type(error)(error.message, path=path, where=where) from error

    def _decode(self, value: memoryview) -> Array:
        field = _FIELDS[self.dtype]
        payloads = [value]
        for number in (_DATA_IN_SAVED_TENSOR_SLICES, _DATA_IN_SAVED_SLICE, field.number):
            payloads = [span for payload in payloads for span in _spans(payload, number)]
        if self.dtype is DType.string:
            return self._strings(payloads)
        data: Bytes = np.frombuffer(payloads[0] if len(payloads) == 1 else b"".join(payloads), np.uint8)
        if field.bits:
            values, used = decode_varints(data, self.size)
            if used != len(data):
                raise StructureError(f"there are more elements than the {self.size} of {list(self.shape)}")
            return values != 0 if self.dtype is DType.bool else values.astype(field.bits).view(self.dtype.numpy)
        if len(data) != self.nbytes:
            needed = f"{self.dtype.name}{list(self.shape)} needs {self.nbytes}"
            raise StructureError(f"{len(data)} bytes are stored, {needed}")
        return data.view(self.dtype.numpy)

    def _strings(self, payloads: list[memoryview]) -> Array:
        if len(payloads) != self.size:
            raise StructureError(f"{len(payloads)} strings are stored, {list(self.shape)} needs {self.size}")
        values = np.empty(len(payloads), object)
        values[:] = [bytes(payload) for payload in payloads]
        return values


def _spans(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the bytes of one field of a protobuf message, each time it occurs.

    Large lists of numbers are packed, one span each; walking to them copies nothing, where parsing the message would
    make an object of each element.
    """
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        start = position
        match tag & 7:
            case 0:
                _, position = read_varint(message, position)
            case 1:
                position += 8
            case 2:
                length, start = read_varint(message, position)
                position = start + length
            case 5:
                position += 4
            case wire_type:
                raise FormatError(f"the message has a field of wire type {wire_type}")
        if position > len(message):
            raise TruncatedError(f"a field ends at {position}, the message has {len(message)} bytes")
        if tag >> 3 == number:
            yield message[start:position]


def _shard_names(path: str) -> tuple[list[str], list[str]]:
    """Return the files of a checkpoint that are there and those that are missing."""
    found = _SHARD.match(path)
    if found is None and not os.path.exists(path):
        folder, basename = os.path.split(path)
        with contextlib.suppress(OSError):
            shards = filter(None, map(_SHARD.match, sorted(os.listdir(folder or "."))))
            found = next((shard for shard in shards if shard["prefix"] == basename), None)
    if found is None:
        return [path], []
    prefix = path if found.string != path else found["prefix"]
    count = int(found["count"])
    names = [f"{prefix}-{shard:05d}-of-{count:05d}" for shard in range(count)]
    there = [name for name in names if os.path.exists(name)]
    if not there:
        raise NotFoundError("there is no such file, and no other shard of it", path=path)
    return there, sorted(set(names) - set(there))
