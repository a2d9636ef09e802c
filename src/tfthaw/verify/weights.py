"""Compare tensors bit for bit, in bounded memory.

The written artifact is opened anew and read from disk; nothing of the writing is trusted. NaNs compare by their bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfthaw._files import Bytes, FileSlice, Progress, SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import VerificationError
from tfthaw.ir.graph import Graph
from tfthaw.tensors import FileTensor, Tensor

_THREADS = 2  # reading and comparing leave the interpreter alone; more threads wait for memory, not for each other
_PARALLEL_BYTES = 32 << 20  # less is compared before threads would have started


class EarlyComparison:
    """Compares values with what was written of them while the rest is still being written.

    It knows places in a file, not names. That a tensor of the finished artifact lies in a place that was compared is
    found out when the artifact is opened anew.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._found: dict[tuple[int, int], tuple[object, Future[str | None]]] = {}

    def written(self, value: Any, path: str, offset: int) -> None:
        """Begin to compare a value with a range of a file."""
        if isinstance(value, Tensor):
            self._found[offset, value.nbytes] = (value, self._pool.submit(_difference_in_file, value, path, offset))

    def is_same(self, one: Tensor, other: Tensor) -> bool:
        """Whether a written tensor is where the very tensor that is expected was found to be, bit for bit."""
        part = getattr(other, "content", None)
        if not isinstance(part, FileSlice) or one.dtype is not other.dtype or one.shape != other.shape:
            return False
        value, found = self._found.get((part.offset, part.length), (None, None))
        return value is one and found is not None and found.result() is None

    def __enter__(self) -> EarlyComparison:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _difference_in_file(tensor: Tensor, path: str, offset: int) -> str | None:
    with SourceFile(path) as file:
        return difference(tensor, FileTensor(tensor.dtype, tensor.shape, file.slice(offset, tensor.nbytes)))


@dataclass(frozen=True)
class Comparison:
    """What a comparison of tensors found.

    Attributes:
        compared: How many tensors were compared.
        bytes: How many bytes of each side.
        different: One sentence for each tensor that differs or is missing.
    """

    compared: int
    bytes: int
    different: tuple[str, ...]


def compare_tensors(
    expected: Mapping[str, Tensor],
    written: Mapping[str, Tensor],
    progress: Progress | None = None,
    early: EarlyComparison | None = None,
) -> Comparison:
    """Compare every expected tensor with the written one of the same name.

    Args:
        expected: The source's tensors by name.
        written: The tensors of what was written; further ones are left alone.
        progress: Called with the number of bytes just compared.
        early: What was compared already.
    """

    def compare(name: str) -> str | None:
        tensor = expected[name]
        problem: str | None = "it is missing"
        if name in written:
            is_same = early is not None and early.is_same(tensor, written[name])
            problem = None if is_same else difference(tensor, written[name])
        if progress is not None:
            progress(tensor.nbytes)
        return f"{name}: {problem}" if problem else None

    compared = sum(expected[name].nbytes for name in expected)
    if compared < _PARALLEL_BYTES:
        different = list(map(compare, expected))
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            different = list(pool.map(compare, expected))
    return Comparison(len(expected), compared, tuple(problem for problem in different if problem))


def require_same(
    expected: Mapping[str, Tensor],
    written: Mapping[str, Tensor],
    *,
    path: str,
    progress: Progress | None = None,
    early: EarlyComparison | None = None,
) -> Comparison:
    """Compare, and refuse any difference.

    Raises:
        VerificationError: With one sentence for each tensor that differs or is missing.
    """
    comparison = compare_tensors(expected, written, progress, early)
    if comparison.different:
        raise VerificationError(
            f"{len(comparison.different)} of {comparison.compared} tensors are not bit for bit the source's",
            report=comparison.different, path=path, hint="what was written was removed; please report this",
        )  # fmt: skip
    return comparison


def graph_constants(graph: Graph) -> dict[str, Tensor]:
    """Return the constants of a graph and of its functions, by function and node."""
    places = [("", graph.nodes), *((function.name, function.nodes) for function in graph.functions)]
    return {
        f"{function}:{node.name}": tensor
        for function, nodes in places
        for node in nodes
        if (tensor := node.tensor()) is not None and (tensor.dtype.is_numeric or tensor.dtype is DType.string)
    }


def difference(one: Tensor, other: Tensor) -> str | None:
    """Return how two tensors differ, as a sentence, or None where they are the same bit for bit."""
    if one.dtype is not other.dtype:
        return f"type {one.dtype.name}, written {other.dtype.name}"
    if one.shape != other.shape:
        return f"shape {list(one.shape)}, written {list(other.shape)}"
    if one.dtype is DType.string:
        values, others = one.numpy().reshape(-1), other.numpy().reshape(-1)
        wrong = [position for position, (a, b) in enumerate(zip(values, others, strict=True)) if a != b]
        return f"{len(wrong)} of {len(values)} strings differ, the first at {wrong[0]}" if wrong else None
    offset = 0
    for chunk, written in aligned(one.chunks(), other.chunks()):
        if chunk is None or written is None:
            return f"{one.nbytes} bytes, written {other.nbytes}"
        if not same_bytes(chunk, written):
            return f"the first different byte is {offset + int(np.argmax(chunk != written))}"
        offset += len(chunk)
    return None


def same_bytes(one: Bytes, other: Bytes) -> bool:
    """Whether two arrays of as many bytes are equal; eight bytes at a time, which is four times as fast."""
    whole = len(one) // 8 * 8
    if whole and one.ctypes.data % 8 == 0 and other.ctypes.data % 8 == 0:
        eights: Any = one[:whole].view(np.uint64) == other[:whole].view(np.uint64)
        return bool(eights.all()) and bool((one[whole:] == other[whole:]).all())
    return bool((one == other).all())


def aligned(one: Iterator[Bytes], other: Iterator[Bytes]) -> Iterator[tuple[Bytes | None, Bytes | None]]:
    """Pair two streams of chunks so that both parts of a pair have the same length; None where one ends first."""
    a: Bytes | None = np.empty(0, np.uint8)
    b: Bytes | None = np.empty(0, np.uint8)
    while True:
        while a is not None and len(a) == 0:
            a = next(one, None)
        while b is not None and len(b) == 0:
            b = next(other, None)
        if a is None or b is None:
            if a is not b:
                yield a, b
            return
        count = min(len(a), len(b))
        yield a[:count], b[:count]
        a, b = a[count:], b[count:]
