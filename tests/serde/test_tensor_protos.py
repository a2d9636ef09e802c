"""TensorProtos in every form in which a value can be stored, with TensorFlow as the oracle."""

import numpy as np
import pytest

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.errors import LimitError, StructureError, UnsupportedError
from tfthaw.formats.wire import Contents
from tfthaw.limits import Limits
from tfthaw.serde.tensors import tensor_from_proto, tensor_to_proto
from tfthaw.tensors import ArrayTensor


def tensor_proto(dtype, shape, **fields):
    message = proto.TensorProto(dtype=int(dtype), **fields)
    message.tensor_shape.SetInParent()
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def written_message(tensor):
    message = proto.TensorProto()
    tensor_to_proto(tensor, message, Contents())
    return message


def values(message, **options):
    return tensor_from_proto(message, {}, **options).numpy()


LISTED = {
    DType.float32: "float_val", DType.float64: "double_val", DType.int32: "int_val", DType.uint8: "int_val",
    DType.int16: "int_val", DType.int8: "int_val", DType.uint16: "int_val", DType.int64: "int64_val",
    DType.bool: "bool_val", DType.uint32: "uint32_val", DType.uint64: "uint64_val", DType.qint8: "int_val",
    DType.quint8: "int_val", DType.qint32: "int_val", DType.qint16: "int_val", DType.quint16: "int_val",
    DType.int4: "int_val", DType.uint4: "int_val",
}  # fmt: skip


@pytest.mark.tf
@pytest.mark.parametrize("dtype", list(LISTED), ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("stored", [[], [1], [0, 1], [1, 0, 1, 1, 0, 1]], ids=["none", "splat", "short", "all"])
def test_typed_lists(tf, dtype, stored):
    message = tensor_proto(dtype, (2, 3), **{LISTED[dtype]: stored})

    found = values(message)

    expected = tf_values(tf, message)
    assert found.dtype.itemsize == expected.dtype.itemsize
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))


@pytest.mark.tf
@pytest.mark.parametrize("dtype", [DType.int8, DType.int16, DType.int32, DType.int64, DType.qint8])
def test_negative_numbers_in_lists(tf, dtype):
    message = tensor_proto(dtype, (2,), **{LISTED[dtype]: [-1, -128]})

    np.testing.assert_array_equal(values(message), [-1, -128])
    np.testing.assert_array_equal(tf_values(tf, message).astype(np.int64), [-1, -128])


@pytest.mark.tf
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("stored", [[0x3C00], [0x3C00, 0xFC00, 0x0001, 0x7E00]], ids=["splat", "all"])
def test_halves_are_stored_as_their_bits(tf, name, stored):
    message = tensor_proto(DType[name], (4,), half_val=stored)

    assert values(message).tobytes() == tf_values(tf, message).tobytes()


@pytest.mark.tf
@pytest.mark.parametrize("name", ["float8_e5m2", "float8_e4m3fn"])
@pytest.mark.parametrize("stored", [b"\x3c", b"\x3c\xbc\x01\x7f"], ids=["splat", "all"])
def test_float8_is_stored_as_its_bits(tf, name, stored):
    message = tensor_proto(DType[name], (4,), float8_val=stored)

    assert values(message).tobytes() == oracle(tf, message).tobytes()


@pytest.mark.tf
@pytest.mark.parametrize(("name", "field"), [("complex64", "scomplex_val"), ("complex128", "dcomplex_val")])
@pytest.mark.parametrize("stored", [[1, -2], [1, 2, 3, 4, 5, 6]], ids=["splat", "all"])
def test_complex_numbers_are_pairs(tf, name, field, stored):
    message = tensor_proto(DType[name], (3,), **{field: stored})

    np.testing.assert_array_equal(values(message), tf_values(tf, message))


@pytest.mark.tf
@pytest.mark.parametrize("stored", [[b"x"], [b"a", b"", b"\xff"], [b"a", b"b"]], ids=["splat", "all", "short"])
def test_strings(tf, stored):
    message = tensor_proto(DType.string, (3,), string_val=stored)

    found = values(message)

    assert found.dtype == object
    assert found.tolist() == oracle(tf, message).tolist()


@pytest.mark.tf
@pytest.mark.parametrize(
    "name",
    [
        "float32",
        "float64",
        "int32",
        "uint8",
        "int16",
        "int8",
        "int64",
        "bool",
        "uint16",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "float16",
        "bfloat16",
        "qint8",
        "quint8",
        "qint32",
        "float8_e5m2",
        "float8_e4m3fn",
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 1, 2)], ids=str)
def test_raw_bytes(tf, name, shape):
    dtype = DType[name]
    size = int(np.prod(shape)) * dtype.itemsize
    raw = bytes(position % 2 for position in range(size))  # 0 and 1 are values of every type, bool included
    message = tensor_proto(dtype, shape, tensor_content=raw)

    found = values(message)

    assert found.shape == shape == oracle(tf, message).shape
    assert found.tobytes() == raw == oracle(tf, message).tobytes()


@pytest.mark.tf
@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_four_bit_numbers_take_a_byte_each(tf, name):
    array = np.array([1, 7, 0, 3], DType[name].numpy)
    written = written_message(ArrayTensor(array, DType[name]))

    assert values(written).tolist() == [1, 7, 0, 3]
    assert oracle(tf, written).astype(np.int32).tolist() == [1, 7, 0, 3]


@pytest.mark.tf
def test_what_tensorflow_makes_is_read(tf):
    for array in (
        np.float32(1.5),
        np.ones((3, 4), np.int64),
        np.array([b"a", b"bc"], object),
        np.zeros((0, 2), np.float64),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
    ):
        made = tf.make_tensor_proto(array)
        message = proto.TensorProto.FromString(made.SerializeToString())
        np.testing.assert_array_equal(values(message), array)


@pytest.mark.tf
@pytest.mark.parametrize(
    "dtype",
    [dtype for dtype in DType if dtype.is_numeric and not dtype.name.startswith(("q", "float4"))],
    ids=lambda dtype: dtype.name,
)
def test_tensorflow_reads_what_is_written(tf, dtype):
    if dtype.name not in dir(tf.dtypes) and dtype.name not in dir(tf.dtypes.experimental):
        pytest.fail(f"TensorFlow has no {dtype.name}")
    array = np.array([0, 1, 1], np.int8).astype(dtype.numpy)
    written = written_message(ArrayTensor(array, dtype))

    assert oracle(tf, written).tobytes() == array.tobytes()


def tf_values(tf, message):
    return tf.make_ndarray(type(tf.make_tensor_proto(0)).FromString(proto.serialize(message)))


def oracle(tf, message):
    """Return what TensorFlow's kernels make of a constant; `make_ndarray` knows fewer forms than they do."""
    graph = tf.compat.v1.GraphDef.FromString(proto.serialize(proto.GraphDef(node=[_const(message)])))
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session(graph=loaded) as session:
            return session.run("c:0")


def _const(message):
    node = proto.NodeDef(name="c", op="Const")
    node.attr["dtype"].type = message.dtype
    node.attr["value"].tensor.CopyFrom(message)
    return node


def test_a_splat_takes_no_memory():
    found = values(tensor_proto(DType.float32, (1 << 20, 1 << 10), float_val=[2.5]))

    assert found.strides == (0, 0)
    assert found[5, 7] == 2.5


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (tensor_proto(DType.float32, (2,), tensor_content=b"1234"), StructureError),
        (tensor_proto(DType.float32, (2,), float_val=[1, 2, 3]), StructureError),
        (tensor_proto(DType.string, (1,), string_val=[b"a", b"b"]), StructureError),
        (tensor_proto(DType.float32, (-1,), float_val=[1]), StructureError),
        (tensor_proto(DType.complex64, (1,), scomplex_val=[1]), StructureError),
        (tensor_proto(DType.resource, ()), UnsupportedError),
        (tensor_proto(DType.variant, (2,)), UnsupportedError),
        (tensor_proto(DType(77), (2,)), UnsupportedError),
        (tensor_proto(DType.invalid, (2,)), UnsupportedError),
        (tensor_proto(DType.float32, (1 << 30, 1 << 30), float_val=[1]), LimitError),
        (tensor_proto(DType.string, (1 << 30, 1 << 30), string_val=[b"a"]), LimitError),
        (tensor_proto(DType.float32, (1,) * 300, float_val=[1]), LimitError),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:40].replace("\n", " "),
)
def test_what_cannot_be_a_value(message, error):
    with pytest.raises(error):
        values(message)


def test_an_unknown_rank_is_no_value():
    message = tensor_proto(DType.float32, (), float_val=[1])
    message.tensor_shape.unknown_rank = True

    with pytest.raises(StructureError, match="not fully known"):
        values(message)


def test_strings_hold_to_the_limit_too():
    message = tensor_proto(DType.string, (1 << 20,), string_val=[b"a"])

    with pytest.raises(LimitError):
        values(message, limits=Limits(max_tensor_bytes=1 << 19))


def test_the_stored_form_survives():
    for message in (
        tensor_proto(DType.float32, (4,), float_val=[1]),
        tensor_proto(DType.float32, (4,)),
        tensor_proto(DType.float16, (1,), half_val=[7]),
        tensor_proto(DType.resource, (), resource_handle_val=[{"name": "h"}]),
    ):
        written = proto.TensorProto()
        tensor_to_proto(tensor_from_proto(message, {}), written, Contents())
        assert written == message
