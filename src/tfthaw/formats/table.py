"""TensorFlow's sorted string table (SSTable): the container of checkpoint indexes and of V1 checkpoints.

    block*       entries | restarts: uint32 each | number of restarts: uint32 | trailer
    trailer      compression: uint8 (0 none, 1 snappy) | masked crc32c of what precedes it: uint32
    metaindex    an empty block
    index        a block: a key not before the last key of a block -> varints of the block's offset and size
    footer       handle of the metaindex | handle of the index | zeros up to 40 bytes | magic: uint64

    entry        varint: bytes shared with the previous key | varint: bytes of its own | varint: bytes of the value |
                 the key's own bytes | the value

Every 16th entry is a restart: it shares nothing, so that a search can begin there. All integers are little-endian.
`Table` reads, `TableWriter` writes; neither knows what keys and values mean.

Source: lib/io/{format,block,block_builder,table,table_builder}.cc of TensorFlow, and LevelDB's table format.
"""

from __future__ import annotations

import bisect
import operator
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import google_crc32c

from tfthaw._files import SourceFile
from tfthaw.errors import ChecksumError, FormatError, LimitError, TruncatedError, UsageError
from tfthaw.formats.varint import Buffer, encode_varint, read_varint
from tfthaw.limits import DEFAULT_LIMITS, Limits

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
TRAILER_BYTES = 5
BLOCK_BYTES = 256 << 10
"""Size at which a block is written; TensorFlow's own."""

RESTART_INTERVAL = 16
_COPY_BYTES = 1 << 20  # what makes a block small
_MAX_SNAPPY_RATIO = 64  # three bytes of snappy can stand for 64


class Table:
    """A table opened for reading.

    The index is read and checked at construction; blocks are read, with their checksums, when they are needed.

    Attributes:
        file: The file.
    """

    def __init__(self, file: SourceFile, limits: Limits = DEFAULT_LIMITS) -> None:
        """Read the footer and the index.

        Raises:
            FormatError: The file is no table, or its index is damaged.
        """
        self.file = file
        self._limits = limits
        self._last_keys: list[bytes] = []
        self._handles: list[tuple[int, int]] = []
        self._cached: tuple[int, dict[bytes, Buffer]] = (-1, {})
        self._read_index()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value, in the order of the keys.

        Raises:
            FormatError: A block is damaged or out of order.
        """
        for number in range(len(self._handles)):
            for key, value in self._block_entries(number):
                yield key, bytes(value)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None where there is no such key; reads at most one block.

        Raises:
            FormatError: The block is damaged.
        """
        found = self.view(key)
        return None if found is None else bytes(found)

    def view(self, key: bytes) -> Buffer | None:
        """Return the value of a key like `get`, but a view of the mapped file where its block is large.

        Raises:
            FormatError: The block is damaged.
        """
        number = bisect.bisect_left(self._last_keys, key)
        if number == len(self._handles):
            return None
        if self._cached[0] != number:
            self._cached = (number, dict(self._block_entries(number)))
        return self._cached[1].get(key)

    def _read_index(self) -> None:
        path = self.file.path
        if self.file.size < FOOTER_BYTES:
            raise TruncatedError(f"a table has at least {FOOTER_BYTES} bytes, this one {self.file.size}", path=path)
        footer = self.file.read(self.file.size - FOOTER_BYTES, FOOTER_BYTES)
        (magic,) = struct.unpack_from("<Q", footer, FOOTER_BYTES - 8)
        if magic != MAGIC:
            raise FormatError(
                f"expected the magic number of a table 0x{MAGIC:x} in the last eight bytes, found 0x{magic:x}",
                path=path,
                hint="it is another kind of file, or it was cut while it was written or copied",
            )  # fmt: skip
        try:
            _, position = _read_handle(footer, 0)
            index, _ = _read_handle(footer, position)
        except FormatError as error:
            raise FormatError(error.message, path=path, where="footer") from error
        end = 0
        for key, value in self._read_entries(*index, "index block"):
            try:
                handle, _ = _read_handle(value, 0)
            except FormatError as error:
                raise FormatError(error.message, path=path, where=f"index entry {key!r}") from error
            if handle[0] < end:  # also keeps an index of many handles to one block from reading it many times
                raise FormatError(f"the block at offset {handle[0]} overlaps the one before it", path=path)
            end = handle[0] + handle[1]
            self._last_keys.append(key)
            self._handles.append(handle)

    def _block_entries(self, number: int) -> list[tuple[bytes, Buffer]]:
        """Decode one block and hold its keys against the index."""
        offset, size = self._handles[number]
        where = f"block at offset {offset}"
        entries = self._read_entries(offset, size, where)
        if entries and entries[-1][0] > self._last_keys[number]:
            raise FormatError(f"the key {entries[-1][0]!r} is after the block's key in the index", path=self.file.path,
                              where=where)  # fmt: skip
        if entries and number and entries[0][0] <= self._last_keys[number - 1]:
            raise FormatError(f"the key {entries[0][0]!r} belongs in an earlier block", path=self.file.path,
                              where=where)  # fmt: skip
        return entries

    def _read_entries(self, offset: int, size: int, where: str) -> list[tuple[bytes, Buffer]]:
        data = self._read_block(offset, size, where)
        try:
            return _decode_entries(data, _entries_end(data))
        except FormatError as error:
            place = f"{where}, {error.where}" if error.where else where
            raise type(error)(error.message, path=self.file.path, where=place) from error

    def _read_block(self, offset: int, size: int, where: str) -> Buffer:
        """Return the contents of a block, checked and decompressed."""
        path = self.file.path
        if offset + size + TRAILER_BYTES > self.file.size - FOOTER_BYTES:
            raise TruncatedError(
                f"the block ends at {offset + size + TRAILER_BYTES}, the file's footer begins at "
                f"{self.file.size - FOOTER_BYTES}", path=path, where=where,
            )  # fmt: skip
        # small blocks are copied: indexing bytes is faster than indexing a view, and needs no numpy
        is_small = size <= _COPY_BYTES
        read = self.file.read if is_small else self.file.view
        block: Any = read(offset, size + TRAILER_BYTES)
        (stored,) = struct.unpack_from("<I", block, size + 1)
        computed = mask_crc32c(google_crc32c.value(block[: size + 1]))
        if computed != stored:
            raise ChecksumError(
                f"checksum mismatch (stored 0x{stored:08x}, computed 0x{computed:08x})", path=path, where=where,
                hint="the file was damaged or cut while it was copied",
            )  # fmt: skip
        contents = memoryview(block)[:size]
        if block[size] == 0:
            return bytes(contents) if is_small else contents
        if block[size] == 1:
            return _decompress(contents, self._limits, path, where)
        raise FormatError(f"expected compression 0 (none) or 1 (snappy), found {block[size]}", path=path, where=where)


class TableWriter:
    """Writes a table to a binary file, block by block, without compression.

    What it writes is byte for byte what TensorFlow's checkpoint writer makes of the same entries.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._block = _BlockWriter(RESTART_INTERVAL)
        self._index = _BlockWriter(1)
        self._last_key: bytes | None = None
        self._pending: bytes | None = None  # handle of a block whose index key waits for the next block's first key

    def add(self, key: bytes, value: bytes) -> None:
        """Append an entry.

        Raises:
            UsageError: The key is not after the one before it.
        """
        if self._last_key is not None:
            if key <= self._last_key:
                raise UsageError(f"keys must ascend: {key!r} comes after {self._last_key!r}")
            if len(key) + len(value) >= 2 * BLOCK_BYTES:
                self._flush()  # a large entry gets a block of its own
            if self._pending is not None:
                self._index.add(_separator(self._last_key, key), self._pending)
                self._pending = None
        self._block.add(key, value)
        self._last_key = key
        if self._block.size >= BLOCK_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write the last block, the index and the footer; the file stays open."""
        self._flush()
        metaindex = self._write(_BlockWriter(RESTART_INTERVAL).finish())
        if self._pending is not None and self._last_key is not None:
            self._index.add(_successor(self._last_key), self._pending)
        index = self._write(self._index.finish())
        self._file.write((metaindex + index).ljust(FOOTER_BYTES - 8, b"\0") + struct.pack("<Q", MAGIC))

    def _flush(self) -> None:
        if not self._block.is_empty:
            self._pending = self._write(self._block.finish())
            self._block = _BlockWriter(RESTART_INTERVAL)

    def _write(self, block: bytes) -> bytes:
        """Write a block with its trailer and return its handle."""
        contents = block + b"\0"  # compression: none
        self._file.write(contents + struct.pack("<I", mask_crc32c(google_crc32c.value(contents))))
        handle = encode_varint(self._offset) + encode_varint(len(block))
        self._offset += len(block) + TRAILER_BYTES
        return handle


class _BlockWriter:
    """Gathers the entries of one block."""

    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._parts: list[bytes] = []
        self._bytes = 0
        self._restarts = [0]
        self._count = 0  # entries since the last restart
        self._last_key = b""

    @property
    def is_empty(self) -> bool:
        return not self._parts

    @property
    def size(self) -> int:
        return self._bytes + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        if self._count == self._interval:
            self._restarts.append(self._bytes)
            self._count = 0
        shared = _shared_prefix(self._last_key, key) if self._count else 0
        head = encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value))
        part = head + key[shared:] + value
        self._parts.append(part)
        self._bytes += len(part)
        self._last_key = key
        self._count += 1

    def finish(self) -> bytes:
        restarts = struct.pack(f"<{len(self._restarts) + 1}I", *self._restarts, len(self._restarts))
        return b"".join([*self._parts, restarts])


def mask_crc32c(crc: int) -> int:
    """Return a CRC32C as it is stored: rotated and offset, so that the checksum of a checksum is not trivial."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def unmask_crc32c(stored: int) -> int:
    """Return the CRC32C of a stored one."""
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _read_handle(data: Buffer, position: int) -> tuple[tuple[int, int], int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _entries_end(data: Buffer) -> int:
    """Check the restarts of a block and return where its entries end."""
    if len(data) < 8:
        raise FormatError(f"a block has at least 8 bytes, this one has {len(data)}")
    count: int = struct.unpack_from("<I", data, len(data) - 4)[0]
    end = len(data) - 4 * (count + 1)
    if count < 1 or end < 0:
        raise FormatError(f"{count} restarts do not fit a block of {len(data)} bytes")
    restarts = struct.unpack_from(f"<{count}I", data, end)
    ascending = all(map(operator.lt, restarts, restarts[1:]))
    is_sound = restarts[0] == 0 and ascending and (restarts[-1] < end or end == 0)
    if not is_sound or any(end and data[restart] for restart in restarts):
        raise FormatError("the restarts do not ascend from the first entry, or one of them is no entry of its own")
    return end


def _decode_entries(data: Buffer, end: int) -> list[tuple[bytes, Buffer]]:
    """Decode the entries of a block; the inner loop of opening any checkpoint, so it is written for speed."""
    entries: list[tuple[bytes, Buffer]] = []
    append = entries.append
    position = 0
    key = b""
    while position < end:
        begin = position
        # the restarts after the entries are at least eight bytes, so that these three never leave the block
        shared, own, length = data[position], data[position + 1], data[position + 2]
        if shared < 0x80 and own < 0x80 and length < 0x80:
            position += 3
        else:
            shared, position = read_varint(data, position)
            own, position = read_varint(data, position)
            length, position = read_varint(data, position)
        start = position + own
        next_key = key[:shared] + data[position:start]
        position = start + length
        if position > end or shared > len(key):
            raise FormatError("an entry passes the end of its block or of the key before it", where=f"entry at {begin}")
        if next_key <= key and entries:
            raise FormatError(f"the key {next_key!r} is not after {key!r}", where=f"entry at {begin}")
        key = next_key
        append((key, data[start:position]))
    return entries


def _decompress(contents: memoryview, limits: Limits, path: str, where: str) -> bytes:
    """Decompress a snappy block after holding its claimed size against the limits."""
    import cramjam  # only here: nearly no checkpoint is compressed

    try:
        size, _ = read_varint(contents, 0)
    except FormatError as error:
        raise FormatError("the snappy block has no length", path=path, where=where) from error
    if size > min(limits.max_block_bytes, len(contents) * _MAX_SNAPPY_RATIO):
        raise LimitError(
            f"{len(contents)} bytes of snappy claim to hold {size}: more than snappy can, or than the "
            f"{limits.max_block_bytes} allowed", path=path, where=where,
        )  # fmt: skip
    try:
        return bytes(cramjam.snappy.decompress_raw(contents))
    except cramjam.DecompressionError as error:
        raise FormatError(f"the snappy block is damaged: {error}", path=path, where=where) from error


def _shared_prefix(one: bytes, other: bytes) -> int:
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    low, high = 0, most  # one[:low] is shared, one[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _separator(last: bytes, first: bytes) -> bytes:
    """Return a short key that is not before `last` and before `first`."""
    shared = _shared_prefix(last, first)
    if shared < min(len(last), len(first)) and last[shared] + 1 < first[shared]:
        return last[:shared] + bytes([last[shared] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """Return a short key that is not before `last`."""
    for index, byte in enumerate(last):
        if byte != 0xFF:
            return last[:index] + bytes([byte + 1])
    return last
