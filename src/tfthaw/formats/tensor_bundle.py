"""V2 checkpoints, which TensorFlow calls tensor bundles.

    prefix.index                  a table (see `tfthaw.formats.table`): "" -> BundleHeaderProto, key -> BundleEntryProto
    prefix.data-00000-of-00002    the tensors' bytes, end to end; an entry gives shard, offset and size

A partitioned tensor has an entry with `slices` and without bytes, and one entry for each slice, under a key of
`tfthaw.formats.ordered_code`. Each entry has a checksum of its bytes. What the keys mean to a model is not known here.

Source: util/tensor_bundle/{tensor_bundle,naming}.cc and protobuf/tensor_bundle.proto of TensorFlow.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import google_crc32c

from tfthaw import proto
from tfthaw._files import SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import (
    FormatError,
    LimitError,
    NotFoundError,
    StructureError,
    TfthawError,
    UnsupportedError,
    UsageError,
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
from tfthaw.formats.ordered_code import Extent, decode_slice_key, encode_slice_key, extents_of
from tfthaw.formats.table import Table, TableWriter, mask_crc32c, unmask_crc32c
from tfthaw.formats.tensor_bundle_values import StringTensor, VariantTensor, variant_checksum, write_strings
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import FileTensor, Tensor, TensorPart

BUNDLE_VERSION = 1
"""Version of the format that is read and written; TensorFlow has had no other."""

MAX_SHARDS = 99_999
"""The number of a shard has five digits in its file's name."""


_PLAIN_BYTES = 9  # type, an empty shape, checksum
_PLAIN_LIMIT = 1 << 63  # numbers from here on are negative ones
_PLAIN_TYPES = {int(dtype): dtype for dtype in DType}


class BundleEntry(NamedTuple):  # not a dataclass: that takes three times as long to make, ten thousand times
    """One entry of the index.

    Attributes:
        dtype: The element type.
        shape: The dimensions of the whole tensor.
        nbytes: Bytes that are stored, those of all parts for a partitioned tensor.
        slices: The parts of a partitioned tensor; empty for one that was saved whole.
        shard: Number of the data file; 0 for a partitioned tensor, whose parts have their own.
        offset: First byte in it.
        crc32c: Checksum, unmasked.
    """

    dtype: DType
    shape: tuple[int, ...]
    nbytes: int
    slices: tuple[tuple[Extent, ...], ...] = ()
    shard: int = 0
    offset: int = 0
    crc32c: int = 0


class BundleReader(CheckpointReader):
    """A V2 checkpoint opened for reading.

    Opening reads the index and no data file. Entries are decoded when they are asked for, so that ten thousand
    variables open in a few hundredths of a second.

    Attributes:
        path: The prefix, as given.
        num_shards: Data files that the checkpoint has.
    """

    entries: Mapping[str, BundleEntry]

    def __init__(self, prefix: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> None:
        """Read the index.

        Args:
            prefix: The path without `.index`; every character stands for itself.
            limits: What to accept.

        Raises:
            NotFoundError: There is no such index.
            FormatError: The index is damaged or something else.
            UnsupportedError: It is big-endian, or of a version that this one must not read.
        """
        self.path = os.fspath(prefix)
        self._limits = limits
        self._shards: dict[int, SourceFile] = {}
        self._shapes: dict[bytes, tuple[int, ...]] = {}
        with SourceFile(index_name(self.path)) as file:
            if file.size > limits.max_index_bytes:
                raise LimitError(f"an index of {file.size} bytes, more than the {limits.max_index_bytes} allowed",
                                 path=file.path)  # fmt: skip
            self._index_path = file.path
            self._raw = dict(Table(file, limits).items())
        self._read_header(self._raw.pop(b"", None))
        hidden = self._slice_keys()
        self._values = {
            key.decode("utf-8", "surrogateescape"): value for key, value in self._raw.items() if key not in hidden
        }
        self.entries = LazyMapping(self._values, self.entry)
        self.tensors = LazyMapping(self._values, self.tensor)

    def keys(self) -> list[str]:
        """Return the keys of all tensors, sorted."""
        return list(self._values)

    def entry(self, key: str) -> BundleEntry:
        """Return what the index says of one tensor.

        Raises:
            NotFoundError: There is no such key.
            FormatError: The entry is damaged.
            StructureError: Its shape or place cannot be.
        """
        value = self._values.get(key)
        if value is None:
            raise self._missing(key)
        return self._decode(value, key)

    def tensor(self, key: str) -> Tensor:
        """Return one tensor; its bytes are read later.

        Where the data file is missing or too short, the tensor is returned too, and raises when it is read.

        Raises:
            NotFoundError: There is no such key.
            FormatError: Its entry is damaged.
            StructureError: Its entry contradicts itself.
        """
        entry = self.entry(key)
        return self._joined(entry, key) if entry.slices else self._stored(entry, key)

    def _joined(self, entry: BundleEntry, key: str) -> Tensor:
        """Return a partitioned tensor."""
        where = f"tensor {key!r}"
        if len(set(entry.slices)) < len(entry.slices):
            raise StructureError("a slice is named twice", path=self._index_path, where=where)
        name = key.encode("utf-8", "surrogateescape")
        parts = []
        for extents in entry.slices:
            value = self._raw.get(encode_slice_key(name, extents))
            if value is None:
                raise StructureError(f"the slice {list(extents)} has no entry", path=self._index_path, where=where)
            part = self._decode(value, key)
            place = resolve_slice(extents, entry.shape)
            if place is None or place[1] != part.shape:
                raise StructureError(
                    f"the slice {list(extents)} of {list(entry.shape)} is stored as {list(part.shape)}",
                    path=self._index_path, where=where,
                )  # fmt: skip
            tensor = self._stored(part, key)
            if isinstance(tensor, UnreadableTensor):
                return UnreadableTensor(entry, tensor.error)
            parts.append(TensorPart(place[0], tensor))
        _check_disjoint(parts, self._index_path, where)
        return join(entry, parts, key=key, path=self._index_path)

    def unreadable(self) -> dict[str, TfthawError]:
        """Return the keys whose bytes are not there, with the reason; no data is read.

        Raises:
            FormatError: An entry is damaged.
            StructureError: An entry contradicts itself.
        """
        tensors = ((key, self.tensor(key)) for key in self._values)
        return {key: tensor.error for key, tensor in tensors if isinstance(tensor, UnreadableTensor)}

    def files(self) -> list[Path]:
        """Return the index and the data files that are there."""
        shards = (shard_name(self.path, shard, self.num_shards) for shard in range(self.num_shards))
        return [path for path in map(Path, [self._index_path, *shards]) if path.is_file()]

    def close(self) -> None:
        """Close the data files."""
        for file in self._shards.values():
            file.close()
        self._shards.clear()

    def _read_header(self, value: bytes | None) -> None:
        path, where = self._index_path, "header"
        if value is None:
            raise FormatError("the table has no header entry; it is no index of a checkpoint", path=path, where=where)
        header = proto.parse(proto.BundleHeaderProto, value, path=path, where=where)
        if header.endianness != 0:
            raise UnsupportedError(
                "the checkpoint was written on a big-endian machine", path=path, where=where,
                hint="save it again on a little-endian one; TensorFlow converts while it reads",
            )  # fmt: skip
        if not 1 <= header.num_shards <= MAX_SHARDS:
            raise FormatError(
                f"1 to {MAX_SHARDS} shards are expected, the header has {header.num_shards}", path=path, where=where,
                hint=None if header.num_shards else "the file may be a V1 checkpoint, one table without data files",
            )  # fmt: skip
        self.num_shards: int = header.num_shards
        version = header.version
        self.versions = Versions(version.producer, version.min_consumer, tuple(version.bad_consumers))
        check_versions(self.versions, BUNDLE_VERSION, path)

    def _slice_keys(self) -> set[bytes]:
        """Find the entries that are slices of a partitioned tensor, which are no tensors of their own."""
        hidden = set()
        slices: dict[bytes, set[tuple[Extent, ...]]] = {}
        for key in self._raw:
            if not key.startswith(b"\0"):  # every slice key does
                continue
            try:
                name, extents = decode_slice_key(key)
            except FormatError:
                continue  # a strange name, but a tensor
            if name not in slices:
                value = self._raw.get(name)
                slices[name] = set() if value is None else set(self._decode(value, repr(name)).slices)
            if extents in slices[name]:
                hidden.add(key)
        return hidden

    def _decode(self, value: bytes, key: str) -> BundleEntry:
        return self._decode_plain(value) or self._decode_any(value, key)

    def _decode_plain(self, value: bytes) -> BundleEntry | None:
        """Decode an entry as TensorFlow writes nearly all of them, in half the time that a message takes.

            | 08 type | 12 length shape | 18 shard | 20 offset | 28 size | 35 checksum |     each number at most once

        Returns None for any other, and for a shape that was not seen before.
        """
        if len(value) < _PLAIN_BYTES or value[0] != 0x08 or value[2] != 0x12 or value[-5] != 0x35:
            return None
        position = 4 + value[3]
        dtype, shape = _PLAIN_TYPES.get(value[1]), self._shapes.get(value[4:position])
        if dtype is None or shape is None:
            return None
        shard = offset = size = 0
        last = len(value) - 5
        while position < last:
            tag = value[position]
            number = value[position + 1]
            position += 2
            shift = 7
            while number >> shift and position < last:  # the highest byte so far says "more"
                number += (value[position] - 1) << shift
                position += 1
                shift += 7
            if number >> shift:
                return None
            if tag == 0x28:
                size = number
            elif tag == 0x20:
                offset = number
            elif tag == 0x18:
                shard = number
            else:
                return None
        if position != last or shard >= self.num_shards or offset >= _PLAIN_LIMIT or size >= _PLAIN_LIMIT:
            return None
        return BundleEntry(dtype, shape, size, (), shard, offset, unmask_crc32c(int.from_bytes(value[-4:], "little")))

    def _decode_any(self, value: bytes, key: str) -> BundleEntry:
        where = f"tensor {key!r}"
        message = proto.parse(proto.BundleEntryProto, value, path=self._index_path, where=where)
        shape = self._shape(message.shape, where)
        shard, offset, size = message.shard_id, message.offset, message.size
        if not 0 <= shard < self.num_shards or offset < 0 or size < 0:
            raise StructureError(
                f"the entry has shard {shard} of {self.num_shards}, offset {offset} and {size} bytes",
                path=self._index_path, where=where,
            )  # fmt: skip
        dtype = DType(message.dtype)
        slices = tuple(extents_of(part.extent) for part in message.slices) if message.slices else ()
        if slices:
            size = numeric_nbytes(dtype, shape)
        return BundleEntry(dtype, shape, size, slices, shard, offset, unmask_crc32c(message.crc32c))

    def _shape(self, message: Any, where: str) -> tuple[int, ...]:
        """Decode a shape; models have few different ones, and decoding them takes most of an entry's time."""
        encoded = message.SerializeToString()
        shape = self._shapes.get(encoded)
        if shape is None:
            shape = tuple(dimension.size for dimension in message.dim)
            if message.unknown_rank:
                raise StructureError("the entry has a shape of unknown rank", path=self._index_path, where=where)
            check_shape(shape, self._limits, self._index_path, where)
            self._shapes[encoded] = shape
        return shape

    def _stored(self, entry: BundleEntry, key: str) -> Tensor:
        """Return the tensor of an entry that has bytes of its own."""
        try:
            if entry.shard not in self._shards:
                self._shards[entry.shard] = SourceFile(shard_name(self.path, entry.shard, self.num_shards))
            part = self._shards[entry.shard].slice(entry.offset, entry.nbytes)
        except NotFoundError as error:
            reason: TfthawError = NotFoundError(
                "the data file is missing", path=error.path, where=f"tensor {key!r}",
                hint="copy it beside the index; an index alone has no values",
            )  # fmt: skip
            return UnreadableTensor(entry, reason)
        except TfthawError as error:
            return UnreadableTensor(
                entry, type(error)(error.message, path=error.path, where=f"tensor {key!r}", hint=error.hint)
            )
        if entry.dtype is DType.string:
            return StringTensor(entry.shape, part, crc32c=entry.crc32c, name=key)
        if entry.dtype is DType.variant:
            return VariantTensor(entry.shape, part, entry_crc32c=entry.crc32c, name=key)
        return FileTensor(entry.dtype, entry.shape, part, crc32c=entry.crc32c, name=key)


class BundleWriter:
    """Writes a V2 checkpoint with one data file, tensor by tensor, in bounded memory.

    The names are final, so the directory should be the temporary one of `tfthaw._files.new_file_set`, with the names of
    `written_names`. What is written is byte for byte what TensorFlow makes of the same tensors in the same order.

    Attributes:
        written: Key -> the entry of what was written so far: place and checksum, for whoever reads it back to prove it.
    """

    def __init__(self, directory: str | os.PathLike[str], basename: str) -> None:
        """Create the data file.

        Args:
            directory: An existing directory.
            basename: The last part of the prefix.
        """
        self.written: dict[str, BundleEntry] = {}
        self._prefix = os.path.join(directory, basename)
        self._offset = 0
        self._data: BinaryIO = open(shard_name(self._prefix, 0, 1), "xb")  # noqa: SIM115  # closed by finish

    def add(self, key: str, tensor: Tensor) -> None:
        """Write a tensor; the order of the keys is free.

        Raises:
            UsageError: The key is empty or was added before.
            StructureError: The tensor gave other bytes than its shape needs.
        """
        if not key or key in self.written:
            problem = "there already" if key else "the header's, not a tensor's"
            raise UsageError(f"the key {key!r} is {problem}", path=self._prefix)
        if tensor.dtype is DType.string:
            size, checksum = write_strings(self._data, tensor.numpy())
        else:
            size, checksum = self._write_chunks(tensor)
        if tensor.dtype is DType.variant:
            # the checksum is not that of the bytes: it is found by walking what was just written
            self._data.flush()
            with SourceFile(self._data.name) as file:
                written = file.view(self._offset, size)
                checksum = variant_checksum(written, tensor.size, path=self._prefix, where=f"tensor {key!r}")
        elif tensor.dtype.is_numeric and size != tensor.nbytes:
            raise StructureError(f"the tensor gave {size} bytes, its shape needs {tensor.nbytes}", path=self._prefix,
                                 where=f"tensor {key!r}")  # fmt: skip
        self.written[key] = BundleEntry(tensor.dtype, tensor.shape, size, (), 0, self._offset, checksum)
        self._offset += size

    def finish(self) -> None:
        """Write the index and close both files."""
        self._data.close()
        with open(index_name(self._prefix), "xb") as file:
            table = TableWriter(file)
            header = proto.BundleHeaderProto(num_shards=1, version=proto.VersionDef(producer=BUNDLE_VERSION))
            table.add(b"", proto.serialize(header))
            names = {key.encode("utf-8", "surrogateescape"): entry for key, entry in self.written.items()}
            for name in sorted(names):
                table.add(name, _encode_entry(names[name]))
            table.finish()

    def close(self) -> None:
        """Close the data file without an index, when writing failed."""
        self._data.close()

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.close()

    def _write_chunks(self, tensor: Tensor) -> tuple[int, int]:
        size = checksum = 0
        for chunk in tensor.chunks():
            checksum = google_crc32c.extend(checksum, chunk)
            size += self._data.write(chunk.data)
        return size, checksum


def index_name(prefix: str) -> str:
    """Return the name of a checkpoint's index."""
    return f"{prefix}.index"


def shard_name(prefix: str, shard: int, num_shards: int) -> str:
    """Return the name of a checkpoint's data file."""
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def written_names(basename: str) -> list[str]:
    """Return the names of the files that `BundleWriter` makes, the index last: it makes the others readable."""
    return [shard_name(basename, 0, 1), index_name(basename)]


def _encode_entry(entry: BundleEntry) -> bytes:
    message = proto.BundleEntryProto(
        dtype=entry.dtype, shard_id=entry.shard, offset=entry.offset, size=entry.nbytes,
        crc32c=mask_crc32c(entry.crc32c),
    )  # fmt: skip
    message.shape.SetInParent()  # the shape of a scalar is empty, but there
    for dimension in entry.shape:
        message.shape.dim.add(size=dimension)
    return proto.serialize(message)


def _check_disjoint(parts: list[TensorPart], path: str, where: str) -> None:
    """Refuse parts that share bytes of a file: with them, a small file could claim any size."""
    slices = [part.tensor.slice for part in parts if isinstance(part.tensor, FileTensor | StringTensor)]
    places = sorted((part.file.path, part.offset, part.offset + part.length) for part in slices if part.length)
    for one, other in itertools.pairwise(places):
        if one[0] == other[0] and one[2] > other[1]:
            raise StructureError("two slices share the same bytes", path=path, where=where)
