"""Functions that were handed a variable become functions that take its value."""

import numpy as np
import pytest

from graphs import FLOAT, Unchanged, by_name, constant, function, handle, library, node, placeholder, read
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import AttrList, FunctionName, Shape
from tfthaw.ir.definitions import Definitions
from tfthaw.passes.freeze import freeze
from tfthaw.passes.function_uses import FunctionUses
from tfthaw.tensors import ArrayTensor

VALUE = ArrayTensor(np.float32([1, 2]))
RESOURCE = DType.resource


def types(*dtypes):
    return AttrList("type", list(dtypes))


def shapes(*dims):
    return AttrList("shape", [Shape(each) for each in dims])


def reading(name):
    """Return a branch that reads the variable it is given."""
    return function(name, {"v": RESOURCE}, [read("r", "v")], {"y": ("r:value:0", FLOAT)})


def if_(*inputs, then="then", other="else", gives=FLOAT, takes=(RESOURCE,)):
    return node(
        "if", "If", "p", *inputs, T=None, Tcond=DType.bool, Tin=types(*takes), Tout=types(gives),
        output_shapes=shapes(None), then_branch=FunctionName(then), else_branch=FunctionName(other),
        _read_only_resource_inputs=AttrList("i", [1]),
    )  # fmt: skip


def while_(*inputs, takes):
    return node(
        "while", "While", *inputs, T=types(*takes), cond=FunctionName("cond"), body=FunctionName("body"),
        output_shapes=shapes(*[() for _ in takes]),
    )  # fmt: skip


def frozen(nodes, *functions, **values):
    whole = library(nodes, *functions)
    with Unchanged(whole):
        return freeze(whole, dict.fromkeys(("w", "v"), VALUE) | values).graph


def made(graph):
    return {each.name: each for each in graph.functions}


def test_branches_take_the_value():
    found = frozen([handle("w", [2]), placeholder("p", (), DType.bool), if_("w")], reading("then"), reading("else"))

    node = by_name(found)["if"]
    assert node.attrs["Tin"] == types(FLOAT)
    assert {node.attrs["then_branch"].name, node.attrs["else_branch"].name} == set(made(found))
    assert "_read_only_resource_inputs" not in node.attrs
    for each in found.functions:
        assert [argument.dtype for argument in each.arguments] == [FLOAT]
        assert [(n.name, n.op, n.inputs) for n in each.nodes] == [("r", "Identity", ["v"])]
        assert each.returns == {"y": "r:output:0"}
        assert each.argument_attrs[0]["_output_shapes"] == shapes((2,))


def test_one_function_for_two_variables_of_one_shape_is_made_once():
    first, second = if_("w"), if_("v")
    second.name = "if2"
    found = frozen(
        [handle("w", [2]), handle("v", [2]), placeholder("p", (), DType.bool), first, second],
        reading("then"), reading("else"),
    )  # fmt: skip

    assert len(found.functions) == 2


def test_loops_carry_the_value_and_say_its_shape():
    cond = function("cond", {"i": FLOAT, "v": RESOURCE}, [node("go", "Less", "i", "i")], {"g": ("go:z:0", DType.bool)})
    body = function(
        "body", {"i": FLOAT, "v": RESOURCE}, [read("r", "v"), node("n", "AddV2", "i", "r:value:0")],
        {"i_next": ("n:z:0", FLOAT), "v_next": ("v", RESOURCE)},
    )  # fmt: skip
    found = frozen([handle("w", [2]), placeholder("x"), while_("x", "w", takes=(FLOAT, RESOURCE))], cond, body)

    node_ = by_name(found)["while"]
    assert node_.attrs["T"] == types(FLOAT, FLOAT)
    assert node_.attrs["output_shapes"] == shapes((), (2,))
    kept = made(found)[node_.attrs["body"].name]
    assert [each.dtype for each in kept.results] == [FLOAT, FLOAT]
    assert kept.returns["v_next"] == "v"


def test_a_loop_that_changes_between_variables_changes_between_their_values():
    cond = function(
        "cond", {"a": RESOURCE, "b": RESOURCE}, [constant("no", 0.0), node("go", "Less", "no:output:0", "no:output:0")],
        {"g": ("go:z:0", DType.bool)},
    )  # fmt: skip
    body = function("body", {"a": RESOURCE, "b": RESOURCE}, [], {"p": ("b", RESOURCE), "q": ("a", RESOURCE)})
    nodes = [handle("w", [2]), handle("v", [3]), while_("w", "v", takes=(RESOURCE, RESOURCE)), read("out", "while")]
    found = frozen(nodes, cond, body, v=ArrayTensor(np.float32([1, 2, 3])))

    assert by_name(found)["while"].attrs["output_shapes"] == AttrList("shape", [Shape(None), Shape(None)])
    assert made(found)[by_name(found)["while"].attrs["body"].name].returns == {"p": "b", "q": "a"}
    assert by_name(found)["out"].op == "Identity"


def test_branches_that_choose_a_variable_choose_a_value():
    then = function("then", {"a": RESOURCE, "b": RESOURCE}, [], {"y": ("a", RESOURCE)})
    other = function("else", {"a": RESOURCE, "b": RESOURCE}, [], {"y": ("b", RESOURCE)})
    choice = if_("w", "v", gives=RESOURCE, takes=(RESOURCE, RESOURCE))
    nodes = [handle("w", [2]), handle("v", [2]), placeholder("p", (), DType.bool), choice, read("out", "if")]
    found = frozen(nodes, then, other)

    assert by_name(found)["if"].attrs["Tout"] == types(FLOAT)
    assert by_name(found)["out"].op == "Identity"


def test_branches_inside_of_branches_take_it_too():
    inner = if_("v")
    outer = function("outer", {"p": DType.bool, "v": RESOURCE}, [inner], {"y": ("if:output:0", FLOAT)})
    top = if_("p", "w", then="outer", other="outer", takes=(DType.bool, RESOURCE))
    top.name = "top"
    nodes = [handle("w", [2]), placeholder("p", (), DType.bool), top]
    found = frozen(nodes, outer, reading("then"), reading("else"))

    assert all(argument.dtype is not RESOURCE for each in found.functions for argument in each.arguments)
    assert not any(n.op == "ReadVariableOp" for each in found.functions for n in each.nodes)


def test_a_call_that_was_not_inlined_takes_the_value():
    call = node("f", "StatefulPartitionedCall", "w", T=None, Tin=types(RESOURCE), Tout=types(FLOAT),
                f=FunctionName("then"))  # fmt: skip
    found = frozen([handle("w", [2]), call], reading("then"))

    assert by_name(found)["f"].attrs["Tin"] == types(FLOAT)
    assert [each.dtype for each in found.functions[0].arguments] == [FLOAT]


def test_other_resources_stay_resources():
    find = node("find", "LookupTableFindV2", "t", "k", "d", T=None, Tin=FLOAT, Tout=FLOAT)
    branch = {
        name: function(name, {"t": RESOURCE, "v": RESOURCE, "k": FLOAT},
                       [read("r", "v"), node("d", "Neg", "r:value:0"), find], {"y": ("find:values:0", FLOAT)})
        for name in ("then", "else")
    }  # fmt: skip
    find.inputs = ["t", "k", "d:y:0"]
    table = node("table", "HashTableV2", T=None, key_dtype=FLOAT, value_dtype=FLOAT)
    nodes = [table, handle("w"), placeholder("p", (), DType.bool), placeholder("x"),
             if_("table", "w", "x", takes=(RESOURCE, RESOURCE, FLOAT))]  # fmt: skip
    found = frozen(nodes, *branch.values())

    assert by_name(found)["if"].attrs["Tin"] == types(RESOURCE, FLOAT, FLOAT)


def test_branches_that_write_are_writers():
    write = function(
        "then", {"v": RESOURCE, "x": FLOAT}, [node("a", "AssignVariableOp", "v", "x", T=None, dtype=FLOAT)],
        {"y": ("x", FLOAT)},
    )  # fmt: skip
    uses = FunctionUses(Definitions([write])).of(FunctionName("then"))

    assert (uses.reads, uses.writes, uses.returned) == (set(), {0}, {})


def test_a_variable_in_a_function_of_its_own_is_refused():
    branch = {
        name: function(name, {}, [handle("own"), read("r", "own:resource:0")], {"y": ("r:value:0", FLOAT)})
        for name in ("then", "else")
    }
    with pytest.raises(UnsupportedError, match="variables of their own") as caught:
        frozen([placeholder("p", (), DType.bool), if_(takes=())], *branch.values())
    assert caught.value.problems == ("own (VarHandleOp) in then", "own (VarHandleOp) in else")


def test_branches_that_give_a_variable_in_one_case_and_a_table_in_the_other_are_refused():
    then = function("then", {"a": RESOURCE, "b": RESOURCE}, [], {"y": ("a", RESOURCE)})
    other = function("else", {"a": RESOURCE, "b": RESOURCE}, [], {"y": ("b", RESOURCE)})
    table = node("table", "HashTableV2", T=None, key_dtype=FLOAT, value_dtype=FLOAT)
    choice = if_("w", "table", gives=RESOURCE, takes=(RESOURCE, RESOURCE))
    with pytest.raises(UnsupportedError, match="something else in another"):
        frozen([handle("w"), table, placeholder("p", (), DType.bool), choice], then, other)
