"""Functions made of parts of graphs, on graphs built by hand."""

import numpy as np
import pytest

from graphs import FLOAT, Unchanged, colocated, constant, graph, handle, node, placeholder, read
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.passes.functions_from_graph import Call, Capture, Taken, argument_name, function_from_graph

ANY = Shape(None)


def take(name, shape=ANY, dtype=FLOAT):
    return Taken(TensorName.parse(name), dtype, shape)


def make(nodes, takes=None, gives=None, captures=(), **more):
    """Make a function of nodes; captures are handles."""
    found = graph(*nodes)
    results = None if gives is None else {key: TensorName.parse(name) for key, name in gives.items()}
    call = Call("f", takes or {}, results, **more)
    captured = {name: Capture(name, DType.resource, b"about " + name.encode()) for name in captures}
    with Unchanged(found):
        return function_from_graph(GraphIndex(found.nodes), call, captured, Definitions())


def body(made):
    return {item.name: (item.op, item.inputs) for item in made.function.nodes}


DENSE = [
    placeholder("x", (None, 2)),
    handle("w", (2, 3)),
    node("late", "Neg", "y"),
    read("w/read", "w"),
    node("y", "MatMul", "x", "w/read"),
    handle("unused"),
]


def test_inputs_and_captures_become_arguments():
    made = make(DENSE, {"Image": take("x:0", Shape((None, 2)))}, {"scores": "y"}, ["w", "unused"])

    function = made.function
    assert [(item.name, item.dtype, item.opaque) for item in function.arguments] == [
        ("image", FLOAT, b""),
        ("w", DType.resource, b"about w"),
    ]
    assert (made.captures, made.nodes, made.result_dtypes) == (("w",), ("w/read", "y"), (FLOAT,))
    assert body(made) == {
        "w/read": ("ReadVariableOp", ["w"]),
        "y": ("MatMul", ["image", "w/read:value:0"]),
        "Identity": ("Identity", ["y:product:0"]),
    }
    assert function.returns == {"scores": "Identity:output:0"}
    assert function.is_stateful
    assert function.argument_attrs == {
        0: {"_user_specified_name": b"Image", "_output_shapes": AttrList("shape", [Shape((None, 2))])},
        1: {"_user_specified_name": b"w"},
    }


def test_a_function_without_state_is_not_stateful():
    made = make([placeholder("x"), node("y", "Neg", "x")], {"x": take("x:0")}, {"y": "y"})

    assert not made.function.is_stateful
    assert made.captures == ()


def test_any_tensor_can_be_fed():
    nodes = [
        placeholder("x"), node("s", "Split", "x", "x", num_split=2), node("a", "Neg", "s:1"), node("b", "Neg", "s"),
        node("y", "Add", "a", "b"),
    ]  # fmt: skip
    made = make(nodes, {"half": take("s:1"), "x": take("x:0")}, {"y": "y"})

    assert body(made)["a"] == ("Neg", ["half"])
    assert body(made)["b"] == ("Neg", ["s:output:0"])
    assert body(made)["s"] == ("Split", ["x", "x"])


def test_what_computes_a_fed_tensor_stays_outside():
    nodes = [placeholder("x"), handle("w"), read("r", "w"), node("h", "Add", "x", "r"), node("y", "Neg", "h")]
    made = make(nodes, {"h": take("h:0")}, {"y": "y"}, ["w"])

    assert body(made) == {"y": ("Neg", ["h"]), "Identity": ("Identity", ["y:y:0"])}
    assert made.captures == ()


def test_nothing_waits_for_arguments():
    nodes = [placeholder("x"), handle("w"), constant("c", 1.0, "^x", "^w"), node("y", "Add", "x", "c", "^w")]
    made = make(nodes, {"x": take("x:0")}, {"y": "y"}, ["w"])

    assert body(made)["c"] == ("Const", [])
    assert body(made)["y"] == ("Add", ["x", "c:output:0"])


def test_an_argument_or_a_capture_can_be_given_back():
    nodes = [placeholder("x"), handle("w")]
    made = make(nodes, {"x": take("x:0")}, {"again": "x", "handle": "w", "twice": "x"}, ["w"])

    assert made.function.returns == {
        "again": "Identity:output:0",
        "handle": "Identity_1:output:0",
        "twice": "Identity_2:output:0",
    }
    assert made.result_dtypes == (FLOAT, DType.resource, FLOAT)


def test_names_that_meet():
    nodes = [placeholder("in"), node("x", "Neg", "in"), node("Identity", "Neg", "x")]
    made = make(nodes, {"X": take("in:0"), "x": take("in:0"), "9-a": take("in:0")}, {"Y": "Identity", "y": "x"})

    assert [item.name for item in made.function.arguments] == ["x_1", "x_2", "arg_9_a"]
    assert body(made)["x"] == ("Neg", ["x_1"])
    assert made.function.returns == {"y": "Identity_1:output:0", "y_1": "Identity_2:output:0"}


def test_a_function_that_only_runs_something_gives_a_number():
    nodes = [handle("t"), constant("k", 1), node("fill", "AssignVariableOp", "t", "k", T=None, dtype=DType.int32)]
    made = make(nodes, captures=["t"], runs=["fill"])

    assert made.function.control_returns == {"fill": "fill"}
    assert body(made)["Identity"] == ("Identity", ["done:output:0", "^fill"])
    assert made.result_dtypes == (DType.int32,)
    assert next(item for item in made.function.nodes if item.name == "done").tensor().numpy() == np.int32(1)


def test_a_function_may_give_nothing():
    made = make([placeholder("x"), node("y", "Neg", "x")], {"x": take("x:0")}, {})

    assert (made.function.results, made.function.returns, body(made)) == ([], {}, {})


def test_colocations_with_what_is_an_argument_now_go():
    nodes = [handle("w"), colocated(read("r", "w"), "w", "r"), colocated(node("y", "Neg", "r"), "w")]
    made = make(nodes, {}, {"y": "y"}, ["w"])

    found = {item.name: item.attrs.get("_class") for item in made.function.nodes}
    assert found["r"].items == [b"loc:@r"]
    assert found["y"] is None


def test_the_type_of_an_unknown_op_comes_from_who_asks():
    nodes = [placeholder("x"), node("odd", "NoSuchOp", "x")]

    with pytest.raises(UnsupportedError, match=r"odd \(NoSuchOp\)(?s:.*)--style v1|--style v1"):
        make(nodes, {"x": take("x:0")}, {"y": "odd"}, dtypes={"y": DType.int32})


def test_an_op_that_functions_no_longer_take():
    nodes = [placeholder("x"), node("norm", "BatchNormWithGlobalNormalization", *["x"] * 5), node("y", "Neg", "norm")]

    with pytest.raises(UnsupportedError, match=r"norm \(BatchNormWithGlobalNormalization\) was removed in version 9"):
        make(nodes, {"x": take("x:0")}, {"y": "y"})
    assert make(nodes, {"norm": take("norm:0")}, {"y": "y"}).nodes == ("y",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x", "x"), ("Input:1", "input_1"), ("a/b-C", "a_b_c"), ("_x", "arg__x"), ("ä", "arg__"), ("", "arg_")],
)
def test_argument_names(name, expected):
    assert argument_name(name) == expected
