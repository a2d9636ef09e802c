"""Base-128 varints, as protobuf and TensorFlow's tables use them.

    byte   1ccccccc 1bbbbbbb 0aaaaaaa   ->   aaaaaaabbbbbbbccccccc

`read_varint` takes one from any buffer, `decode_varints` a whole run of them with numpy, `encode_varint` writes one.
This is not a protobuf parser.

Source: the protobuf encoding guide; lib/core/coding.cc of TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfthaw._files import Bytes
from tfthaw._optional import lazy_module
from tfthaw.errors import FormatError, TruncatedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy_module("numpy")

MAX_VARINT_BYTES = 10
"""Bytes of the longest varint: 64 bits in groups of seven."""

Buffer = bytes | memoryview


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Read one varint of at most 64 bits.

    Args:
        data: The bytes.
        position: Where the varint begins.

    Returns:
        The value and the position after it.

    Raises:
        TruncatedError: The bytes end before the varint does.
        FormatError: It is longer than ten bytes or more than 64 bits.
    """
    value = 0
    for count in range(MAX_VARINT_BYTES):
        if position >= len(data):
            raise TruncatedError("the bytes end inside a varint", where=f"offset {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
    raise FormatError("a varint has more than 64 bits", where=f"offset {position}")


def encode_varint(value: int) -> bytes:
    """Return the varint of a number that is not negative."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varints(data: Bytes, count: int) -> tuple[npt.NDArray[np.uint64], int]:
    """Read a run of varints at once.

    Args:
        data: The bytes (uint8[?]); what follows the run is not looked at.
        count: How many varints to read.

    Returns:
        Their values (uint64[count]) and the bytes that they took.

    Raises:
        TruncatedError: The bytes end before the last varint does.
        FormatError: One of them is longer than ten bytes or more than 64 bits.
    """
    if count == 0:
        return np.empty(0, np.uint64), 0
    if count > len(data):  # before anything is allocated: a count is only a claim
        raise TruncatedError(f"{count} varints need at least as many bytes, {len(data)} are there")
    if (data[:count] < 0x80).all():
        return data[:count].astype(np.uint64), count
    window = data[: count * MAX_VARINT_BYTES]
    ends = np.flatnonzero(window < 0x80)[:count]
    if len(ends) < count:
        if len(window) == len(data):
            raise TruncatedError(f"the bytes end after {len(ends)} of {count} varints")
        raise FormatError("a varint is longer than ten bytes")
    starts: npt.NDArray[Any] = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > MAX_VARINT_BYTES or (window[ends[lengths == MAX_VARINT_BYTES]] > 1).any():
        raise FormatError("a varint has more than 64 bits")
    values = np.zeros(count, np.uint64)
    chosen = np.arange(count)
    for index in range(longest):
        chosen = chosen[lengths[chosen] > index]
        group = window[starts[chosen] + index].astype(np.uint64) & np.uint64(0x7F)
        values[chosen] |= group << np.uint64(7 * index)
    return values, int(ends[-1]) + 1
