"""The proof of a conversion: every tensor, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw.dtypes import DType
from tfthaw.errors import VerificationError
from tfthaw.tensors import ArrayTensor, JoinedTensor, LazyTensor, TensorPart
from tfthaw.verify.weights import aligned, compare_tensors, difference, require_same, same_bytes


def test_equal_tensors_are_counted_with_their_bytes():
    tensors = {"a": ArrayTensor(np.arange(6, dtype=np.float32)), "b": ArrayTensor(np.int64(3))}
    done = []
    comparison = compare_tensors(tensors, tensors | {"more": ArrayTensor(np.zeros(3))}, done.append)
    assert (comparison.compared, comparison.bytes, comparison.different) == (2, 32, ())
    assert sum(done) == 32


def test_what_is_missing_or_differs_is_named():
    a = {"kept": ArrayTensor(np.ones(3)), "gone": ArrayTensor(np.ones(1)), "off": ArrayTensor(np.zeros(4, np.uint8))}
    b = {"kept": ArrayTensor(np.ones(3)), "off": ArrayTensor(np.array([0, 0, 7, 0], np.uint8))}
    assert compare_tensors(a, b).different == ("gone: it is missing", "off: the first different byte is 2")
    with pytest.raises(VerificationError, match="2 of 3 tensors are not bit for bit the source's") as caught:
        require_same(a, b, path="out.pb")
    assert caught.value.report == ("gone: it is missing", "off: the first different byte is 2")
    assert caught.value.path == "out.pb"


def test_nothing_wrong_is_no_error():
    tensors = {"a": ArrayTensor(np.arange(5.0))}
    assert require_same(tensors, tensors, path="out.pb").compared == 1


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (np.zeros(2, np.float32), np.zeros(2, np.float64), "type float32, written float64"),
        (np.zeros((2, 3)), np.zeros((3, 2)), r"shape \[2, 3\], written \[3, 2\]"),
        (np.float32(0.0), np.float32(-0.0), "the first different byte is 3"),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), "1 of 2 strings differ, the first at 1"),
    ],
)
def test_differences_are_sentences(one, other, said):
    with pytest.raises(VerificationError, match=f"w: {said}"):
        require_same({"w": ArrayTensor(one)}, {"w": ArrayTensor(other)}, path="p")


def test_nan_is_the_same_as_the_nan_of_the_same_bits():
    quiet, loud = (np.array([bits], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert difference(ArrayTensor(quiet), ArrayTensor(quiet.copy())) is None
    assert difference(ArrayTensor(quiet), ArrayTensor(loud)) == "the first different byte is 0"


def test_a_tensor_that_gives_too_few_bytes_differs():
    short = LazyTensor(DType.uint8, (4,), lambda: np.zeros(3, np.uint8))
    assert difference(ArrayTensor(np.zeros(4, np.uint8)), short) == "4 bytes, written 4"


def test_parts_compare_with_the_whole():
    whole = np.arange(24, dtype=np.float32).reshape(6, 4)
    parts = [TensorPart((0, 0), ArrayTensor(whole[:, :1])), TensorPart((0, 1), ArrayTensor(whole[:, 1:]))]
    joined = JoinedTensor(DType.float32, (6, 4), parts)
    assert difference(joined, ArrayTensor(whole)) is None
    changed = whole.copy()
    changed[5, 3] += 1
    assert difference(joined, ArrayTensor(changed)) == "the first different byte is 94"  # 41b80000 and 41c00000


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=70), st.integers(0, 3), st.data())
def test_same_bytes_is_equality(data, start, draw):
    one = np.frombuffer(b"xxx" + data, np.uint8)[start:].copy()
    other = np.frombuffer(b"yyyy" + one.tobytes(), np.uint8)[4:]  # of another alignment
    assert same_bytes(one, other)
    if len(one):
        flipped = one.copy()
        flipped[draw.draw(st.integers(0, len(one) - 1))] ^= 1
        assert not same_bytes(one, flipped)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(1, 7))
def test_aligned_streams_lose_nothing(pieces, step):
    data = b"".join(pieces)
    chunks = [np.frombuffer(piece, np.uint8) for piece in pieces]
    others = [np.frombuffer(data[start : start + step], np.uint8) for start in range(0, len(data), step)]
    pairs = list(aligned(iter(chunks), iter(others)))
    assert all(a is not None and b is not None and len(a) == len(b) > 0 for a, b in pairs)
    assert b"".join(a.tobytes() for a, _ in pairs) == b"".join(b.tobytes() for _, b in pairs) == data
    longer = list(aligned(iter([*chunks, np.ones(1, np.uint8)]), iter(others)))
    assert longer[-1][1] is None
