"""Plans: what fills what, what is missing, what does not fit."""

import numpy as np
import pytest

from graphs import constant, graph, handle, node, placeholder, variable
from tfthaw.dtypes import DType
from tfthaw.errors import RestoreError
from tfthaw.ir.graph import GraphIndex
from tfthaw.ir.variables import VariableDeclaration, graph_variables
from tfthaw.restore.initial_values import constant_value, initial_values
from tfthaw.restore.plan import plan_restore
from tfthaw.tensors import ArrayTensor


def tensors(**shapes):
    return {name: ArrayTensor(np.full(shape, 1, np.float32)) for name, shape in shapes.items()}


def plan(nodes, values, **options):
    return plan_restore(graph(*nodes), graph_variables(nodes), values, **options)


def test_names_that_are_equal_match():
    found = plan([variable("a", [2]), handle("b", [3])], tensors(a=[2], b=[3], c=[1]))

    assert {name: (match.key, match.reason) for name, match in found.matches.items()} == {
        "a": ("a", "name"),
        "b": ("b", "name"),
    }
    assert (found.missing, found.unused, found.mismatched) == ([], ["c"], [])
    found.require_complete()


def test_a_shared_name_is_the_name_and_the_node_is_the_last_resort():
    nodes = [
        handle("a_1", [2], shared_name="a"),
        handle("n", [2], shared_name="cd2c89b7-1"),
        handle("m", [2], shared_name="lost"),
    ]
    found = plan(nodes, tensors(a=[2], n=[2], m=[2]))

    assert {name: match.key for name, match in found.matches.items()} == {"a_1": "a", "n": "n", "m": "m"}


def a_saver(prefix="save", **keys):
    """Return the nodes of a Saver; `keys`: variable -> checkpoint key."""
    assigns = [node(f"{prefix}/a{number}", "Assign", name, f"{prefix}/r:{number}") for number, name in enumerate(keys)]
    return [
        constant(f"{prefix}/p", "x"), constant(f"{prefix}/k", [*keys.values()]),
        constant(f"{prefix}/s", [""] * len(keys)),
        node(f"{prefix}/r", "RestoreV2", f"{prefix}/p", f"{prefix}/k", f"{prefix}/s"), *assigns,
        node(f"{prefix}/restore_all", "NoOp", *(f"^{each.name}" for each in assigns)),
    ]  # fmt: skip


def test_what_the_saver_says_wins_over_the_name_and_the_map_over_both():
    nodes, own = [variable("a", [2]), *a_saver(a="b")], {"restore_op": "save/restore_all"}
    values = tensors(a=[2], b=[2], c=[2])

    assert plan(nodes, values, **own).matches["a"].key == "b"
    assert plan(nodes, values, **own).matches["a"].reason == "saver"
    assert plan(nodes, values, **own, renames={"c": "a"}).matches["a"].reason == "map"
    assert plan(nodes, values, **own).notes == []
    del values["b"]
    assert plan(nodes, values, **own).matches["a"].reason == "name"
    assert plan(nodes, values, **own).notes == ["a took the value of 'a'; 'b', which its Saver restores, is not there"]


class TestSaversOfWhichNobodyKnowsWhetherTheyWroteIt:
    TWO = (variable("a", [2]), variable("b", [2]))

    def test_one_that_saves_just_what_is_there_did(self):
        found = plan([*self.TWO, *a_saver(a="b", b="a")], tensors(a=[2], b=[2]))
        assert {name: match.key for name, match in found.matches.items()} == {"a": "b", "b": "a"}

    def test_one_that_says_other_keys_than_names_is_refused(self):
        found = plan([*self.TWO, *a_saver(a="b", b="a")], tensors(a=[2], b=[2], c=[2]))
        assert len(found.mismatched) == 2
        assert found.mismatched[0].startswith("saver: a is 'b' by a Saver of the graph that did not write")
        assert plan([*self.TWO, *a_saver(a="b", b="a")], tensors(a=[2], b=[2], c=[2]),
                    renames={"a": "a", "b": "b"}).matches["b"].key == "b"  # fmt: skip

    def test_one_that_says_what_names_do_not_counts(self):
        found = plan([*self.TWO, *a_saver(a="old/a", b="b")], tensors(**{"old/a": [2], "b": [2], "c": [2]}))
        assert {name: match.reason for name, match in found.matches.items()} == {"a": "saver", "b": "name"}

    def test_a_warm_start_from_another_model_does_not(self):
        values = tensors(**{"teacher/a": [2], "teacher/b": [2], "a": [2], "b": [2]})
        warm = a_saver("warm", a="teacher/a", b="teacher/b")
        found = plan([*self.TWO, *warm, *a_saver(a="a", b="b")], values)
        assert {name: match.key for name, match in found.matches.items()} == {"a": "a", "b": "b"}
        found = plan([*self.TWO, *(each for each in warm if each.name != "warm/restore_all")], values)
        assert {name: match.key for name, match in found.matches.items()} == {"a": "a", "b": "b"}

    def test_two_that_contradict_each_other_are_refused(self):
        found = plan([*self.TWO, *a_saver(a="x"), *a_saver("other", a="y")], tensors(x=[2], y=[2], b=[2]))
        assert found.mismatched == ["saver: a is 'x' or 'y' by different Savers of the graph; a map says which it is"]


def test_everything_that_is_wrong_is_told_at_once():
    found = plan(
        [variable("a", [2]), variable("b", [2, None]), variable("c"), variable("d")],
        tensors(b=[2], c=[], x=[1])
        | {
            "d": ArrayTensor(np.int64(1)),
        },
    )

    with pytest.raises(RestoreError) as caught:
        found.require_complete()
    assert caught.value.missing == ("a",)
    assert set(caught.value.unused) == {"b", "d", "x"}
    assert caught.value.mismatched == (
        "shape: b is [2, '?'], the checkpoint has [2] under 'b'",
        "dtype: d is float32, the checkpoint has int64 under 'd'",
    )
    assert "3 of 4 variables have no value that fits" in str(caught.value)


def test_what_may_be_missing_is_named_and_nothing_else_is_forgiven():
    found = plan([variable("a/x"), variable("b")], {})

    found.require_complete(allow_missing=["a/*", "b"])
    with pytest.raises(RestoreError) as caught:
        found.require_complete(allow_missing=["a/*"])
    assert caught.value.missing == ("b",)
    with pytest.raises(RestoreError):
        plan([variable("a", [2])], tensors(a=[3])).require_complete(allow_missing=["*"])


@pytest.mark.parametrize("shape", [None, (None,), (3,)])
def test_unknown_dimensions_fit(shape):
    holder = variable("a")
    holder.attrs["shape"] = placeholder("x", shape).attrs["shape"]

    assert plan([holder], tensors(a=[3])).matches["a"].tensor.shape == (3,)


def test_references_take_values_of_their_type():
    holder = variable("a", dtype=DType(101))

    assert "a" in plan([holder], tensors(a=[])).matches


def parts(*starts):
    return {
        f"w/part_{n}": VariableDeclaration(f"w/part_{n}", True, "w", (5, 2), (start, 0))
        for n, start in enumerate(starts)
    }


def test_parts_come_from_their_whole():
    values = {"w": ArrayTensor(np.arange(10, dtype=np.float32).reshape(5, 2))}
    found = plan([variable("w/part_0", [3, 2]), variable("w/part_1", [2, 2])], values, declared=parts(0, 3))

    match = found.matches["w/part_1"]
    assert (match.reason, match.key, match.part) == ("partition", "w", "5 2 3,2:0,2")
    np.testing.assert_array_equal(match.tensor.numpy(), [[6, 7], [8, 9]])
    assert match.whole is values["w"]
    assert found.unused == []


def test_a_whole_of_another_shape_gives_no_parts():
    found = plan([variable("w/part_0", [3, 2])], tensors(w=[6, 2]), declared=parts(0))

    assert found.missing == ["w/part_0"]


def test_a_part_that_leaves_its_whole_is_no_match():
    found = plan([variable("w/part_0", [3, 2])], tensors(w=[5, 2]), declared=parts(4))

    assert found.mismatched == ["shape: w/part_0 is [3, 2], the checkpoint has [5, 2] under 'w'"]


def assigned(*nodes, value="c"):
    return GraphIndex(
        graph(variable("v", [2]), *nodes, node("set", "Assign", "v", value), node("init", "NoOp", "^set", T=None)).nodes
    )


def test_initial_values_are_constants():
    assert initial_values(assigned(constant("c", [1.0, 2.0])), ["init"])["v"].numpy().tolist() == [1, 2]
    filled = assigned(
        constant("d", [2]), constant("one", 1.0), node("f", "Fill", "d", "one"), node("c", "Identity", "f")
    )
    assert initial_values(filled, ["init"])["v"].numpy().tolist() == [1, 1]
    assert initial_values(filled, ["elsewhere"]) == {}


@pytest.mark.parametrize("nodes", [
    [node("c", "RandomUniform", "s")],
    [constant("d", [-1]), constant("one", 1.0), node("c", "Fill", "d", "one")],
    [constant("d", [1 << 20, 1 << 10]), constant("one", 1.0), node("c", "Fill", "d", "one")],
    [constant("d", ["a"]), constant("one", 1.0), node("c", "Fill", "d", "one")],
    [constant("d", [1.5]), constant("one", 1.0), node("c", "Fill", "d", "one")],
    [constant("d", [2]), constant("one", [1.0, 2.0, 3.0]), node("c", "Fill", "d", "one")],
    [node("c", "Identity", "c")],
    [node("c", "Const")],
], ids=["random", "negative", "huge", "strings", "fractions", "no scalar", "circle", "empty"])  # fmt: skip
def test_what_is_no_constant_has_no_value(nodes):
    assert initial_values(assigned(*nodes), ["init"]) == {}
    assert constant_value(assigned(*nodes), "c") is None


def test_a_variable_with_two_initial_values_has_none():
    index = GraphIndex(
        graph(
            variable("v"),
            constant("c", 1.0),
            constant("d", 2.0),
            node("one", "Assign", "v", "c"),
            node("two", "Assign", "v", "d"),
            node("init", "NoOp", "^one", "^two", T=None),
        ).nodes
    )

    assert initial_values(index, ["init"]) == {}


def test_a_map_that_names_what_is_not_there_is_no_second_guess():
    found = plan([variable("a", [2])], tensors(a=[2]), renames={"b": "a"})

    assert found.matches == {}
    assert found.mismatched == ["map: a shall take 'b', which the checkpoint does not have"]
