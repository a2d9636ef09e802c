"""V1 checkpoints: what TensorFlow writes, and every way to be damaged."""

import contextlib
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    NotFoundError,
    StructureError,
    TfthawError,
    TruncatedError,
    UnsupportedError,
)
from tfthaw.formats.ordered_code import WHOLE, encode_slice_key
from tfthaw.formats.table import TableWriter
from tfthaw.formats.tensor_slices import TensorSlicesReader
from tfthaw.limits import Limits
from tfthaw.tensors import JoinedTensor

FLOATS = np.arange(6, dtype="<f4")

SAVEABLE = [
    DType.float32, DType.float64, DType.int32, DType.uint8, DType.int16, DType.int8, DType.complex64, DType.int64,
    DType.bool, DType.qint8, DType.quint8, DType.qint32, DType.uint16, DType.complex128, DType.float16, DType.string,
]  # fmt: skip
"""What TensorFlow's Save op takes; it refuses all others."""


def make(folder, tensors, *, name="c", versions=None):
    """Write a checkpoint of {name: (dtype, shape, {extents: TensorProto or bytes of a SavedTensorSlices})}."""
    message = proto.SavedTensorSlices()
    message.meta.versions.CopyFrom(proto.VersionDef(**({"producer": 1} if versions is None else versions)))
    rows = {}
    for tensor_name, (dtype, shape, slices) in tensors.items():
        meta = message.meta.tensor.add(name=tensor_name, type=dtype)
        meta.shape.SetInParent()
        for dimension in shape:
            meta.shape.dim.add(size=dimension)
        for extents, data in slices.items():
            part = meta.slice.add()
            for start, length in extents:
                part.extent.add(**({} if length == WHOLE else {"start": start, "length": length}))
            if isinstance(data, proto.TensorProto):
                saved = proto.SavedTensorSlices()
                saved.data.data.CopyFrom(data)
                data = saved.SerializeToString()
            if data is not None:
                rows[encode_slice_key(tensor_name.encode(), extents)] = data
    return make_table(folder / name, {b"": message.SerializeToString(), **rows})


def make_table(path, rows):
    with open(path, "wb") as file:
        table = TableWriter(file)
        for key, value in sorted(rows.items()):
            table.add(key, value)
        table.finish()
    return path


def floats(values=FLOATS):
    return proto.TensorProto(float_val=values.tolist())


def whole(dtype, values, **fields):
    return dtype, (len(values),), {((0, WHOLE),): proto.TensorProto(**fields)}


class TestValues:
    @pytest.mark.parametrize(
        ("dtype", "values", "fields"),
        [
            (DType.float32, [0.5, -2], {"float_val": [0.5, -2]}),
            (DType.float64, [0.5, -2], {"double_val": [0.5, -2]}),
            (DType.int32, [1, -2, 300], {"int_val": [1, -2, 300]}),
            (DType.int16, [1, -2, 300], {"int_val": [1, -2, 300]}),
            (DType.int8, [1, -2], {"int_val": [1, -2]}),
            (DType.uint8, [1, 255], {"int_val": [1, 255]}),
            (DType.uint16, [1, 65535], {"int_val": [1, 65535]}),
            (DType.qint32, [1, -2], {"int_val": [1, -2]}),
            (DType.int64, [1, -(1 << 60)], {"int64_val": [1, -(1 << 60)]}),
            (DType.uint32, [1, (1 << 32) - 1], {"uint32_val": [1, (1 << 32) - 1]}),
            (DType.uint64, [1, (1 << 64) - 1], {"uint64_val": [1, (1 << 64) - 1]}),
            (DType.bool, [True, False], {"bool_val": [True, False]}),
            (DType.float16, [1.0, -2.0], {"half_val": [0x3C00, 0xC000]}),
            (DType.bfloat16, [1.0, -2.0], {"half_val": [0x3F80, 0xC000]}),
            (DType.complex64, [1 + 2j], {"scomplex_val": [1, 2]}),
            (DType.complex128, [1 + 2j], {"dcomplex_val": [1, 2]}),
            (DType.string, [b"a", b""], {"string_val": [b"a", b""]}),
        ],
    )
    def test_every_typed_list(self, tmp_path, dtype, values, fields):
        with TensorSlicesReader(make(tmp_path, {"t": whole(dtype, values, **fields)})) as reader:
            tensor = reader.tensor("t")
            assert (tensor.dtype, tensor.shape) == (dtype, (len(values),))
            assert tensor.numpy().dtype == dtype.numpy
            assert tensor.numpy().tolist() == values
            if dtype is not DType.string:
                assert b"".join(bytes(chunk) for chunk in tensor.chunks()) == tensor.numpy().tobytes()

    def test_lists_that_are_not_packed(self, tmp_path):
        """A parser must take both forms of a repeated number, and lists in several pieces."""
        tensor_proto = b"".join(b"\x2d" + value.tobytes() for value in FLOATS[:2]) + b"\x2a\x10" + FLOATS[2:].tobytes()
        slice_proto = b"\x1a" + bytes([len(tensor_proto)]) + tensor_proto
        saved = b"\x12" + bytes([len(slice_proto)]) + slice_proto
        reader = TensorSlicesReader(make(tmp_path, {"t": (DType.float32, (6,), {((0, WHOLE),): saved})}))
        assert reader.tensor("t").numpy().tolist() == FLOATS.tolist()

    def test_scalars_and_empty_tensors(self, tmp_path):
        tensors = {
            "scalar": (DType.float32, (), {(): proto.TensorProto(float_val=[7])}),
            "empty": (DType.int64, (0, 3), {((0, WHOLE), (0, WHOLE)): proto.TensorProto()}),
            "no strings": (DType.string, (0,), {((0, WHOLE),): proto.TensorProto()}),
        }
        reader = TensorSlicesReader(make(tmp_path, tensors))
        assert reader.tensor("scalar").numpy().tolist() == 7
        assert reader.tensor("empty").numpy().shape == (0, 3)
        assert reader.tensor("no strings").numpy().shape == (0,)

    def test_large_floats_are_views_of_the_file(self, tmp_path):
        values = np.random.default_rng(0).random(1 << 20, np.float32)
        reader = TensorSlicesReader(make(tmp_path, {"t": whole(DType.float32, values, float_val=values.tolist())}))
        found = reader.tensor("t").numpy()
        assert np.array_equal(found, values)
        assert not found.flags.owndata


class TestFace:
    def test_facts(self, tmp_path):
        path = make(tmp_path, {"b": (DType.float32, (6,), {((0, WHOLE),): floats()}), "a": whole(DType.int8, [])})
        reader = TensorSlicesReader(path)
        assert (reader.producer, reader.num_shards, reader.is_object_based) == (1, 1, False)
        assert reader.keys() == list(reader.tensors) == ["a", "b"]
        assert (reader.entries["b"].shape, reader.entries["b"].nbytes, reader.entries["b"].slices) == ((6,), 24, ())
        assert reader.files() == [path]
        with pytest.raises(NotFoundError, match="no tensor 'c'"):
            reader.tensor("c")

    def test_a_file_without_versions_is_of_version_0(self, tmp_path):
        assert TensorSlicesReader(make(tmp_path, {}, versions={})).producer == 0

    def test_a_version_that_must_not_be_read(self, tmp_path):
        with pytest.raises(UnsupportedError, match="needs a reader of version 9"):
            TensorSlicesReader(make(tmp_path, {}, versions={"producer": 9, "min_consumer": 9}))


class TestSlices:
    GRID = FLOATS.reshape(2, 3)

    def shards(self, folder, *, shape=(2, 3), dtype=DType.float32):
        rows = [((0, 1), (0, WHOLE)), ((1, 1), (0, WHOLE))]
        make(folder, {"w": (DType.float32, (2, 3), {rows[0]: floats(self.GRID[0])})}, name="c [1]-00000-of-00002")
        make(folder, {"w": (dtype, shape, {rows[1]: floats(self.GRID[1])})}, name="c [1]-00001-of-00002")

    @pytest.mark.parametrize("spelling", ["c [1]", "c [1]-00000-of-00002", "c [1]-00001-of-00002"])
    def test_shards_are_found_by_every_spelling(self, tmp_path, spelling):
        self.shards(tmp_path)
        reader = TensorSlicesReader(tmp_path / spelling)
        assert reader.num_shards == len(reader.files()) == 2
        assert isinstance(reader.tensor("w"), JoinedTensor)
        assert reader.tensor("w").numpy().tolist() == self.GRID.tolist()

    def test_one_file_with_slices_in_both_dimensions(self, tmp_path):
        left, right = ((0, WHOLE), (0, 1)), ((0, WHOLE), (1, 2))
        slices = {left: floats(self.GRID[:, 0]), right: floats(self.GRID[:, 1:].reshape(-1))}
        reader = TensorSlicesReader(make(tmp_path, {"w": (DType.float32, (2, 3), slices)}))
        assert reader.tensor("w").numpy().tolist() == self.GRID.tolist()
        assert reader.entries["w"].slices == tuple(slices)

    def test_a_missing_shard_can_be_listed(self, tmp_path):
        self.shards(tmp_path)
        (tmp_path / "c [1]-00000-of-00002").unlink()
        reader = TensorSlicesReader(tmp_path / "c [1]")
        assert reader.missing_shards == [str(tmp_path / "c [1]-00000-of-00002")]
        assert reader.tensor("w").shape == (2, 3)
        with pytest.raises(NotFoundError, match=r"-00000-of-00002: tensor 'w': a part of the tensor is in this"):
            reader.tensor("w").numpy()

    @pytest.mark.parametrize("fields", [{"shape": (3, 3)}, {"dtype": DType.int32}])
    def test_shards_that_contradict_each_other(self, tmp_path, fields):
        self.shards(tmp_path, **fields)
        with pytest.raises(StructureError, match=r"here, float32\[2, 3\] before"):
            TensorSlicesReader(tmp_path / "c [1]")

    def test_no_file_at_all(self, tmp_path):
        for name in ("none", "none-00000-of-00002", "folder/none"):
            with pytest.raises(NotFoundError):
                TensorSlicesReader(tmp_path / name)

    @pytest.mark.parametrize(
        ("slices", "message"),
        [
            ([((0, 1), (0, WHOLE))], "the parts hold 3 elements, the whole has 6"),
            ([((0, 1), (0, WHOLE)), ((0, 1), (0, 3))], "overlap or leave a hole"),
            ([((0, WHOLE),)], "does not fit"),
            ([((0, -5), (0, WHOLE)), ((0, 1), (0, 3))], "does not fit"),
            ([((9, 2), (0, WHOLE))], "leaves the whole"),
        ],
    )
    def test_slices_that_are_no_whole(self, tmp_path, slices, message):
        path = make(tmp_path, {"w": (DType.float32, (2, 3), dict.fromkeys(slices))})
        with pytest.raises(StructureError, match=message):
            TensorSlicesReader(path).tensor("w").numpy()


class TestDamage:
    def read(self, tmp_path, tensors, key="t"):
        return TensorSlicesReader(make(tmp_path, tensors)).tensor(key).numpy()

    @pytest.mark.parametrize(
        ("tensor", "error", "message"),
        [
            ((DType.float32, (7,), {((0, WHOLE),): floats()}), StructureError, r"float32\[7\] needs 28"),
            ((DType.float32, (1 << 50,), {((0, WHOLE),): floats()}), StructureError, "24 bytes are stored"),
            ((DType.float32, (6,), {((0, WHOLE),): None}), StructureError, "the slice has no data"),
            ((DType.float32, (6,), {}), StructureError, "the tensor has no slice"),
            ((DType.float32, (-1,), {((0, WHOLE),): floats()}), StructureError, "cannot have the shape"),
            ((DType.int32, (1 << 50,), {((0, WHOLE),): floats()}), TruncatedError, "varints need at least"),
            (whole(DType.int32, [1], int_val=[1, 2]), StructureError, "there are more elements than the 1"),
            (whole(DType.string, [1], string_val=[b"a", b"b"]), StructureError, "2 strings are stored"),
            ((DType.int4, (1,), {((0, WHOLE),): floats()}), UnsupportedError, "cannot hold int4"),
            ((DType(77), (1,), {((0, WHOLE),): floats()}), UnsupportedError, "cannot hold dtype_77"),
            ((DType.float32, (6,), {((0, WHOLE),): b"\x12\xff"}), TruncatedError, "end inside a varint"),
            ((DType.float32, (6,), {((0, WHOLE),): b"\x12\x7f"}), TruncatedError, "a field ends at 129"),
            ((DType.float32, (6,), {((0, WHOLE),): b"\x13"}), FormatError, "wire type 3"),
            (
                (DType.float32, (1 << 40,), {((0, 1 << 39),): None, ((1 << 39, 1 << 39),): None}), LimitError,
                "bytes cannot hold a tensor of",
            ),
        ],
    )  # fmt: skip
    def test_tensors_that_lie(self, tmp_path, tensor, error, message):
        with pytest.raises(error, match=message) as caught:
            self.read(tmp_path, {"t": tensor})
        assert (caught.value.path, caught.value.where) == (str(tmp_path / "c"), "tensor 't'")

    def test_a_flipped_bit_in_the_data(self, tmp_path):
        path = make(tmp_path, {"t": (DType.float32, (6,), {((0, WHOLE),): floats()})})
        data = bytearray(path.read_bytes())
        data[data.index(FLOATS.tobytes()) + 5] ^= 1
        path.write_bytes(data)
        with pytest.raises(ChecksumError):
            TensorSlicesReader(path)

    @pytest.mark.parametrize("rows", [{}, {b"": b""}, {b"": b"\x08\x01\x1a\x02\x08\x01"}, {b"x": b""}])
    def test_tables_of_something_else(self, tmp_path, rows):
        with pytest.raises(FormatError, match=r"no meta of a V1 checkpoint; if it is the index of a V2"):
            TensorSlicesReader(make_table(tmp_path / "c", rows))

    def test_a_meta_that_is_no_message(self, tmp_path):
        with pytest.raises(FormatError, match="the bytes are no SavedTensorSlices"):
            TensorSlicesReader(make_table(tmp_path / "c", {b"": b"\xff\xff"}))

    def test_a_meta_beyond_the_limit(self, tmp_path):
        with pytest.raises(LimitError, match="more than the 2 allowed"):
            TensorSlicesReader(make(tmp_path, {"t": whole(DType.int8, [])}), Limits(max_message_bytes=2))

    def test_every_truncation_is_refused(self, tmp_path):
        data = make(tmp_path, {"t": whole(DType.int8, [1], int_val=[1])}).read_bytes()
        for size in range(len(data)):
            (tmp_path / "c").write_bytes(data[:size])
            with pytest.raises(FormatError):
                TensorSlicesReader(tmp_path / "c")

    @settings(max_examples=100, deadline=None)
    @given(
        data=st.binary(max_size=40), meta=st.one_of(st.none(), st.binary(max_size=40)), dtype=st.integers(0, 40),
        shape=st.lists(st.integers(-1, 1 << 62), max_size=3),
    )  # fmt: skip
    def test_any_bytes_read_or_raise(self, tmp_path_factory, data, meta, dtype, shape):
        folder = tmp_path_factory.getbasetemp()
        began = time.process_time()
        with contextlib.suppress(TfthawError):
            extents = ((0, WHOLE),) * len(shape)
            path = make(folder, {"t": (dtype, shape, {extents: data})})
            if meta is not None:
                make_table(path, {b"": meta, encode_slice_key(b"t", extents): data})
            with TensorSlicesReader(path) as reader:
                for tensor in reader.tensors.values():
                    tensor.numpy()
        assert time.process_time() - began < 1


def sliced_initializer(values):
    """Return an initializer that gives each part of a partitioned variable its part of the values."""

    def initialize(shape, dtype=None, partition_info=None):
        return values[tuple(slice(at, at + n) for at, n in zip(partition_info.var_offset, shape, strict=True))]

    return initialize


@pytest.mark.tf
class TestAgainstTensorFlow:
    @pytest.mark.parametrize("dtype", SAVEABLE, ids=lambda dtype: dtype.name)
    def test_every_type_that_it_can_save(self, tf, tmp_path, dtype):
        if dtype is DType.string:
            array = np.array([[b"", b"abc"], ["é".encode() * 300, b"\xff"]], object)
        else:
            limit = 2 if dtype is DType.bool else 60
            raw = np.random.default_rng(3).integers(0, limit, (2, 3, dtype.itemsize), np.uint8)
            array = raw.view(dtype.numpy).reshape(2, 3)
        kind = tf.dtypes.as_dtype(int(dtype))
        values = array.astype(kind.as_numpy_dtype) if kind.is_quantized else array
        theirs = [tf.constant(values, kind), tf.constant(values[0, 0], kind)]
        tf.raw_ops.Save(filename=str(tmp_path / "c"), tensor_names=["t", "scalar"], data=theirs)
        reader = TensorSlicesReader(tmp_path / "c")
        assert reader.keys() == ["scalar", "t"]
        assert reader.tensor("t").dtype is dtype
        assert reader.tensor("t").numpy().tolist() == array.tolist()
        assert reader.tensor("scalar").numpy().tolist() == array.tolist()[0][0]

    def test_a_v1_saver_with_partitions_and_shards(self, tf, tmp_path):
        v1 = tf.compat.v1
        values = np.random.default_rng(1).random((7, 6)).astype(np.float32)
        with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(3)), tf.device("cpu:1"):
                v1.get_variable("w", (7, 6), initializer=sliced_initializer(values))
            with tf.device("cpu:0"):
                v1.get_variable("b", initializer=np.ones(3, np.float32))
            session.run(v1.global_variables_initializer())
            saver = v1.train.Saver(sharded=True, write_version=v1.train.SaverDef.V1)
            saver.save(session, str(tmp_path / "c"), write_meta_graph=False, write_state=False)
        names = sorted(os.listdir(tmp_path))
        assert names == ["c-00000-of-00002", "c-00001-of-00002"]
        reader = TensorSlicesReader(tmp_path / "c")
        assert reader.keys() == ["b", "net/w"]
        assert np.array_equal(reader.tensor("net/w").numpy(), values)
        assert np.array_equal(reader.tensor("b").numpy(), np.ones(3))
