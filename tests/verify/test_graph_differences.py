"""How graphs and functions differ."""

import pytest

from tfthaw.formats.graph_def import read_graph_def
from tfthaw.serde.graphs import graph_from_proto
from tfthaw.verify.graph_differences import compare_graphs
from verify.artifacts import PLACEHOLDER, const, graph, node


@pytest.fixture
def compare(tmp_path):
    """Return a function that compares two graphs in text form."""

    def graphs(*sides, versions=("producer: 27", "producer: 27")):
        made = []
        for number, nodes in enumerate(sides):
            path = graph(tmp_path / f"{number}.pbtxt", *nodes, versions=versions[number])
            made.append(graph_from_proto(read_graph_def(path).message))
        return compare_graphs(*made)

    return graphs


def changes(found):
    return {item.name: item.what for item in found.changed}


def function(name, op, callee=None, attr="type: DT_FLOAT", arguments=("x",)):
    called = f'attr {{ key: "f" value {{ func {{ name: "{callee}" }} }} }}' if callee else ""
    arguments = " ".join(f'input_arg {{ name: "{each}" type: DT_FLOAT }}' for each in arguments)
    signature = f'signature {{ name: "{name}" {arguments} output_arg {{ name: "y" type: DT_FLOAT }} }}'
    body = f'node_def {{ name: "n" op: "{op}" input: "x" attr {{ key: "T" value {{ {attr} }} }} {called} }}'
    return f'function {{ {signature} {body} ret {{ key: "y" value: "n:y:0" }} }}\n'


def test_order_and_spelling_count_for_nothing(compare):
    a, b = node("a", "NoOp"), node("b", "NoOp")
    found = compare(
        [PLACEHOLDER, a, b, node("y", "Identity", "x", "^a", "^b")],
        [node("y", "Identity", "x:0", "^b", "^a"), b, a, PLACEHOLDER],
    )
    assert found.same
    assert found.nodes.equal == 4


def test_each_part_of_a_node_is_named(compare):
    one = node("n", "Relu", "x", device="/cpu:0", T="type: DT_FLOAT", gone="i: 1", s='s: "a"')
    other = node("n", "Relu6", "z", T="type: DT_HALF", new="f: 0.5", s='s: "b"')
    assert changes(compare([one], [other]).nodes) == {
        "n": {
            "op": ("Relu", "Relu6"), "inputs": ("x", "z"), "device": ("/cpu:0", ""),
            "attr T": ("float32", "float16"), "attr gone": ("1", "(not set)"), "attr new": ("(not set)", "0.5"),
            "attr s": ("'a'", "'b'"),
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("b: true", "i: 1", ("True", "1")),
        ("shape { dim { size: -1 } }", "shape { unknown_rank: true }", ("[?]", "?")),
        ("list { i: 1 i: 2 }", "list { i: 2 i: 1 }", ("[1, 2]", "[2, 1]")),
        ("list { type: DT_FLOAT }", "list { }", ("[float32]", "[]")),
        ('func { name: "f" }', 'func { name: "g" }', ("f", "g")),
        (
            "tensor { dtype: DT_FLOAT float_val: 1 }",
            "tensor { dtype: DT_FLOAT float_val: 2 }",
            ("float32[]", "float32[]"),
        ),
        ('placeholder: "T"', 's: "T"', ("T", "'T'")),
    ],
)
def test_attrs_of_every_kind_differ(compare, one, other, said):
    assert changes(compare([node("n", "Op", a=one)], [node("n", "Op", a=other)]).nodes) == {"n": {"attr a": said}}
    assert compare([node("n", "Op", a=one)], [node("n", "Op", a=one)]).same


def test_one_value_may_be_stored_in_two_ways(compare):
    short = "tensor { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 1 }"
    long = "tensor { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 1 float_val: 1 }"
    assert compare([node("n", "Op", a=short)], [node("n", "Op", a=long)]).same
    assert compare([node("n", "Op", a="f: nan")], [node("n", "Op", a="f: nan")]).same


def test_values_of_constants_are_not_compared_here(compare):
    assert compare([const("c", 1.0)], [const("c", 2.0)]).same


def test_inputs_in_another_order_are_shown_whole(compare):
    found = compare([node("n", "Sub", "a", "b")], [node("n", "Sub", "b", "a")])
    assert changes(found.nodes)["n"]["inputs"] == ("a, b", "b, a")
    more = compare([node("n", "AddN", "a")], [node("n", "AddN", "a", "b", "^c")])
    assert changes(more.nodes)["n"]["inputs"] == ("", "b, ^c")


def test_nodes_of_one_side_come_with_their_op(compare):
    found = compare([PLACEHOLDER], [node("y", "Relu", "x"), node("y", "Relu", "x")]).nodes
    assert (found.only_in_a, found.only_in_b) == ({"x": "Placeholder"}, {"y": "Relu", "y (2)": "Relu"})
    assert found.as_dict()["only_in_a"] == [{"name": "x", "op": "Placeholder"}]


def test_versions_differ(compare):
    found = compare([PLACEHOLDER], [PLACEHOLDER], versions=("producer: 27", "producer: 134 min_consumer: 12"))
    assert found.versions == {"producer": (27, 134), "min_consumer": (0, 12)}
    assert not found.same


def test_functions_differ_by_what_they_do(compare):
    found = compare([function("f", "Relu")], [function("f", "Relu", attr="type: DT_HALF")]).functions
    assert changes(found) == {"f": {"node n: attr T": ("float32", "float16")}}
    other = compare([function("f", "Relu")], [function("f", "Relu", arguments=("x", "z"))]).functions
    assert changes(other) == {"f": {"signature": ("(x) -> (y)", "(x, z) -> (y)")}}
    alone = compare([function("f", "Relu")], [function("g", "Relu")]).functions
    assert (list(alone.only_in_a), list(alone.only_in_b)) == (["f"], ["g"])


def test_trace_numbers_are_no_difference(compare):
    def traced(number, op="Relu"):
        calls = node("call", "PartitionedCall", "x", f=f'func {{ name: "__inference_outer_{number}" }}')
        outer = function(f"__inference_outer_{number}", "PartitionedCall", callee=f"__inference_inner_{number + 1}")
        return [calls, outer, function(f"__inference_inner_{number + 1}", op)]

    found = compare(traced(10), traced(520))
    assert found.same
    assert found.functions.renamed == {
        "__inference_outer_10": "__inference_outer_520", "__inference_inner_11": "__inference_inner_521"
    }  # fmt: skip
    changed = compare(traced(10), traced(520, "Elu"))
    assert changes(changed.functions) == {
        "__inference_inner_11 -> __inference_inner_521": {"node n: op": ("Relu", "Elu")}
    }
    assert changed.nodes.same


def test_functions_of_one_stem_go_by_their_bodies(compare):
    a = [function("f_1", "Relu"), function("f_2", "Elu"), function("f_3", "Elu")]
    b = [function("f_7", "Elu"), function("f_8", "Relu"), function("f_9", "Elu")]
    found = compare(a, b)
    assert found.functions.renamed == {"f_1": "f_8", "f_2": "f_7", "f_3": "f_9"}
    assert found.same
