"""Graphs for older versions of TensorFlow, built by hand: what goes, what is replaced, and what is refused."""

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphs import FLOAT, Unchanged, by_name, constant, function, graph, library, node, ops, placeholder, variable
from older_judge import unreadable
from tfthaw.dtypes import DType
from tfthaw.errors import TfthawError, UnsupportedError
from tfthaw.ir.attrs import AttrList, AttrPlaceholder, FunctionName, OpaqueAttr, Shape
from tfthaw.ir.definitions import Definition
from tfthaw.ir.graph import Graph, Node, TensorName, Versions
from tfthaw.ir.op_history import op_history, versions
from tfthaw.passes.older_equivalents import NO_EQUIVALENT, RULES
from tfthaw.passes.older_versions import for_version
from tfthaw.passes.strip_attrs import strip_attrs

NONE = AttrList("", [])


def refusal(found, version, **more):
    with pytest.raises(UnsupportedError) as caught:
        for_version(found, version, **more)
    return caught.value


def add(name, *inputs, **more):
    return node(name, "AddV2", *inputs, **more)


def test_ops_with_an_older_equivalent_are_replaced():
    nodes = [placeholder("x"), constant("c", 1.0), add("out", "x", "c", "^c"), add("late", "out", "x")]
    with Unchanged(graph(*nodes)) as argument:
        fitted = for_version(argument, "1.4.1")

    assert ops(fitted.graph) == {"x": "Placeholder", "c": "Const", "out": "Add", "late": "Add"}
    assert by_name(fitted.graph)["out"].inputs == ["x", "c", "^c"]
    assert fitted.notes == ("2 AddV2 became Add for TensorFlow 1.4, which computes the same",)


def test_what_the_version_knows_stays():
    before = graph(placeholder("x"), add("out", "x", "x"))
    assert for_version(before, "1.5").graph == before


def test_unknown_attrs_go_at_the_default_that_they_came_with():
    attrs = {"strides": AttrList("i", [1, 1, 1, 1]), "padding": b"SAME", "explicit_paddings": NONE, "_mark": 1}
    fitted = for_version(graph(node("c", "Conv2D", "x", "w", **attrs, data_format=b"NHWC")), "1.13")
    assert set(fitted.graph.nodes[0].attrs) == {"T", "strides", "padding", "_mark", "data_format"}
    assert "Conv2D.explicit_paddings (1)" in fitted.notes[0]


def test_all_problems_come_at_once_with_the_first_version_that_reads_it():
    nodes = [
        *(node(f"e{i}", "Einsum", "x", "x", N=2, equation=b"ij,jk->ik") for i in range(5)),
        node("r", "ResizeBilinear", "x", "s", half_pixel_centers=True),
        node("b", "BroadcastTo", "x", "s"),
        node("big", "Cast", "x", SrcT=FLOAT, DstT=DType.float8_e5m2, T=None),
    ]
    error = refusal(graph(*nodes), "1.8")
    assert "TensorFlow 1.8 cannot read 8 of the graph's nodes" in str(error)
    assert error.problems == (
        "Einsum is there from TensorFlow 1.15 on; not replaced: MatMul and Mul would add in another order: "
        "5 nodes: e0, e1, e2, ...",
        "ResizeBilinear takes half_pixel_centers=true from TensorFlow 1.14 on: 1 node: r",
        "BroadcastTo is there from TensorFlow 1.9 on; not replaced: no older op copies elements of every type alike: "
        "1 node: b",
        "the element type float8_e5m2 is there from TensorFlow 2.12 on: 1 node: big",
    )
    assert error.hint == "TensorFlow 2.12 is the first that reads it all: --for-tf 2.12"
    assert for_version(graph(*nodes), "2.12").graph.nodes[-1] == nodes[-1]


def test_values_that_came_later():
    error = refusal(graph(node("c", "Conv2D", "x", "w", strides=NONE, padding=b"EXPLICIT")), "1.13")
    assert error.problems == ("Conv2D takes padding=EXPLICIT from TensorFlow 1.14 on: 1 node: c",)
    error = refusal(graph(node("e", "Equal", "x", "y", T=DType.uint32)), "1.15")
    assert error.problems[0].startswith("Equal takes T=uint32 from TensorFlow 2.")


def test_inputs_that_came_later():
    stack = node("s", "TensorListStack", "l", "shape", T=None, element_dtype=FLOAT, num_elements=-1)
    assert refusal(graph(stack), "1.13").problems == (
        "TensorListStack has as many inputs and outputs from TensorFlow 1.14 on: 1 node: s",
    )
    assert for_version(graph(stack), "1.14").graph.nodes == [stack]


def test_ops_that_went():
    lost = graph(node("g", "SparseFeatureCross", T=None))
    error = refusal(lost, "2.1")
    assert error.problems[0].startswith("SparseFeatureCross was there up to TensorFlow 1.15")
    assert error.hint == "no TensorFlow that is known reads it all"


def test_unknown_attrs_of_a_newer_producer():
    found = graph(node("a", "MatMul", "x", "x", turbo=False))
    assert "has nobody say its default" in refusal(found, "2.21").problems[0]
    told = {"MatMul": Definition((), (), False, {"turbo": False})}
    assert set(for_version(found, "2.21", told).graph.nodes[0].attrs) == {"T"}
    told = {"MatMul": Definition((), (), False, {"turbo": True})}
    assert "has another value" in refusal(found, "2.21", described=told).problems[0]


def test_advice_goes_whatever_it_says():
    attrs = {"cond": FunctionName("c"), "body": FunctionName("b"), "T": NONE, "parallel_iterations": 3}
    loop = node("w", "While", **attrs, output_shapes=AttrList("shape", [Shape(())]))
    assert set(for_version(graph(loop), "1.12").graph.nodes[0].attrs) == {"T", "cond", "body"}


def test_ops_of_contrib_are_told():
    inputs = ("x", "c", "h", "w", "i", "f", "o", "b")
    found = graph(node("cell", "LSTMBlockCell", *inputs, forget_bias=1.0, cell_clip=3.0, use_peephole=False))
    assert (
        "modules of tf.contrib, which TensorFlow 1.5 must import first, have LSTMBlockCell (1)"
        in for_version(found, "1.5").notes
    )
    assert for_version(found, "1.15").notes == ()


def test_nodes_come_in_order_for_importers_that_ask_for_it():
    nodes = [node("late", "Neg", "x"), placeholder("x")]
    assert [found.name for found in for_version(graph(*nodes), "1.7").graph.nodes] == ["x", "late"]
    assert for_version(graph(*nodes), "1.8").graph.nodes == nodes


def test_custom_ops_and_calls_are_left_and_told():
    held = function("AddAll", {"x": FLOAT}, [add("s", "x", "x")], {"y": ("s:z:0", FLOAT)})
    nodes = [placeholder("x"), Node("call", "AddAll", ["x"], attrs={"T": FLOAT}), node("m", "MyOp", "call", speed=3)]

    fitted = for_version(library(nodes, held), "1.4")

    assert fitted.graph.nodes == nodes
    assert [found.op for found in fitted.graph.functions[0].nodes] == ["Add"]
    assert "ops that no TensorFlow brings were not judged: MyOp (1)" in fitted.notes


def test_outputs_that_have_another_name_are_spelled_anew_in_functions():
    nodes = [
        node("l", "LeakyRelu", "x", alpha=0.5),
        add("s", "l:activations:0", "x"),
        node("n", "Neg", "l:activations:0"),
    ]
    held = function("f", {"x": FLOAT}, nodes, {"y": ("l:activations:0", FLOAT), "z": ("n:y:0", FLOAT)})

    (found,) = for_version(library([], held), "1.12").graph.functions

    assert found.returns == {"y": "l:output:0", "z": "n:y:0"}
    spelled = {each.name: each.inputs for each in found.nodes}
    assert spelled["s"] == ["l:output:0", "x"]
    assert spelled["l"] == ["l/positive:z:0", "x", "l/leak:z:0"]
    assert spelled["l/leak"] == ["x", "l/alpha:output:0"]


def test_a_type_that_callers_give_is_not_guessed():
    leaky = node("l", "LeakyRelu", "x", T=AttrPlaceholder("T"))
    held = function("f", {"x": FLOAT}, [leaky], {"y": ("l:activations:0", FLOAT)})
    error = refusal(library([], held), "1.12")
    assert error.problems == (
        "LeakyRelu is there from TensorFlow 1.13 on; not replaced: its element type is left to the callers of its "
        "function: 1 node: in f: l",
    )


def test_added_constants_stay_in_their_loop():
    nodes = [
        placeholder("x"), node("e", "Enter", "x", frame_name=b"f"), node("l", "LeakyRelu", "e", alpha=0.5),
        node("out", "Exit", "l"),
    ]  # fmt: skip
    found = by_name(for_version(graph(*nodes), "1.12").graph)
    assert found["l/alpha"].inputs == ["^e"]
    outside = for_version(graph(placeholder("x"), node("l", "LeakyRelu", "x", alpha=0.5)), "1.12").graph
    assert by_name(outside)["l/alpha"].inputs == []


def test_names_of_added_nodes_are_free():
    nodes = [placeholder("x"), placeholder("l/alpha"), node("l", "LeakyRelu", "x", alpha=0.5)]
    assert "l/alpha_1" in by_name(for_version(graph(*nodes), "1.12").graph)


def batch_norm(**more):
    inputs = ("x", "s", "o", "m", "v")
    return node("n", "FusedBatchNormV3", *inputs, U=FLOAT, is_training=False, **more)


def test_outputs_that_the_older_op_lacks():
    before = graph(*map(placeholder, "xsomv"), batch_norm(exponential_avg_factor=1.0))
    assert ops(for_version(before, "1.9", fetched=[TensorName("n", 0)]).graph)["n"] == "FusedBatchNormV2"
    assert "its sixth output is used" in refusal(before, "1.9", fetched=[TensorName("n", 5)]).problems[0]
    user = node("u", "Neg", "n:5")
    assert "its sixth output is used" in refusal(graph(*before.nodes, user), "1.9").problems[0]
    volumes = graph(*map(placeholder, "xsomv"), batch_norm(data_format=b"NDHWC"))
    assert "it normalises volumes" in refusal(volumes, "1.13").problems[0]
    averaging = graph(*map(placeholder, "xsomv"), batch_norm(exponential_avg_factor=0.5))
    assert "exponential_avg_factor=0.5" in refusal(averaging, "1.13").problems[0]
    assert "exponential_avg_factor=0.5 from TensorFlow 2.2 on" in refusal(averaging, "2.1").problems[0]


@pytest.mark.parametrize(("shapes", "works"), [
    (((2, 3, 4), (2, 4, 5)), True), (((None, 3, 4), (None, 4, 5)), False), (((2, 3, 4), (4, 5)), False),
    (((2, None, 4), (2, 4, None)), True), (((1, 3, 4), (2, 4, 5)), False), ((None, (2, 4, 5)), False),
    (((3, 4), (4, 5)), True),
])  # fmt: skip
def test_products_of_batches_need_shapes_that_are_known(shapes, works):
    nodes = [
        placeholder("a", shapes[0]),
        placeholder("b", shapes[1]),
        node("y", "BatchMatMulV2", "a", "b", adj_x=False),
    ]
    if works:
        assert ops(for_version(graph(*nodes), "1.13").graph)["y"] == "BatchMatMul"
    else:
        assert "not replaced: " in refusal(graph(*nodes), "1.13").problems[0]


def test_shapes_are_taken_from_where_they_are_stated():
    read = Node("read", "Identity", ["w"], attrs={"T": FLOAT})
    shaped = node("s", "Neg", "x", _output_shapes=AttrList("shape", [Shape((2, 4, 5))]))
    nodes = [placeholder("x"), variable("w", (2, 3, 4)), read, shaped, node("y", "BatchMatMulV2", "read", "s")]
    assert ops(for_version(graph(*nodes), "1.13").graph)["y"] == "BatchMatMul"


def test_diagonals_other_than_the_main_one():
    def diag(k, padding=0.0, rows=-1):
        constants = [constant("k", k), constant("r", rows), constant("c", -1), constant("p", padding)]
        return graph(
            placeholder("x"), *constants, node("d", "MatrixDiagV3", "x", "k", "r", "c", "p", align=b"LEFT_LEFT")
        )

    assert ops(for_version(diag(0), "1.14").graph)["d"] == "MatrixDiag"
    for other, why in ((diag(1), "main diagonal"), (diag(0, 1.0), "fills"), (diag(0, -0.0), "fills"),
                       (diag(0, rows=5), "size")):  # fmt: skip
        assert why in refusal(other, "1.14").problems[0]


def test_choices_that_may_broadcast_need_a_version_that_can():
    nodes = [
        placeholder("c", None, DType.bool),
        placeholder("t"),
        placeholder("e"),
        node("y", "SelectV2", "c", "t", "e"),
    ]
    assert "BroadcastTo" in ops(for_version(graph(*nodes), "1.9").graph).values()
    error = refusal(graph(*nodes), "1.8")
    assert "SelectV2 is there from TensorFlow 1.14 on; not replaced: no older op copies" in error.problems[0]


def test_graph_versions():
    before = Graph([placeholder("x")], versions=Versions(2474, 12, (3,)))
    fitted = for_version(before, "1.15")
    assert fitted.graph.versions == Versions(134, 12, (3,))
    assert fitted.notes == (
        "GraphDef producer 2474 became 134, which TensorFlow 1.15 writes; min_consumer stays 12",
    )  # fmt: skip
    old = Graph([placeholder("x")], versions=Versions(21, 12))
    assert for_version(old, "1.15").graph.versions == Versions(21, 12)
    assert for_version(Graph([placeholder("x")]), "1.15").graph.versions is None


def test_graphs_that_forbid_a_version():
    error = refusal(Graph([placeholder("x")], versions=Versions(1000, 500)), "1.15")
    assert "cannot read the graph" in str(error)
    assert error.problems == (
        "the graph says that versions of GraphDef below 500 must not read it; it reads up to 134",
    )
    assert error.hint.startswith("TensorFlow 2.4 is the first")
    error = refusal(Graph([], versions=Versions(1000, 0, (134,))), "1.15")
    assert error.problems == ("the graph says that version 134 of GraphDef must not read it",)


def test_ops_that_were_refused_from_a_version_of_graphdef_on():
    found = graph(node("r", "BatchNormWithGlobalNormalization", *"xmvbg", variance_epsilon=0.1,
                       scale_after_normalization=True))  # fmt: skip
    found.versions = Versions(21, 0)
    assert "is refused from version 9 of GraphDef on" in refusal(found, "1.15").problems[0]
    found.versions = Versions(8, 0)
    assert for_version(found, "1.15").graph.nodes == found.nodes


def test_defaults_that_a_version_lacks_are_spelled_out():
    pool = node("p", "MaxPool", "x", ksize=NONE, strides=NONE, padding=b"SAME", T=None)
    assert for_version(graph(pool), "1.4").graph.nodes == [pool]  # since 0.12 it has a default


def lacking(name):
    """Return the newest version that lacks an op which came later."""
    return next(version for version in reversed(versions()) if not op_history(name).is_in(version))


JUNK = st.one_of(
    st.booleans(), st.integers(-2, 2), st.just(0.5), st.binary(max_size=3), st.sampled_from(list(DType)),
    st.sampled_from([NONE, AttrList("i", [1]), AttrList("type", [FLOAT]), Shape(None), FunctionName("f"),
                     AttrPlaceholder("T"), OpaqueAttr(b"")]),
)  # fmt: skip
INPUTS = st.sampled_from(["x", "n", "k", "s", "x:1", "n:output:0", "n:y:x", "gone", "^k", ""])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_rules_survive_nodes_that_say_nonsense(data):
    """Only an error of ours may come out, in a main graph and in a function."""
    name = data.draw(st.sampled_from(sorted(RULES)))
    attrs = {attr.name: data.draw(JUNK) for attr in op_history(name).attrs if data.draw(st.integers(0, 9))}
    found = Node("n", name, data.draw(st.lists(INPUTS, max_size=7)), attrs=attrs)
    nodes = [placeholder("x"), constant("k", 0), constant("s", [b"a"]), found, node("user", "Neg", "n:1")]
    held = function("f", {"x": FLOAT}, nodes[1:], {"y": (data.draw(INPUTS), FLOAT)})
    with contextlib.suppress(TfthawError):
        for_version(library(nodes, held), lacking(name))
    with contextlib.suppress(TfthawError):
        strip_attrs(library(nodes, held))


def test_every_rule_is_for_an_op_that_some_version_lacks():
    assert all(versions().index(lacking(name)) >= versions().index("1.4") for name in RULES)
    assert all(op_history(name) is not None for name in NO_EQUIVALENT)
    assert not set(RULES) & set(NO_EQUIVALENT)


def test_the_result_is_one_that_the_version_reads():
    nodes = [placeholder("x", (2, 3)), constant("c", np.float32([1, 2, 3])), add("a", "x", "c"),
             node("l", "LeakyRelu", "a", alpha=0.1), node("d", "DivNoNan", "l", "c"),
             node("m", "MatMul", "d", "d", transpose_a=True, transpose_b=False, grad_a=True, grad_b=False)]  # fmt: skip
    before = graph(*nodes)
    assert unreadable(before, "1.4")
    assert unreadable(for_version(before, "1.4").graph, "1.4") == []
