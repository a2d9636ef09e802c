"""Weights as safetensors: one JSON header, then the bytes of all tensors.

    | bytes          | what                                                                           |
    | -------------- | ------------------------------------------------------------------------------ |
    | 8              | length n of the header, unsigned little-endian                                 |
    | n              | JSON object, first byte `{`, padded with spaces so that 8 + n is a multiple of 8 |
    | the rest       | the tensors' bytes, little-endian and row-major, without hole or overlap       |

The header maps each name to `{"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}`, offsets counted from the
end of the header; the name `__metadata__` is reserved for a map of text to text.

The reader is our own because it must hand out ranges of the file, where the `safetensors` package hands out arrays; it
makes every check that the package makes. The format has no checksum: a flipped bit in the data cannot be seen here.

This module does no renaming and no casting.

Source: the format section of the README of huggingface/safetensors, and the order of its `Dtype` for the canonical
layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

from tfthaw._files import Progress, SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, LimitError, StructureError, TruncatedError, UnsupportedError
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Array, FileTensor, LazyTensor, Tensor

MAX_HEADER_BYTES = 100_000_000  # the format's own cap

METADATA_KEY = "__metadata__"

# Writers sort by element type, then name. The order is that of the package's enum, largest alignment last.
_DTYPE_ORDER = (
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
    "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
)  # fmt: skip

# Types that TensorFlow lacks or, like F4, lays out otherwise: (bits of an element)
_FOREIGN_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8}

_MAX_EXTENT = (1 << 63) - 1  # numpy counts elements and bytes in a signed 64-bit integer


@dataclass(frozen=True)
class SafetensorsFile:
    """What a safetensors file says.

    Attributes:
        path: The file.
        tensors: Every tensor by its name, in the order of the data; ranges of the file, read when asked for.
        metadata: The text that the writer added.
    """

    path: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_safetensors(path: str, limits: Limits = DEFAULT_LIMITS) -> SafetensorsFile:
    """Read the header of a safetensors file; the tensors stay where they are.

    Args:
        path: The file.
        limits: What to accept.

    Returns:
        The tensors and the metadata. A tensor of a type that TensorFlow does not have (F4, F6, F8_E8M0) has the dtype
        `invalid` and raises UnsupportedError when it is read.

    Raises:
        FormatError: The header is not what the format says.
        TruncatedError: The file ends before its header or its data do.
        LimitError: The header is larger than 100 MB or than the limits allow.
    """
    source = SourceFile(path)
    header, data_start = _read_header(source, limits)
    metadata = _metadata(header.pop(METADATA_KEY, {}), source)
    ranges = {name: _tensor_info(name, info, source, limits) for name, info in header.items()}
    ordered = sorted(ranges.items(), key=lambda item: item[1].offsets)
    _check_tiling(ordered, source, data_start)
    tensors = {name: _tensor(name, info, source, data_start) for name, info in ordered}
    return SafetensorsFile(source.path, MappingProxyType(tensors), MappingProxyType(metadata))


def write_safetensors(
    file: BinaryIO,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, tuple[int, int]]:
    """Write tensors as safetensors, streaming, in the canonical order of the `safetensors` package.

    The bytes are those that `safetensors.numpy.save_file` writes, but for the order of the metadata, which the package
    leaves to chance and which is sorted here. Quantized types (`qint8` and so on) are written as their integers.

    Args:
        file: Where to write; its position is taken as the start.
        tensors: What to write.
        metadata: Text to add to the header.
        progress: Called with the number of bytes of tensors just written.

    Returns:
        For each tensor the offset and the length of its bytes, counted from the start.

    Raises:
        UnsupportedError: The format cannot hold some of the tensors; all of them are named, and nothing was written.
        StructureError: A tensor gave another number of bytes than its shape says.
    """
    names = _writable_names(tensors)
    order = sorted(tensors, key=lambda name: (-_DTYPE_ORDER.index(names[name]), name.encode()))
    header: dict[str, Any] = {METADATA_KEY: dict(sorted(metadata.items()))} if metadata else {}
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        places[name] = (end, tensor.nbytes)
        header[name] = {"dtype": names[name], "shape": tensor.shape, "data_offsets": (end, end + tensor.nbytes)}
        end += tensor.nbytes
    text = _encode_header(header)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        _write_tensor(file, name, tensors[name], progress)
    return {name: (8 + len(text) + offset, length) for name, (offset, length) in places.items()}


def safetensors_dtype(dtype: DType) -> str | None:
    """Return the name under which a type is written, or None where the format cannot hold it.

    Quantized types become their integers: their scale was never part of the tensor.
    """
    return DType.from_numpy(dtype.numpy).safetensors if dtype.is_numeric else None


@dataclass(frozen=True)
class _TensorInfo:
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]


def _read_header(source: SourceFile, limits: Limits) -> tuple[dict[str, Any], int]:
    """Return the JSON header and the offset of the data."""
    if source.size < 8:
        raise TruncatedError(f"a safetensors file has at least 8 bytes, this one has {source.size}", path=source.path)
    length = int.from_bytes(source.read(0, 8), "little")
    most = min(MAX_HEADER_BYTES, limits.max_index_bytes)
    if length > most:
        raise LimitError(
            f"the header claims {length} bytes, at most {most} are allowed", path=source.path, where="header",
            hint="this is probably no safetensors file",
        )  # fmt: skip
    if length > source.size - 8:
        raise TruncatedError(
            f"the header claims {length} bytes, the file has {source.size - 8} after the length",
            path=source.path, where="header", hint="the file was cut while it was written or copied",
        )  # fmt: skip
    text = source.read(8, length)
    if not text.startswith(b"{"):
        raise FormatError(f"expected '{{', found {text[:1]!r}", path=source.path, where="header")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is not valid JSON: {error}", path=source.path, where="header") from error
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of JSON members, refusing a repeated key and text that is not Unicode."""
    result = dict(pairs)
    if len(result) != len(pairs):
        repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {repeated!r} is there twice")
    for key, value in pairs:
        key.encode()
        if isinstance(value, str):
            value.encode()
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _metadata(value: Any, source: SourceFile) -> dict[str, str]:
    if value is None:  # the package takes null as absent
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError("expected a map of text to text", path=source.path, where=METADATA_KEY)
    return value


def _tensor_info(name: str, value: Any, source: SourceFile, limits: Limits) -> _TensorInfo:
    """Check one entry of the header by itself."""

    def fail(message: str) -> NoReturn:
        raise FormatError(message, path=source.path, where=f"tensor {name!r}")

    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= set(value):
        fail("expected an object of dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in _DTYPE_ORDER:
        fail(f"unknown dtype {dtype!r}")
    if not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
        fail("expected lists of non-negative integers as shape and data_offsets, two of them as data_offsets")
    if len(shape) > limits.max_rank:
        raise LimitError(f"{len(shape)} dimensions, at most {limits.max_rank} are allowed", path=source.path,
                         where=f"tensor {name!r}")  # fmt: skip
    if math.prod(extent for extent in shape if extent) * 16 > _MAX_EXTENT:
        fail(f"the shape {shape} has more elements than memory has addresses")
    bits = math.prod(shape) * _bits(dtype)
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        fail(f"{dtype}{shape} needs {bits / 8:g} bytes, data_offsets {offsets} give {offsets[1] - offsets[0]}")
    if bits // 8 > limits.max_tensor_bytes:
        raise LimitError(f"{bits // 8} bytes, at most {limits.max_tensor_bytes} are allowed", path=source.path,
                         where=f"tensor {name!r}")  # fmt: skip
    return _TensorInfo(dtype, tuple(shape), (offsets[0], offsets[1]))


def _is_counts(value: Any) -> bool:
    """Whether this is a list of non-negative integers; JSON's true and false are none."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _bits(dtype: str) -> int:
    return _FOREIGN_BITS.get(dtype) or 8 * DType.from_safetensors(dtype).itemsize


def _check_tiling(ordered: list[tuple[str, _TensorInfo]], source: SourceFile, data_start: int) -> None:
    """Hold that the tensors fill the data from its first to its last byte."""
    end = 0
    for name, info in ordered:
        if info.offsets[0] != end:
            kind = "overlaps the tensor before it" if info.offsets[0] < end else "leaves a hole before it"
            raise FormatError(
                f"it begins at {info.offsets[0]} of the data, {end} is expected: it {kind}",
                path=source.path, where=f"tensor {name!r}",
            )  # fmt: skip
        end = info.offsets[1]
    stored = source.size - data_start
    if stored < end:
        raise TruncatedError(
            f"the tensors need {end} bytes, the file has {stored} after its header", path=source.path,
            hint="the file was cut while it was written or copied",
        )  # fmt: skip
    if stored > end:
        raise FormatError(f"{stored - end} bytes follow the last tensor; the format allows none", path=source.path)


def _tensor(name: str, info: _TensorInfo, source: SourceFile, data_start: int) -> Tensor:
    if info.dtype in _FOREIGN_BITS:

        def refuse() -> Array:
            raise UnsupportedError(
                f"TensorFlow has no element type for {info.dtype}", path=source.path, where=f"tensor {name!r}"
            )

        return LazyTensor(DType.invalid, info.shape, refuse)
    begin, end = info.offsets
    part = source.slice(data_start + begin, end - begin)
    return FileTensor(DType.from_safetensors(info.dtype), info.shape, part, name=name)


def _writable_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the format's dtype of each tensor, or raise with everything that it cannot hold."""
    result: dict[str, str] = {}
    problems = []
    for name, tensor in tensors.items():
        found = safetensors_dtype(tensor.dtype)
        if found is None:
            problems.append(f"{name}: {tensor.dtype.name}{list(tensor.shape)}")
        elif name == METADATA_KEY:
            problems.append(f"{name}: the format keeps this name for itself")
        elif not name.isascii() and name != name.encode("utf-8", "ignore").decode():
            problems.append(f"{name!r}: the name is not Unicode text")
        else:
            result[name] = found
    if problems:
        raise UnsupportedError(
            f"safetensors cannot hold {len(problems)} of {len(tensors)} tensors", problems=problems,
            hint="leave them out, or write npz",
        )  # fmt: skip
    return result


def _encode_header(header: dict[str, Any]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise UnsupportedError(f"the header would have {len(text)} bytes, safetensors allows {MAX_HEADER_BYTES}")
    return text


def _write_tensor(file: BinaryIO, name: str, tensor: Tensor, progress: Progress | None) -> None:
    done = tensor.copy_to(file, progress)
    if done != tensor.nbytes:
        raise StructureError(
            f"{done} bytes came, {tensor.dtype.name}{list(tensor.shape)} has {tensor.nbytes}", where=f"tensor {name!r}"
        )
