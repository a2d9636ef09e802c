"""The sorted string table: golden bytes, round trips, and every way to be damaged."""

import contextlib
import io
import struct
import time

import cramjam
import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw._files import SourceFile
from tfthaw.errors import ChecksumError, FormatError, LimitError, TruncatedError, UsageError
from tfthaw.formats.table import BLOCK_BYTES, MAGIC, Table, TableWriter, mask_crc32c, unmask_crc32c
from tfthaw.formats.varint import encode_varint
from tfthaw.limits import Limits


def written(entries):
    file = io.BytesIO()
    writer = TableWriter(file)
    for key, value in entries:
        writer.add(key, value)
    writer.finish()
    return file.getvalue()


def opened(tmp_path, data, limits=Limits()):  # noqa: B008  # frozen
    path = tmp_path / "x.index"
    path.write_bytes(data)
    return Table(SourceFile(path), limits)


def trailer(contents, kind=0):
    return bytes([kind]) + struct.pack("<I", mask_crc32c(google_crc32c.value(contents + bytes([kind]))))


def block(*entries, restarts=(0,)):
    """Make a block of (shared, key bytes, value) entries."""
    body = b"".join(encode_varint(s) + encode_varint(len(k)) + encode_varint(len(v)) + k + v for s, k, v in entries)
    return body + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def handle(offset, size):
    return encode_varint(offset) + encode_varint(size)


def table_of(contents, index=None, kind=0):
    """Make a table of one data block, with right checksums whatever is in it."""
    data = contents + trailer(contents, kind)
    index = block((0, b"\xff", handle(0, len(contents)))) if index is None else index
    footer = (handle(0, len(contents)) + handle(len(data), len(index))).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    return data + index + trailer(index) + footer


def test_golden_bytes(tmp_path):
    data = written([(b"", b"H"), (b"apple", b"1"), (b"apply", b"22")])
    expected = (
        "00" "00" "01" "48"  # "" -> H
        "00" "05" "01" "6170706c65" "31"  # apple -> 1
        "04" "01" "02" "79" "3232"  # shares appl, y -> 22
        "00000000" "01000000"  # one restart, at 0
        "00" "XXXXXXXX"  # no compression, checksum
        "00000000" "01000000" "00" "XXXXXXXX"  # the empty metaindex
        "00" "01" "02" "62" "001b" "00000000" "01000000" "00" "XXXXXXXX"  # b (after apply) -> offset 0, 27 bytes
        "2008" "2d0e"  # handles of the metaindex and the index
    )  # fmt: skip
    found = data.hex()
    assert len(found) == len(expected) + 2 * (40 - 4) + 16
    assert all(want in ("X", have) for want, have in zip(expected, found, strict=False))
    assert found.endswith("57fb808b247547db")
    assert list(opened(tmp_path, data).items()) == [(b"", b"H"), (b"apple", b"1"), (b"apply", b"22")]


def test_masked_checksums():
    assert mask_crc32c(0) == 0xA282EAD8
    assert mask_crc32c(google_crc32c.value(b"foo")) != google_crc32c.value(b"foo")
    for crc in (0, 1, 0xFFFFFFFF, 0xDEADBEEF):
        assert unmask_crc32c(mask_crc32c(crc)) == crc


@settings(max_examples=100, deadline=None)
@given(entries=st.dictionaries(st.binary(max_size=20), st.binary(max_size=300), max_size=60))
def test_round_trip(tmp_path_factory, entries):
    table = opened(tmp_path_factory.getbasetemp(), written(sorted(entries.items())))
    assert list(table.items()) == sorted(entries.items())
    for key in [*entries, b"", b"\xff" * 30, b"none"]:
        assert table.get(key) == entries.get(key)


def test_many_blocks(tmp_path):
    entries = [(b"key %06d" % index, bytes([index % 251]) * (index % 700)) for index in range(4000)]
    entries[77] = (entries[77][0], b"large" * 200_000)  # gets a block of its own
    entries[3999] = (b"\xff\xff", b"last")
    data = written(entries)
    table = opened(tmp_path, data)
    assert list(table.items()) == entries
    assert len(data) > 4 * BLOCK_BYTES
    for key, value in (entries[0], entries[77], entries[78], entries[2000], entries[3999]):
        assert table.get(key) == value
    assert table.get(b"key 0000775") is None
    assert table.get(b"\xff\xff\xff") is None


def test_an_empty_table(tmp_path):
    table = opened(tmp_path, written([]))
    assert list(table.items()) == []
    assert table.get(b"") is None


def test_keys_must_ascend():
    writer = TableWriter(io.BytesIO())
    writer.add(b"b", b"")
    for key in (b"b", b"a"):
        with pytest.raises(UsageError, match="keys must ascend"):
            writer.add(key, b"")


def test_snappy(tmp_path):
    contents = block((0, b"a", b"x" * 1000), (0, b"b", b"y"))
    compressed = bytes(cramjam.snappy.compress_raw(contents))
    assert len(compressed) < 100
    table = opened(tmp_path, table_of(compressed, kind=1))
    assert list(table.items()) == [(b"a", b"x" * 1000), (b"b", b"y")]
    assert table.get(b"b") == b"y"


class TestDamage:
    SMALL = written([(b"", b"H"), (b"apple", b"1"), (b"apply", b"22")])

    def read(self, tmp_path, data):
        return list(opened(tmp_path, data).items())

    @pytest.mark.parametrize("size", range(len(SMALL)))
    def test_every_truncation_is_refused(self, tmp_path, size):
        with pytest.raises(FormatError) as caught:
            self.read(tmp_path, self.SMALL[:size])
        assert str(tmp_path / "x.index") in str(caught.value)

    @pytest.mark.parametrize("position", range(len(SMALL)))
    def test_no_flipped_bit_changes_what_is_read(self, tmp_path, position):
        for bit in (1, 0x80):
            data = bytearray(self.SMALL)
            data[position] ^= bit
            try:
                found = self.read(tmp_path, bytes(data))
            except FormatError:
                continue
            assert found == [(b"", b"H"), (b"apple", b"1"), (b"apply", b"22")]  # padding of the footer, metaindex

    def test_a_checksum_is_named_with_both_values(self, tmp_path):
        data = bytearray(self.SMALL)
        data[5] ^= 1
        message = r"block at offset 0: checksum mismatch \(stored 0x\w{8}, computed 0x\w{8}"
        with pytest.raises(ChecksumError, match=message):
            self.read(tmp_path, bytes(data))

    def test_another_kind_of_file(self, tmp_path):
        with pytest.raises(FormatError, match=r"expected the magic number of a table 0xdb4775248b80fb57 .* kind"):
            opened(tmp_path, b"not a table at all" * 100)

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            (b"", "at least 8 bytes"),
            (b"abc\0\0\0\0", "at least 8 bytes"),
            (b"\0\0\0\0\0\0\0\0", "0 restarts do not fit"),
            (b"\0\0\0\0\xff\xff\xff\xff", "4294967295 restarts do not fit"),
            (block((0, b"a", b""), restarts=(1,)), "restarts do not ascend"),
            (block((0, b"a", b""), (0, b"b", b""), restarts=(0, 0)), "restarts do not ascend"),
            (block((0, b"a", b""), restarts=(0, 900)), "restarts do not ascend"),
            (block((0, b"a", b""), (1, b"b", b""), restarts=(0, 4)), "restarts do not ascend"),
            (block((0, b"b", b""), (0, b"a", b"")), "the key b'a' is not after b'b'"),
            (block((0, b"b", b""), (1, b"", b"")), "is not after"),
            (block((0, b"b", b""), (2, b"a", b"")), "passes the end of its block or of the key before it"),
            (b"\0\x01\x20a" + struct.pack("<2I", 0, 1), "passes the end"),
            (b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x20a" + struct.pack("<2I", 0, 1), "passes the end"),
            (b"\0" + b"\xff" * 11 + struct.pack("<2I", 0, 1), "more than 64 bits"),
        ],
    )
    def test_blocks_that_lie_with_a_right_checksum(self, tmp_path, contents, message):
        with pytest.raises(FormatError, match=message) as caught:
            self.read(tmp_path, table_of(contents))
        assert "block at offset 0" in caught.value.where

    @pytest.mark.parametrize(
        ("index", "error", "message"),
        [
            (block((0, b"z", handle(0, 1 << 50))), TruncatedError, "the block ends at 1125899906842629"),
            (block((0, b"z", handle(1 << 63, 5))), TruncatedError, "the file's footer begins"),
            (block((0, b"z", b"\x80")), FormatError, "ends inside a varint|end inside a varint"),
            (block((0, b"y", handle(0, 12)), (0, b"z", handle(0, 12))), FormatError, "overlaps the one before it"),
            (block((0, b"0", handle(0, 12))), FormatError, "is after the block's key in the index"),
        ],
    )
    def test_an_index_that_lies(self, tmp_path, index, error, message):
        with pytest.raises(error, match=message):
            self.read(tmp_path, table_of(block((0, b"a", b"")), index))

    def test_blocks_in_the_wrong_order(self, tmp_path):
        one, other = block((0, b"b", b"")), block((0, b"a", b""))
        first, second = one + trailer(one), other + trailer(other)
        index = block((0, b"b", handle(0, len(one))), (0, b"c", handle(len(first), len(other))))
        where = len(first) + len(second)
        footer = (handle(0, len(one)) + handle(where, len(index))).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
        with pytest.raises(FormatError, match="the key b'a' belongs in an earlier block"):
            self.read(tmp_path, first + second + index + trailer(index) + footer)

    def test_an_unknown_compression(self, tmp_path):
        with pytest.raises(FormatError, match=r"expected compression 0 \(none\) or 1 \(snappy\), found 4"):
            self.read(tmp_path, table_of(block((0, b"a", b"")), kind=4))

    @pytest.mark.parametrize(
        ("compressed", "error", "message"),
        [
            (encode_varint(1 << 40) + b"abc", LimitError, "claim to hold 1099511627776"),
            (encode_varint(5000) + b"abc", LimitError, "more than snappy can"),
            (encode_varint(20) + b"\xff\xff\xff", FormatError, "the snappy block is damaged"),
            (b"\xff\xff", FormatError, "the snappy block has no length"),
        ],
    )
    def test_damaged_snappy(self, tmp_path, compressed, error, message):
        with pytest.raises(error, match=message):
            self.read(tmp_path, table_of(compressed, kind=1))

    def test_the_limit_of_a_block_is_kept(self, tmp_path):
        data = table_of(bytes(cramjam.snappy.compress_raw(block((0, b"a", b"x" * 1000)))), kind=1)
        with pytest.raises(LimitError, match="the 500 allowed"):
            list(opened(tmp_path, data, Limits(max_block_bytes=500)).items())

    @settings(max_examples=150, deadline=None)
    @given(contents=st.binary(max_size=60), index=st.one_of(st.none(), st.binary(max_size=40)))
    def test_any_bytes_read_or_raise(self, tmp_path_factory, contents, index):
        began = time.process_time()
        with contextlib.suppress(FormatError):
            self.read(tmp_path_factory.getbasetemp(), table_of(contents, index))
        assert time.process_time() - began < 1


def test_ten_thousand_entries_are_fast(tmp_path):
    """Opening 10,000 variables takes a few hundredths of a second; the bound is for busy machines."""
    data = written((b"layer_%05d/kernel/.ATTRIBUTES/VARIABLE_VALUE" % index, b"x" * 24) for index in range(10_000))
    best = min(_seconds(lambda: dict(opened(tmp_path, data).items())) for _ in range(3))
    assert best < 0.2


def _seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.tf
def test_the_bytes_are_those_of_tensorflow(tf, tmp_path):
    """A checkpoint index of several blocks, written again from its entries, is the same file."""
    names = [f"scope_{index // 100}/variable_with_a_long_name_{index:05d}" * 3 for index in range(4000)]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "c"), tensor_names=names, shape_and_slices=[""] * len(names),
        tensors=[tf.constant(1.0)] * len(names),
    )  # fmt: skip
    data = (tmp_path / "c.index").read_bytes()
    assert len(data) > BLOCK_BYTES
    entries = list(Table(SourceFile(tmp_path / "c.index")).items())
    assert written(entries) == data
