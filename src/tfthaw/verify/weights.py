"""Compare tensors bit for bit, in bounded memory.

The written artifact is opened anew and read from disk; nothing of the writing is trusted. NaNs compare by their bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfthaw._files import Bytes, Progress
from tfthaw.dtypes import DType
from tfthaw.errors import VerificationError
from tfthaw.tensors import Tensor


_THREADS = 2  # reading and comparing leave the interpreter alone; more threads wait for memory, not for each other
_PARALLEL_BYTES = 32 << 20  # less is compared before threads would have started


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
    expected: Mapping[str, Tensor], written: Mapping[str, Tensor], progress: Progress | None = None
) -> Comparison:
    """Compare every expected tensor with the written one of the same name.

    Args:
        expected: The source's tensors by name.
        written: The tensors of what was written; further ones are left alone.
        progress: Called with the number of bytes just compared.
    """

    def compare(name: str) -> str | None:
        tensor = expected[name]
        problem = difference(tensor, written[name]) if name in written else "it is missing"
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
    expected: Mapping[str, Tensor], written: Mapping[str, Tensor], *, path: str, progress: Progress | None = None
) -> Comparison:
    """Compare, and refuse any difference.

    Raises:
        VerificationError: With one sentence for each tensor that differs or is missing.
    """
    comparison = compare_tensors(expected, written, progress)
    if comparison.different:
        raise VerificationError(
            f"{len(comparison.different)} of {comparison.compared} tensors are not bit for bit the source's",
            report=comparison.different, path=path, hint="what was written was removed; please report this",
        )  # fmt: skip
    return comparison


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
