"""Handles of one variable are one node."""

import pytest

from graphs import Unchanged, by_name, graph, handle, node, placeholder, read, variable
from tfthaw.dtypes import DType
from tfthaw.passes.shared_handles import merge_shared_handles


def inputs(*nodes):
    with Unchanged(graph(*nodes)) as argument:
        found = merge_shared_handles(argument)
    return {name: each.inputs for name, each in by_name(found.graph).items()}, found.merged


def test_users_of_a_second_handle_move_to_the_first():
    found, merged = inputs(
        handle("v"), handle("again", shared_name="v"), placeholder("x"),
        node("a", "AssignVariableOp", "again", "x"), read("r", "v"), node("n", "NoOp", "^again", "^v", T=None),
    )  # fmt: skip

    assert merged == {"again": "v"}
    assert found == {"v": [], "x": [], "a": ["v", "x"], "r": ["v"], "n": ["^v"]}


def test_v1_variables_of_one_shared_name_are_one_buffer():
    one, other = variable("one"), variable("other")
    one.attrs["shared_name"] = other.attrs["shared_name"] = b"both"

    assert inputs(one, other, node("out", "Neg", "other"))[0] == {"one": [], "out": ["one"]}


@pytest.mark.parametrize("other", [
    handle("w"),
    handle("w", shared_name="v", shape=(2,)),
    handle("w", shared_name="v", dtype=DType.int32),
    variable("w"),
])  # fmt: skip
def test_other_variables_stay(other):
    assert inputs(handle("v"), other)[1] == {}


def test_what_has_no_shared_name_or_an_anonymous_one_is_nobody_elses():
    anonymous = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"

    assert inputs(handle("a", shared_name=""), handle("b", shared_name=""))[1] == {}
    assert inputs(handle("a", shared_name=anonymous), handle("b", shared_name=anonymous))[1] == {}
