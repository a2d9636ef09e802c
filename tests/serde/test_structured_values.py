"""Structured values: read as what Python has, written as they were."""

import numpy as np
import pytest
from hypothesis import given, settings

from generated_messages import generated
from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.formats.wire import Contents
from tfthaw.ir.attrs import Shape
from tfthaw.ir.structured_values import (
    ABSENT,
    BoundedTensorSpec,
    NamedTuple,
    OpaqueValue,
    TensorSpec,
    TensorValue,
    TypeSpec,
)
from tfthaw.serde.structured_values import structured_value_from_proto, structured_value_to_proto
from tfthaw.tensors import ArrayTensor

Message = proto.message_class("tensorflow.StructuredValue")


def written(value):
    message = Message()
    structured_value_to_proto(value, message, Contents())
    return Message.FromString(proto.serialize(message))


@pytest.mark.parametrize("unknown", [False, True])
def test_whatever_is_read_is_written_the_same(unknown):
    @settings(max_examples=80, deadline=None)
    @given(generated(Message, unknown=unknown))
    def check(message):
        value = structured_value_from_proto(message, {})
        assert proto.serialize(written(value)) == proto.serialize(message)

    check()


@pytest.mark.parametrize(("value", "kind"), [
    (None, "none_value"),
    (True, "bool_value"),
    (1, "int64_value"),
    (-1, "int64_value"),
    (1.0, "float64_value"),
    ("a", "string_value"),
    (Shape(None), "tensor_shape_value"),
    (DType.float32, "tensor_dtype_value"),
    (TensorSpec("x", Shape((None, 2)), DType.int32), "tensor_spec_value"),
    (TensorSpec("", None, DType.invalid), "tensor_spec_value"),
    (TypeSpec(3, (Shape((2,)), DType.int64, 1), "RaggedTensorSpec", 2), "type_spec_value"),
    (TypeSpec(0), "type_spec_value"),
    (NamedTuple("Point", [("x", 1), ("y", ABSENT)]), "named_tuple_value"),
    ([], "list_value"),
    ((), "tuple_value"),
    ({}, "dict_value"),
    ([1, (2, {"a": None}), "x"], "list_value"),
])  # fmt: skip
def test_values_keep_their_python_type(value, kind):
    message = written(value)
    assert message.WhichOneof("kind") == kind
    again = structured_value_from_proto(message, {})
    assert again == value
    assert type(again) is type(value)


def test_bounds_and_constants_are_tensors():
    bound = ArrayTensor(np.array([1.0, 2.0], np.float32))
    spec = structured_value_from_proto(written(BoundedTensorSpec("x", Shape((2,)), DType.float32, bound)), {})
    assert spec.minimum.numpy().tolist() == [1, 2]
    assert spec.maximum is None
    value = structured_value_from_proto(written(TensorValue(bound, is_numpy=True)), {})
    assert value.is_numpy
    assert value.tensor.numpy().tolist() == [1, 2]
    assert written(TensorValue(bound)).WhichOneof("kind") == "tensor_value"


def test_a_value_of_a_newer_kind_stays_as_it_is():
    newer = Message.FromString(bytes([0xBA, 0x06, 0x01, 0x61]))  # field 103, of length 1
    assert structured_value_from_proto(newer, {}) == OpaqueValue(proto.serialize(newer))
    assert structured_value_from_proto(Message(), {}) == OpaqueValue(b"")


def test_what_is_no_structured_value_is_refused():
    with pytest.raises(TypeError, match="set is no structured value"):
        structured_value_to_proto({1}, Message(), Contents())
