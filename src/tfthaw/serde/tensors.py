"""TensorProto <-> tensors.

A TensorProto stores its elements as raw bytes (`tensor_content`) or as one list by type, in which the last value stands
for all that follow. `ProtoTensor` keeps the message, so that the form in which a value was stored survives.

Source: tensor.proto, and Tensor::FromProto of tensor.cc, of TensorFlow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from tfthaw._files import CHUNK_BYTES, Bytes, FileSlice, Progress, human_bytes
from tfthaw.dtypes import DType
from tfthaw.errors import LimitError, StructureError, UnsupportedError
from tfthaw.formats.wire import Contents
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Array, FileTensor, Tensor

Payloads = Mapping[bytes, Any]
"""The bytes that a reader left in the file, by the token that stands for them in the message."""

INLINE_BYTES = 4096
"""Values up to this size are written into their message; larger ones are streamed behind it."""

_LIST_FIELDS = {
    DType.float32: "float_val", DType.float64: "double_val", DType.int64: "int64_val", DType.bool: "bool_val",
    DType.complex64: "scomplex_val", DType.complex128: "dcomplex_val", DType.uint32: "uint32_val",
    DType.uint64: "uint64_val", DType.float16: "half_val", DType.bfloat16: "half_val",
} | dict.fromkeys(
    (DType.int32, DType.uint8, DType.int16, DType.int8, DType.uint16, DType.qint8, DType.quint8, DType.qint16,
     DType.quint16, DType.qint32, DType.int4, DType.uint4, DType.int2, DType.uint2), "int_val"
)  # fmt: skip
_PAIRED = ("scomplex_val", "dcomplex_val")
_HALVES = (DType.float16, DType.bfloat16)


class ProtoTensor(Tensor):
    """A tensor that is a TensorProto.

    Attributes:
        message: The message; it must not be changed.
        content: Where its bytes are, if they were left in the file.
    """

    def __init__(self, message: Any, payloads: Payloads, limits: Limits = DEFAULT_LIMITS) -> None:
        self.message = message
        self.dtype = DType(message.dtype)
        # a shape that is not fully known is no shape of a value; numpy() refuses it, and until then it counts as empty
        self.shape = tuple(max(0, dim.size) for dim in message.tensor_shape.dim)
        self.content: FileSlice | None = payloads.get(message.tensor_content) if message.tensor_content else None
        self._limits = limits

    def numpy(self) -> Array:
        """Return the values; stored raw bytes come as a read-only view.

        Raises:
            StructureError: The stored values do not fit the shape.
            LimitError: A few stored values stand for more than `max_tensor_bytes`.
            UnsupportedError: Resources and variants are no arrays.
        """
        self._check()
        if self.content is not None:
            return FileTensor(self.dtype, self.shape, self.content).numpy()
        if self.dtype is DType.string:
            values = np.empty(self.size, object)
            values[:] = list(_spread(list(self.message.string_val), self.size, b""))
            return values.reshape(self.shape)
        if self.message.tensor_content:
            raw = np.frombuffer(self.message.tensor_content, self.dtype.numpy)
        elif self.dtype.name.startswith("float8"):
            raw = np.frombuffer(self.message.float8_val, self.dtype.numpy)
        else:
            raw = self._listed()
        return _fill(raw, self.size, self.dtype).reshape(self.shape)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Yield the raw bytes from the file where they were left there, else the decoded elements."""
        if self.content is not None:
            self._check()
            return self.content.chunks(chunk_bytes)
        return super().chunks(chunk_bytes)

    def copy_to(self, file: BinaryIO, progress: Progress | None = None) -> int:
        """Append the bytes to a file, inside the kernel where they lie in one."""
        if self.content is not None:
            self._check()
            return self.content.copy_to(file, progress)
        return super().copy_to(file, progress)

    def _listed(self) -> Array:
        """Return the values of the list field of the type."""
        field = _LIST_FIELDS.get(self.dtype)
        if field is None:
            raise UnsupportedError(f"a constant of type {self.dtype.name} is no array")
        values = getattr(self.message, field)
        if field in _PAIRED and len(values) % 2:
            raise StructureError(f"{len(values)} numbers are stored, and {self.dtype.name} takes two for each element")
        if self.dtype in _HALVES:
            return np.array(values, np.int64).astype(np.uint16).view(self.dtype.numpy)
        if field == "scomplex_val":
            return np.array(values, np.float32).view(np.complex64)
        if field == "dcomplex_val":
            return np.array(values, np.float64).view(np.complex128)
        if field == "int_val":
            return np.array(values, np.int32).astype(self.dtype.numpy)
        return np.array(values, self.dtype.numpy)

    def _check(self) -> None:
        """Refuse what cannot be an array before anything is allocated."""
        if not self.dtype.is_numeric and self.dtype is not DType.string:
            raise UnsupportedError(f"a constant of type {self.dtype.name} is no array")
        self.check()

    def check(self) -> None:
        """Refuse a shape that is none, or stored values that do not fit it; values are not read.

        Raises:
            StructureError: The shape is not fully known, or other values are stored than it needs.
            LimitError: A few stored values stand for more than `max_tensor_bytes`.
        """
        shape = self.message.tensor_shape
        if shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
            raise StructureError("a constant's shape is not fully known")
        claimed = self.size * max(1, self.dtype.itemsize)
        if claimed > self._limits.max_tensor_bytes or len(self.shape) > self._limits.max_rank:
            raise LimitError(f"a constant claims {human_bytes(claimed)} in shape {list(self.shape)}")
        stored = self.content.length if self.content is not None else len(self.message.tensor_content)
        if stored and self.dtype.is_numeric and stored != claimed:
            raise StructureError(
                f"{stored} bytes are stored, {self.dtype.name}{list(self.shape)} needs {claimed}"
            )


def tensor_from_proto(message: Any, payloads: Payloads, limits: Limits = DEFAULT_LIMITS) -> ProtoTensor:
    """Return the tensor that a TensorProto holds, without reading its values."""
    return ProtoTensor(message, payloads, limits)


def tensor_to_proto(tensor: Tensor, target: Any, contents: Contents) -> None:
    """Write a tensor into an empty TensorProto.

    Args:
        tensor: The tensor. A `ProtoTensor` keeps the form in which it was stored; others become raw bytes.
        target: The message to fill.
        contents: Takes the values that are too large for a message.
    """
    if isinstance(tensor, ProtoTensor):
        target.CopyFrom(tensor.message)
        if tensor.content is not None:
            target.tensor_content = contents.add(tensor.content)
        return
    target.dtype = int(tensor.dtype)
    target.tensor_shape.SetInParent()
    for size in tensor.shape:
        target.tensor_shape.dim.add().size = size
    if tensor.dtype is DType.string:
        target.string_val.extend(tensor.numpy().reshape(-1).tolist())
    elif tensor.nbytes <= INLINE_BYTES:
        target.tensor_content = b"".join(chunk.tobytes() for chunk in tensor.chunks())
    else:
        target.tensor_content = contents.add(tensor)


def _spread(values: list[Any], size: int, empty: Any) -> Iterator[Any]:
    """Yield size values, the last one repeated."""
    if len(values) > size:
        raise StructureError(f"{len(values)} values are stored for {size} elements")
    last = values[-1] if values else empty
    return itertools.chain(values, itertools.repeat(last, size - len(values)))


def _fill(raw: Array, size: int, dtype: DType) -> Array:
    """Extend stored values to size, the last one repeated; nothing stored means zeros."""
    if len(raw) == size:
        return raw
    if len(raw) > size:
        raise StructureError(f"{len(raw)} values are stored for {size} elements")
    if len(raw) <= 1:  # one value for the whole: a broadcast view takes no memory
        value = raw[0] if len(raw) else np.zeros((), dtype.numpy)[()]
        return np.broadcast_to(np.asarray(value, dtype.numpy), (size,))
    whole = np.empty(size, dtype.numpy)
    whole[: len(raw)] = raw
    whole[len(raw) :] = raw[-1]
    return whole
