"""Checks on an HDF5 file that must come before the HDF5 library sees it.

The library of HDF5 1.14 believes some sizes in a damaged file: it walks a heap by them for ever, or takes gigabytes
for a text of ten bytes. This module reads the few structures where that happens, by itself, and refuses what cannot be.

It is no reader of HDF5, which `hdf5` is with h5py's help.

Source: "HDF5 File Format Specification Version 3.0": superblock (II), object headers (IV.A), attribute message
(IV.A.2.m), global heap (III.E). What to check was found by mutating files under HDF5 1.14.6.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfthaw._files import Bytes, FileSlice
from tfthaw.errors import FormatError, LimitError, UnsupportedError
from tfthaw.formats.slice_file import SliceFile

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP_SIGNATURE = b"GCOL"
_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C
_VARIABLE_LENGTH_CLASS = 9
_FLETCHER32 = 3
_COMPRESSIONS = frozenset({1, 32000})  # deflate and lzf

REFERENCE_BYTES = 16
"""A string of variable length in its dataset or attribute: length (4), address of a heap (8), index in it (4)."""


class GuardedFile(SliceFile):
    """The file object that HDF5 reads through.

    HDF5 walks a global heap (the place of text of variable length) by the sizes in it, and turns for ever on a zero.
    Such a heap loses its signature here, and HDF5 refuses it.

        | bytes | of a heap                | bytes | of an object in it                          |
        | ----- | ------------------------ | ----- | ------------------------------------------- |
        | 4     | `GCOL`                   | 2     | index; 0 is the free space at the end       |
        | 4     | version 1, reserved      | 6     | reference count, reserved                   |
        | 8     | size of the whole        | 8     | size, without this header but for index 0   |
        |       |                          | size  | the bytes, padded to a multiple of 8        |
    """

    def readinto(self, buffer: Any) -> int:
        """Fill buffer as `SliceFile` does; a heap without end comes without its signature."""
        count = super().readinto(buffer)
        data = memoryview(buffer).cast("B")
        if data[:4] == _HEAP_SIGNATURE and not _heap_ends(data):
            data[:4] = b"\0" * 4
        return count


def _heap_ends(data: memoryview) -> bool:
    """Whether walking the objects of a global heap, or as much of it as was read, comes to an end."""
    position, end = 16, min(len(data), int.from_bytes(data[8:16], "little"))
    while position + 16 <= end:
        index, size = int.from_bytes(data[position : position + 2], "little"), data[position + 8 : position + 16]
        length = int.from_bytes(size, "little")
        step = 16 + (length + 7) // 8 * 8 if index else length
        if step < 16 or step > 1 << 62:  # it stands still, or its address wraps around
            return False
        position += step
    return True


def check_superblock(part: FileSlice) -> int:
    """Find the superblock, which may follow a block of the user's own, and hold that its sizes have 8 bytes.

    Returns:
        Its offset, from which all addresses count.

    Raises:
        FormatError: There is none.
        UnsupportedError: The file was made for other sizes; neither Keras nor h5py does that.
    """
    offset = 0
    while offset + 16 <= part.length:
        head = part.file.read(part.offset + offset, 16)
        if head[:8] == _SIGNATURE:
            widths = head[13:15] if head[8] < 2 else head[9:11]
            if widths != b"\x08\x08":
                raise UnsupportedError(f"its addresses and sizes have {widths[0]} and {widths[1]} bytes, not 8",
                                       path=part.file.path, where="superblock")  # fmt: skip
            return offset
        offset = offset * 2 or 512
    raise FormatError("it has no HDF5 signature", path=part.file.path)


def check_references(raw: Bytes, part: FileSlice, where: str) -> None:
    """Hold that strings of variable length are not longer than the file, all together.

    Args:
        raw: uint8[16 * n], the references.
        part: The range that is the HDF5 file.
        where: What they belong to.

    Raises:
        LimitError: They are longer. References to the same bytes could make any size of a small file.
    """
    count = len(raw) // REFERENCE_BYTES
    table = np.frombuffer(raw[: count * REFERENCE_BYTES].tobytes(), np.uint8).reshape(count, REFERENCE_BYTES)
    total = int(table[:, :4].copy().view("<u4").sum(dtype=np.uint64))
    if total > part.length:
        raise LimitError(f"its strings claim {total} bytes, the file has {part.length}", path=part.file.path,
                         where=where)  # fmt: skip


def check_attribute(part: FileSlice, address: int, name: str) -> None:
    """Hold that a text attribute of variable length does not claim more bytes than the file.

    Attributes outside the header of their object, as more than eight may lie in the layout of `libver="latest"`,
    are not found and not checked.

    Args:
        part: The range that is the HDF5 file.
        address: Where the object's header begins, counted from the superblock.
        name: The attribute.

    Raises:
        FormatError: The header has no end.
        LimitError: The attribute claims too much.
    """
    base = check_superblock(part)
    for kind, message in _messages(part.file.slice(part.offset + base, part.length - base), address):
        found = _attribute_data(message) if kind == _ATTRIBUTE else None
        if found is not None and found[0] == name.encode():
            check_references(np.frombuffer(found[1], np.uint8), part, f"attribute {name!r}")


def check_chunks(dataset: Any, part: FileSlice, name: str) -> None:
    """Hold that every stored chunk of a dataset lies in the file and has bytes that filters can work on.

    HDF5 1.14 crashes on a chunk that is shorter than the checksum that should end it.

    Args:
        dataset: The open `h5py.Dataset`.
        part: The range that is the HDF5 file.
        name: The dataset's path.

    Raises:
        FormatError: A chunk does not.
    """
    if dataset.chunks is None or dataset.size == 0:
        return
    chunks: list[Any] = []
    if hasattr(dataset.id, "chunk_iter"):  # HDF5 1.12.3
        dataset.id.chunk_iter(chunks.append)
    else:
        chunks += [dataset.id.get_chunk_info(index) for index in range(dataset.id.get_num_chunks())]
    raw_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    for chunk in chunks:
        # a filter that could not shrink a chunk is left out for it, and marked so
        used = [number for index, number in enumerate(filters) if not chunk.filter_mask >> index & 1]
        checksum_bytes = 4 if _FLETCHER32 in used else 0
        is_packed = not _COMPRESSIONS.isdisjoint(used)
        is_whole = chunk.size > checksum_bytes if is_packed else chunk.size == raw_bytes + checksum_bytes
        if not is_whole or chunk.byte_offset is None or chunk.byte_offset + chunk.size > part.length:
            raise FormatError(
                f"its chunk at {list(chunk.chunk_offset)} claims {chunk.size} bytes from {chunk.byte_offset} on",
                path=part.file.path, where=f"dataset {name!r}",
            )  # fmt: skip


def _messages(part: FileSlice, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the messages in an object header, over all its blocks.

    | version 1                              | version 2                                            |
    | -------------------------------------- | ---------------------------------------------------- |
    | 16: version, count, references, size   | `OHDR`, version, flags, optional parts, size         |
    | messages: type 2, size 2, flags 1, 3   | messages: type 1, size 2, flags 1, order 2 (if kept) |
    |                                        | checksum 4, also at the end of each `OCHK` block     |
    """
    head = _read(part, address, 64)
    if head[:4] == b"OHDR":
        flags, start = head[5], 6 + 16 * (head[5] >> 5 & 1) + 4 * (head[5] >> 4 & 1)
        width = 1 << (flags & 3)
        start, size = start + width, int.from_bytes(head[start : start + width], "little")
        layout, is_new = struct.Struct("<BHB" + "xx" * (flags >> 2 & 1)), True
    else:
        start, size, layout, is_new = 16, int.from_bytes(head[8:12], "little"), struct.Struct("<HHB3x"), False
    blocks, seen = [(address + start, size)], set()
    while blocks:
        offset, size = blocks.pop()
        if offset in seen:
            raise FormatError("its header returns to itself", path=part.file.path, where=f"object at {address}")
        seen.add(offset)
        block, position = _read(part, offset, size), 0
        while position + layout.size <= len(block):
            kind, length, _ = layout.unpack_from(block, position)
            position += layout.size
            content = block[position : position + length]
            position += length
            if kind == _CONTINUATION and len(content) >= 16:
                begin, length = struct.unpack_from("<QQ", content)
                blocks.append((begin + 4, length - 8) if is_new else (begin, length))  # without `OCHK` and checksum
            else:
                yield kind, content


def _attribute_data(message: bytes) -> tuple[bytes, bytes] | None:
    """Return name and data of an attribute message whose type is of variable length; None for all others."""
    if len(message) < 9 or message[0] not in (1, 2, 3):
        return None
    sizes = struct.unpack_from("<HHH", message, 2)
    padded = [(size + 7) // 8 * 8 if message[0] == 1 else size for size in sizes]
    start = 9 if message[0] == 3 else 8
    datatype = start + padded[0]
    if datatype >= len(message) or message[datatype] & 0x0F != _VARIABLE_LENGTH_CLASS:
        return None
    return message[start : start + sizes[0]].rstrip(b"\0"), message[start + sum(padded) :]


def _read(part: FileSlice, offset: int, length: int) -> bytes:
    """Return a range of the HDF5 file, or as much of it as there is."""
    length = max(0, min(length, part.length - offset))
    return part.file.read(part.offset + offset, length) if length else b""
