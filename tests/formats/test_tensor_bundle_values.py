"""Strings and variants of data files: golden bytes, round trips, and every way to be damaged."""

import io
import struct

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw._files import SourceFile
from tfthaw.errors import ChecksumError, FormatError, StructureError, TfthawError, UnsupportedError
from tfthaw.formats.table import mask_crc32c
from tfthaw.formats.tensor_bundle_values import StringTensor, VariantTensor, write_strings

# `tf.constant([b"", b"abc", ("é" * 100).encode()])` in the data file of tf.raw_ops.SaveV2, by TensorFlow 2.21
TENSORFLOW_STRINGS = bytes.fromhex("0003c801a5e99830") + b"abc" + ("é" * 100).encode()


@pytest.fixture
def slice_of(tmp_path):
    def make(data):
        path = tmp_path / "data"
        path.write_bytes(b"???" + data + b"!!")
        return SourceFile(path).slice(3, len(data))

    return make


def objects(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def lengths_checksum(*lengths):
    fixed = b"".join(struct.pack("<I" if length < 1 << 32 else "<Q", length) for length in lengths)
    return struct.pack("<I", mask_crc32c(google_crc32c.value(fixed)))


def variant(*elements):
    encoded, crc = b"", 0
    for element in elements:
        crc = google_crc32c.extend(crc, struct.pack("<Q", len(element)) + element)
        stored = struct.pack("<I", mask_crc32c(crc))
        crc = google_crc32c.extend(crc, stored)
        encoded += bytes([len(element)]) + element + stored
    return encoded, crc


class TestStrings:
    def test_golden_bytes(self):
        file = io.BytesIO()
        values = [b"", b"abc", ("é" * 100).encode()]
        size, _ = write_strings(file, objects(values))
        assert file.getvalue() == TENSORFLOW_STRINGS
        assert size == len(TENSORFLOW_STRINGS)

    @settings(max_examples=80, deadline=None)
    @given(values=st.lists(st.binary(max_size=300), max_size=20))
    def test_round_trip(self, tmp_path_factory, values):
        path = tmp_path_factory.getbasetemp() / "strings"
        with open(path, "wb") as file:
            size, crc = write_strings(file, objects(values))
        tensor = StringTensor((len(values),), SourceFile(path).slice(0, size), crc32c=crc)
        assert tensor.numpy().tolist() == values
        assert (tensor.nbytes, tensor.size) == (0, len(values))

    def test_shapes(self, slice_of):
        file = io.BytesIO()
        _, crc = write_strings(file, objects([b"a", b"b"] * 3).reshape(2, 3))
        tensor = StringTensor((2, 3), slice_of(file.getvalue()), crc32c=crc)
        assert tensor.numpy().tolist() == [[b"a", b"b", b"a"], [b"b", b"a", b"b"]]

    def test_no_flipped_bit_is_accepted(self, slice_of):
        file = io.BytesIO()
        _, crc = write_strings(file, objects([b"", b"abc", b"d" * 200]))
        for position in range(len(file.getvalue())):
            for bit in (1, 0x80):
                data = bytearray(file.getvalue())
                data[position] ^= bit
                with pytest.raises((FormatError, StructureError)):
                    StringTensor((3,), slice_of(bytes(data)), crc32c=crc).numpy()

    @pytest.mark.parametrize(
        ("shape", "encoded", "message"),
        [
            ((1 << 40,), b"\x01", "varints need at least as many bytes"),
            ((2,), b"\x01", "varints need at least as many bytes"),
            ((1,), b"\x01\0\0", "too few for the strings' lengths"),
            ((0,), b"\0", "too few for the strings' lengths"),
            ((2,), b"\x80\x80", "the bytes end after 0 of 2"),
            ((1,), b"\xff" * 12, "longer than ten bytes"),
            ((), b"\x01" + lengths_checksum(1) + b"ab", "the strings have 1 bytes, 2 are stored"),
            ((1,), b"\x03" + lengths_checksum(1) + b"abc", "checksum mismatch of the lengths"),
            ((1,), b"\x03" + lengths_checksum(3) + b"abc", "checksum mismatch of the tensor"),
            # lengths that pass 32 bits enter the checksum with eight bytes; their sum would wrap around to 0
            ((2,), b"\xff" * 9 + b"\x01\x01" + lengths_checksum((1 << 64) - 1, 1), "too many bytes, 0 are stored"),
        ],
    )
    def test_bytes_that_lie(self, slice_of, shape, encoded, message):
        with pytest.raises(TfthawError, match=message) as caught:
            StringTensor(shape, slice_of(encoded), crc32c=0, name="s").numpy()
        assert isinstance(caught.value, FormatError | StructureError)
        assert "tensor 's'" in caught.value.where

    def test_an_empty_tensor_without_bytes(self, slice_of):
        assert StringTensor((0, 3), slice_of(b""), crc32c=0).numpy().shape == (0, 3)

    def test_no_stream(self, slice_of):
        with pytest.raises(UnsupportedError, match="no row of bytes"):
            StringTensor((1,), slice_of(b""), crc32c=0).chunks()


class TestVariants:
    def test_the_stream_is_the_encoding(self, slice_of):
        encoded, crc = variant(b"one", b"", b"three")
        tensor = VariantTensor((3,), slice_of(encoded), entry_crc32c=crc)
        assert b"".join(bytes(chunk) for chunk in tensor.chunks(4)) == encoded
        assert tensor.nbytes == len(encoded)

    def test_no_flipped_bit_is_accepted(self, slice_of):
        encoded, crc = variant(b"one", b"two")
        for position in range(len(encoded)):
            data = bytearray(encoded)
            data[position] ^= 1
            with pytest.raises(FormatError):
                list(VariantTensor((2,), slice_of(bytes(data)), entry_crc32c=crc).chunks())

    @pytest.mark.parametrize(
        ("count", "encoded", "message"),
        [
            (1, variant(b"one", b"two")[0], "1 elements end at 8 of 16 bytes"),
            (3, variant(b"one", b"two")[0], "inside a varint"),
            (1, b"\x50abc", "element 0 ends at 85, the tensor has 4 bytes"),
            (0, b"\x50abc", "0 elements end at 0 of 4 bytes"),
            (1, variant(b"one")[0], "checksum mismatch .stored 0x00000005"),
        ],
    )
    def test_bytes_that_lie(self, slice_of, count, encoded, message):
        with pytest.raises(FormatError, match=message) as caught:
            list(VariantTensor((count,), slice_of(encoded), entry_crc32c=5, name="v").chunks())
        assert "tensor 'v'" in caught.value.where

    def test_a_checksum_is_named(self, slice_of):
        with pytest.raises(ChecksumError, match="checksum mismatch after element 0"):
            list(VariantTensor((1,), slice_of(b"\x00abcd"), entry_crc32c=0).chunks())

    def test_no_array(self, slice_of):
        with pytest.raises(UnsupportedError, match="a variant tensor is no array"):
            VariantTensor((1,), slice_of(b"abcd"), entry_crc32c=0).numpy()
