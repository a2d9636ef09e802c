"""Writes that no output needs go; those that an output sees are refused."""

import pytest

from graphs import Unchanged, by_name, constant, graph, handle, node, ops, placeholder, read, variable
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.graph import TensorName
from tfthaw.passes.transient import first_call
from tfthaw.passes.writes import drop_idle_variables, drop_writes

OUT = [TensorName("out", 0)]


def dropped(*nodes, outputs=OUT):
    with Unchanged(graph(*nodes)) as argument:
        return drop_writes(argument, outputs)


def test_a_graph_without_writes_stays_itself():
    argument = graph(variable("w"), node("out", "Neg", "w"))

    assert drop_writes(argument, OUT).graph is argument


@pytest.mark.parametrize("kind", [variable, handle])
def test_a_write_that_the_output_waits_for_goes(kind):
    op = "AssignAdd" if kind is variable else "AssignAddVariableOp"
    found = dropped(kind("step"), constant("one", 1.0), node("count", op, "step", "one"), constant("x", 1.0),
                    node("out", "Neg", "x", "^count"))  # fmt: skip

    assert ops(found.graph) == {"x": "Const", "out": "Neg"}
    assert found.dropped == {"count": ("step",)}
    assert by_name(found.graph)["out"].inputs == ["x"]


def test_what_only_waited_takes_over_what_the_write_waited_for():
    found = dropped(variable("step"), placeholder("x"), node("ready", "NoOp", "^x", T=None),
                    node("count", "AssignAdd", "step", "x", "^ready"), constant("out", 1.0, "^count"))  # fmt: skip

    assert sorted(by_name(found.graph)["out"].inputs) == ["^ready", "^x"]
    assert "step" not in ops(found.graph)


@pytest.mark.parametrize("nodes", [
    [variable("s"), constant("one", 1.0), node("count", "AssignAdd", "s", "one"), node("out", "Neg", "count")],
    [variable("s"), constant("one", 1.0), node("count", "AssignAdd", "s", "one"), node("out", "Neg", "s", "^count")],
    [variable("s"), constant("one", 1.0), node("count", "AssignAdd", "s", "one"), node("r", "Identity", "s"),
     node("out", "Neg", "r", "^count")],
    [variable("s"), constant("one", 1.0), node("count", "AssignAdd", "s", "one"), node("r", "Identity", "s"),
     node("b", "Reshape", "r", "one"), node("wait", "NoOp", "^count", T=None), node("out", "Neg", "b", "^wait")],
    [handle("s"), constant("one", 1.0), node("count", "AssignAddVariableOp", "s", "one"),
     node("out", "ReadVariableOp", "s", "^count")],
], ids=["value", "read", "read before, used after", "through a reshape", "resource"])  # fmt: skip
def test_writes_that_an_output_sees_are_refused(nodes):
    with pytest.raises(UnsupportedError) as caught:
        dropped(*nodes)
    assert caught.value.problems[0].startswith("count (")
    assert "writes s" in caught.value.problems[0]


def test_a_resource_that_is_read_before_the_write_is_read_again_in_the_next_call():
    with pytest.raises(UnsupportedError, match="nothing to write") as caught:
        dropped(handle("s"), constant("one", 1.0), read("r", "s"), node("count", "AssignAddVariableOp", "s", "one"),
                node("out", "Neg", "r", "^count"))  # fmt: skip
    assert caught.value.problems == ("count (AssignAddVariableOp) writes s, which r reads in the next call",)


def branches(read_side):
    """Return a cond that writes on its true side, and reads on one of its sides; the result waits for the write."""
    return [
        variable("s"),
        placeholder("flag", (), DType.bool),
        node("pred", "Identity", "flag", T=DType.bool),
        constant("one", 1.0),
        node("r", "Identity", "s"),
        node("sw", "Switch", "one", "pred"),
        node("count", "AssignAdd", "s", "sw:1"),
        node("other", "Switch", "r", "flag"),
        node("mine", "Identity", f"other:{read_side}"),
        node("zero", "Identity", "sw:0"),
        node("done", "NoOp", "^count", T=None),
        constant("c", 1.0, "^done"),
        node("waits", "Merge", "c", "zero", N=2),
        node("out", "Neg", "mine", "^waits"),
    ]


def test_the_other_side_of_a_cond_sees_nothing_of_a_write():
    found = dropped(*branches(read_side=0))

    assert "count" not in ops(found.graph)


def test_the_same_side_of_a_cond_sees_the_write():
    with pytest.raises(UnsupportedError, match="writes s, which"):
        dropped(*branches(read_side=1))


def test_metrics_are_arithmetic_on_what_they_begin_with():
    with Unchanged(graph(variable("total"), placeholder("x"), node("out", "AssignAdd", "total", "x"))) as argument:
        found = first_call(argument, OUT, ["total"])

    assert ops(found.graph) == {"total": "VariableV2", "x": "Placeholder", "out": "Add"}
    assert found.rewritten == ("out",)


def test_metrics_of_resources_are_read_after_they_were_added_to():
    with Unchanged(graph(handle("total"), placeholder("x"), node("add", "AssignAddVariableOp", "total", "x"),
                         read("out", "total"))) as argument:  # fmt: skip
        argument.nodes[-1].inputs.append("^add")
        before = ops(argument)
        argument_unread = graph(*argument.nodes[:-1], read("out", "total"))
        found = first_call(argument, OUT, ["total"]).graph
        assert first_call(argument_unread, OUT, ["total"]).rewritten == ()
        assert ops(argument) == before
        argument.nodes[-1].inputs.pop()

    assert ops(found)["out"] == "Identity"
    assert by_name(found)["out"].inputs == ["add/after", "^add"]
    assert by_name(found)["add/after"].op == "Add"


def test_two_writes_to_one_metric_stay():
    argument = graph(
        variable("t"), placeholder("x"), node("a", "AssignAdd", "t", "x"), node("out", "AssignAdd", "t", "a")
    )

    assert first_call(argument, OUT, ["t"]).rewritten == ()


def waiting(*more):
    """Return a graph whose output waits for what writes a seed of itself."""
    return graph(
        handle("seed"), read("old", "seed"), node("new", "Neg", "old"),
        node("write", "AssignVariableOp", "seed", "new", T=None, dtype=DType.float32), *more,
        placeholder("x"), node("out", "Neg", "x", "^write", "^old"),
    )  # fmt: skip


def test_a_variable_that_no_output_needs_goes_with_all_that_uses_it():
    found = drop_idle_variables(waiting(), OUT, ["seed"])

    assert ops(found.graph) == {"x": "Placeholder", "out": "Neg"}
    assert found.dropped == {"write": ("seed",)}


def test_it_stays_where_another_variable_is_written_of_it():
    more = (handle("other"), node("also", "AssignVariableOp", "other", "new", T=None, dtype=DType.float32))
    argument = waiting(*more)

    assert drop_idle_variables(argument, OUT, ["seed"]).graph is argument


def test_it_stays_where_the_output_needs_it():
    argument = graph(handle("seed"), read("old", "seed"), node("out", "Neg", "old"))

    assert drop_idle_variables(argument, OUT, ["seed"]).graph is argument
