"""Constants that become variables, and variables that become asset paths, on graphs built by hand."""

import numpy as np

from graphs import FLOAT, Unchanged, by_name, constant, graph, handle, node, ops, placeholder
from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import TensorName
from tfthaw.passes.asset_variables import resolve_asset_variables
from tfthaw.passes.unfreeze import unfreeze

LARGE = np.arange(1024, dtype=np.float32).reshape(32, 32)


def test_large_floating_constants_become_variables():
    nodes = [placeholder("x"), constant("w", LARGE), node("y", "MatMul", "x", "w:0"), node("z", "Neg", "y", "^w")]
    with Unchanged(graph(*nodes)) as argument:
        found = unfreeze(argument, [TensorName("y", 0)])

    assert ops(found.graph) == {
        "x": "Placeholder", "w": "VarHandleOp", "w/Read/ReadVariableOp": "ReadVariableOp", "y": "MatMul", "z": "Neg",
    }  # fmt: skip
    nodes = by_name(found.graph)
    assert nodes["y"].inputs == ["x", "w/Read/ReadVariableOp"]
    assert nodes["z"].inputs == ["y", "^w"]
    assert nodes["w"].attrs == {"dtype": FLOAT, "shape": Shape((32, 32)), "shared_name": b"w", "container": b""}
    assert list(found.values) == ["w"]
    assert found.values["w"] is by_name(argument)["w"].tensor()
    assert found.reads == {}


def test_what_stays_a_constant():
    nodes = [
        constant("small", LARGE[:31].reshape(-1)[:1000]), constant("whole", LARGE.astype(np.int32)),
        constant("inside", LARGE, "^small"), constant("scalar", 1.0),
    ]  # fmt: skip
    found = unfreeze(graph(*nodes))

    assert found.values == {}
    assert set(ops(found.graph).values()) == {"Const"}


def test_a_constant_that_is_an_output_is_read():
    found = unfreeze(graph(constant("w", LARGE), constant("w/Read/ReadVariableOp", 1.0)), [TensorName("w", 0)])

    assert found.reads == {TensorName("w", 0): TensorName("w/Read/ReadVariableOp_1", 0)}


PATH = [TensorName("path", 0)]


def asset(*more):
    path = placeholder("path", (), DType.string)
    variable = handle("v", (), DType.string)
    assign = node("v/Assign", "AssignVariableOp", "v", "path", T=None, dtype=DType.string)
    read = node("r", "ReadVariableOp", "v", "^v/Assign", T=None, dtype=DType.string)
    return graph(path, variable, assign, read, node("done", "NoOp", "^v/Assign", "^r", T=None), *more)


def test_readers_of_an_asset_variable_take_the_path():
    question = node("is", "VarIsInitializedOp", "v", T=None)
    with Unchanged(asset(question)) as argument:
        found = resolve_asset_variables(argument, PATH)

    assert ops(found) == {"path": "Placeholder", "r": "Identity", "done": "NoOp"}
    assert by_name(found)["r"].inputs == ["path"]
    assert by_name(found)["done"].inputs == ["^r"]


def test_a_variable_that_is_more_than_a_path_stays():
    twice = node("again", "AssignVariableOp", "v", "r", T=None, dtype=DType.string)
    handed = node("c", "StatefulPartitionedCall", "v", T=None)

    for more in (twice, handed):
        found = asset(more)
        assert resolve_asset_variables(found, PATH) == found
    assert resolve_asset_variables(asset(), [TensorName("other", 0)]) == asset()
