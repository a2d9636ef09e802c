"""HDF5 files: every dataset as a tensor, and attributes as text.

Reading goes through h5py, from a range of a file: a `.h5` file, or one that lies uncompressed in an archive. A
contiguous dataset of a plain little-endian type becomes a range of the file; every other one is read through h5py, row
by row where it is streamed, and the file is open only while that happens.

HDF5 hardly has checksums: none of the data and, in the old layout that h5py writes by default, none of the structure. A
flipped bit in the data is seen only where the writer chose the `fletcher32` filter.

What leads out of the file is never followed: external links, external storage and virtual datasets are refused, and so
is a filter that would make HDF5 look for a plugin. Nothing is unpickled.

This module knows no Keras.

Source: "HDF5 File Format Specification Version 3.0" for what may lie in a file; the h5py manual for how it maps types.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfthaw._files import CHUNK_BYTES, Bytes, FileSlice
from tfthaw._optional import require
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, LimitError, TfthawError, TruncatedError, UnsafePathError, UnsupportedError
from tfthaw.formats.hdf5_guard import (
    REFERENCE_BYTES,
    GuardedFile,
    check_attribute,
    check_chunks,
    check_references,
    check_superblock,
)
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Array, FileTensor, LazyTensor, Tensor, as_bytes

# h5py's own filters: deflate, shuffle, fletcher32, lzf. Any other would make HDF5 search for a plugin to load.
_FILTERS = frozenset({1, 2, 3, 32000})

# A dataset that was never written takes no storage and reads as its fill value; small ones are harmless.
_FREE_BYTES = 1 << 20



@contextlib.contextmanager
def open_hdf5(part: FileSlice) -> Iterator[Any]:
    """Open a range of a file with h5py.

    Args:
        part: The range that is the HDF5 file.

    Yields:
        The `h5py.File`, for reading, until the block ends.

    Raises:
        MissingDependencyError: h5py is not installed.
        FormatError: It is no HDF5 file, or HDF5 refused something that was asked of it inside the block.
    """
    h5py = require("h5py", extra="keras", purpose="read HDF5 files")
    check_superblock(part)
    with hdf5_errors(part), h5py.File(GuardedFile(part), "r") as file:
        yield file


@contextlib.contextmanager
def hdf5_errors(part: FileSlice, where: str | None = None) -> Iterator[None]:
    """Turn what h5py raises for a damaged file into a FormatError.

    Args:
        part: The range that is the HDF5 file.
        where: The place in it.

    Raises:
        TruncatedError: The file is shorter than it says.
        FormatError: Anything else that h5py raised.
    """
    try:
        yield
    except TfthawError:
        raise
    # every class that h5py and HDF5 raise for a damaged file; h5py has no class of its own
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError, SystemError) as error:
        text = str(error.args[0]) if error.args else type(error).__name__
        if "truncated file" in text:
            raise TruncatedError(f"HDF5 refuses it: {text}", path=part.file.path, where=where,
                                 hint="the file was cut while it was written or copied") from error  # fmt: skip
        raise FormatError(f"HDF5 refuses it: {text}", path=part.file.path, where=where) from error


def read_datasets(file: Any, part: FileSlice, limits: Limits = DEFAULT_LIMITS) -> dict[str, Tensor]:
    """Return every dataset by its path in the file; nothing is read but their descriptions.

    Soft links to a dataset of the same file count as that dataset. A dataset of a type that TensorFlow does not have
    has the dtype `invalid` and raises UnsupportedError when it is read. Strings come as bytes.

    Args:
        file: The open `h5py.File`.
        part: The range that is the HDF5 file.
        limits: What to accept.

    Raises:
        FormatError: The file is damaged, or a group can be reached by two ways.
        UnsafePathError: A link, a storage or a virtual dataset leads out of the file.
        LimitError: Groups are nested too deep, or a dataset claims more bytes than its storage can make.
    """
    h5py = require("h5py", extra="keras", purpose="read HDF5 files")
    tensors: dict[str, Tensor] = {}
    soft_links: dict[str, str] = {}
    with hdf5_errors(part):
        groups = [("", file.id)]
        seen = {h5py.h5o.get_info(file.id).addr}
        while groups:
            prefix, group = groups.pop()
            for raw_name in group:
                name = f"{prefix}{raw_name.decode()}"
                link = group.links.get_info(raw_name).type
                if link == h5py.h5l.TYPE_SOFT:
                    target = group.links.get_val(raw_name).decode()
                    soft_links[name] = posixpath.normpath(posixpath.join("/", prefix, target)).lstrip("/")
                    continue
                if link != h5py.h5l.TYPE_HARD:
                    raise UnsafePathError("an external link leads out of the file", path=part.file.path, where=name,
                                          hint="it was not followed")  # fmt: skip
                node = h5py.h5o.open(group, raw_name)
                if isinstance(node, h5py.h5g.GroupID):
                    _refuse_depth(name, part, limits)
                    address = h5py.h5o.get_info(node).addr
                    if address in seen:
                        raise FormatError("the group can be reached by two ways, so that paths may have no end",
                                          path=part.file.path, where=name)  # fmt: skip
                    seen.add(address)
                    groups.append((f"{name}/", node))
                elif isinstance(node, h5py.h5d.DatasetID):
                    if name in tensors:
                        raise FormatError("two datasets have this path", path=part.file.path, where=name)
                    tensors[name] = _tensor(h5py, node, name, part, limits)
    for name, target in soft_links.items():
        if target not in tensors:
            raise UnsafePathError(f"a soft link leads to {target!r}, which is no dataset of this file",
                                  path=part.file.path, where=name, hint="it was not followed")  # fmt: skip
        tensors[name] = tensors[target]
    return dict(sorted(tensors.items()))


def read_texts(node: Any, name: str, part: FileSlice) -> list[str] | None:
    """Return an attribute that holds text, or None where there is none of this name.

    A long list that was split over `name0`, `name1` and so on, as Keras does past 64 KB, is joined. Text that is
    not UTF-8 is taken as Latin-1, which every byte is.

    Args:
        node: An open h5py file, group or dataset.
        name: The attribute.
        part: The range that is the HDF5 file.

    Raises:
        FormatError: The attribute holds something else than text, or is damaged.
    """
    with hdf5_errors(part, f"attribute {name!r}"):
        if name in node.attrs:
            return _texts(node, name, part)
        pieces: list[str] = []
        for number in itertools.count():
            if f"{name}{number}" not in node.attrs:
                return pieces if number else None
            pieces += _texts(node, f"{name}{number}", part)
        raise AssertionError("unreachable")


def read_text_attributes(part: FileSlice, limits: Limits = DEFAULT_LIMITS) -> dict[str, dict[str, str | list[str]]]:
    """Return every group and dataset with those of its attributes that hold text; others are left out.

    A list of nothing counts as text: Keras writes an empty list of names as one of numbers.

    Args:
        part: The range that is the HDF5 file.
        limits: What to accept.

    Returns:
        The path of a group (the root is empty), or of a dataset with attributes -> attribute -> a text or a list.

    Raises:
        FormatError: The file is damaged.
        LimitError: Groups are nested too deep, or an attribute claims more bytes than the file has.
    """
    h5py = require("h5py", extra="keras", purpose="read HDF5 files")
    result: dict[str, dict[str, str | list[str]]] = {}
    with open_hdf5(part) as file:
        nodes: list[tuple[str, Any]] = [("", file)]
        seen = set()
        while nodes:
            path, node = nodes.pop()
            address = h5py.h5o.get_info(node.id).addr
            if address in seen:
                continue
            seen.add(address)
            _refuse_depth(path, part, limits)
            texts = {name: _text_attribute(h5py, node, name, part) for name in sorted(node.attrs)}
            found = {name: text for name, text in texts.items() if text is not None}
            if found or isinstance(node, h5py.Group):
                result[path] = found
            if isinstance(node, h5py.Group):
                links = [name for name in node if isinstance(node.get(name, getlink=True), h5py.HardLink)]
                nodes += [(f"{path}/{name}" if path else name, node[name]) for name in reversed(links)]
    return result


def _text_attribute(h5py: Any, node: Any, name: str, part: FileSlice) -> str | list[str] | None:
    attribute = node.attrs.get_id(name)
    if attribute.shape is None:
        return None
    if 0 in attribute.shape:
        return []
    if h5py.check_string_dtype(attribute.dtype) is None:
        return None
    texts = _texts(node, name, part)
    return texts if attribute.shape else texts[0]


def _texts(node: Any, name: str, part: FileSlice) -> list[str]:
    attribute = node.attrs.get_id(name)
    size = math.prod(attribute.shape or ())
    if size * max(1, attribute.dtype.itemsize) > part.length:
        raise LimitError(f"it claims {size} elements, more than the file has bytes", path=part.file.path,
                         where=f"attribute {name!r}")  # fmt: skip
    if attribute.dtype.kind == "O":
        h5py = require("h5py", extra="keras", purpose="read HDF5 files")
        check_attribute(part, h5py.h5o.get_info(node.id).addr, name)
    value = node.attrs[name]
    values = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else [value]
    if not all(isinstance(item, (str, bytes)) for item in values):
        raise FormatError(f"expected text, found {attribute.dtype}", path=part.file.path, where=f"attribute {name!r}")
    return [item if isinstance(item, str) else _decode(item) for item in values]


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


class HDF5Tensor(Tensor):
    """A dataset that only h5py can read: chunked, compressed, big-endian, or kept in its header.

    Attributes:
        part: The range that is the HDF5 file.
        name: The dataset's path.
    """

    def __init__(self, dtype: DType, shape: Sequence[int], part: FileSlice, name: str) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.part = part
        self.name = name

    def numpy(self) -> Array:
        """Return the values as a new array.

        Raises:
            FormatError: HDF5 cannot read them; a fletcher32 checksum that does not fit is among the reasons.
        """
        with open_hdf5(self.part) as file, hdf5_errors(self.part, f"dataset {self.name!r}"):
            check_chunks(file[self.name], self.part, self.name)
            return self._read(file[self.name], ...)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield the bytes of as many whole rows (of the first dimension) as fit, at least one."""
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        if not self.shape or not self.size:
            yield from super().chunks(chunk_bytes)
            return
        rows = max(1, chunk_bytes // row_bytes)
        with open_hdf5(self.part) as file, hdf5_errors(self.part, f"dataset {self.name!r}"):
            dataset = file[self.name]
            check_chunks(dataset, self.part, self.name)
            for start in range(0, self.shape[0], rows):
                yield as_bytes(self._read(dataset, slice(start, start + rows)))

    def _read(self, dataset: Any, rows: Any) -> Array:
        if self.dtype is DType.bfloat16:  # opaque to HDF5
            return np.asarray(dataset[rows]).view(self.dtype.numpy)
        return np.asarray(dataset[rows]).astype(self.dtype.numpy, copy=False)


@dataclass(frozen=True)
class _Storage:
    """How a dataset lies in the file."""

    offset: int | None
    nbytes: int
    chunk_bytes: int
    filters: frozenset[int]


def _refuse_depth(name: str, part: FileSlice, limits: Limits) -> None:
    if name.count("/") >= limits.max_depth:
        raise LimitError(f"groups are nested deeper than {limits.max_depth}", path=part.file.path, where=name)


def _tensor(h5py: Any, dataset: Any, name: str, part: FileSlice, limits: Limits) -> Tensor:
    """Describe one dataset."""
    storage = _storage(h5py, dataset, name, part)
    try:
        stored = dataset.dtype
    except TypeError:  # HDF5 has types that numpy has not
        stored = np.dtype(object)
    dtype = _element_type(h5py, stored)
    foreign = storage.filters - _FILTERS
    if dtype is DType.invalid or dataset.shape is None or foreign:
        reason = f"HDF5 filter {min(foreign)} is not known here" if foreign else f"{stored} has no TensorFlow type"
        return _unreadable(reason, dataset.shape or (), name, part)
    shape = tuple(int(extent) for extent in dataset.shape)
    itemsize = REFERENCE_BYTES if stored.kind == "O" else stored.itemsize
    _check_claims(math.prod(shape) * itemsize, storage, name, part, limits)
    if dtype is DType.string:
        references = None
        if stored.kind == "O" and math.prod(shape):
            if storage.offset is None:  # compressed references could not be compared with anything
                return _unreadable("strings of variable length must lie contiguous to be read", shape, name, part)
            references = part.file.slice(part.offset + storage.offset, storage.nbytes)
        return LazyTensor(dtype, shape, lambda: _strings(part, name, references, shape))
    # equal types: HDF5 can also say byte order, padding and precision that numpy's name for the type hides
    is_plain = dtype is DType.bfloat16 or h5py.h5t.py_create(dtype.numpy, logical=True).equal(dataset.get_type())
    if storage.offset is None or not is_plain:
        return HDF5Tensor(dtype, shape, part, name)
    return FileTensor(dtype, shape, part.file.slice(part.offset + storage.offset, storage.nbytes), name=name)


def _storage(h5py: Any, dataset: Any, name: str, part: FileSlice) -> _Storage:
    plan = dataset.get_create_plist()
    layout = plan.get_layout()
    if plan.get_external_count() or layout == h5py.h5d.VIRTUAL:
        kind = "a virtual dataset" if layout == h5py.h5d.VIRTUAL else "external storage"
        raise UnsafePathError(f"{kind} leads out of the file", path=part.file.path, where=f"dataset {name!r}",
                              hint="it was not followed")  # fmt: skip
    filters = frozenset(int(plan.get_filter(index)[0]) for index in range(plan.get_nfilters()))
    chunk = plan.get_chunk() if layout == h5py.h5d.CHUNKED else ()
    chunk_bytes = math.prod(chunk) * dataset.get_type().get_size() if chunk else 0
    offset = dataset.get_offset() if layout == h5py.h5d.CONTIGUOUS else None
    return _Storage(offset, int(dataset.get_storage_size()), chunk_bytes, filters)


def _check_claims(nbytes: int, storage: _Storage, name: str, part: FileSlice, limits: Limits) -> None:
    """Compare what a dataset claims with what its storage can make."""
    where = f"dataset {name!r}"
    if storage.offset is not None:
        if nbytes != storage.nbytes:
            raise FormatError(f"it needs {nbytes} bytes, {storage.nbytes} are stored", path=part.file.path, where=where)
        if storage.offset + nbytes > part.length:
            raise TruncatedError(
                f"its bytes {storage.offset} to {storage.offset + nbytes} pass the end at {part.length}",
                path=part.file.path, where=where, hint="the file was cut while it was written or copied",
            )  # fmt: skip
    possible = _FREE_BYTES + min(storage.nbytes, part.length) * limits.max_inflation
    most = min(limits.max_tensor_bytes, possible)
    for what, claimed in (("it", nbytes), ("one of its chunks", storage.chunk_bytes)):
        if claimed > most:
            raise LimitError(
                f"{what} claims {claimed} bytes, at most {most} can come from the {storage.nbytes} that are stored",
                path=part.file.path, where=where,
            )  # fmt: skip


def _element_type(h5py: Any, stored: np.dtype[Any]) -> DType:
    """Return TensorFlow's type for one of h5py's, `invalid` where there is none."""
    if stored.kind == "O":
        return DType.string if h5py.check_string_dtype(stored) is not None else DType.invalid
    if stored.kind == "V":  # h5py writes types of ml_dtypes as opaque bytes; only bfloat16 has two
        return DType.bfloat16 if stored.itemsize == 2 and stored.names is None and not stored.shape else DType.invalid
    if stored.shape:
        return DType.invalid
    try:
        return DType.from_numpy(stored)
    except KeyError:
        return DType.invalid


def _unreadable(reason: str, shape: Sequence[int], name: str, part: FileSlice) -> Tensor:
    def refuse() -> Array:
        raise UnsupportedError(reason, path=part.file.path, where=f"dataset {name!r}")

    return LazyTensor(DType.invalid, tuple(int(extent) for extent in shape), refuse)


def _strings(part: FileSlice, name: str, references: FileSlice | None, shape: tuple[int, ...]) -> Array:
    """Return a dataset of strings as an object array of bytes."""
    if references is not None:
        check_references(references.view(), part, f"dataset {name!r}")
    result = np.empty(shape, object)
    with open_hdf5(part) as file, hdf5_errors(part, f"dataset {name!r}"):
        result[...] = np.frompyfunc(_as_bytes, 1, 1)(np.asarray(file[name][...], dtype=object))
    return result


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
