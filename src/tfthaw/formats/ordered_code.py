r"""The keys under which checkpoints keep the slices of partitioned tensors.

A key is a row of items, encoded so that keys compare as the rows do:

    0             unsigned: one zero byte
    name          string: 00 becomes 00 FF, FF becomes FF 00, and 00 01 ends it
    rank          unsigned: one byte of length, then the number big-endian without leading zeros
    start length  signed, for each dimension; the length is -1 where the slice takes the whole dimension

A signed number of n bytes begins with n bits that equal its sign (1: not negative) and one bit that does not; the rest
is the number in two's complement, so that n bytes hold 7n bits of it.

Source: lib/strings/ordered_code.cc and util/saved_tensor_slice_util.cc of TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tfthaw.errors import FormatError
from tfthaw.limits import DEFAULT_LIMITS

WHOLE = -1
"""The length that stands for a whole dimension."""

Extent = tuple[int, int]
"""Start and length of a slice in one dimension; the length may be `WHOLE`."""

_SPECIAL = re.compile(rb"[\x00\xff]")
_ESCAPE = re.compile(rb"[\x00\xff](.?)", re.DOTALL)
_MAX_SIGNED_BYTES = 10  # 64 bits in sevens


def encode_slice_key(name: bytes, extents: Sequence[Extent]) -> bytes:
    """Return the key of one slice of a tensor."""
    escaped = _SPECIAL.sub(lambda found: found[0] + bytes([255 - found[0][0]]), name)
    parts = [_encode_unsigned(0), escaped, b"\x00\x01", _encode_unsigned(len(extents))]
    for start, length in extents:
        parts += [_encode_signed(start), _encode_signed(length)]
    return b"".join(parts)


def decode_slice_key(key: bytes) -> tuple[bytes, tuple[Extent, ...]]:
    """Return the tensor's name and the extents of a slice key.

    Raises:
        FormatError: It is no such key.
    """
    zero, position = _decode_unsigned(key, 0)
    if zero != 0:
        raise FormatError(f"a slice key begins with 0, this one with {zero}", where=f"key {key!r}")
    name, position = _decode_string(key, position)
    rank, position = _decode_unsigned(key, position)
    if rank > DEFAULT_LIMITS.max_rank:
        raise FormatError(f"a slice key has a rank of {rank}", where=f"key {key!r}")
    extents = []
    for _ in range(rank):
        start, position = _decode_signed(key, position)
        length, position = _decode_signed(key, position)
        extents.append((start, length) if length >= 0 else (0, WHOLE))
    if position != len(key):
        raise FormatError(f"a slice key has {len(key) - position} bytes too many", where=f"key {key!r}")
    return name, tuple(extents)


def extents_of(slice_proto: Iterable[object]) -> tuple[Extent, ...]:
    """Return the extents of a TensorSliceProto's `extent` field."""
    return tuple(
        (extent.start, extent.length) if extent.HasField("length") else (0, WHOLE)  # type: ignore[attr-defined]
        for extent in slice_proto
    )


def _encode_unsigned(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def _decode_unsigned(key: bytes, position: int) -> tuple[int, int]:
    size = key[position] if position < len(key) else 255
    end = position + 1 + size
    if size > 8 or end > len(key):
        raise _broken(key, position)
    return int.from_bytes(key[position + 1 : end], "big"), end


def _encode_signed(value: int) -> bytes:
    bits = (~value if value < 0 else value).bit_length() + 1
    size = (bits + 6) // 7
    header = ((1 << size) - 1) << (7 * size)
    return ((value ^ header) & ((1 << 8 * size) - 1)).to_bytes(size, "big")


def _decode_signed(key: bytes, position: int) -> tuple[int, int]:
    head = int.from_bytes(key[position : position + 2].ljust(2, b"\0"), "big")
    negative = head < 0x8000
    ones = head ^ 0xFFFF if negative else head
    size = 16 - (ones ^ 0xFFFF).bit_length()  # leading bits that equal the sign
    end = position + size
    if size > _MAX_SIGNED_BYTES or end > len(key):
        raise _broken(key, position)
    value = int.from_bytes(key[position:end], "big") ^ ((1 << size) - 1) << (7 * size)
    return (value - (1 << 8 * size) if negative else value), end


def _decode_string(key: bytes, position: int) -> tuple[bytes, int]:
    parts = []
    for found in _ESCAPE.finditer(key, position):
        parts.append(key[position : found.start()])
        pair, position = found[0], found.end()
        if pair == b"\x00\x01":
            return b"".join(parts), position
        if pair not in (b"\x00\xff", b"\xff\x00"):
            break
        parts.append(pair[:1])
    raise _broken(key, position)


def _broken(key: bytes, position: int) -> FormatError:
    return FormatError(f"the slice key {key!r} breaks off or is damaged", where=f"byte {position} of the key")
