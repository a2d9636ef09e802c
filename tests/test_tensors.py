"""Lazy tensors: values, streams of bytes, and the ways in which parts may fail to make a whole."""

import time

import google_crc32c
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw._files import SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import ChecksumError, LimitError, StructureError, UnsupportedError
from tfthaw.tensors import (
    ArrayTensor,
    CastTensor,
    FileTensor,
    JoinedTensor,
    LazyTensor,
    TensorPart,
    as_bytes,
    reshape,
    slice_tensor,
)

CUBE = np.arange(4 * 6 * 5, dtype=np.int32).reshape(4, 6, 5)


def stream(tensor, chunk_bytes=1 << 20):
    return b"".join(bytes(chunk) for chunk in tensor.chunks(chunk_bytes))


def part(starts, array):
    return TensorPart(tuple(starts), ArrayTensor(array))


@pytest.fixture
def slice_of(tmp_path):
    def make(data, before=b"???"):
        path = tmp_path / "data"
        path.write_bytes(before + data + b"!!")
        return SourceFile(path).slice(len(before), len(data))

    return make


class TestArrayTensor:
    def test_facts(self):
        tensor = ArrayTensor(CUBE)
        assert (tensor.dtype, tensor.shape, tensor.size, tensor.nbytes) == (DType.int32, (4, 6, 5), 120, 480)
        assert repr(tensor) == "ArrayTensor(int32[4, 6, 5])"
        assert stream(tensor, 7) == CUBE.tobytes()

    def test_big_endian_arrays_become_little_endian(self):
        tensor = ArrayTensor(CUBE.astype(">i4"))
        assert stream(tensor) == CUBE.tobytes()
        assert np.array_equal(tensor.numpy(), CUBE)

    def test_strided_arrays_become_row_major(self):
        assert stream(ArrayTensor(CUBE.T)) == np.ascontiguousarray(CUBE.T).tobytes()

    @pytest.mark.parametrize("array", [np.array([["a", "é"]]), np.array([[b"a", "é".encode()]], object)])
    def test_strings(self, array):
        tensor = ArrayTensor(array)
        assert (tensor.dtype, tensor.nbytes) == (DType.string, 0)
        assert tensor.numpy().tolist() == [[b"a", "é".encode()]]

    def test_strings_have_no_stream(self):
        with pytest.raises(UnsupportedError, match="a string tensor has no row of bytes"):
            stream(ArrayTensor(np.array(["a"])))

    def test_the_type_can_be_given(self):
        tensor = ArrayTensor(np.array([1, 2], np.int8), DType.qint8)
        assert (tensor.dtype, stream(tensor)) == (DType.qint8, b"\x01\x02")

    def test_arrays_that_tensorflow_has_not(self):
        with pytest.raises(UnsupportedError, match="no element type like numpy's datetime64"):
            ArrayTensor(np.array(["2020-01-01"], "datetime64[D]"))


class TestFileTensor:
    def test_values_and_stream(self, slice_of):
        data = CUBE.tobytes()
        tensor = FileTensor(DType.int32, (4, 6, 5), slice_of(data), crc32c=google_crc32c.value(data))
        assert np.array_equal(tensor.numpy(), CUBE)
        assert not tensor.numpy().flags.writeable
        assert stream(tensor, 64) == CUBE.tobytes()
        assert tensor.nbytes == CUBE.nbytes

    def test_unaligned_values(self, slice_of):
        tensor = FileTensor(DType.float64, (2,), slice_of(np.array([1.5, 2.5]).tobytes(), before=b"?"))
        assert tensor.numpy().tolist() == [1.5, 2.5]

    @pytest.mark.parametrize(("dtype", "name"), [(DType.bfloat16, "bfloat16"), (DType.float8_e4m3fn, "float8_e4m3fn")])
    def test_extension_types(self, slice_of, dtype, name):
        array = np.array([0.5, -2], getattr(ml_dtypes, name))
        tensor = FileTensor(dtype, (2,), slice_of(array.tobytes()))
        assert tensor.numpy().dtype == array.dtype
        assert tensor.numpy().astype(np.float32).tolist() == [0.5, -2]

    def test_a_wrong_checksum_is_found_both_ways(self, slice_of):
        tensor = FileTensor(DType.uint8, (3,), slice_of(b"abc"), crc32c=1, name="w")
        with pytest.raises(ChecksumError, match=r"tensor 'w' at offset 3: checksum mismatch \(stored 0x00000001"):
            tensor.numpy()
        with pytest.raises(ChecksumError):
            stream(tensor)
        assert tensor.numpy(check=False).tobytes() == b"abc"

    def test_a_size_that_does_not_fit_the_shape(self, slice_of):
        with pytest.raises(StructureError, match=r"3 bytes are stored, float32\[4\] needs 16"):
            FileTensor(DType.float32, (4,), slice_of(b"abc"))

    def test_variants_are_bytes_but_no_array(self, slice_of):
        tensor = FileTensor(DType.variant, (2,), slice_of(b"abcde"))
        assert (stream(tensor), tensor.nbytes) == (b"abcde", 5)
        with pytest.raises(UnsupportedError, match="a variant tensor is no array"):
            tensor.numpy()

    @pytest.mark.parametrize("shape", [(0, 1 << 62, 8), (1,) * 100])
    def test_shapes_that_numpy_has_not(self, slice_of, shape):
        tensor = FileTensor(DType.uint8, shape, slice_of(b"" if 0 in shape else b"a"))
        assert len(stream(tensor)) == tensor.size
        with pytest.raises(UnsupportedError, match="numpy has no array of the shape"):
            tensor.numpy()


def test_lazy_tensors_compute_when_asked():
    calls = []
    tensor = LazyTensor(DType.int32, [2], lambda: calls.append(1) or np.array([1, 2], np.int32))
    assert (tensor.shape, tensor.nbytes, calls) == ((2,), 8, [])
    assert stream(tensor) == np.array([1, 2], np.int32).tobytes()
    assert calls == [1]


class TestCastTensor:
    @settings(max_examples=30, deadline=None)
    @given(chunk_bytes=st.integers(1, 200))
    def test_stream_equals_values(self, chunk_bytes):
        tensor = CastTensor(ArrayTensor(np.linspace(-3, 3, 50)), DType.bfloat16)
        assert (tensor.dtype, tensor.nbytes) == (DType.bfloat16, 100)
        assert stream(tensor, chunk_bytes) == tensor.numpy().tobytes()

    def test_a_joined_base(self):
        joined = JoinedTensor(DType.int32, (4, 6, 5), [part((0, 0, 0), CUBE[:, :1]), part((0, 1, 0), CUBE[:, 1:])])
        assert stream(CastTensor(joined, DType.float32), 20) == CUBE.astype(np.float32).tobytes()


@st.composite
def tilings(draw):
    """A whole of up to three dimensions, cut again and again."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    boxes = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6))):
        starts, lengths = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, lengths[axis]))
        for begin, length in ((0, cut), (cut, lengths[axis] - cut)):
            boxes.append((
                (*starts[:axis], starts[axis] + begin, *starts[axis + 1 :]),
                (*lengths[:axis], length, *lengths[axis + 1 :]),
            ))
    return shape, draw(st.permutations(boxes))


def region(starts, lengths):
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))


class TestJoinedTensor:
    @settings(max_examples=150, deadline=None)
    @given(tiling=tilings(), chunk_bytes=st.integers(1, 12))
    def test_any_tiling_makes_the_whole(self, tiling, chunk_bytes):
        shape, boxes = tiling
        whole = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
        joined = JoinedTensor(DType.int64, shape, [part(box[0], whole[region(*box)]) for box in boxes])
        assert np.array_equal(joined.numpy(), whole)
        assert stream(joined, 8 * chunk_bytes) == whole.tobytes()

    @settings(max_examples=150, deadline=None)
    @given(
        shape=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        boxes=st.lists(st.tuples(*[st.integers(0, 2)] * 2, *[st.integers(0, 3)] * 2), max_size=4),
    )
    def test_refuses_exactly_what_is_no_tiling(self, shape, boxes):
        count = np.zeros(shape, int)
        fits = True
        parts = []
        for row, column, height, width in boxes:
            fits &= row + height <= shape[0] and column + width <= shape[1]
            count[row : row + height, column : column + width] += 1
            parts.append(part((row, column), np.zeros((height, width), np.uint8)))
        if fits and (count == 1).all():
            assert JoinedTensor(DType.uint8, shape, parts).numpy().shape == shape
        else:
            with pytest.raises(StructureError, match="do not make"):
                JoinedTensor(DType.uint8, shape, parts)

    @pytest.mark.parametrize(
        ("starts", "problem"),
        [
            ([0, 1], "parts overlap or leave a hole at [1, 0, 0]"),
            ([0, 3], "the part at [3, 0, 0] of shape [2, 6, 5] leaves the whole"),
            ([0], "the parts hold 60 elements, the whole has 120"),
            ([-1, 2], "the part at [-1, 0, 0] of shape [2, 6, 5] leaves the whole"),
        ],
    )
    def test_says_what_is_wrong(self, starts, problem):
        with pytest.raises(StructureError, match="the parts of tensor 'w' do not make") as caught:
            JoinedTensor(DType.int32, (4, 6, 5), [part((start, 0, 0), CUBE[:2]) for start in starts], name="w")
        assert caught.value.problems == (problem,)

    def test_a_part_of_another_rank(self):
        with pytest.raises(StructureError, match="leaves the whole"):
            JoinedTensor(DType.int32, (4, 6, 5), [part((0, 0), CUBE[0])])

    @staticmethod
    def onion(rank):
        """Tile a cube of twos with one element, its neighbour, the neighbour of both, and so on."""
        zeros = (0,) * rank
        parts = [TensorPart(zeros, LazyTensor(DType.uint8, (1,) * rank, lambda: np.zeros((1,) * rank, np.uint8)))]
        for twos in range(rank):
            shape = (2,) * twos + (1,) * (rank - twos)
            starts = tuple(int(axis == twos) for axis in range(rank))
            layer = LazyTensor(DType.uint8, shape, lambda shape=shape: np.ones(shape, np.uint8))
            parts.append(TensorPart(starts, layer))
        return parts

    def test_every_dimension_split(self):
        assert JoinedTensor(DType.uint8, [2] * 10, self.onion(10)).numpy().sum() == 1023

    def test_parts_in_too_many_dimensions_are_refused_before_any_work(self):
        with pytest.raises(StructureError, match="31 parts split 30 dimensions, more than can be checked"):
            JoinedTensor(DType.uint8, [2] * 30, self.onion(30))

    def test_a_hundred_thousand_parts_take_no_square(self):
        rows = np.arange(200_000, dtype=np.int32).reshape(100_000, 2)
        parts = [part((index, 0), rows[index : index + 1]) for index in range(len(rows))]
        began = time.process_time()
        joined = JoinedTensor(DType.int32, rows.shape, parts)
        assert time.process_time() - began < 5  # the square of their number took an hour
        assert np.array_equal(joined.numpy(), rows)

    def test_inner_splits_are_streamed_in_bounded_pieces(self):
        parts = [part((0, 0, 0), CUBE[:, :, :2]), part((0, 0, 2), CUBE[:, :, 2:])]
        joined = JoinedTensor(DType.int32, (4, 6, 5), parts)
        assert max(len(chunk) for chunk in joined.chunks(64)) <= 64

    def test_a_whole_beyond_memory(self):
        halves = [TensorPart((at,), LazyTensor(DType.uint8, [1 << 61], lambda: None)) for at in (0, 1 << 61)]
        with pytest.raises(LimitError, match="no memory for the 4611686018427387904 bytes of tensor 'w'"):
            JoinedTensor(DType.uint8, [1 << 62], halves, name="w").numpy()

    def test_strings(self):
        values = np.array([b"a", b"bb", b""], object)
        joined = JoinedTensor(DType.string, (3,), [part((2,), values[2:]), part((0,), values[:2])])
        assert joined.numpy().tolist() == values.tolist()


class TestSliceTensor:
    def test_a_slice_of_anything(self):
        part_of = slice_tensor(ArrayTensor(CUBE), (1, 2, 0), (2, 3, 5))
        assert np.array_equal(part_of.numpy(), CUBE[1:3, 2:5])
        assert stream(part_of) == CUBE[1:3, 2:5].tobytes()

    def test_the_whole_is_itself(self):
        whole = ArrayTensor(CUBE)
        assert slice_tensor(whole, (0, 0, 0), (4, 6, 5)) is whole

    def test_a_stored_part_is_itself(self):
        parts = [part((0, 0, 0), CUBE[:1]), part((1, 0, 0), CUBE[1:])]
        joined = JoinedTensor(DType.int32, (4, 6, 5), parts)
        assert slice_tensor(joined, (1, 0, 0), (3, 6, 5)) is parts[1].tensor
        assert np.array_equal(slice_tensor(joined, (0, 1, 0), (4, 1, 5)).numpy(), CUBE[:, 1:2])

    @pytest.mark.parametrize(("starts", "shape"), [((0,), (1,)), ((3, 0, 0), (2, 6, 5)), ((-1, 0, 0), (1, 6, 5))])
    def test_slices_that_leave_the_whole(self, starts, shape):
        with pytest.raises(StructureError, match="leaves a tensor of"):
            slice_tensor(ArrayTensor(CUBE), starts, shape)


def test_as_bytes_is_a_view_where_it_can_be():
    assert np.shares_memory(as_bytes(CUBE), CUBE)
    assert as_bytes(np.float32(1)).tobytes() == np.float32(1).tobytes()


def test_reshape():
    assert reshape(np.arange(6), (2, 3)).shape == (2, 3)
