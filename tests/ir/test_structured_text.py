"""Functions as text: what people read first of a model."""

import numpy as np
import pytest

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.object_graph import ConcreteFunction, FunctionSpec
from tfthaw.ir.structured_text import argument_names, call_text, result_text, value_text
from tfthaw.ir.structured_values import ABSENT, NamedTuple, OpaqueValue, TensorSpec, TensorValue, TypeSpec
from tfthaw.tensors import ArrayTensor

X = TensorSpec("x", Shape((None, 784)), DType.float32)


def spec(*names, is_method=False):
    return FunctionSpec(NamedTuple("FullArgSpec", [("args", list(names)), ("varargs", None)]), is_method)


@pytest.mark.parametrize(("value", "expected"), [
    (X, "float32[?, 784]"),
    (TensorSpec("", Shape(()), DType.string), "string[]"),
    (TensorSpec("", Shape(None), DType.int64), "int64 of unknown rank"),
    (TypeSpec(3, (Shape((2, None)), DType.int64, 1), "RaggedTensorSpec"), "RaggedTensorSpec(shape[2, ?], int64, 1)"),
    (TypeSpec(1), "SparseTensorSpec"),
    (TypeSpec(99), "TypeSpec"),
    (TypeSpec(12, {"a": 1}, "my.package.Spec"), "Spec({a: 1})"),
    (TensorValue(ArrayTensor(np.zeros((2, 3), np.float32))), "constant float32[2, 3]"),
    ([1, (True, None), {"a": "b"}], "[1, (True, None), {a: 'b'}]"),
    (NamedTuple("Point", [("x", 1.5), ("y", ABSENT)]), "Point(x=1.5, y=?)"),
    (DType.bool, "bool"),
    (OpaqueValue(b"x"), "?"),
    ("a" * 100, "'" + "a" * 59 + "..."),
    (list(range(40)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ...]"),
])  # fmt: skip
def test_values(value, expected):
    assert value_text(value) == expected


def test_deep_values_are_cut():
    value = 0
    for _ in range(50):
        value = [value]
    assert value_text(value) == "[" * 8 + "..." + "]" * 8


def test_arguments_have_the_names_of_the_python_function():
    function = ConcreteFunction([], ((X, False), {"scale": 2.0}), X)
    assert call_text(function, spec("x", "training")) == "(x: float32[?, 784], training=False, scale=2.0)"
    assert call_text(function, spec("self", "a", "b", is_method=True)) == "(a: float32[?, 784], b=False, scale=2.0)"
    assert result_text(function) == "float32[?, 784]"


def test_arguments_without_names_take_those_of_their_tensors():
    assert call_text(ConcreteFunction([], ((X, None), {}))) == "(x: float32[?, 784], argument_1=None)"
    assert call_text(ConcreteFunction([], ((), {"x": X}))) == "(x: float32[?, 784])"


def test_a_trace_that_does_not_say_shows_what_is_known():
    assert call_text(ConcreteFunction(), None, ["x", "y"]) == "(x, y)"
    assert call_text(ConcreteFunction()) == "(?)"
    assert result_text(ConcreteFunction()) == "?"


@pytest.mark.parametrize("fullargspec", [ABSENT, None, NamedTuple("FullArgSpec", []), NamedTuple("F", [("args", 3)])])
def test_a_specification_without_names_has_none(fullargspec):
    assert argument_names(FunctionSpec(fullargspec)) == []
