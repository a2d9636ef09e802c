"""Sparse and composite tensors of a signature as their components, and back."""

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.composites import put_together, taken_apart
from tfthaw.ir.signatures import Signature, SignatureTensor


def entry(tensor, dtype=DType.float32):
    return SignatureTensor(tensor, dtype, Shape((None,)))


def sparse():
    parts = {"indices": entry("i:0", DType.int64), "values": entry("v:0"), "dense_shape": entry("s:0", DType.int64)}
    return SignatureTensor("", DType.float32, Shape((None, 3)), b"rest", parts)


def test_components_are_entries_of_their_own():
    signature = Signature({"a": entry("a:0"), "x": sparse()}, {"y": entry("y:0")})
    apart = taken_apart(signature)
    assert {name: item.tensor for name, item in apart.inputs.items()} == {
        "a": "a:0", "x_indices": "i:0", "x_values": "v:0", "x_dense_shape": "s:0"}  # fmt: skip
    assert apart.outputs == signature.outputs
    assert put_together(apart) == signature


def test_names_that_are_taken_are_left_alone():
    apart = taken_apart(Signature({"x": sparse(), "x_values": entry("other:0")}))
    assert apart.inputs["x_values"].tensor == "other:0"
    assert apart.inputs["x_values_1"].tensor == "v:0"
    assert list(put_together(apart).inputs) == ["x", "x_values"]


def test_what_lost_a_component_stays_apart():
    apart = taken_apart(Signature({"x": sparse()}))
    del apart.inputs["x_dense_shape"]
    assert list(put_together(apart).inputs) == ["x_indices", "x_values"]
