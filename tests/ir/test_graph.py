"""Names of tensors and the use-def links of a graph."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import constant, graph, node, placeholder
from tfthaw.ir.attrs import AttrList, FunctionName, Shape
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph, GraphIndex, TensorName, control_inputs, data_inputs


@pytest.mark.parametrize(
    ("text", "name", "as_input"),
    [
        ("a", ("a", 0), "a"),
        ("a:0", ("a", 0), "a"),
        ("a/b:12", ("a/b", 12), "a/b:12"),
        ("^a", ("a", -1), "^a"),
        ("a:b", ("a:b", 0), "a:b"),
        ("a:²", ("a:²", 0), "a:²"),
        ("", ("", 0), ""),
        (":1", (":1", 0), ":1"),
        ("a:", ("a:", 0), "a:"),
        ("a:" + "9" * 5000, ("a:" + "9" * 5000, 0), "a:" + "9" * 5000),
    ],
)
def test_spellings(text, name, as_input):
    if text == ":1":  # no node has an empty name, but a hostile graph may say so
        name, as_input = ("", 1), ":1"
    assert TensorName.parse(text) == name
    assert TensorName.parse(text).as_input() == as_input
    assert TensorName.parse(text).is_control == text.startswith("^")


@given(st.text())
def test_any_text_is_a_name(text):
    assert TensorName.parse(TensorName.parse(text).as_input()) == TensorName.parse(text)


def test_the_printed_form_names_the_output():
    assert str(TensorName("a", 0)) == "a:0"


CHAIN = [
    placeholder("x"),
    node("y", "Neg", "x:0"),
    constant("c", 1.0, "^y"),
    node("z", "Add", "c", "y", "^x"),
    node("lone", "Neg", "gone"),
]


def test_links():
    index = GraphIndex(CHAIN)

    assert index.producer("y:0").name == "y"
    assert index.producer("gone") is None
    assert [(user.name, position) for user, position in index.consumers("x")] == [("y", 0), ("z", 2)]
    assert index.consumers("z") == []
    assert "x" in index
    assert "gone" not in index


def test_reach_and_descend():
    index = GraphIndex(CHAIN)

    assert index.reach(["z"]) == {"x", "y", "c", "z"}
    assert index.reach(["c"], through_control=False) == {"c"}
    assert index.reach(["z"], stop=["y"]) == {"z", "c", "y", "x"}
    assert index.reach(["c"], stop=["y"]) == {"c", "y"}
    assert index.reach(["lone", "gone"]) == {"lone"}
    assert index.descend(["x"]) == {"y", "c", "z"}
    assert index.descend(["z"]) == set()


def test_the_first_of_duplicates_wins():
    assert GraphIndex([constant("a", 1.0), placeholder("a")]).nodes["a"].op == "Const"


def test_circles_end():
    index = GraphIndex([node("a", "Merge", "b"), node("b", "NextIteration", "a")])

    assert index.reach(["a"]) == index.descend(["a"]) == {"a", "b"}


def test_a_graph_walks_through_its_functions():
    whole = graph(constant("a", 1.0))
    whole.functions.append(Function("f", nodes=[node("n", "Neg", "x")]))

    assert [found.name for found in whole.walk()] == ["a", "n"]
    assert whole.with_nodes([]).functions is whole.functions
    assert Graph() == Graph()


def test_nodes_say_what_they_have():
    found = node(
        "n",
        "Call",
        "a",
        "b:1",
        "^c",
        T=None,
        f=FunctionName("f"),
        many=AttrList("func", [FunctionName("g")]),
        s=b"\xff",
    )

    assert found.called() == ["f", "g"]
    assert (found.dtype("f"), found.shape("f"), found.tensor("f"), found.text("f")) == (None, None, None, "")
    assert found.text("s") == "\ufffd"
    assert (data_inputs(found), control_inputs(found)) == (["a", "b:1"], ["c"])


@pytest.mark.parametrize(("dims", "is_static"), [(None, False), ((), True), ((1, None), False), ((2, 3), True)])
def test_static_shapes(dims, is_static):
    assert Shape(dims).is_static == is_static
