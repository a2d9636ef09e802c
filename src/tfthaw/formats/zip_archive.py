r"""Zip archives, read member by member without unpacking them.

    | part              | what                                                                            |
    | ----------------- | ------------------------------------------------------------------------------- |
    | local header      | 30 bytes: `PK\3\4`, version, flags, method, time, date, CRC-32, sizes, lengths   |
    |                   | of name and extra; then name and extra; before each member's bytes              |
    | member            | the bytes, stored as they are or as a raw DEFLATE stream                        |
    | central directory | one record a member with the same facts; read with `zipfile` of Python          |

A member that is stored uncompressed is a range of the archive and is read in place; a deflated one is inflated as a
stream. Both are held to the size and the CRC-32 of the central directory. Everything in which an archive can lie is
compared before it is believed: local header against central directory, sizes against the file, one member's bytes
against another's.

Other compressions, encryption and archives of several disks are refused. Nothing is ever extracted to a path that the
archive names.

Source: APPNOTE.TXT of PKWARE, version 6.3.10, sections 4.3.7 and 4.5.3.
"""

from __future__ import annotations

import io
import itertools
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from types import MappingProxyType
from typing import cast

import numpy as np

from tfthaw._files import CHUNK_BYTES, Bytes, FileSlice, SourceFile
from tfthaw.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    TfthawError,
    TruncatedError,
    UnsafePathError,
    UnsupportedError,
)
from tfthaw.formats.slice_file import SliceFile
from tfthaw.limits import DEFAULT_LIMITS, Limits

_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED = 1 << 0
_SIZES_FOLLOW = 1 << 3  # sizes and CRC come after the member's bytes, the local header has zeros
_ZIP64_EXTRA = 1
_IN_EXTRA = 0xFFFFFFFF  # the size stands in the zip64 extra field
_INPUT_BYTES = 1 << 16  # zlib copies what it has not consumed, so that small input pieces are the fast ones


@dataclass(frozen=True)
class ZipMember:
    """One file of an archive.

    Attributes:
        name: Its path, as written.
        offset: Where its bytes begin in the archive file.
        stored_bytes: How many bytes it takes there.
        nbytes: How many bytes it has.
        crc32: The CRC-32 of these.
        deflated: Whether it is compressed.
    """

    name: str
    offset: int
    stored_bytes: int
    nbytes: int
    crc32: int
    deflated: bool


class ZipArchive:
    """A zip archive opened for reading.

    Attributes:
        source: The archive file.
        members: Every file in it by its path, in the order of the central directory.
    """

    def __init__(self, source: SourceFile, limits: Limits = DEFAULT_LIMITS, *, contained: bool = True) -> None:
        """Read the directory of an archive and compare it with what is there.

        Args:
            source: The archive file.
            limits: What to accept.
            contained: Whether members are files of a directory, whose paths may not leave it; otherwise they are plain
                names.

        Raises:
            FormatError: It is no zip archive, or it contradicts itself.
            LimitError: A member claims more bytes than its stored bytes can make.
            UnsafePathError: A path leads out of the archive.
            UnsupportedError: Members are encrypted or compressed otherwise than by DEFLATE; all are named.
        """
        self.source = source
        infos, end = _central_directory(source)
        _refuse_unsupported(infos, source)
        members: dict[str, ZipMember] = {}
        ranges = []
        for info in infos:
            if contained:
                _refuse_unsafe(info, source)
            if info.is_dir():
                continue
            if info.filename in members:
                raise FormatError("the archive has two members of this name", path=source.path,
                                  where=f"member {info.filename!r}")  # fmt: skip
            member = members[info.filename] = _member(info, source, end, limits)
            ranges.append((info.header_offset, member.offset + member.stored_bytes, member.name))
        _refuse_overlaps(sorted(ranges), source)
        self.members: Mapping[str, ZipMember] = MappingProxyType(members)

    def slice(self, member: ZipMember) -> FileSlice:
        """Return the range of the archive that a member takes; its content where it is stored uncompressed."""
        return self.source.slice(member.offset, member.stored_bytes)

    def chunks(self, member: ZipMember, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield a member's content in bounded pieces; each is valid until the next one is asked for.

        Size and CRC-32 are compared when the last piece has been taken.

        Raises:
            FormatError: The content is no DEFLATE stream, or has another size than the directory says.
            ChecksumError: The CRC-32 differs.
        """
        part = self.slice(member)
        computed, done = 0, 0
        for chunk in self._inflate(member, part, chunk_bytes) if member.deflated else part.chunks(chunk_bytes):
            done += len(chunk)
            if done > member.nbytes:
                break
            computed = zlib.crc32(chunk.data, computed)
            yield chunk
        if done != member.nbytes:
            found = "more" if done > member.nbytes else str(done)
            raise FormatError(
                f"the directory claims {member.nbytes} bytes, the member has {found}",
                path=self.source.path, where=f"member {member.name!r}",
            )  # fmt: skip
        self.compare(member, computed)

    def compare(self, member: ZipMember, computed: int) -> None:
        """Compare a CRC-32 of a member's content with the stored one.

        Raises:
            ChecksumError: They differ.
        """
        if computed != member.crc32:
            raise ChecksumError(
                f"checksum mismatch (stored 0x{member.crc32:08x}, computed 0x{computed:08x})",
                path=self.source.path, where=f"member {member.name!r}",
                hint="the file was damaged or cut while it was copied",
            )  # fmt: skip

    def check(self, member: ZipMember) -> None:
        """Read a member once and compare its size and CRC-32, in constant memory.

        Raises:
            FormatError: As for `chunks`.
        """
        for _ in self.chunks(member):
            pass

    def read(self, member: ZipMember, most: int) -> bytes:
        """Return a member's content, checked.

        Raises:
            LimitError: It has more than `most` bytes.
            FormatError: As for `chunks`.
        """
        if member.nbytes > most:
            raise LimitError(f"{member.nbytes} bytes, at most {most} are allowed", path=self.source.path,
                             where=f"member {member.name!r}")  # fmt: skip
        return b"".join(chunk.tobytes() for chunk in self.chunks(member))

    def head(self, member: ZipMember, count: int) -> bytes:
        """Return up to count of a member's first bytes, unchecked."""
        part = self.slice(member)
        if not member.deflated:
            return self.source.read(part.offset, min(count, part.length))
        result = b""
        for chunk in self._inflate(member, part, count):
            result += chunk.tobytes()
            if len(result) >= count:
                break
        return result[:count]

    def _inflate(self, member: ZipMember, part: FileSlice, chunk_bytes: int) -> Iterator[Bytes]:
        decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for chunk in part.chunks(_INPUT_BYTES):
                data = decompressor.decompress(chunk.data, chunk_bytes)
                while data:  # once all input is taken, the rest of the output still has to be fetched
                    yield np.frombuffer(data, np.uint8)
                    data = decompressor.decompress(decompressor.unconsumed_tail, chunk_bytes)
        except zlib.error as error:
            raise FormatError(f"it is no DEFLATE stream: {error}", path=self.source.path,
                              where=f"member {member.name!r}") from error  # fmt: skip
        if not decompressor.eof:
            raise TruncatedError("its DEFLATE stream has no end", path=self.source.path,
                                 where=f"member {member.name!r}")  # fmt: skip
        if decompressor.unused_data:
            raise FormatError("bytes follow the end of its DEFLATE stream", path=self.source.path,
                              where=f"member {member.name!r}")  # fmt: skip


def _central_directory(source: SourceFile) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the directory's records and the offset at which it begins."""
    try:
        with zipfile.ZipFile(cast(io.BytesIO, SliceFile(source.slice())), "r") as archive:
            return archive.infolist(), archive.start_dir
    except TfthawError:
        raise
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error, OSError) as error:
        raise FormatError(f"it is no zip archive that can be read: {error}", path=source.path) from error


def _refuse_unsupported(infos: list[zipfile.ZipInfo], source: SourceFile) -> None:
    problems = [f"{info.filename}: encrypted" for info in infos if info.flag_bits & _ENCRYPTED]
    problems += [
        f"{info.filename}: compression method {info.compress_type}"
        for info in infos
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]
    if problems:
        raise UnsupportedError("the archive has members that are encrypted or not compressed by DEFLATE",
                               problems=problems, path=source.path, hint="pack it again with plain zip")  # fmt: skip


def _refuse_unsafe(info: zipfile.ZipInfo, source: SourceFile) -> None:
    name = info.orig_filename
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    # the anchor is a drive or the root; PureWindowsPath knows that of every system
    if PureWindowsPath(name).anchor or "\\" in name or ".." in name.split("/") or is_link:
        raise UnsafePathError(
            "the member is a symbolic link" if is_link else "the member's path leads out of the archive",
            path=source.path, where=f"member {name!r}",
            hint="nothing was read; the archive is damaged or made to attack its reader",
        )  # fmt: skip


def _member(info: zipfile.ZipInfo, source: SourceFile, end: int, limits: Limits) -> ZipMember:
    """Compare one record of the directory with the local header and the sizes that are possible."""

    def fail(message: str) -> FormatError:
        return FormatError(message, path=source.path, where=f"member {info.orig_filename!r}")

    if "\0" in info.orig_filename:
        raise fail("its name has a zero byte")
    if info.header_offset < 0 or info.header_offset + _LOCAL_HEADER.size > end:
        raise fail(f"its header is said to be at {info.header_offset}, the directory begins at {end}")
    fields = _LOCAL_HEADER.unpack(source.read(info.header_offset, _LOCAL_HEADER.size))
    magic, _, flags, method, _, _, crc32, stored_bytes, nbytes, name_bytes, extra_bytes = fields
    if magic != b"PK\3\4":
        raise fail(f"expected a local header at {info.header_offset}, found {magic!r}")
    offset = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if offset + info.compress_size > end:
        raise fail(f"it claims {info.compress_size} bytes from {offset} on, the directory begins at {end}")
    text = source.read(info.header_offset + _LOCAL_HEADER.size, name_bytes + extra_bytes)
    if text[:name_bytes] != _encoded_name(info):
        raise fail(f"its local header has the name {text[:name_bytes]!r}")
    if flags & _ENCRYPTED or method != info.compress_type:
        raise fail("the local header and the directory differ in compression or encryption")
    if _IN_EXTRA in (stored_bytes, nbytes):
        nbytes, stored_bytes = _zip64_sizes(text[name_bytes:], nbytes, stored_bytes)
    if not flags & _SIZES_FOLLOW and (crc32, stored_bytes, nbytes) != (info.CRC, info.compress_size, info.file_size):
        raise fail(
            f"the local header claims {nbytes} bytes stored as {stored_bytes} with CRC-32 0x{crc32:08x}, the directory "
            f"{info.file_size} stored as {info.compress_size} with 0x{info.CRC:08x}"
        )
    deflated = method == zipfile.ZIP_DEFLATED
    if not deflated and info.file_size != info.compress_size:
        raise fail(f"it is not compressed, and claims {info.file_size} bytes stored as {info.compress_size}")
    if info.file_size > info.compress_size * limits.max_inflation:
        raise LimitError(
            f"{info.file_size} bytes from {info.compress_size} stored ones, more than {limits.max_inflation} for one",
            path=source.path, where=f"member {info.filename!r}", hint="this is a zip bomb",
        )  # fmt: skip
    return ZipMember(info.filename, offset, info.compress_size, info.file_size, info.CRC, deflated)


def _encoded_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")


def _zip64_sizes(extra: bytes, nbytes: int, stored_bytes: int) -> tuple[int, int]:
    """Return the sizes that a zip64 extra field gives for those that did not fit."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        field = extra[position + 4 : position + 4 + length]
        if kind == _ZIP64_EXTRA:
            values = iter(int.from_bytes(field[at : at + 8], "little") for at in range(0, len(field), 8))
            nbytes = next(values, nbytes) if nbytes == _IN_EXTRA else nbytes
            stored_bytes = next(values, stored_bytes) if stored_bytes == _IN_EXTRA else stored_bytes
            break
        position += 4 + length
    return nbytes, stored_bytes


def _refuse_overlaps(ranges: list[tuple[int, int, str]], source: SourceFile) -> None:
    for (_, end, name), (start, _, other) in itertools.pairwise(ranges):
        if start < end:
            raise FormatError(f"it overlaps the member {other!r}", path=source.path, where=f"member {name!r}",
                              hint="this is a zip bomb")  # fmt: skip
