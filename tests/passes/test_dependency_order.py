"""Nodes in dependency order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import constant, node
from tfthaw.passes.dependency_order import in_dependency_order


def names(nodes):
    return [found.name for found in nodes]


def test_needs_come_first_and_the_rest_stays():
    nodes = [
        constant("a", 1.0),
        node("d", "Add", "c:1", "a"),
        node("c", "Neg", "b", "^e"),
        constant("b", 1.0),
        constant("e", 1),
    ]
    assert names(in_dependency_order(nodes)) == ["a", "b", "e", "c", "d"]
    again = in_dependency_order(nodes)
    assert in_dependency_order(again) == again


def test_loops_are_cut_where_they_close():
    nodes = [
        node("m", "Merge", "e", "n"),
        node("n", "NextIteration", "b"),
        node("b", "Neg", "m"),
        node("e", "Enter", "x"),
    ]
    assert names(in_dependency_order(nodes)) == ["e", "m", "b", "n"]


def test_a_long_chain_is_no_recursion():
    nodes = [node(f"n{i}", "Neg", f"n{i + 1}") for i in range(20_000)]
    assert names(in_dependency_order(nodes))[0] == "n19999"


def test_rings_and_dangling_inputs_end():
    nodes = [node("a", "Neg", "b"), node("b", "Neg", "a"), node("c", "Neg", "nothing")]
    assert sorted(names(in_dependency_order(nodes))) == ["a", "b", "c"]


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_every_order_of_a_graph_becomes_one_that_works(random, count):
    nodes = [node(f"n{i}", "AddN", *{f"n{random.randrange(i)}" for _ in range(2) if i}) for i in range(count)]
    random.shuffle(nodes)
    seen = set()
    for found in in_dependency_order(nodes):
        assert set(found.inputs) <= seen
        seen.add(found.name)
    assert seen == set(names(nodes))
