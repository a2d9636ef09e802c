"""Keys of slices: golden bytes of TensorFlow, round trips, order, damage."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw import proto
from tfthaw.errors import FormatError
from tfthaw.formats.ordered_code import WHOLE, decode_slice_key, encode_slice_key, extents_of

INT64 = st.one_of(st.integers(-70, 70), st.integers(-(1 << 63), (1 << 63) - 1))
LENGTH = st.integers(WHOLE, (1 << 63) - 1)
EXTENT = st.tuples(INT64, LENGTH).map(lambda extent: extent if extent[1] >= 0 else (0, WHOLE))
EXTENTS = st.lists(EXTENT, max_size=5).map(tuple)


@pytest.mark.parametrize(
    ("name", "extents", "key"),
    [  # as TensorFlow 2.21 wrote them
        (b"Variable", (), b"\x00Variable\x00\x01\x00"),
        (b"t", ((0, WHOLE),), b"\x00t\x00\x01\x01\x01\x80\x7f"),
        (b"w", ((2, 2), (5, 1)), b"\x00w\x00\x01\x01\x02\x82\x82\x85\x81"),
        (b"w", ((0, 64), (8192, 3)), b"\x00w\x00\x01\x01\x02\x80\xc0\x40\xe0\x20\x00\x83"),
        (b"a\x00b\xffc", ((0, WHOLE),), b"\x00a\x00\xffb\xff\x00c\x00\x01\x01\x01\x80\x7f"),
    ],
)
def test_golden_bytes(name, extents, key):
    assert encode_slice_key(name, extents) == key
    assert decode_slice_key(key) == (name, extents)


@settings(max_examples=200, deadline=None)
@given(name=st.binary(max_size=12), extents=EXTENTS)
def test_round_trip(name, extents):
    assert decode_slice_key(encode_slice_key(name, extents)) == (name, extents)


@settings(max_examples=200, deadline=None)
@given(one=st.binary(max_size=6), other=st.binary(max_size=6), starts=st.tuples(INT64, INT64))
def test_keys_compare_as_their_rows(one, other, starts):
    assert (encode_slice_key(one, ()) < encode_slice_key(other, ())) == (one < other)
    keys = [encode_slice_key(one, [(start, 1)]) for start in starts]
    assert (keys[0] < keys[1]) == (starts[0] < starts[1])


@settings(max_examples=300, deadline=None)
@given(key=st.binary(max_size=24))
def test_any_bytes_decode_or_raise(key):
    with contextlib.suppress(FormatError):
        name, extents = decode_slice_key(b"\x00" + key)
        assert isinstance(name, bytes)
        assert all(length >= WHOLE for _, length in extents)


@pytest.mark.parametrize("cut", range(10))
def test_every_truncation_is_refused(cut):
    key = encode_slice_key(b"w", ((2, 2), (5, 1)))
    with pytest.raises(FormatError):
        decode_slice_key(key[:cut])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (b"\x01\x05w\x00\x01\x00", "begins with 0, this one with 5"),
        (b"\x00w\x00\x01\x02\xff\xff", "rank of 65535"),
        (b"\x00w\x00\x02\x00", "damaged"),
        (b"\x00w\x00\x01\x09", "damaged"),
        (b"\x00w\x00\x01\x00!", "1 bytes too many"),
        (b"\x00w\x00\x01\x01\x01" + b"\xff" * 20, "damaged"),
    ],
)
def test_damage_is_named(key, message):
    with pytest.raises(FormatError, match=message):
        decode_slice_key(key)


def test_extents_of_a_proto():
    message = proto.message_class("tensorflow.TensorSliceProto")()
    message.extent.add()
    message.extent.add(start=2, length=0)
    assert extents_of(message.extent) == ((0, WHOLE), (2, 0))
