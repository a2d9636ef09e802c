"""Prune, set placeholders, cut dead branches, clear devices, fill tables and add a Saver, on graphs built by hand."""

import numpy as np
import pytest

from graphs import FLOAT, Unchanged, by_name, colocated, constant, graph, handle, node, ops, placeholder, read, variable
from tfthaw.dtypes import DType
from tfthaw.errors import NotFoundError, UnsupportedError, UsageError
from tfthaw.ir.attrs import AttrList, FunctionName, Shape
from tfthaw.ir.functions import Function, Gradient, RegisteredGradient
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.passes.add_saver import SavedVariable, add_saver
from tfthaw.passes.batch_norm import training_mode_nodes
from tfthaw.passes.clear_devices import clear_devices
from tfthaw.passes.prune import free_name, prune, prune_library
from tfthaw.passes.set_placeholders import cut_dead_branches, set_placeholders
from tfthaw.passes.tables import fill_tables
from tfthaw.restore.saved_names import saved_names

OUT = [TensorName("out", 0)]


def test_prune_keeps_what_outputs_need_in_its_order():
    nodes = [
        placeholder("x"),
        constant("c", 1.0),
        node("unused", "Neg", "x"),
        node("out", "Add", "x", "c"),
        node("late", "Neg", "out"),
    ]
    with Unchanged(graph(*nodes)) as argument:
        found, fed = prune(argument, OUT, [TensorName("x", 0)])

    assert list(ops(found)) == ["x", "c", "out"]
    assert fed == {TensorName("x", 0): TensorName("x", 0)}


def test_prune_follows_control_inputs_and_keeps_what_it_is_told():
    nodes = [constant("a", 1.0), constant("b", 1.0), constant("c", 1.0), constant("out", 1.0, "^a")]

    assert list(ops(prune(graph(*nodes), OUT, keep=["c"])[0])) == ["a", "c", "out"]


def test_a_fed_node_becomes_a_placeholder_of_its_name():
    nodes = [placeholder("x"), node("y", "Neg", "x"), node("out", "Neg", "y:0")]
    with Unchanged(graph(*nodes)) as argument:
        found, fed = prune(argument, OUT, [TensorName("y", 0)], dtypes={TensorName("y", 0): FLOAT})

    assert ops(found) == {"y": "Placeholder", "out": "Neg"}
    assert by_name(found)["y"].attrs == {"dtype": FLOAT, "shape": Shape(None)}
    assert fed == {TensorName("y", 0): TensorName("y", 0)}


def test_one_of_several_outputs_is_fed_beside_its_node():
    nodes = [placeholder("x"), node("parts", "Split", "x", "x", num_split=2), node("out", "Add", "parts", "parts:1")]
    found, fed = prune(graph(*nodes), OUT, [TensorName("parts", 1)], dtypes={TensorName("parts", 1): FLOAT})

    assert fed == {TensorName("parts", 1): TensorName("parts_1", 0)}
    assert by_name(found)["out"].inputs == ["parts", "parts_1"]
    assert {"x", "parts"} <= set(ops(found))


def test_an_input_that_no_output_needs_stays():
    found, _ = prune(graph(placeholder("x"), constant("out", 1.0)), OUT, [TensorName("x", 0)])

    assert list(ops(found)) == ["x", "out"]


def test_prune_says_what_it_cannot_find():
    with pytest.raises(NotFoundError, match="output: no node 'oot'; near names: out"):
        prune(graph(constant("out", 1.0)), [TensorName("oot", 0)])
    with pytest.raises(UsageError, match="element type of y:0"):
        prune(graph(node("y", "MyOp"), node("out", "Neg", "y")), OUT, [TensorName("y", 0)])


def test_prune_drops_colocations_and_functions_that_are_lost():
    out = colocated(node("out", "call_me", "x", T=None, g=FunctionName("branch")), "x", "gone")
    whole = graph(placeholder("x"), constant("gone", 1.0), out)
    whole.functions += [Function(name) for name in ("call_me", "branch", "inner", "unused", "gradient")]
    whole.functions[1].nodes.append(node("n", "inner", "a"))
    whole.gradients += [Gradient("inner", "gradient"), Gradient("unused", "gradient")]

    found, _ = prune(whole, OUT)

    assert [function.name for function in found.functions] == ["call_me", "branch", "inner", "gradient"]
    assert [gradient.function for gradient in found.gradients] == ["inner"]
    assert by_name(found)["out"].attrs["_class"] == AttrList("s", [b"loc:@x"])
    assert out.attrs["_class"].items == [b"loc:@x", b"loc:@gone"]


def test_free_names():
    assert free_name({"a", "a_1"}, "b") == "b"
    assert free_name({"a", "a_1"}, "a") == "a_2"


@pytest.mark.parametrize(("dtype", "value", "expected"), [
    (DType.bool, False, False), (DType.float32, 0.5, 0.5), (DType.int32, 3, 3), (DType.string, "a", b"a"),
    (DType.bfloat16, 1.5, 1.5), (DType.int64, [1, 2], [1, 2]),
])  # fmt: skip
def test_a_placeholder_takes_a_value(dtype, value, expected):
    nodes = [placeholder("p", None, dtype), node("out", "Identity", "p", T=dtype)]
    with Unchanged(graph(*nodes)) as argument:
        found = by_name(set_placeholders(argument, {"p:0": value}))["p"]

    assert (found.op, found.attrs["dtype"]) == ("Const", dtype)
    assert found.tensor().dtype is dtype
    assert np.asarray(found.tensor().numpy()).tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "shape", "value"),
    [
        (DType.bool, (), "maybe"),
        (DType.bool, (), 2),
        (DType.int32, (), 1.5),
        (DType.int8, (), 300),
        (DType.float32, (2,), 1.0),
        (DType.float32, (None, 2), [[1, 2, 3]]),
        (DType.int32, (), "x"),
        (DType.float32, (), None),
    ],
)
def test_values_that_do_not_fit_are_refused(dtype, shape, value):
    with pytest.raises(UsageError, match="--set p"):
        set_placeholders(graph(placeholder("p", shape, dtype)), {"p": value})


def cond(value):
    """Return a cond on a constant: true gives x + 1, false gives -x."""
    return graph(
        placeholder("x"), constant("flag", value), node("pred", "LogicalNot", "flag", T=None), constant("one", 1.0),
        node("s", "Switch", "x", "pred"), node("true", "Add", "s:1", "one"), node("false", "Neg", "s"),
        node("write", "Print", "false"), node("out", "Merge", "false", "true", N=2), node("end", "Neg", "out", "^true"),
    )  # fmt: skip


def test_a_dead_branch_is_cut():
    with Unchanged(cond(False)) as argument:
        found = cut_dead_branches(argument)

    assert found.dead == 2
    nodes = by_name(found.graph)
    assert not {"false", "write"} & set(nodes)
    assert (nodes["out"].op, nodes["out"].inputs, nodes["out"].attrs) == ("Identity", ["true"], {"T": FLOAT})


def test_what_waits_for_a_dead_branch_is_dead():
    assert {"true", "end"}.isdisjoint(ops(cut_dead_branches(cond(True)).graph))


def test_a_predicate_that_is_not_known_is_left():
    argument = graph(
        placeholder("flag", (), DType.bool), placeholder("x"), node("s", "Switch", "x", "flag"), node("out", "Neg", "s")
    )

    assert cut_dead_branches(argument).graph is argument


def test_a_merge_whose_index_is_used_stays_a_merge():
    whole = cond(False)
    whole.nodes.append(node("which", "Neg", "out:1"))
    nodes = by_name(cut_dead_branches(whole).graph)

    assert (nodes["out"].op, nodes["out"].inputs, nodes["out"].attrs["N"]) == ("Merge", ["true"], 1)


def test_devices_are_cleared_in_functions_too():
    whole = graph(constant("a", 1.0))
    whole.nodes[0].device = "/gpu:0"
    whole.functions.append(Function("f", nodes=[node("n", "Neg", "x"), node("m", "Neg", "n")]))
    whole.functions[0].nodes[0].device = "/gpu:0"
    with Unchanged(whole):
        found = clear_devices(whole)

    assert found.devices == {"/gpu:0": 2}
    assert {node.device for node in found.graph.walk()} == {""}


def test_training_mode_is_the_default_of_batch_norm():
    found = training_mode_nodes(graph(node("a", "FusedBatchNorm"), node("b", "FusedBatchNormV3", is_training=False)))

    assert found == ["a"]


def test_registered_gradients_stay_with_the_nodes_that_name_them():
    whole = graph(node("x", "IdentityN", "a", _gradient_op_type=b"Custom-1"))
    whole.functions += [Function(name) for name in ("grad", "other", "inner")]
    whole.functions[0].nodes.append(node("n", "inner", T=None))
    whole.registered_gradients += [RegisteredGradient("grad", "Custom-1"), RegisteredGradient("other", "Custom-2")]

    kept, without = prune_library(whole), prune_library(whole, keep_registered=False)
    assert [item.name for item in kept.functions] == ["grad", "inner"]
    assert [item.op_type for item in kept.registered_gradients] == ["Custom-1"]
    assert (without.functions, without.registered_gradients) == ([], [])


def table_graph(fill):
    return graph(
        node("t", "HashTableV2", T=None), constant("k", ["a"]), constant("v", [1]), *fill,
        node("out", "LookupTableFindV2", "t", "k", "v", T=None),
    )  # fmt: skip


def test_a_table_waits_for_what_fills_it():
    with Unchanged(table_graph([node("fill", "InitializeTableV2", "t", "k", "v", T=None)])) as argument:
        found = fill_tables(argument, OUT)

    nodes = by_name(found.graph)
    assert found.tables == {"t": "fill"}
    assert nodes["t/filled"].inputs == ["t", "^fill"]
    assert nodes["out"].inputs == ["t/filled", "k", "v"]
    assert nodes["fill"].inputs == ["t", "k", "v"]


@pytest.mark.parametrize(("fill", "match"), [
    ([], "filled by no node"),
    ([node("fill", "InitializeTableFromTextFileV2", "t", "k", T=None)], "from outside the graph"),
    ([constant("other", [2]), node("one", "InitializeTableV2", "t", "k", "v", T=None),
      node("two", "InitializeTableV2", "t", "k", "other", T=None)], "any of one, two"),
])  # fmt: skip
def test_tables_that_cannot_fill_themselves(fill, match):
    with pytest.raises(UnsupportedError, match=match):
        fill_tables(table_graph(fill), OUT)


def test_a_table_that_two_nodes_fill_with_the_same_waits_for_the_first():
    fill = [node(name, "InitializeTableV2", "t", "k", "v", T=None) for name in ("one", "two")]

    assert fill_tables(table_graph(fill), OUT).tables == {"t": "one"}


def test_a_table_is_waited_for_however_its_handle_came():
    fill = node("fill", "InitializeTableV2", "made", "k", "v", T=None)
    created = [node("made", "Identity", "t", T=DType.resource), fill]
    lookup = node("out", "LookupTableFindV2", "made", "k", "v", T=None)
    given = graph(*(each for each in table_graph(created).nodes if each.name != "out"), lookup)
    found = by_name(fill_tables(given, OUT).graph)

    assert found["out"].inputs == ["t/filled", "k", "v"]
    assert (found["made"].inputs, found["fill"].inputs) == (["t"], ["made", "k", "v"])


def test_a_saver_is_what_saved_names_reads():
    nodes = [variable("w", [4]), handle("v", [2, 3]), read("v/r", "v"), constant("save/Const", 1.0)]
    wanted = [SavedVariable("w", "renamed"), SavedVariable("v", "whole", "4 3 0,2:-")]
    with Unchanged(graph(*nodes)) as argument:
        added = add_saver(argument, wanted)

    index = GraphIndex(added.graph.nodes)
    found = saved_names(index, added.saver.restore_op)
    assert (found["w"].key, found["v"].key, found["v"].spec) == ("renamed", "whole", "4 3 0,2:0,3")
    assert added.saver.restore_op == "save_1/restore_all"
    assert added.snapshots == {"w": "w/read:0", "v": "v/r:0"}
    assert all(text.lstrip("^").partition(":")[0] in index for node in added.graph.nodes for text in node.inputs)


def test_a_read_that_is_tied_to_a_branch_is_no_snapshot():
    tied = read("r", "v")
    tied.inputs.append("^c")
    added = add_saver(graph(handle("v"), constant("c", 1.0), tied), [SavedVariable("v", "v")])

    assert added.snapshots == {"v": "v/Read/ReadVariableOp:0"}
