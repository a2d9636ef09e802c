"""Variables: their names, and which of them belong to an optimizer."""

import pytest

from graphs import handle, node, variable
from tfthaw.dtypes import DType
from tfthaw.ir.attrs import AttrList
from tfthaw.ir.types import output_dtype
from tfthaw.ir.variables import VariableDeclaration, graph_variables, optimizer_keys, slot_variables, variable_name


def test_variables_in_the_order_of_their_nodes():
    nodes = [handle("b", [2]), node("x", "Neg", "b"), variable("a", [None, 3]), variable("a/Adam")]
    found = graph_variables(nodes, {"a": VariableDeclaration("a", trainable=True)})

    assert [(item.name, item.is_resource, item.trainable) for item in found] == [
        ("b", True, False), ("a", False, True), ("a/Adam", False, False),
    ]  # fmt: skip
    assert (found[2].slot_of, found[2].slot) == ("a", "m")
    assert found[1].shape.dims == (None, 3)
    assert graph_variables(nodes)[0].trainable is None


@pytest.mark.parametrize(("made", "name"), [
    (handle("n", shared_name="shared"), "shared"), (handle("n", shared_name=""), "n"),
    (handle("n", shared_name="cd2c89b7-88b7-44c8-ad83-06c2a9158347"), "n"), (variable("v"), "v"),
])  # fmt: skip
def test_names_to_save_under(made, name):
    assert variable_name(made) == name


def test_slots():
    names = ["w", "w/Adam", "w/Adam_1", "training/w/Momentum", "lonely/Adam", "Adam", "w/Adam/Adam", "scope/w"]

    assert slot_variables(names) == {
        "w/Adam": ("w", "m"),
        "w/Adam_1": ("w", "v"),
        "training/w/Momentum": ("w", "momentum"),
        "w/Adam/Adam": ("w/Adam", "m"),
    }


def test_slots_of_object_graphs():
    key = "layer/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"

    assert slot_variables([key]) == {key: ("layer/kernel/.ATTRIBUTES/VARIABLE_VALUE", "m")}


def test_the_state_of_an_optimizer():
    state = {
        "w/Adam",
        "beta1_power",
        "scope/beta2_power_1",
        "optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE",
        "_optimizer/x",
        "optimizer_weights/Adam/iterations:0",
        "model/optimizer_weights/x",
    }

    assert optimizer_keys({"w", "global_step", "my_optimizer/w", "beta1_power/w"} | state) == state


@pytest.mark.parametrize(
    ("made", "output", "dtype"),
    [
        (node("n", "Neg"), 0, DType.float32),
        (node("n", "Neg"), 1, None),
        (node("n", "MyOp"), 0, None),
        (node("n", "Split", T=DType.int8, num_split=3), 2, DType.int8),
        (node("n", "Split", num_split=3), 3, None),
        (node("n", "Shape", out_type=DType.int64), 0, DType.int64),
        (node("n", "Shape"), 0, DType.int32),
        (node("n", "IdentityN", T=AttrList("type", [DType.int8, DType.bool])), 1, DType.bool),
        (node("n", "NoOp"), 0, None),
        (node("n", "Equal"), 0, DType.bool),
        (node("n", "FusedBatchNormV3", U=DType.float32, T=DType.bfloat16), 1, DType.float32),
    ],
)
def test_types_of_outputs(made, output, dtype):
    assert output_dtype(made, output) is dtype
