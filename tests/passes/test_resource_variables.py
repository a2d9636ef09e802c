"""Reference variables become resource variables: every node, by hand."""

import numpy as np
import pytest

from graphs import FLOAT, Unchanged, by_name, colocated, constant, graph, handle, node, ops, placeholder, variable
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import TensorName
from tfthaw.ir.validation import require_consistent
from tfthaw.passes.resource_variables import to_resource_variables

ONE = constant("one", 1.0)


def rewritten(*nodes, outputs=(), functions=()):
    with Unchanged(graph(*nodes)) as argument:
        argument.functions = list(functions)
        found = to_resource_variables(argument, [TensorName.parse(name) for name in outputs])
    require_consistent(found.graph)
    return found


def inputs(found):
    return {name: item.inputs for name, item in by_name(found.graph).items()}


def refused(*nodes, **options):
    with pytest.raises(UnsupportedError) as caught:
        rewritten(*nodes, **options)
    assert "--style v1" in caught.value.hint
    return list(caught.value.problems)


def test_a_graph_without_references_stays_itself():
    argument = graph(handle("w"), node("out", "ReadVariableOp", "w", T=None, dtype=FLOAT))

    assert to_resource_variables(argument).graph is argument


def test_a_variable_and_its_read_keep_their_names():
    read = colocated(node("w/read", "Identity", "w"), "w")
    found = rewritten(variable("w", (2, 3)), read, node("out", "Neg", "w/read"))

    assert ops(found.graph) == {"w": "VarHandleOp", "w/read": "ReadVariableOp", "out": "Neg"}
    assert by_name(found.graph)["w"].attrs == {
        "dtype": FLOAT, "shape": Shape((2, 3)), "container": b"", "shared_name": b"w",
    }  # fmt: skip
    assert by_name(found.graph)["w/read"].attrs == {"dtype": FLOAT, "_class": AttrList("s", [b"loc:@w"])}
    assert (found.variables, found.reads, found.writes, found.outputs) == (("w",), (), {}, {})


def test_who_takes_the_reference_takes_the_read_that_is_there():
    found = rewritten(variable("w"), node("w/read", "Identity", "w"), node("out", "Mul", "w", "w:0"))

    assert inputs(found)["out"] == ["w/read", "w/read"]


def test_one_read_is_added_where_there_is_none():
    found = rewritten(variable("w"), node("a", "Neg", "w"), node("out", "Mul", "a", "w", "^w"))

    assert found.reads == ("w/Read/ReadVariableOp",)
    assert inputs(found)["out"] == ["a", "w/Read/ReadVariableOp", "^w"]
    assert by_name(found.graph)["w/Read/ReadVariableOp"].attrs == {"dtype": FLOAT}


def test_an_identity_that_waits_is_no_read_for_others():
    found = rewritten(variable("w"), placeholder("x"), node("late", "Identity", "w", "^x"), node("out", "Neg", "w"))

    assert inputs(found)["late"] == ["w", "^x"]
    assert inputs(found)["out"] == ["w/Read/ReadVariableOp"]


def test_names_that_are_taken():
    found = rewritten(variable("w"), constant("w/Read/ReadVariableOp", 1.0), node("out", "Neg", "w"))

    assert found.reads == ("w/Read/ReadVariableOp_1",)


def test_an_identity_on_another_device_copies_what_is_read_beside_the_variable():
    moved = node("copy", "Identity", "w")
    moved.device = "/gpu:0"
    found = rewritten(variable("w"), moved)

    assert ops(found.graph)["copy"] == "Identity"
    assert inputs(found)["copy"] == ["w/Read/ReadVariableOp"]
    assert by_name(found.graph)["w/Read/ReadVariableOp"].device == ""


def test_hints_of_shapes_stay_where_they_are_true():
    hint = {"_output_shapes": AttrList("shape", [Shape((2,))])}
    found = by_name(rewritten(
        with_attrs(variable("w", (2,)), hint), with_attrs(node("w/read", "Identity", "w"), hint),
        with_attrs(node("through", "RefIdentity", "w"), hint), ONE,
        with_attrs(node("add", "AssignAdd", "through", "one"), hint), node("out", "Neg", "add"),
    ).graph)  # fmt: skip

    assert [name for name, item in found.items() if "_output_shapes" in item.attrs] == ["w/read", "add"]


def with_attrs(item, attrs):
    item.attrs = {**item.attrs, **attrs}
    return item


def test_a_write_keeps_its_name_for_the_new_value():
    add = node("add", "AssignAdd", "w", "one", use_locking=True)
    found = rewritten(variable("w"), ONE, add, node("out", "Neg", "add"))

    assert found.writes == {"add": "add/AssignAddVariableOp"}
    assert by_name(found.graph)["add/AssignAddVariableOp"].attrs == {"dtype": FLOAT}
    assert inputs(found)["add/AssignAddVariableOp"] == ["w", "one"]
    assert ops(found.graph)["add"] == "ReadVariableOp"
    assert inputs(found)["add"] == ["w", "^add/AssignAddVariableOp"]
    assert inputs(found)["out"] == ["add"]


def test_a_write_that_is_only_waited_for_is_one_node():
    nodes = [variable("w"), ONE, node("set", "Assign", "w", "one", "^one", validate_shape=True),
             node("init", "NoOp", "^set", T=None)]  # fmt: skip

    found = rewritten(*nodes)
    assert by_name(found.graph)["set"].op == "AssignVariableOp"
    assert by_name(found.graph)["set"].attrs == {"dtype": FLOAT}
    assert inputs(found)["set"] == ["w", "one", "^one"]
    assert ops(rewritten(*nodes, outputs=["init", "set:0"]).graph)["set"] == "ReadVariableOp"


def test_chains_of_writes_wait_for_each_other():
    found = rewritten(variable("w"), ONE, node("a", "AssignAdd", "w", "one"), node("b", "AssignSub", "a", "a"),
                      node("c", "Identity", "b"), node("d", "Neg", "a", "^c"))  # fmt: skip

    assert inputs(found) == {
        "w": [], "one": [], "a/AssignAddVariableOp": ["w", "one"], "a": ["w", "^a/AssignAddVariableOp"],
        "b/AssignSubVariableOp": ["w", "a", "^a"], "b": ["w", "^b/AssignSubVariableOp"], "c": ["b"],
        "w/Read/ReadVariableOp": ["w", "^a", "^c"], "d": ["w/Read/ReadVariableOp", "^c"],
    }  # fmt: skip


def test_a_read_waits_for_data_that_comes_after_a_write():
    found = rewritten(variable("w"), ONE, node("a", "AssignAdd", "w", "one"), node("n", "Neg", "a"),
                      node("x", "Exp", "one"), node("out", "AddN", "w", "n", "x", N=3))  # fmt: skip

    assert inputs(found)["out"] == ["w/Read/ReadVariableOp", "n", "x"]
    assert inputs(found)["w/Read/ReadVariableOp"] == ["w", "^n"]


def test_control_flow_hands_on_the_handle():
    found = rewritten(
        variable("w"), placeholder("p", (), DType.bool), ONE, node("sw", "RefSwitch", "w", "p"),
        node("add", "AssignAdd", "sw:1", "one"), node("merged", "RefMerge", "sw", "add", N=2),
        node("out", "Neg", "merged"), node("again", "Exp", "sw"),
    )  # fmt: skip

    assert inputs(found)["sw"] == ["w", "p"]
    assert inputs(found)["add"] == ["sw:1", "one"]
    assert inputs(found)["merged"] == ["sw", "add/handle"]
    assert inputs(found)["add/handle"] == ["sw:1", "^add"]
    assert inputs(found)["merged/Read/ReadVariableOp"] == ["merged"]
    assert inputs(found)["out"] == ["merged/Read/ReadVariableOp"]
    assert inputs(found)["again"] == ["sw/Read/ReadVariableOp"]
    assert {name: by_name(found.graph)[name].op for name in ("sw", "merged", "add/handle", "add")} == {
        "sw": "Switch", "merged": "Merge", "add/handle": "Identity", "add": "AssignAddVariableOp",
    }  # fmt: skip
    assert all(by_name(found.graph)[name].attrs["T"] is DType.resource for name in ("sw", "merged", "add/handle"))


def test_either_of_two_variables():
    found = rewritten(variable("a"), variable("b"), placeholder("p", (), DType.bool), ONE,
                      node("x", "RefSwitch", "a", "p"), node("y", "RefSwitch", "b", "p"),
                      node("m", "RefMerge", "x", "y:1", N=2), node("set", "Assign", "m", "one"),
                      node("out", "Neg", "set"))  # fmt: skip

    assert inputs(found)["set/AssignVariableOp"] == ["m", "one"]
    assert found.variables == ("a", "b")


@pytest.mark.parametrize(("op", "twin"), [
    ("ScatterNdAdd", "ResourceScatterNdAdd"), ("ScatterUpdate", "ResourceScatterUpdate"),
    ("StridedSliceAssign", "ResourceStridedSliceAssign"), ("SparseApplyAdagradV2", "ResourceSparseApplyAdagradV2"),
    ("ApplyAdaMax", "ResourceApplyAdaMax"), ("CountUpTo", "ResourceCountUpTo"),
])  # fmt: skip
def test_every_write_has_a_twin(op, twin):
    from tfthaw.ir.op_history import op_history

    history = op_history(op)
    names = [variable(f"v{i}") if item.is_ref else constant(f"v{i}", 1.0) for i, item in enumerate(history.inputs)]
    attrs = {"limit": 3} if op == "CountUpTo" else {}
    attrs |= {"Tindices": DType.int32} if history.attr("Tindices") else {}
    attrs |= {"Index": DType.int32} if history.attr("Index") else {}
    write = node("write", op, *(item.name for item in names), **attrs)
    found = rewritten(*names, write, node("done", "NoOp", "^write", T=None))

    assert ops(found.graph)["write"] == twin


def test_a_default_that_the_twin_does_not_share_is_written_out():
    nodes = [variable("w"), constant("i", 1), ONE, node("write", "ScatterNdAdd", "w", "i", "one", Tindices=DType.int32)]
    found = by_name(rewritten(*nodes).graph)["write/ResourceScatterNdAdd"]

    assert found.attrs == {"T": FLOAT, "Tindices": DType.int32, "use_locking": False}


def test_a_count_gives_its_value_itself():
    found = rewritten(variable("c"), node("out", "CountUpTo", "c", limit=3), node("n", "Neg", "out"))

    assert ops(found.graph) == {"c": "VarHandleOp", "out": "ResourceCountUpTo", "n": "Neg"}
    assert found.writes == {"out": "out"}


def test_questions_ask_the_handle():
    found = rewritten(variable("w"), ONE, node("set", "Assign", "w", "one"),
                      node("q", "IsVariableInitialized", "w", T=None, dtype=FLOAT),
                      node("after", "IsVariableInitialized", "set", T=None, dtype=FLOAT))  # fmt: skip

    assert by_name(found.graph)["q"].op == "VarIsInitializedOp"
    assert by_name(found.graph)["q"].attrs == {}
    assert inputs(found)["after"] == ["w", "^set"]


@pytest.mark.parametrize("op", ["Variable", "AutoReloadVariable", "VariableV2"])
def test_the_shape_of_a_handle(op):
    known, scalar = variable("known", (2,)), variable("scalar", ())
    known.op = scalar.op = op
    changing = variable("changing", (2,))
    changing.op = op
    found = by_name(rewritten(known, scalar, changing, ONE,
                              node("set", "Assign", "changing", "one", validate_shape=False)).graph)  # fmt: skip

    assert found["known"].shape() == Shape((2,))
    assert found["scalar"].shape() == (Shape(()) if op == "VariableV2" else Shape(None))
    assert found["changing"].shape() == Shape(None)


def test_shared_names_keep_variables_apart_and_together():
    one, other, third = variable("one"), variable("other"), variable("third")
    one.attrs["shared_name"] = other.attrs["shared_name"] = b"both"
    third.attrs["container"] = b"elsewhere"
    found = by_name(rewritten(one, other, third, variable("taken"), handle("h", shared_name="taken"),
                              handle("h3", shared_name="third")).graph)  # fmt: skip

    assert {name: item.text("shared_name") for name, item in found.items()} == {
        "one": "both", "other": "both", "third": "third", "taken": "taken_1", "h": "taken", "h3": "third",
    }  # fmt: skip
    assert found["third"].attrs["container"] == b"elsewhere"


def test_two_nodes_of_one_variable_see_each_others_writes():
    first, other = variable("first"), variable("other")
    first.attrs["shared_name"] = other.attrs["shared_name"] = b"both"
    found = rewritten(first, other, ONE, node("set", "Assign", "first", "one"),
                      node("out", "Neg", "other", "^set"))  # fmt: skip

    assert inputs(found)["other/Read/ReadVariableOp"] == ["other", "^set"]


def test_outputs_that_were_references_are_reads_now():
    nodes = [variable("w"), ONE, node("set", "Assign", "w", "one"), placeholder("p", (), DType.bool),
             node("sw", "RefSwitch", "v", "p"), variable("v")]  # fmt: skip
    found = rewritten(*nodes, outputs=["set:0", "sw:1", "v:0", "one:0"])

    assert found.outputs == {
        TensorName("sw", 1): TensorName("sw/Read/ReadVariableOp", 0),
        TensorName("v", 0): TensorName("v/Read/ReadVariableOp", 0),
    }
    assert inputs(found)["sw/Read/ReadVariableOp"] == ["sw:1"]


# what is refused


def test_shared_memory_that_changes_is_refused():
    nodes = [variable("w"), ONE, node("r", "Identity", "w"), node("view", "Reshape", "r", "one"),
             node("add", "AssignAdd", "w", "one"), node("out", "Neg", "view", "^add"),
             node("size", "Size", "view", "^add"), node("fine", "Neg", "view")]  # fmt: skip

    assert refused(*nodes) == [
        "out (Neg) takes the value of w through r, and runs after add (AssignAdd), which writes it"
    ]
    assert ops(rewritten(*nodes, outputs=["fine:0", "add:0"]).graph)["fine"] == "Neg"
    assert refused(*nodes, outputs=["out:0"])


def test_the_other_side_of_a_cond_sees_no_write():
    def nodes(side):
        return [variable("w"), placeholder("p", (), DType.bool), ONE, node("r", "Identity", "w"),
                node("sw", "Switch", "one", "p"), node("add", "AssignAdd", "w", "sw:1"),
                node("other", "Switch", "r", "p"), node("out", "Neg", f"other:{side}", "^wait"),
                node("wait", "Merge", "zero", "after", N=2), node("zero", "Identity", "sw"),
                node("after", "Identity", "one", "^add")]  # fmt: skip

    assert rewritten(*nodes(0)).variables == ("w",)
    assert len(refused(*nodes(1))) == 1


def test_outputs_that_share_memory_are_refused_beside_a_write():
    nodes = [variable("w"), ONE, node("r", "Identity", "w"), node("add", "AssignAdd", "w", "one")]

    assert rewritten(*nodes, outputs=["r:0"]).variables == ("w",)
    assert refused(*nodes, outputs=["r:0", "add:0"]) == [
        "r (Identity) takes the value of w, and is fetched after add (AssignAdd), which writes it"
    ]
    assert refused(*nodes, outputs=["w:0", "add:0"]) == [
        "w (VariableV2) takes the value of w, and is fetched after add (AssignAdd), which writes it"
    ]
    ordered = [*nodes[:2], node("r", "Identity", "w", "^add"), nodes[3]]
    assert rewritten(*ordered, outputs=["r:0", "add:0"]).variables == ("w",)
    apart = to_resource_variables(graph(*nodes), [TensorName("r", 0)], [TensorName("add", 0)])
    assert apart.variables == ("w",)


def test_a_call_may_give_back_what_it_takes():
    same = Function("same", [Argument("x", FLOAT)], [Argument("y", FLOAT)], returns={"y": "x"})
    nodes = [variable("w"), ONE, node("call", "same", "w", T=None), node("add", "AssignAdd", "w", "one"),
             node("out", "Neg", "call", "^add")]  # fmt: skip

    assert len(refused(*nodes, functions=[same])) == 1


def test_uses_that_resource_variables_do_not_have_are_refused_all_at_once():
    by_reference = Function("changes", [Argument("x", FLOAT, is_ref=True)], [])
    temporary = with_attrs(node("t", "TemporaryVariable", T=None), {"dtype": FLOAT, "shape": Shape(())})
    problems = refused(
        variable("w"), ONE, constant("i", 0), node("custom", "MyOwnOp", "w"), node("zero", "ZeroInitializer", "w"),
        node("chosen", "RefSelect", "i", "w", "w", N=2), node("call", "changes", "w", T=None), temporary,
        placeholder("p", (), DType.bool), node("m", "RefMerge", "w", "t", N=2), functions=[by_reference],
    )  # fmt: skip

    assert problems == [
        "call hands w itself to the function changes",
        "chosen (RefSelect) takes w itself, and no op does that with a resource variable",
        "custom (MyOwnOp) takes w itself, and may write to it",
        "m (RefMerge) takes t too, which is a reference to no variable",
        "zero (ZeroInitializer) takes w itself, and no op does that with a resource variable",
    ]


def test_references_to_something_else_stay():
    nodes = [variable("w"), node("table", "HashTable", T=None), node("again", "RefIdentity", "table", T=DType.string),
             node("w/read", "Identity", "w")]  # fmt: skip
    nodes[1].attrs = {"key_dtype": DType.string, "value_dtype": DType.int64}

    assert ops(rewritten(*nodes).graph) == {
        "w": "VarHandleOp", "table": "HashTable", "again": "RefIdentity", "w/read": "ReadVariableOp",
    }  # fmt: skip


def test_values_are_not_touched():
    value = constant("c", np.ones(3))
    found = by_name(rewritten(variable("w"), value, node("out", "Mul", "w", "c")).graph)

    assert found["c"] is value
