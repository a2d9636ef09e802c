"""Calls of functions by their op as calls by attr, on graphs built by hand."""

from graphs import FLOAT, Unchanged, by_name
from tfthaw.dtypes import DType
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import AttrList, AttrPlaceholder, FunctionName
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node
from tfthaw.passes.calls_by_attr import call_by_attr

FLOATS = [Argument("a", FLOAT), Argument("b", FLOAT)]
SEVERAL = Function("Several", [Argument("x", FLOAT)], [Argument("y", FLOAT), Argument("many", FLOAT, number_attr="N")])
CALL = Node("call", "Several", ["x", "^x"], "/cpu:0", {"N": 2, "_tag": b"t"})
BY_ATTR = {
    "_tag": b"t", "f": FunctionName("Several", {"N": 2}), "Tin": AttrList("type", [FLOAT]),
    "Tout": AttrList("type", [FLOAT] * 3),
}  # fmt: skip


def caller(nodes, returns, **more):
    return Function("Caller", [Argument("x", FLOAT)], FLOATS, nodes, returns, **more)


def test_calls_of_the_main_graph():
    with Unchanged(Graph([Node("x", "Placeholder"), CALL, Node("z", "Neg", ["call:2"])], [SEVERAL])) as argument:
        found = by_name(call_by_attr(argument))

    assert found["call"] == Node("call", "PartitionedCall", ["x", "^x"], "/cpu:0", BY_ATTR)
    assert found["z"].inputs == ["call:2"]


def test_calls_of_functions_and_what_takes_their_results():
    user = Node("z", "AddV2", ["call:many:1", "call:y:0", "^call"])
    body = caller([CALL, user], {"a": "z:z:0", "b": "call:many:0"}, control_returns={"done": "call"})
    changed = call_by_attr(Graph([], [SEVERAL, body])).functions[1]

    assert changed.nodes[0].op == "PartitionedCall"
    assert changed.nodes[1].inputs == ["call:output:2", "call:output:0", "^call"]
    assert changed.returns == {"a": "z:z:0", "b": "call:output:1"}
    assert changed.control_returns == {"done": "call"}
    assert body.nodes == [CALL, user]


def test_functions_with_state_and_without_results():
    function = Function("Print", [Argument("x", FLOAT)], is_stateful=True)
    found = call_by_attr(Graph([Node("p", "Print", ["x"])], [function])).nodes[0]

    assert found.op == "StatefulPartitionedCall"
    assert found.attrs["Tout"] == AttrList("", [])


def test_what_cannot_be_said_by_attr_stays():
    whole = caller([CALL, Node("z", "AddN", ["call:many"])], {"a": "z:sum:0", "b": "x"})
    generic = Function("Any", [Argument("x", type_attr="T")], [Argument("y", type_attr="T")])
    inner = caller([Node("c", "Any", ["x"], "", {"T": AttrPlaceholder("T")})], {"a": "c:y:0", "b": "x"})
    graph = Graph([Node("c", "Any", ["x"], "", {"T": DType.int32})], [SEVERAL, generic, whole, inner])
    found = call_by_attr(graph)

    assert found.functions == graph.functions
    assert found.nodes[0].attrs["Tout"] == AttrList("type", [DType.int32])
    nothing = Graph([Node("x", "Placeholder")], [SEVERAL])
    assert call_by_attr(nothing) is nothing
