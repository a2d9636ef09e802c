"""Waiting for constants is given up; waiting for anything else is not."""

from graphs import Unchanged, by_name, constant, graph, node, placeholder
from tfthaw.ir.graph import TensorName
from tfthaw.passes.idle_controls import drop_idle_controls

OUT = [TensorName("out", 0)]


def cleaned(*nodes, outputs=OUT):
    with Unchanged(graph(*nodes)) as argument:
        return {name: each.inputs for name, each in by_name(drop_idle_controls(argument, outputs)).items()}


def test_waiting_for_constants_is_given_up_and_what_only_waited_goes():
    found = cleaned(
        constant("w", 1.0), node("read", "Identity", "w"), node("all", "NoOp", "^read", T=None), placeholder("x"),
        node("out", "AddV2", "x", "w", "^all"),
    )  # fmt: skip

    assert found == {"w": [], "x": [], "out": ["x", "w"]}


def test_waiting_for_anything_else_stays():
    nodes = [placeholder("x"), node("check", "Assert", "x", T=None), node("all", "NoOp", "^check", T=None),
             node("out", "Neg", "x", "^all")]  # fmt: skip

    assert cleaned(*nodes)["out"] == ["x", "^all"]


def test_a_graph_without_idle_controls_is_the_same_object():
    whole = graph(placeholder("x"), node("out", "Neg", "x"))

    assert drop_idle_controls(whole, OUT) is whole


def test_graphs_with_the_control_flow_of_v1_stay_as_they_are():
    nodes = [placeholder("x"), constant("c", 1.0), node("s", "Switch", "x", "p"), node("out", "Neg", "s", "^c")]

    assert cleaned(*nodes)["out"] == ["s", "^c"]


def test_constants_that_outputs_need_stay():
    nodes = [constant("c", 1.0), node("out", "NoOp", "^c", T=None)]

    assert cleaned(*nodes, outputs=[TensorName("out", 0), TensorName("c", 0)]) == {"c": [], "out": []}
