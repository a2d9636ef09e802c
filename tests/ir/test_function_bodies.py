"""Functions as graphs, and back."""

import pytest

from graphs import FLOAT, constant, function, node
from tfthaw.dtypes import DType
from tfthaw.errors import StructureError, UnsupportedError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import AttrList, AttrPlaceholder, FunctionName
from tfthaw.ir.definitions import Definition, Definitions
from tfthaw.ir.function_bodies import bound_attrs, close_body, open_body
from tfthaw.ir.graph import TensorName

SPLIT = [
    constant("axis", 0),
    node("s", "Split", "axis:output:0", "x", num_split=2),
    node("u", "Unique", "s:output:1", T=FLOAT, out_idx=DType.int32),
    node("last", "Neg", "u:idx:0", "^s"),
]


def split(nodes=SPLIT, **options):
    return function("f", {"x": FLOAT, "y": FLOAT}, nodes, {"a": ("u:idx:0", FLOAT), "b": ("y", FLOAT)}, **options)


def opened(given, attrs=None, **described):
    return open_body(given, Definitions([given], described), attrs)


def test_names_of_outputs_are_positions():
    body = opened(split())

    inputs = {each.name: each.inputs for each in body.nodes}
    assert inputs == {"x": [], "y": [], "axis": [], "s": ["axis", "x"], "u": ["s:1"], "last": ["u:1", "^s"]}
    assert body.arguments == ["x", "y"]
    assert body.returns == [TensorName("u", 1), TensorName("y", 0)]


def test_what_was_opened_closes_to_what_it_was():
    given = split(controls=["last"])
    body = opened(given)
    nodes, returns = close_body(body, Definitions())

    assert [(each.name, each.inputs) for each in nodes] == [(each.name, each.inputs) for each in given.nodes]
    assert returns == ["u:idx:0", "y"]
    assert body.controls == {"control_last": "last"}


def test_an_argument_may_be_named_like_a_node():
    given = function("f", {"x": FLOAT}, [node("x", "Neg", "x")], {"a": ("x:y:0", FLOAT)})
    body = opened(given)

    assert body.arguments == ["x_arg"]
    assert body.nodes[1].inputs == ["x_arg"]
    assert body.returns == [TensorName("x", 0)]


def test_list_arguments_are_as_many_tensors_as_the_caller_says():
    given = function("f", {}, [node("sum", "AddN", "x:0", "x:2", N=2)], {"a": ("sum:sum:0", FLOAT)})
    given.arguments = [Argument("x", type_list_attr="Ts")]
    given.signature = b"\x22\x04\x0a\x02Ts"
    body = opened(given, {"Ts": AttrList("type", [FLOAT, DType.int32, FLOAT])})

    assert body.arguments == ["x_0", "x_1", "x_2"]
    assert [each.attrs["T"] for each in body.nodes[:3]] == [FLOAT, DType.int32, FLOAT]
    assert body.nodes[3].inputs == ["x_0", "x_2"]


def test_a_list_that_is_taken_whole_is_all_its_tensors():
    pair = AttrList("type", [FLOAT, FLOAT])
    nodes = [node("i", "IdentityN", "x", T=pair), node("sum", "AddN", "i:output", N=2)]
    given = function("f", {}, nodes, {})
    given.arguments, given.results = [Argument("x", type_list_attr="Ts")], [Argument("r", type_list_attr="Ts")]
    given.returns = {"r": "i:output"}
    given.signature = b"\x22\x04\x0a\x02Ts"
    body = opened(given, {"Ts": pair})

    assert [each.inputs for each in body.nodes[2:]] == [["x_0", "x_1"], ["i", "i:1"]]
    assert body.returns == [TensorName("i", 0), TensorName("i", 1)]


def test_attrs_of_the_caller_reach_into_functions_and_lists():
    inner = FunctionName("g", {"T": AttrPlaceholder("T")})
    attrs = {"T": AttrPlaceholder("T"), "f": inner, "fs": AttrList("func", [inner]), "other": 1}
    bound = bound_attrs(attrs, {"T": FLOAT}, where="f")

    assert (bound["T"], bound["other"]) == (FLOAT, 1)
    assert bound["f"].attrs == bound["fs"].items[0].attrs == {"T": FLOAT}
    assert inner.attrs == {"T": AttrPlaceholder("T")}


def test_an_attr_that_the_caller_leaves_out_is_refused():
    with pytest.raises(StructureError, match="does not give the attr 'T'"):
        bound_attrs({"T": AttrPlaceholder("T")}, {}, where="f")


@pytest.mark.parametrize("text", ["gone", "gone:y:0", "s:other:0", "s:output:2", "s:output:x", "s:output:0:0"])
def test_what_names_nothing_is_refused(text):
    with pytest.raises(StructureError, match="contradicts itself") as caught:
        opened(function("f", {"x": FLOAT}, [*SPLIT, node("n", "Neg", text)], {}))
    assert repr(text) in caught.value.problems[0]


def test_a_result_that_nothing_gives_is_refused():
    given = split()
    del given.returns["a"]
    with pytest.raises(StructureError) as caught:
        opened(given)
    assert caught.value.problems == ("result 'a' is given by nothing",)


def test_ops_that_nothing_describes_are_refused_where_their_outputs_are_named():
    custom = [node("c", "MyOp", "x"), node("n", "Neg", "c:second:0")]
    given = function("f", {"x": FLOAT}, custom, {})
    with pytest.raises(UnsupportedError) as caught:
        opened(given)
    assert caught.value.problems == ("c (MyOp)",)

    outputs = (Argument("first", FLOAT), Argument("second", FLOAT))
    body = opened(given, MyOp=Definition((), outputs, is_stateful=False, defaults={}))
    assert body.nodes[-1].inputs == ["c:1"]
