"""Which tensors go in and come out."""

import pytest

from graphs import FLOAT, constant, graph, node, placeholder, variable
from tfthaw.conversion.selection import rank_outputs, select, with_own_types
from tfthaw.dtypes import DType
from tfthaw.errors import UsageError
from tfthaw.ir.graph import TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.signatures import Signature, SignatureTensor

TRAINING = graph(
    placeholder("x"),
    placeholder("labels"),
    variable("w"),
    constant("rate", 0.1),
    node("logits", "MatMul", "x", "w"),
    node("softmax", "Softmax", "logits"),
    node("accuracy", "Mean", "softmax", "labels"),
    node("gradients/g", "MatMul", "logits", "x"),
    node("Momentum/update_w/ApplyMomentum", "ApplyMomentum", "w", "w", "rate", "gradients/g"),
    node("save/restore_all", "NoOp", T=None),
)


def test_predictions_come_before_what_only_training_uses():
    ranked = rank_outputs(TRAINING)

    assert str(ranked[0].tensor) == "accuracy:0"
    assert {str(item.tensor) for item in ranked} == {"accuracy:0", "softmax:0", "logits:0"}
    assert [item.score for item in ranked] == sorted((item.score for item in ranked), reverse=True)
    assert all(item.reason for item in ranked)


def test_placeholders_that_outputs_need_are_the_inputs():
    found = select(Model(TRAINING), inputs=[], outputs=["softmax"], every=False)

    assert (found.inputs, found.outputs) == ({"x:0": TensorName("x", 0)}, {"softmax": TensorName("softmax", 0)})
    assert list(found.signatures) == ["serving_default"]
    assert list(found.signatures["serving_default"].inputs) == ["x"]


def test_a_placeholder_with_a_value_is_no_input():
    every = select(Model(TRAINING), inputs=[], outputs=["accuracy"], every=False)
    found = every.without_inputs({"labels"})

    assert list(found.inputs) == ["x:0"]
    assert list(found.signatures["serving_default"].inputs) == ["x"]
    assert found.feeds == [TensorName("x", 0)]


def test_nothing_is_guessed():
    with pytest.raises(UsageError, match=r"likely ones: accuracy:0, "):
        select(Model(TRAINING), inputs=[], outputs=[], every=True)


def test_what_is_only_waited_for_is_no_output():
    nodes = [
        placeholder("x"),
        node("pivot", "Identity", "x"),
        node("out", "Neg", "x"),
        node("done", "NoOp", "^pivot", T=None),
    ]

    assert [str(item.tensor) for item in rank_outputs(graph(*nodes))] == ["out:0"]


def test_reads_of_variables_and_pivots_are_no_outputs():
    nodes = [
        placeholder("x"), variable("w"), node("w/read", "Identity", "w"), node("switch", "Switch", "x", "x"),
        node("switch_t", "Identity", "switch:1"), node("out", "Identity", "x"),
    ]  # fmt: skip

    assert [str(item.tensor) for item in rank_outputs(graph(*nodes))] == ["out:0"]


def test_a_signature_that_says_another_type_than_its_tensor_is_corrected_and_told_of():
    lying = Signature(
        inputs={"x": SignatureTensor("x:0", DType.string)}, outputs={"y": SignatureTensor("softmax:0", FLOAT)}
    )
    selection = select(Model(TRAINING, signatures={"s": lying}), inputs=[], outputs=[], every=True)
    found, notes = with_own_types(selection, TRAINING)

    assert found.signatures["s"].inputs["x"].dtype is FLOAT
    assert notes == ["signature s says that x is string; x:0 is float32"]
    assert with_own_types(found, TRAINING) == (found, [])


def test_an_output_name_of_two_signatures_is_told_for_both():
    model = Model(graph(placeholder("x"), node("a", "Neg", "x"), node("b", "Abs", "x")))
    for key, tensor in (("first", "a:0"), ("second", "b:0")):
        model.signatures[key] = Signature(
            inputs={"x": SignatureTensor("x:0", DType.float32)},
            outputs={"output_0": SignatureTensor(tensor, DType.float32)},
        )
    chosen = select(model, inputs=[], outputs=[], every=True)

    assert {name: str(tensor) for name, tensor in chosen.outputs.items()} == {
        "first/output_0": "a:0",
        "second/output_0": "b:0",
    }
    assert list(chosen.inputs) == ["x"]
