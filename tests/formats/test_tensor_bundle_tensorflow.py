"""V2 checkpoints against TensorFlow: we read what it writes, it reads what we write, and the bytes are the same."""

import numpy as np
import pytest

from tfthaw.dtypes import DType
from tfthaw.formats.tensor_bundle import BundleReader, BundleWriter, written_names
from tfthaw.tensors import ArrayTensor, JoinedTensor

pytestmark = pytest.mark.tf

SAVEABLE = [dtype for dtype in DType if dtype.is_numeric]


def save(tf, prefix, tensors):
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(tensors), tensors=list(tensors.values()),
        shape_and_slices=[""] * len(tensors),
    )  # fmt: skip


def copy(source, folder, name="copy"):
    """Write again what a reader reads, in the order of the source's data file."""
    with BundleWriter(folder, name) as writer:
        for key in sorted(source.keys(), key=lambda key: source.entries[key].offset):
            writer.add(key, source.tensor(key))
    return folder / name


def assert_same_files(folder, one, other):
    for mine, theirs in zip(written_names(one), written_names(other), strict=True):
        assert (folder / mine).read_bytes() == (folder / theirs).read_bytes()


def constant(tf, values, kind):
    """Make a constant; quantized types must come through their record types."""
    return tf.constant(values.astype(kind.as_numpy_dtype) if kind.is_quantized else values, kind)


@pytest.mark.parametrize("dtype", SAVEABLE, ids=lambda dtype: dtype.name)
def test_every_numeric_type(tf, tmp_path, dtype):
    rng = np.random.default_rng(int(dtype))
    raw = rng.integers(0, 2 if dtype is DType.bool else 4, (2, 3, 4, dtype.itemsize), np.uint8)
    array = raw.view(dtype.numpy).reshape(2, 3, 4)
    kind = tf.dtypes.as_dtype(int(dtype))
    arrays = {"t": array, "scalar": array[0, 0, 0], "empty": array[:0]}
    save(tf, tmp_path / "c", {key: constant(tf, values, kind) for key, values in arrays.items()})
    reader = BundleReader(tmp_path / "c")
    for key, expected in arrays.items():
        tensor = reader.tensor(key)
        assert (tensor.dtype, tensor.shape) == (dtype, expected.shape)
        assert tensor.numpy().tobytes() == expected.tobytes()
    copy(reader, tmp_path)
    assert_same_files(tmp_path, "c", "copy")
    restored = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "copy"), tensor_names=["t"], shape_and_slices=[""], dtypes=[kind]
    )[0]  # fmt: skip
    save(tf, tmp_path / "again", {"t": restored})
    assert BundleReader(tmp_path / "again").tensor("t").numpy().tobytes() == array.tobytes()


def test_strings(tf, tmp_path):
    values = np.array([b"", b"abc", b"\xff\x00", ("é" * 1000).encode(), b"x" * 200_000], object)
    empty = np.empty((0, 2), object)
    save(tf, tmp_path / "c", {"s": values, "empty": tf.constant(empty, tf.string), "scalar": tf.constant(b"one")})
    reader = BundleReader(tmp_path / "c")
    assert reader.tensor("s").numpy().tolist() == values.tolist()
    assert reader.tensor("empty").numpy().shape == (0, 2)
    assert reader.tensor("scalar").numpy().item() == b"one"
    copy(reader, tmp_path)
    assert_same_files(tmp_path, "c", "copy")
    assert tf.train.load_checkpoint(str(tmp_path / "copy")).get_tensor("s").tolist() == values.tolist()


def test_variants(tf, tmp_path):
    tensors = tf.raw_ops.TensorListFromTensor(tensor=tf.constant([[1.0], [2.0]]), element_shape=[1])
    empty = tf.raw_ops.EmptyTensorList(element_shape=[1], max_num_elements=3, element_dtype=tf.float32)
    many = tf.stack([tensors, empty])
    save(tf, tmp_path / "c", {"list": tensors, "w": tf.constant([1, 2]), "many": many})
    reader = BundleReader(tmp_path / "c")
    assert (reader.tensor("many").dtype, reader.tensor("many").shape) == (DType.variant, (2,))
    copy(reader, tmp_path)
    assert_same_files(tmp_path, "c", "copy")
    restored = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "copy"), tensor_names=["list"], shape_and_slices=[""], dtypes=[tf.variant]
    )[0]  # fmt: skip
    stacked = tf.raw_ops.TensorListStack(input_handle=restored, element_shape=[1], element_dtype=tf.float32)
    assert stacked.numpy().tolist() == [[1.0], [2.0]]


def test_we_write_and_tensorflow_reads(tf, tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "z": rng.random((3, 5), np.float32), "a/b": np.array(7, np.int64), "a": rng.random((0, 4)),
        "é [1]": np.array([True]), "strings": np.array([[b"a", b""], ["é".encode(), b"\0"]], object),
    }  # fmt: skip
    with BundleWriter(tmp_path, "acc_ckpt") as writer:
        for key, array in tensors.items():  # in no order
            writer.add(key, ArrayTensor(array))
    theirs = tf.train.load_checkpoint(str(tmp_path / "acc_ckpt"))
    ours = BundleReader(tmp_path / "acc_ckpt")
    assert set(theirs.get_variable_to_shape_map()) == set(tensors)
    for key, array in tensors.items():
        assert np.array_equal(theirs.get_tensor(key), array)
        assert theirs.get_variable_to_dtype_map()[key].name == ours.entries[key].dtype.name


def test_a_saver_restores_what_we_write(tf, tmp_path):
    values = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(41, np.int64)}
    with BundleWriter(tmp_path, "c") as writer:
        for key, array in values.items():
            writer.add(key, ArrayTensor(array))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            key: tf.compat.v1.get_variable(key, initializer=np.zeros_like(array)) for key, array in values.items()
        }
        tf.compat.v1.train.Saver().restore(session, str(tmp_path / "c"))
        for key, found in session.run(variables).items():
            assert np.array_equal(found, values[key])


def sliced_initializer(values):
    """Return an initializer that gives each part of a partitioned variable its part of the values."""

    def initialize(shape, dtype=None, partition_info=None):
        return values[tuple(slice(at, at + n) for at, n in zip(partition_info.var_offset, shape, strict=True))]

    return initialize


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sharded", [False, True])
def test_partitioned_variables_and_shards(tf, tmp_path, axis, sharded):
    v1 = tf.compat.v1
    values = np.random.default_rng(1).random((7, 6)).astype(np.float32)
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(3, axis)), tf.device("cpu:1"):
            v1.get_variable("w", (7, 6), initializer=sliced_initializer(values))
        with tf.device("cpu:0"):
            v1.get_variable("b", initializer=np.ones(3, np.float32))
        session.run(v1.global_variables_initializer())
        v1.train.Saver(sharded=sharded).save(session, str(tmp_path / "c"), write_state=False, write_meta_graph=False)
    reader = BundleReader(tmp_path / "c")
    theirs = tf.train.load_checkpoint(str(tmp_path / "c"))
    assert reader.keys() == sorted(theirs.get_variable_to_shape_map()) == ["b", "net/w"]
    assert isinstance(reader.tensor("net/w"), JoinedTensor)
    assert np.array_equal(reader.tensor("net/w").numpy(), values)
    assert b"".join(bytes(chunk) for chunk in reader.tensor("net/w").chunks(32)) == values.tobytes()
    assert np.array_equal(reader.tensor("b").numpy(), np.ones(3))
    assert (len(reader.files()), reader.num_shards) == ((3, 2) if sharded else (2, 1))
    joined = copy(reader, tmp_path)
    assert np.array_equal(tf.train.load_checkpoint(str(joined)).get_tensor("net/w"), values)


def test_merged_checkpoints(tf, tmp_path):
    parts = []
    for index in range(3):
        save(tf, tmp_path / f"part{index}", {f"v{index}": tf.fill([4], float(index))})
        parts.append(str(tmp_path / f"part{index}"))
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "c"))
    reader = BundleReader(tmp_path / "c")
    assert (reader.num_shards, len(reader.files())) == (3, 4)
    for index in range(3):
        assert reader.tensor(f"v{index}").numpy().tolist() == [index] * 4


def test_object_based_checkpoints(tf, tmp_path):
    module = tf.Module()
    module.layers = [tf.Variable(np.arange(4.0)), tf.Variable(["a", "b"])]
    prefix = tf.train.Checkpoint(net=module, step=tf.Variable(3)).write(str(tmp_path / "c"))
    reader = BundleReader(prefix)
    assert reader.is_object_based
    shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    assert {key: list(tensor.shape) for key, tensor in reader.tensors.items()} == shapes
    assert reader.tensor("net/layers/1/.ATTRIBUTES/VARIABLE_VALUE").numpy().tolist() == [b"a", b"b"]
    copied = tf.train.Checkpoint(net=tf.Module(), step=tf.Variable(0))
    copied.read(str(copy(reader, tmp_path))).assert_existing_objects_matched()
    assert copied.step.numpy() == 3
