"""Calls are replaced by what they call, and what they promised stays true."""

import dataclasses

import numpy as np
import pytest

from graphs import (
    FLOAT,
    Unchanged,
    by_name,
    call,
    constant,
    function,
    handle,
    library,
    node,
    placeholder,
    read,
    variable,
)
from tfthaw.dtypes import DType
from tfthaw.errors import LimitError, StructureError, UnsupportedError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import AttrList, AttrPlaceholder, FunctionName
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.graph import TensorName
from tfthaw.ir.nodes import Node
from tfthaw.limits import Limits
from tfthaw.passes.inline_functions import inline_functions
from tfthaw.tensors import ArrayTensor

DOUBLE = function("double", {"a": FLOAT}, [node("two", "AddV2", "a", "a")], {"r": ("two:z:0", FLOAT)})
ASSIGN = node("assign", "AssignVariableOp", "v", "x", T=None, dtype=FLOAT)
WRITE = function("write", {"v": DType.resource, "x": FLOAT}, [ASSIGN], {}, controls=["assign"])


def inlined(nodes, *functions, **options):
    whole = library(nodes, *functions)
    with Unchanged(whole):
        return inline_functions(whole, Definitions(whole.functions), **options)


def inputs(found):
    return {name: each.inputs for name, each in by_name(found.graph).items()}


def test_a_call_is_its_body_under_its_name():
    found = inlined([placeholder("x"), call("f", "double", "x"), node("out", "Neg", "f")], DOUBLE)

    assert inputs(found) == {"x": [], "f/two": ["x", "x"], "f": ["f/two"], "out": ["f"]}
    assert not found.graph.functions
    assert found.calls == {"double": 1}


def test_a_node_whose_op_is_a_function_is_a_call():
    found = inlined([placeholder("x"), node("f", "double", "x", T=None)], DOUBLE)

    assert inputs(found)["f/two"] == ["x", "x"]


def test_further_outputs_have_names_of_their_own():
    split = node("s", "Split", "axis", "a", num_split=2)
    both = function(
        "both", {"a": FLOAT}, [constant("axis", 0), split], {"p": ("s:output:1", FLOAT), "q": ("s:output:0", FLOAT)}
    )
    found = inlined([placeholder("x"), call("f", "both", "x"), node("out", "Sub", "f:1", "f")], both)

    assert inputs(found)["out"] == ["f_1", "f"]
    assert (inputs(found)["f"], inputs(found)["f_1"]) == (["f/s:1"], ["f/s"])
    assert found.moved == {TensorName("f", 1): TensorName("f_1", 0)}


def test_an_argument_may_be_returned_twice_and_another_not_at_all():
    odd = function("odd", {"a": FLOAT, "b": FLOAT}, [], {"p": ("a", FLOAT), "q": ("a", FLOAT)})
    found = inlined([placeholder("x"), placeholder("y"), call("f", "odd", "x", "y"), node("o", "Sub", "f", "f:1")], odd)

    assert (inputs(found)["f"], inputs(found)["f_1"]) == (["x"], ["x"])


def test_names_that_are_taken_stay_with_their_owners():
    found = inlined([placeholder("x"), placeholder("f/two"), call("f", "double", "x")], DOUBLE)

    assert inputs(found)["f"] == ["f/two_1"]


def test_two_calls_have_a_body_each():
    found = inlined([placeholder("x"), call("f", "double", "x"), call("g", "double", "f")], DOUBLE)

    assert (inputs(found)["f/two"], inputs(found)["g/two"]) == (["x", "x"], ["f", "f"])


def test_calls_inside_of_calls_leave_nothing_behind():
    outer = function("outer", {"a": FLOAT}, [call("inner", "double", "a")], {"r": ("inner:output:0", FLOAT)})
    outer.nodes[0].attrs["Tout"] = AttrList("type", [FLOAT])
    found = inlined([placeholder("x"), call("f", "outer", "x")], DOUBLE, outer)

    assert inputs(found) == {"x": [], "f/inner/two": ["x", "x"], "f": ["f/inner/two"]}


def test_what_a_call_waited_for_its_side_effects_wait_for():
    before = node("before", "AssignVariableOp", "w", "x", T=None, dtype=FLOAT)
    found = inlined([handle("w"), placeholder("x"), before, call("f", "write", "w", "x", "^before")], WRITE)

    assert inputs(found)["f/assign"] == ["w", "x", "^before"]
    assert inputs(found)["f"] == ["^f/assign"]


def test_what_waited_for_a_call_waits_for_its_side_effects():
    found = inlined([handle("w"), placeholder("x"), call("f", "write", "w", "x"), read("r", "w")], WRITE)
    later = inlined(
        [handle("w"), placeholder("x"), call("f", "write", "w", "x"),
         dataclasses.replace(read("r", "w"), inputs=["w", "^f"])], WRITE)  # fmt: skip

    assert inputs(found)["r"] == ["w"]
    assert inputs(later)["r"] == ["w", "^f"]
    assert inputs(later)["f"] == ["^f/assign"]


def test_the_value_of_a_call_with_side_effects_waits_for_them():
    body = [ASSIGN, node("twice", "AddV2", "x", "x")]
    both = function("both", {"v": DType.resource, "x": FLOAT}, body, {"r": ("twice:z:0", FLOAT)}, controls=["assign"])
    found = inlined([handle("w"), placeholder("x"), call("f", "both", "w", "x"), node("out", "Neg", "f")], both)

    assert inputs(found)["f"] == ["f/twice", "^f/assign"]


def test_side_effects_that_a_function_does_not_list():
    """As TensorFlow runs them: a PartitionedCall prunes them away, unless the function gives nothing at all."""
    silent = dataclasses.replace(WRITE, control_returns={})
    giving = function("giving", {"v": DType.resource, "x": FLOAT}, [ASSIGN], {"r": ("x", FLOAT)})
    given = [handle("w"), placeholder("x")]

    assert inputs(inlined([*given, call("f", "write", "w", "x")], silent))["f"] == ["^f/assign"]
    assert inputs(inlined([*given, call("f", "giving", "w", "x")], giving))["f"] == ["x"]
    assert inputs(inlined([*given, node("f", "giving", "w", "x", T=None)], giving))["f"] == ["x", "^f/assign"]


def test_several_things_that_a_call_waits_for_meet_in_one_node():
    found = inlined(
        [handle("w"), placeholder("x"), node("a", "NoOp", T=None), node("b", "NoOp", T=None),
         call("f", "write", "w", "x", "^a", "^b")], WRITE)  # fmt: skip

    assert inputs(found)["f/start"] == ["^a", "^b"]
    assert inputs(found)["f/assign"] == ["w", "x", "^f/start"]


def test_attrs_of_the_caller_go_into_the_body():
    generic = function(
        "generic", {}, [node("two", "AddV2", "a", "a", T=AttrPlaceholder("T"))], {"r": ("two:z:0", FLOAT)}
    )
    generic.arguments = [Argument("a", type_attr="T")]
    generic.results = [Argument("r", type_attr="T")]
    generic.signature = b"\x22\x03\x0a\x01T"
    found = inlined([placeholder("x", dtype=DType.int32), node("f", "generic", "x", T=DType.int32)], generic)

    assert by_name(found.graph)["f/two"].attrs["T"] is DType.int32
    assert by_name(found.graph)["f"].attrs["T"] is DType.int32


def test_two_loops_of_one_function_are_two_loops():
    enter = node("enter", "Enter", "a", frame_name=b"while")
    leave = node("leave", "Exit", "enter:output:0")
    loop = function("loop", {"a": FLOAT}, [enter, leave], {"r": ("leave:output:0", FLOAT)})
    found = inlined([placeholder("x"), call("f", "loop", "x"), call("g", "loop", "x")], loop)

    frames = {each.attrs["frame_name"] for each in found.graph.nodes if each.op == "Enter"}
    assert frames == {b"f/while", b"g/while"}


def test_a_constant_of_a_call_in_a_loop_is_in_the_loop():
    plus = function(
        "plus", {"a": FLOAT}, [constant("one", 1.0), node("sum", "AddV2", "a", "one:output:0")],
        {"r": ("sum:z:0", FLOAT)},
    )  # fmt: skip
    found = inlined([placeholder("x"), node("enter", "Enter", "x", frame_name=b"f"), call("f", "plus", "enter")], plus)

    assert inputs(found)["f/one"] == ["^f/input_0"]
    assert inputs(found)["f/input_0"] == ["enter"]


def test_a_loop_in_a_body_keeps_its_nodes_inside():
    body = [node("enter", "Enter", "a", frame_name=b"w"), constant("in", 1.0, "^enter"), constant("out", 2.0)]
    loop = function("loop", {"a": FLOAT}, body, {"r": ("in:output:0", FLOAT)})
    found = inputs(inlined([placeholder("x"), call("f", "loop", "x")], loop))

    assert (found["f/in"], found["f/out"]) == (["^f/enter"], ["^f/input_0"])


def test_a_call_of_several_inputs_in_a_cond_waits_for_all_of_them():
    minus = function("minus", {"a": FLOAT, "b": FLOAT}, [node("n", "Neg", "a")], {"r": ("n:y:0", FLOAT)})
    nodes = [placeholder("x"), placeholder("p", (), DType.bool), node("s", "Switch", "x", "p")]
    found = inputs(inlined([*nodes, call("f", "minus", "x", "s:1")], minus))

    assert found["f/start"] == ["^f/input_0", "^f/input_1"]
    assert (found["f/argument_0"], found["f/n"]) == (["f/input_0", "^f/start"], ["f/argument_0"])


def test_a_call_in_a_cond_runs_only_where_its_inputs_are():
    seven = function("seven", {"a": FLOAT}, [constant("c", 7.0)], {"r": ("c:output:0", FLOAT)})
    switch = node("s", "Switch", "x", "p")
    found = inputs(
        inlined([placeholder("x"), placeholder("p", (), DType.bool), switch, call("f", "seven", "s:1")], seven)
    )

    assert (found["f/input_0"], found["f/c"]) == (["s:1"], ["^f/input_0"])
    assert found["f"] == ["f/c", "^f/input_0"]


def test_a_reference_is_read_when_the_call_runs():
    assign = node("assign", "Assign", "r", "x")
    nodes = [variable("r"), placeholder("x"), assign, call("f", "double", "r", "^assign")]
    found = inputs(inlined(nodes, DOUBLE))

    assert (found["f/input_0"], found["f/two"]) == (["r", "^assign"], ["f/input_0", "f/input_0"])


def test_calls_in_branches_are_inlined_there():
    branch = function("branch", {"a": FLOAT}, [call("c", "double", "a")], {"r": ("c:output:0", FLOAT)})
    branch.nodes[0].attrs["Tout"] = AttrList("type", [FLOAT])
    both = node("if", "If", "p", "x", T=None, then_branch=FunctionName("branch"), else_branch=FunctionName("double"))
    found = inlined([placeholder("p", (), DType.bool), placeholder("x"), both], branch, DOUBLE)

    kept = {each.name: each for each in found.graph.functions}
    assert sorted(kept) == ["branch", "double"]
    assert [(each.name, each.inputs) for each in kept["branch"].nodes] == [("c/two", ["a", "a"])]
    assert kept["branch"].returns == {"r": "c/two:z:0"}


@pytest.mark.parametrize(("choice", "op"), [(True, "Neg"), (False, "Exp")])
def test_an_if_that_is_settled_is_its_branch(choice, op):
    branch = {
        name: function(name, {"a": FLOAT}, [node("r", name, "a")], {"y": ("r:y:0", FLOAT)}) for name in ("Neg", "Exp")
    }
    if_ = node("if", "If", "p", "x", T=None, then_branch=FunctionName("Neg"), else_branch=FunctionName("Exp"))
    value = Node("p", "Const", attrs={"dtype": DType.bool, "value": ArrayTensor(np.array(choice))})
    for each in branch.values():
        each.name = f"branch_{each.name}"
    if_.attrs |= {"then_branch": FunctionName("branch_Neg"), "else_branch": FunctionName("branch_Exp")}
    found = inlined([value, placeholder("x"), if_], *branch.values())

    assert by_name(found.graph)["if/r"].op == op
    assert not found.graph.functions


@pytest.mark.parametrize(("choice", "taken"), [(0, "one"), (1, "two"), (-1, "two"), (7, "two")])
def test_a_case_that_is_settled_is_its_branch(choice, taken):
    branches = [function(name, {"a": FLOAT}, [node(name, "Neg", "a")], {"y": (f"{name}:y:0", FLOAT)})
                for name in ("one", "two")]  # fmt: skip
    names = AttrList("func", [FunctionName("one"), FunctionName("two")])
    case = node("case", "Case", "through", "x", T=None, branches=names)
    found = inlined(
        [constant("i", choice), node("through", "Identity", "i"), placeholder("x"), case], *branches)  # fmt: skip

    assert f"case/{taken}" in by_name(found.graph)


def test_a_call_of_nothing_is_refused():
    with pytest.raises(StructureError, match="not in the library"):
        inlined([placeholder("x"), call("f", "absent", "x")], DOUBLE)


def test_a_call_with_other_arguments_is_refused():
    with pytest.raises(StructureError, match="gives 2 tensors to double, which takes 1"):
        inlined([placeholder("x"), call("f", "double", "x", "x")], DOUBLE)


def test_an_output_that_a_function_does_not_give_is_refused():
    with pytest.raises(StructureError, match="gives 1 tensors"):
        inlined([placeholder("x"), call("f", "double", "x"), node("out", "Neg", "f:1")], DOUBLE)


def test_symbolic_gradients_are_refused_by_name():
    gradient = node("g", "SymbolicGradient", "a", T=None, Tin=AttrList("type", [FLOAT]), Tout=AttrList("type", [FLOAT]))
    grad = function("grad", {"a": FLOAT}, [gradient], {"r": ("g:output:0", FLOAT)})
    with pytest.raises(UnsupportedError) as caught:
        inlined([placeholder("x"), call("f", "grad", "x")], grad)
    assert caught.value.problems == ("g",)


def test_calls_that_multiply_past_all_bounds_are_refused():
    functions = [DOUBLE]
    for level in range(40):
        inner = functions[-1].name
        body = [call("one", inner, "a"), call("two", inner, "one:output:0")]
        for each in body:
            each.attrs["Tout"] = AttrList("type", [FLOAT])
        functions.append(function(f"level{level}", {"a": FLOAT}, body, {"r": ("two:output:0", FLOAT)}))
    with pytest.raises(LimitError, match="more than 1,000 nodes"):
        inlined([placeholder("x"), call("f", "level39", "x")], *functions, limits=Limits(max_nodes=1000))
