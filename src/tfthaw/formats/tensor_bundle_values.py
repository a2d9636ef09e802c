"""Strings and variants as the data files of a V2 checkpoint hold them.

    string tensor    varint: length of each string | masked crc32c of the lengths: uint32 | the strings' bytes
    variant tensor   for each element: varint: length | VariantTensorDataProto | masked crc32c so far: uint32

The checksum of a tensor's entry is not that of these bytes. It runs over the lengths as fixed integers in place of the
varints (strings: uint32, or uint64 where a length passes 32 bits; variants: uint64), and over the rest as it is stored.

Source: ReadStringTensor, WriteStringTensor, ReadVariantTensor and WriteVariantTensor in
util/tensor_bundle/tensor_bundle.cc of TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import google_crc32c

from tfthaw._files import CHUNK_BYTES, Bytes, FileSlice
from tfthaw._optional import lazy_module
from tfthaw.dtypes import DType
from tfthaw.errors import ChecksumError, FormatError, StructureError, TruncatedError, UnsupportedError
from tfthaw.formats.table import mask_crc32c
from tfthaw.formats.varint import decode_varints, encode_varint, read_varint
from tfthaw.tensors import Array, FileTensor, Tensor, reshape

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy_module("numpy")

_UINT32_MAX = 0xFFFFFFFF


class StringTensor(Tensor):
    """A string tensor in a data file.

    Attributes:
        slice: Where its encoding is.
        crc32c: The checksum of its entry, unmasked.
        name: What to call it in an error.
    """

    def __init__(self, shape: Sequence[int], part: FileSlice, *, crc32c: int, name: str = "") -> None:
        self.dtype = DType.string
        self.shape = tuple(shape)
        self.slice = part
        self.crc32c = crc32c
        self.name = name

    def numpy(self) -> Array:
        """Return a new object array of `bytes`, after comparing both checksums.

        Raises:
            ChecksumError: A stored checksum does not fit the bytes.
            StructureError: The lengths do not make up the bytes.
        """
        data = self.slice.view()
        if len(data) == 0 and self.size == 0:  # TensorFlow reads such an entry, though it never writes one
            return reshape(np.empty(0, object), self.shape)
        try:
            lengths, position = decode_varints(data, self.size)
            stored, payload = _length_checksum(data, position)
        except FormatError as error:
            raise type(error)(error.message, path=self.slice.file.path, where=f"tensor {self.name!r}") from error
        checksum = google_crc32c.value(_fixed_lengths(lengths))
        self._compare("the lengths", stored, mask_crc32c(checksum))
        self._check_total(lengths, len(data) - payload)
        checksum = google_crc32c.extend(checksum, struct.pack("<I", stored))
        self._compare("the tensor", self.crc32c, google_crc32c.extend(checksum, data[payload:]))
        return reshape(_split(data[payload:].data, lengths), self.shape)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Raise: the elements have no fixed size."""
        raise UnsupportedError("a string tensor has no row of bytes", where=f"tensor {self.name!r}")

    def _check_total(self, lengths: npt.NDArray[np.uint64], found: int) -> None:
        # in float64 first: a sum of hostile lengths would wrap around in uint64
        fits = float(lengths.sum(dtype=np.float64)) < 2.0**53
        total = int(lengths.sum()) if fits else "too many"
        if total != found:
            raise StructureError(
                f"the strings have {total} bytes, {found} are stored",
                path=self.slice.file.path, where=f"tensor {self.name!r}",
            )  # fmt: skip

    def _compare(self, what: str, stored: int, computed: int) -> None:
        if stored != computed:
            raise ChecksumError(
                f"checksum mismatch of {what} (stored 0x{stored:08x}, computed 0x{computed:08x})",
                path=self.slice.file.path, where=f"tensor {self.name!r} at offset {self.slice.offset}",
                hint="the file was damaged or cut while it was copied",
            )  # fmt: skip


class VariantTensor(FileTensor):
    """A variant tensor in a data file: no array, but bytes that can be copied whole.

    Attributes:
        entry_crc32c: The checksum of its entry, unmasked. `crc32c` is None: there is none of the bytes themselves.
    """

    def __init__(self, shape: Sequence[int], part: FileSlice, *, entry_crc32c: int, name: str = "") -> None:
        super().__init__(DType.variant, shape, part, name=name)
        self.entry_crc32c = entry_crc32c

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield the encoding, after comparing every checksum in it.

        Raises:
            ChecksumError: A stored checksum does not fit the bytes.
        """
        path, where = self.slice.file.path, f"tensor {self.name!r} at offset {self.slice.offset}"
        computed = variant_checksum(self.slice.view(), self.size, path=path, where=where)
        if computed != self.entry_crc32c:
            raise ChecksumError(
                f"checksum mismatch (stored 0x{self.entry_crc32c:08x}, computed 0x{computed:08x})",
                path=path, where=where,
                hint="the file was damaged or cut while it was copied",
            )  # fmt: skip
        yield from self.slice.chunks(chunk_bytes)


def write_strings(file: BinaryIO, values: Array) -> tuple[int, int]:
    """Write a string tensor.

    Args:
        file: Where to write.
        values: An object array of `bytes`.

    Returns:
        The bytes written and the entry's checksum, unmasked.
    """
    flat = values.reshape(-1).tolist()
    lengths = np.fromiter((len(value) for value in flat), np.uint64, len(flat))
    checksum = google_crc32c.value(_fixed_lengths(lengths))
    stored = struct.pack("<I", mask_crc32c(checksum))
    checksum = google_crc32c.extend(checksum, stored)
    written = file.write(b"".join(map(encode_varint, lengths.tolist())) + stored)
    for value in flat:
        checksum = google_crc32c.extend(checksum, value)
        written += file.write(value)
    return written, checksum


def variant_checksum(data: Bytes, count: int, *, path: str | None = None, where: str | None = None) -> int:
    """Walk the encoding of a variant tensor and return its entry's checksum, unmasked.

    Raises:
        ChecksumError: The checksum after an element does not fit.
        FormatError: The encoding has another number of elements, or breaks off.
    """
    checksum = 0
    position = 0
    for number in range(count):
        try:
            length, start = read_varint(data.data, position)
        except FormatError as error:
            raise type(error)(error.message, path=path, where=where) from error
        position = start + length + 4
        if position > len(data):
            raise TruncatedError(f"element {number} ends at {position}, the tensor has {len(data)} bytes", path=path,
                                 where=where)  # fmt: skip
        checksum = google_crc32c.extend(checksum, struct.pack("<Q", length))
        checksum = google_crc32c.extend(checksum, data[start : position - 4])
        (stored,) = struct.unpack_from("<I", data.data, position - 4)
        if stored != mask_crc32c(checksum):
            raise ChecksumError(f"checksum mismatch after element {number}", path=path, where=where)
        checksum = google_crc32c.extend(checksum, data[position - 4 : position])
    if position != len(data):
        raise FormatError(f"{count} elements end at {position} of {len(data)} bytes", path=path, where=where)
    return checksum


def _length_checksum(data: Bytes, position: int) -> tuple[int, int]:
    if position + 4 > len(data):
        raise TruncatedError(f"{len(data)} bytes are too few for the strings' lengths and their checksum")
    (stored,) = struct.unpack_from("<I", data.data, position)
    return stored, position + 4


def _fixed_lengths(lengths: npt.NDArray[np.uint64]) -> bytes:
    """Return the lengths as the checksum takes them: four bytes each, eight where four are too few."""
    if len(lengths) == 0 or lengths.max() <= _UINT32_MAX:
        return lengths.astype("<u4").tobytes()
    return b"".join(struct.pack("<I" if length <= _UINT32_MAX else "<Q", length) for length in lengths.tolist())


def _split(payload: memoryview, lengths: npt.NDArray[np.uint64]) -> Array:
    strings = np.empty(len(lengths), object)
    start = 0
    for index, length in enumerate(lengths.tolist()):
        strings[index] = bytes(payload[start : start + length])
        start += length
    return strings
