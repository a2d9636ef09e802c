"""Variables have after loading what the init op gives them, and only where that is certain."""

import pytest

from graphs import constant, graph, handle, node, placeholder, variable
from tfthaw.dtypes import DType
from tfthaw.ir.graph import GraphIndex
from tfthaw.restore.initial_values import initial_values

ONE, TWO = constant("one", 1.0), constant("two", 2.0)


def found(*nodes):
    index = GraphIndex(graph(*nodes, node("init", "NoOp", *(f"^{item.name}" for item in nodes), T=None)).nodes)
    return {name: tensor.numpy().tolist() for name, tensor in initial_values(index, ["init"]).items()}


def assign(name, target, value, *waits):
    return node(name, "Assign", target, value, *waits)


def test_a_constant_that_is_assigned():
    resource = node("set_h", "AssignVariableOp", "h", "again", T=None, dtype=DType.float32)
    again = node("again", "Identity", "two")

    by_reference = assign("set", "w", "one")

    assert found(variable("w"), handle("h"), ONE, TWO, again, by_reference, resource) == {"w": 1.0, "h": 2.0}


def test_what_is_read_on_the_way_stays_certain():
    reading = [node("q", "IsVariableInitialized", "w"), node("r", "Identity", "w"), node("own", "MyOwnOp", "r"),
               node("copy", "AssignAdd", "v", "w", "^set")]  # fmt: skip

    assert found(variable("w"), variable("v"), ONE, assign("set", "w", "one"), *reading) == {"w": 1.0}


@pytest.mark.parametrize("more", [
    [assign("again", "w", "two")],
    [assign("again", "set", "two")],
    [node("add", "AssignAdd", "w", "two", "^set")],
    [node("add", "AssignAdd", "set", "two")],
    [node("same", "RefIdentity", "w"), node("add", "ScatterAdd", "same", "two", "one", Tindices=DType.int32)],
    [node("own", "MyOwnOp", "w")],
], ids=["twice", "chained", "added", "added to the new value", "scattered", "an unknown op"])  # fmt: skip
def test_what_else_changes_a_variable_makes_it_uncertain(more):
    assert found(variable("w"), ONE, TWO, assign("set", "w", "one"), *more) == {}


def test_a_handle_that_something_else_takes():
    set_h = node("set", "AssignVariableOp", "h", "one", T=None, dtype=DType.float32)
    add = node("add", "AssignAddVariableOp", "same", "one", T=None, dtype=DType.float32)
    same = node("same", "Identity", "h", T=DType.resource)

    assert found(handle("h"), ONE, set_h, same) == {"h": 1.0}
    assert found(handle("h"), ONE, set_h, same, add) == {}


def test_an_assignment_on_one_side_of_a_cond():
    switch = node("switch", "RefSwitch", "w", "p")
    assert found(variable("w"), ONE, placeholder("p", (), DType.bool), switch, assign("set", "switch:1", "one")) == {}


def test_a_variable_that_is_handed_round_in_a_circle():
    nodes = [node("a", "RefIdentity", "b"), node("b", "RefIdentity", "a"), ONE, assign("set", "a", "one")]
    assert found(*nodes) == {}
