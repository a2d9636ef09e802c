"""What the readers of both checkpoint formats have in common.

`CheckpointReader` is the face; `tensor_bundle.BundleReader` and `tensor_slices.TensorSlicesReader` stand behind it.
This module reads no bytes.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from tfthaw._files import CHUNK_BYTES, Bytes
from tfthaw.dtypes import DType
from tfthaw.errors import NotFoundError, StructureError, TfthawError, UnsupportedError
from tfthaw.formats.ordered_code import WHOLE, Extent
from tfthaw.limits import Limits
from tfthaw.tensors import Array, JoinedTensor, Tensor, TensorPart

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The key under which object-based checkpoints keep their object graph."""

Value = TypeVar("Value")
Reader = TypeVar("Reader", bound="CheckpointReader")


class Versions(NamedTuple):
    """A VersionDef: who wrote the file and who can read it.

    Attributes:
        producer: Version of the format that was written.
        min_consumer: Oldest version that can read it.
        bad_consumers: Versions that cannot.
    """

    producer: int
    min_consumer: int
    bad_consumers: tuple[int, ...] = ()


class CheckpointEntry(Protocol):
    """What a checkpoint says of one tensor without reading it."""

    @property
    def dtype(self) -> DType:
        """The element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions of the whole tensor."""

    @property
    def nbytes(self) -> int:
        """Bytes that are stored, those of all parts for a partitioned tensor; 0 where the format does not tell."""

    @property
    def slices(self) -> tuple[tuple[Extent, ...], ...]:
        """The parts of a partitioned tensor; empty for one that was saved whole."""


class CheckpointReader(abc.ABC):
    """A checkpoint opened for reading, whatever its format.

    Attributes:
        path: The prefix or file, as given.
        versions: The versions of the format.
        entries: Key -> what is known without reading; in the order of the keys.
        tensors: Key -> the tensor, made when it is asked for.
    """

    path: str
    versions: Versions
    entries: Mapping[str, CheckpointEntry]
    tensors: Mapping[str, Tensor]

    @property
    def producer(self) -> int:
        """Version of the format that was written."""
        return self.versions.producer

    @property
    def is_object_based(self) -> bool:
        """Whether keys are paths of an object graph (`tf.train.Checkpoint`), not names (`Saver`)."""
        return OBJECT_GRAPH_KEY in self.entries

    def keys(self) -> list[str]:
        """Return the keys of all tensors, sorted; slices of partitioned tensors are not among them."""
        return list(self.entries)

    @abc.abstractmethod
    def tensor(self, key: str) -> Tensor:
        """Return one tensor; its bytes are read later.

        Raises:
            NotFoundError: There is no such key.
            FormatError: Its entry is damaged.
            StructureError: Its entry contradicts itself.
        """

    @abc.abstractmethod
    def files(self) -> list[Path]:
        """Return the files of the checkpoint that are there, in the order of their shards."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the files; arrays that were read stay valid."""

    def __enter__(self: Reader) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _missing(self, key: str) -> NotFoundError:
        return NotFoundError.named("tensor", key, self.entries, path=self.path)


class LazyMapping(Mapping[str, Value], Generic[Value]):
    """A mapping that makes a value each time it is asked for one."""

    def __init__(self, names: Mapping[str, object], make: Callable[[str], Value]) -> None:
        self._names = names
        self._make = make

    def __getitem__(self, key: str) -> Value:
        return self._make(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, key: object) -> bool:
        return key in self._names


class UnreadableTensor(Tensor):
    """A tensor whose bytes are not there.

    So listing a damaged checkpoint works, and reading it says why not.

    Attributes:
        error: What is raised when the tensor is read.
    """

    def __init__(self, entry: CheckpointEntry, error: TfthawError) -> None:
        self.dtype = entry.dtype
        self.shape = entry.shape
        self.error = error

    def numpy(self) -> Array:
        """Raise the error."""
        raise copy.copy(self.error)  # a fresh one, or each reader would add to the traceback of the last

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Raise the error."""
        raise copy.copy(self.error)


def check_versions(versions: Versions, consumer: int, path: str) -> None:
    """Hold the versions of a checkpoint against the one that this library reads.

    Raises:
        UnsupportedError: The checkpoint says that it must not be read by this version.
    """
    if versions.min_consumer > consumer or consumer in versions.bad_consumers:
        raise UnsupportedError(
            f"the checkpoint needs a reader of version {versions.min_consumer}, this one has version {consumer}",
            path=path,
            hint="it was written by a newer TensorFlow; look for a newer tfthaw",
        )  # fmt: skip


def check_shape(shape: Sequence[int], limits: Limits, path: str, where: str) -> None:
    """Refuse a shape that no stored tensor can have.

    Raises:
        StructureError: A dimension is negative or there are too many of them.
    """
    if min(shape, default=0) < 0 or len(shape) > limits.max_rank:
        raise StructureError(f"a tensor cannot have the shape {list(shape)[:300]}", path=path, where=where)


def resolve_slice(extents: Sequence[Extent], shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the starts and the shape of a slice of a whole of this shape, or None where the ranks differ."""
    if len(extents) != len(shape):
        return None
    lengths = [whole if length == WHOLE else length for (_, length), whole in zip(extents, shape, strict=True)]
    return tuple(start for start, _ in extents), tuple(lengths)


def join(entry: CheckpointEntry, parts: Sequence[TensorPart], *, key: str, path: str) -> Tensor:
    """Join the parts of a partitioned tensor.

    Raises:
        StructureError: The parts leave a hole, overlap or are of another type.
    """
    where = f"tensor {key!r}"
    wrong = sorted({part.tensor.dtype.name for part in parts if part.tensor.dtype is not entry.dtype})
    if wrong:
        raise StructureError(f"a {entry.dtype.name} tensor has parts of {', '.join(wrong)}", path=path, where=where)
    try:
        return JoinedTensor(entry.dtype, entry.shape, parts, name=key)
    except StructureError as error:
        raise StructureError(error.message, problems=error.problems, path=path, where=where) from error


def numeric_nbytes(dtype: DType, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor of a fixed-size type, 0 for any other."""
    return math.prod(shape) * dtype.itemsize
