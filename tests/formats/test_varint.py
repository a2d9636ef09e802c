"""Varints, one by one and in runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw.errors import FormatError, TruncatedError
from tfthaw.formats.varint import decode_varints, encode_varint, read_varint

UINT64 = st.one_of(st.integers(0, 300), st.integers(0, (1 << 64) - 1))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), ((1 << 64) - 1, "ffffffffffffffffff01")],
)
def test_golden_bytes(value, encoded):
    assert encode_varint(value).hex() == encoded
    assert read_varint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@settings(max_examples=200, deadline=None)
@given(values=st.lists(UINT64, max_size=40), rest=st.binary(max_size=12))
def test_a_run_is_what_one_by_one_gives(values, rest):
    encoded = b"".join(map(encode_varint, values))
    decoded, used = decode_varints(np.frombuffer(encoded + rest, np.uint8), len(values))
    assert (decoded.tolist(), used) == (values, len(encoded))
    position, found = 0, []
    for _ in values:
        value, position = read_varint(memoryview(encoded), position)
        found.append(value)
    assert (found, position) == (values, len(encoded))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_bytes_that_end_inside(data):
    with pytest.raises(TruncatedError):
        read_varint(data, 0)
    with pytest.raises(TruncatedError):
        decode_varints(np.frombuffer(data, np.uint8), 1)


@pytest.mark.parametrize("data", [b"\x80" * 10 + b"\x01", b"\xff" * 9 + b"\x02", b"\x80" * 40])
def test_more_than_64_bits(data):
    with pytest.raises(FormatError):
        read_varint(data, 0)
    with pytest.raises(FormatError):
        decode_varints(np.frombuffer(data, np.uint8), 1)


def test_an_absurd_count_allocates_nothing():
    with pytest.raises(TruncatedError, match="varints need at least as many bytes, 3 are there"):
        decode_varints(np.frombuffer(b"abc", np.uint8), 1 << 60)
