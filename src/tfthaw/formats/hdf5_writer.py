"""Write HDF5 files: datasets by path, and text attributes, in bounded memory.

h5py makes the structure, with room for every dataset, and tells where each lies; the bytes then go straight from their
source to their place. So a dataset is contiguous and little-endian, and neither h5py nor numpy ever holds a whole one.
Reading is in `hdf5`. This module knows no Keras.

    | element type                | HDF5 type                                 |
    | --------------------------- | ----------------------------------------- |
    | integers, floats, complex   | the same, little-endian                   |
    | bool                        | enumeration of FALSE and TRUE, one byte   |
    | bfloat16                    | two opaque bytes, as h5py writes it       |

Source: "HDF5 File Format Specification Version 3.0", IV.A.2.i (layout message); the h5py manual for how it maps types.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from tfthaw._files import Progress
from tfthaw._optional import require
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, StructureError, TfthawError, UnsupportedError
from tfthaw.tensors import Tensor

Text: TypeAlias = "str | Sequence[str]"
"""The value of an attribute: one text, or a list of them."""

_PLAIN_TYPES = frozenset({
    DType.float16, DType.float32, DType.float64, DType.int8, DType.int16, DType.int32, DType.int64, DType.uint8,
    DType.uint16, DType.uint32, DType.uint64, DType.complex64, DType.complex128, DType.bool, DType.bfloat16,
})  # fmt: skip

_MAX_HEADER_BYTES = 64512
"""Bytes of an attribute that HDF5 can keep in an object's header; Keras splits longer lists at the same size."""

_MAX_RANK = 32  # H5S_MAX_RANK


@dataclass(frozen=True)
class HDF5Contents:
    """What an HDF5 file shall hold.

    Attributes:
        tensors: The datasets by their paths.
        attributes: Path of a group or dataset (the root is empty) -> its attributes. Groups are made as needed.
    """

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Mapping[str, Text]] = field(default_factory=dict)


def write_hdf5(path: str | os.PathLike[str], contents: HDF5Contents, progress: Progress | None = None) -> None:
    """Write an HDF5 file; what is at the path is replaced.

    Args:
        path: The file.
        contents: What to write.
        progress: Called with the number of bytes just written.

    Raises:
        MissingDependencyError: h5py is not installed.
        UnsupportedError: The format cannot hold some of the tensors; all of them are named, and nothing was written.
        StructureError: A tensor gave another number of bytes than its shape says.
    """
    h5py = require("h5py", extra="keras", purpose="write HDF5 files")
    require_writable(contents.tensors, contents.attributes)
    try:
        with h5py.File(os.fspath(path), "w") as file:
            places = {name: _make_dataset(h5py, file, name, tensor) for name, tensor in contents.tensors.items()}
            for name, attributes in contents.attributes.items():
                node = (file[name] if name in contents.tensors else file.require_group(name)) if name else file
                for key, value in attributes.items():
                    _write_attribute(node, key, value)
    except TfthawError:
        raise
    # h5py has no exception of its own; an error of the disk passes as it is
    except (RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"HDF5 refuses to make the file: {error}", path=path) from error
    with open(path, "r+b") as target:
        for name, offset in sorted(places.items(), key=lambda item: item[1] or 0):
            if offset is None:
                continue
            target.seek(offset)
            done = contents.tensors[name].copy_to(target, progress)
            if done != contents.tensors[name].nbytes:
                raise StructureError(f"{done} bytes came, {contents.tensors[name]!r} has "
                                     f"{contents.tensors[name].nbytes}", where=f"tensor {name!r}")  # fmt: skip


def require_writable(tensors: Mapping[str, Tensor], others: Iterable[str] = ()) -> None:
    """Refuse datasets that an HDF5 file of plain types cannot hold.

    Args:
        tensors: The datasets by their paths.
        others: Paths of groups that the file shall have as well.

    Raises:
        UnsupportedError: With every one of them.
    """
    further = [name for name in others if name not in tensors]
    groups = {parent for name in (*tensors, *further) for parent in _parents(name)}.union(further)
    problems = []
    for name, tensor in tensors.items():
        if tensor.dtype not in _PLAIN_TYPES:
            problems.append(f"{name}: it has no type for {tensor.dtype.name}{list(tensor.shape)}")
        elif len(tensor.shape) > _MAX_RANK:
            problems.append(f"{name}: {len(tensor.shape)} dimensions, HDF5 has at most {_MAX_RANK}")
        elif any(part in ("", ".") for part in name.split("/")) or "\0" in name or not _is_unicode(name):
            problems.append(f"{name!r}: it is no path in an HDF5 file")
        elif name in groups:
            problems.append(f"{name}: another name goes on where it ends, and a dataset is no group")
    if problems:
        raise UnsupportedError(f"HDF5 cannot hold {len(problems)} of {len(tensors)} tensors", problems=problems)


def _parents(name: str) -> Iterable[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _is_unicode(text: str) -> bool:
    return text.isascii() or text == text.encode("utf-8", "ignore").decode()


def _make_dataset(h5py: Any, file: Any, name: str, tensor: Tensor) -> int | None:
    """Make a dataset with room for its bytes, and return where they go; None where it has none."""
    parent, _, leaf = name.rpartition("/")
    group = file.require_group(parent) if parent else file
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # the place is known before any byte is written
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    element = np.dtype("V2") if tensor.dtype is DType.bfloat16 else tensor.dtype.numpy
    kind = h5py.h5t.py_create(element, logical=True)
    space = h5py.h5s.create_simple(tensor.shape) if tensor.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    dataset = h5py.h5d.create(group.id, leaf.encode(), kind, space, plan)
    if not tensor.size:
        return None
    offset = dataset.get_offset()
    if offset is None or dataset.get_storage_size() != tensor.nbytes:
        raise FormatError(f"HDF5 gave no room of {tensor.nbytes} bytes", where=f"dataset {name!r}")
    return int(offset)


def _write_attribute(node: Any, name: str, value: Text) -> None:
    """Write a text as one of variable length, a list as bytes of one length, split where it would be too long."""
    if isinstance(value, str):
        node.attrs[name] = value
        return
    items = np.array([item.encode() for item in value]) if value else np.array([], "S1")
    if items.dtype.itemsize > _MAX_HEADER_BYTES:
        raise UnsupportedError(f"a text of {items.dtype.itemsize} bytes is too long for an attribute", where=name)
    if items.nbytes <= _MAX_HEADER_BYTES:
        node.attrs[name] = items
        return
    each = _MAX_HEADER_BYTES // items.dtype.itemsize
    for number, start in enumerate(range(0, len(items), each)):
        node.attrs[f"{name}{number}"] = items[start : start + each]
