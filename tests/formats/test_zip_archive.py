"""The zip reader: everything in which an archive can lie."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
import zlib

import pytest

from tfthaw._files import SourceFile
from tfthaw.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    TfthawError,
    UnsafePathError,
    UnsupportedError,
)
from tfthaw.formats.zip_archive import ZipArchive
from tfthaw.limits import Limits

TEXT = b"some text, some text, some text"


def packed(*members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # duplicate names are made on purpose
                archive.writestr(name, content)
    return bytearray(buffer.getvalue())


@pytest.fixture
def opened(tmp_path):
    def make(content, **options):
        path = tmp_path / "x.zip"
        path.write_bytes(content)
        return ZipArchive(SourceFile(path), **options)

    return make


def central(content):
    return content.index(b"PK\1\2")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_members(opened, compression):
    archive = opened(packed(("a/b", TEXT), ("empty", b""), ("folder/", b""), compression=compression))
    assert list(archive.members) == ["a/b", "empty"]
    member = archive.members["a/b"]
    assert member.deflated == (compression == zipfile.ZIP_DEFLATED)
    assert archive.read(member, 100) == TEXT
    assert archive.head(member, 4) == b"some"
    assert archive.head(member, 400) == TEXT
    assert b"".join(bytes(chunk) for chunk in archive.chunks(member, 5)) == TEXT
    assert archive.read(archive.members["empty"], 0) == b""
    archive.check(member)
    with pytest.raises(LimitError, match="31 bytes, at most 30"):
        archive.read(member, 30)


def test_a_member_that_inflates_a_thousandfold_streams(opened):
    archive = opened(packed(("zeros", bytes(50 << 20)), compression=zipfile.ZIP_DEFLATED))
    sizes = [len(chunk) for chunk in archive.chunks(archive.members["zeros"], 1 << 20)]
    assert sum(sizes) == 50 << 20
    assert max(sizes) <= 1 << 20


def test_a_prefix_before_the_archive_is_allowed(opened):
    archive = opened(b"#!/bin/sh\n" + packed(("a", TEXT)))
    assert archive.read(archive.members["a"], 100) == TEXT


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "c:/a", "a\\b", ".."])
def test_paths_that_lead_out(opened, name):
    content = packed((name, TEXT))
    with pytest.raises(UnsafePathError, match="leads out"):
        opened(content)
    assert list(opened(content, contained=False).members) == [name]


def test_symbolic_links(opened):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UnsafePathError, match="symbolic link"):
        opened(packed((info, "/etc/passwd")))


def test_duplicates(opened):
    with pytest.raises(FormatError, match="two members of this name"):
        opened(packed(("a", TEXT), ("a", b"other")))


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6", bytes(100), b"PK\5\6" + b"\xff" * 18])
def test_no_archive(opened, content):
    with pytest.raises(FormatError, match="no zip archive"):
        opened(content)


def test_encrypted(opened):
    content = packed(("a", TEXT))
    content[6] |= 1
    content[central(content) + 8] |= 1
    with pytest.raises(UnsupportedError, match="encrypted"):
        opened(content)


def test_other_compressions(opened):
    with pytest.raises(UnsupportedError, match="compression method 12"):
        opened(packed(("a", TEXT), compression=zipfile.ZIP_BZIP2))


def test_a_flipped_bit(opened):
    content = packed(("a", TEXT))
    content[content.index(b"text")] ^= 1
    archive = opened(content)
    with pytest.raises(ChecksumError, match="checksum mismatch"):
        archive.read(archive.members["a"], 100)


@pytest.mark.parametrize(("offset", "change", "message"), [
    (0, b"XX", "expected a local header"),
    (6, b"\1", "differ in compression or encryption"),
    (8, b"\x08", "differ in compression"),
    (14, b"\1\2\3\4", "CRC-32 0x04030201"),
    (18, b"\x05", "stored as 5"),
    (22, b"\x05", "claims 5 bytes"),
    (26, b"\xff\xff", "directory begins"),
    (28, b"\x05", "directory begins"),
    (30, b"b", "has the name b'b'"),
])  # fmt: skip
def test_the_local_header_lies(opened, offset, change, message):
    content = packed(("a", TEXT))
    content[offset : offset + len(change)] = change
    with pytest.raises(FormatError, match=message):
        opened(content)


def test_the_directory_claims_more_than_is_there(opened):
    content = packed(("a", TEXT))
    for at in (18, 22, central(content) + 20, central(content) + 24):
        content[at : at + 4] = struct.pack("<I", 1 << 30)
    with pytest.raises(FormatError, match="claims 1073741824 bytes"):
        opened(content)


@pytest.mark.parametrize("claimed", [len(TEXT) - 1, len(TEXT) + 1])
def test_a_deflated_member_has_another_size(opened, claimed):
    content = packed(("a", TEXT), compression=zipfile.ZIP_DEFLATED)
    for at in (22, central(content) + 24):
        content[at : at + 4] = struct.pack("<I", claimed)
    archive = opened(content)
    with pytest.raises(FormatError, match=f"claims {claimed} bytes"):
        archive.read(archive.members["a"], 1000)


def test_a_stored_member_with_two_sizes(opened):
    content = packed(("a", TEXT))
    for at in (22, central(content) + 24):
        content[at : at + 4] = struct.pack("<I", 7)
    with pytest.raises(FormatError, match="not compressed, and claims 7 bytes stored as 31"):
        opened(content)


def test_a_bomb_by_its_claim(opened):
    content = packed(("a", TEXT), compression=zipfile.ZIP_DEFLATED)
    for at in (22, central(content) + 24):
        content[at : at + 4] = struct.pack("<I", 1 << 30)
    with pytest.raises(LimitError, match="zip bomb"):
        opened(content)
    with pytest.raises(LimitError, match="zip bomb"):
        opened(packed(("a", bytes(10_000)), compression=zipfile.ZIP_DEFLATED), limits=Limits(max_inflation=10))


def test_a_bomb_by_overlap(opened):
    content = packed(("a", TEXT), ("b", TEXT))
    where = content.index(b"PK\1\2", central(content) + 4)
    content[where + 42 : where + 46] = bytes(4)  # the second record points to the first member
    content[where + 46 : where + 47] = b"a"
    with pytest.raises(FormatError, match="two members of this name"):
        opened(content)
    inner = bytes(packed(("b", TEXT))[: 31 + len(TEXT)])
    outer = packed(("a", inner), ("b", TEXT))
    where = outer.index(b"PK\1\2", central(outer) + 4)
    outer[where + 42 : where + 46] = struct.pack("<I", 31)  # the second member lies in the first one
    with pytest.raises(FormatError, match="overlaps the member 'b'"):
        opened(outer)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda stream: b"\xff" * len(stream), "no DEFLATE stream"),
    (lambda stream: stream[:-4] + b"\0" * 4, "."),
])  # fmt: skip
def test_a_damaged_stream(opened, damage, message):
    content = packed(("a", TEXT), compression=zipfile.ZIP_DEFLATED)
    start, end = 31, central(content)
    content[start:end] = damage(bytes(content[start:end]))
    archive = opened(content)
    with pytest.raises(FormatError, match=message):
        archive.read(archive.members["a"], 1000)


def raw_deflated(stream):
    """An archive of one member `a` with this DEFLATE stream, claiming TEXT."""
    facts = struct.pack("<HHHHIIIHH", 0, 8, 0, 33, zlib.crc32(TEXT), len(stream), len(TEXT), 1, 0)
    member = b"PK\3\4" + struct.pack("<H", 20) + facts + b"a" + stream
    record = b"PK\1\2" + struct.pack("<HH", 20, 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"a"
    return member + record + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(record), len(member), 0)


def test_a_stream_without_end_or_with_more_after_it(opened):
    compressor = zlib.compressobj(wbits=-15)
    whole = compressor.compress(TEXT) + compressor.flush()
    archive = opened(raw_deflated(whole))
    assert archive.read(archive.members["a"], 100) == TEXT
    archive = opened(raw_deflated(whole + b"more"))
    with pytest.raises(FormatError, match="bytes follow the end"):
        archive.read(archive.members["a"], 100)
    compressor = zlib.compressobj(wbits=-15)
    archive = opened(raw_deflated(compressor.compress(TEXT) + compressor.flush(zlib.Z_SYNC_FLUSH)))
    with pytest.raises(FormatError, match="has no end"):
        archive.read(archive.members["a"], 100)


def test_every_flipped_bit_and_every_cut(opened):
    """Only our own errors come out, and a member that reads has the bytes that were packed."""
    content = packed(("a", TEXT), ("b/c", b"x" * 40), compression=zipfile.ZIP_DEFLATED)
    damaged = [bytes(content[:length]) for length in range(len(content))]
    for position in range(8 * len(content)):
        copy = bytearray(content)
        copy[position // 8] ^= 1 << position % 8
        damaged.append(bytes(copy))
    for case in damaged:
        try:
            archive = opened(case)
            found = [archive.read(member, 1000) for member in archive.members.values()]
        except TfthawError:
            continue
        assert all(value in (TEXT, b"x" * 40) for value in found)
