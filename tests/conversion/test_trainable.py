"""Which variables train, by whoever says it."""

import numpy as np
import pytest

from tfthaw.conversion.trainable import trainability
from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.object_tree import ObjectTree
from tfthaw.ir.object_variables import ObjectVariable
from tfthaw.ir.variables import Variable
from tfthaw.restore.plan import Match, Plan
from tfthaw.serde.object_views import Objects
from tfthaw.tensors import ArrayTensor

VALUE = ArrayTensor(np.float32(1))


def variable(name, *, dtype=DType.float32, trainable=None):
    return Variable(name, name, dtype, Shape(()), True, trainable)


def planned(*variables, reason="name"):
    return Plan({item.node: Match(item.node, item.name, VALUE, reason, VALUE) for item in variables})


def test_collections_say_it():
    number = variable("i", dtype=DType.int32, trainable=True)
    some = [variable("w", trainable=False), variable("moving_mean", trainable=True), number]
    found = trainability(some, planned(*some), None)

    assert found.trainable == {"w": False, "moving_mean": True, "i": True}
    assert found.notes == []


@pytest.mark.parametrize("name", [
    "bn/moving_mean", "bn/moving_variance", "w/ExponentialMovingAverage", "global_step", "w/Adam", "w/Adam_1",
    "beta1_power", "bn/running_var_1", "metrics/total",
])  # fmt: skip
def test_statistics_and_state_of_optimizers_are_guessed_not_to_train(name):
    some = [variable("w"), variable(name)]
    found = trainability(some, planned(*some), None)

    assert found.trainable == {"w": True, name: False}
    assert found.notes == [
        "nothing says which variables train: 1 do, being floating and by their names no statistics; "
        f"not {name}"
    ]  # fmt: skip


def test_only_floating_variables_are_guessed_to_train():
    some = [variable(dtype.name, dtype=dtype) for dtype in (DType.bfloat16, DType.int64, DType.bool, DType.string)]
    found = trainability(some, planned(*some), None)

    assert found.trainable == {"bfloat16": True, "int64": False, "bool": False, "string": False}


def test_what_the_init_op_sets_does_not_train():
    local = variable("scale", trainable=True)

    assert trainability([local], planned(local, reason="initial"), None).trainable == {"scale": False}


def test_objects_say_it_and_name_variables():
    described = [
        ObjectVariable(3, "dense/kernel", "kernel", "a/key", trainable=False),
        ObjectVariable(4, "dense/bias", "bias", "b/key", trainable=True),
    ]
    objects = Objects(None, None, ObjectTree([], {}), described)
    one, two, three = variable("Variable", trainable=True), variable("Variable_1"), variable("other")
    plan = Plan({
        "Variable": Match("Variable", "a/key", VALUE, "saver", VALUE),
        "Variable_1": Match("Variable_1", "elsewhere", VALUE, "saver", VALUE),
        "other": Match("other", "elsewhere", VALUE, "saver", VALUE),
    })  # fmt: skip
    found = trainability([one, two, three], plan, objects, {"Variable_1": 4})

    assert found.trainable == {"Variable": False, "Variable_1": True, "other": True}
    assert found.names == {"Variable": "dense/kernel", "Variable_1": "dense/bias"}
    assert len(found.notes) == 1
