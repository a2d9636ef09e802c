"""One readable path for each object, whatever order the file has its objects in."""

import random

import pytest

from tfthaw.ir.object_graph import Child, SavedObject, UserObject
from tfthaw.ir.object_tree import MAX_DEPTH, MAX_PATH_LENGTH, Edge, ObjectTree, find_optimizers, spanning_tree


def graph(edges):
    """Return objects from {object: {name: child}}."""
    count = 1 + max([*edges, *(child for children in edges.values() for child in children.values())])
    return [
        SavedObject(UserObject(""), [Child(child, name) for name, child in edges.get(node, {}).items()])
        for node in range(count)
    ]


def paths(edges, names=None, **more):
    return ObjectTree(graph(edges), names or {}, **more).paths


KERAS_2 = {
    0: {"layer-0": 1, "layer_with_weights-0": 2, "layer-1": 2, "variables": 3, "keras_api": 4, "optimizer": 8},
    2: {"kernel": 5, "bias": 6, "variables": 7},
    3: {"0": 5, "1": 6},
    4: {"layers": 9, "metrics": 10, "variables": 3},
    7: {"0": 5, "1": 6},
    8: {"learning_rate": 11, "iter": 12},
    9: {"0": 1, "1": 2},
    10: {"0": 13},
    13: {"total": 14},
}
KERAS_2_NAMES = {5: "first/kernel", 6: "first/bias", 11: "Adam/learning_rate", 12: "Adam/iter", 14: "total"}


def test_layers_go_by_the_names_that_their_variables_tell():
    found = paths(KERAS_2, KERAS_2_NAMES)
    assert {found[node] for node in KERAS_2_NAMES} == {
        "first/kernel", "first/bias", "optimizer/learning_rate", "optimizer/iter", "metrics/0/total",
    }  # fmt: skip
    assert found[0] == ""
    assert found[2] == "first"
    assert found[1] == "layer-0", "nothing tells the name of a layer without variables"


def test_layers_go_by_the_names_that_keras_says():
    found = paths(KERAS_2, KERAS_2_NAMES, layer_names={1: "input", 2: "dense", 13: "loss"})
    assert (found[1], found[5], found[14]) == ("input", "dense/kernel", "metrics/loss/total")


KERAS_3 = {
    0: {"_functional": 1, "_layers": 2, "optimizer": 3},
    1: {"_operations": 4},
    2: {"0": 5, "1": 6},
    3: {"_variables": 7, "_iterations": 8, "_learning_rate": 9},
    4: {"0": 5, "1": 6},
    6: {"_kernel": 10, "bias": 11},
    7: {"0": 8, "1": 9},
}
KERAS_3_NAMES = {8: "adam/iteration", 9: "adam/learning_rate", 10: "sequential/dense/kernel", 11: "sequential/dense/b"}


def test_what_keras_3_puts_between_is_left_out():
    found = paths(KERAS_3, KERAS_3_NAMES)
    assert [found[node] for node in (8, 9, 10, 11)] == [
        "optimizer/iterations", "optimizer/learning_rate", "dense/kernel", "dense/bias",
    ]  # fmt: skip
    assert find_optimizers(graph(KERAS_3)) == [3]


def test_variables_in_lists_of_all_go_by_their_own_names_where_these_are_free():
    edges = {0: {"variables": 1, "_all_variables": 2}, 1: {"0": 3, "1": 4}, 2: {"0": 5}}
    found = paths(edges, {3: "m/kernel", 4: "", 5: "m/kernel"})
    assert (found[3], found[4], found[5]) == ("m/kernel", "variables/1", "_all_variables/0")


def test_own_attributes_are_left_as_they_are():
    edges = {0: {"w": 1, "_private": 2, "layers": 3, "self": 0, "a.b/c": 4}, 3: {"0": 5}, 5: {"v": 6, "up": 0}}
    found = paths(edges, {1: "kernel", 2: "x", 4: "y", 6: "z"})
    assert [found[node] for node in (1, 2, 4, 6)] == ["w", "_private", "a..b.Sc", "layers/0/v"]


def test_of_two_ways_the_shorter_one_is_taken_then_the_first_by_name():
    assert paths({0: {"b": 1, "a": 2, "z": 3}, 2: {"x": 1}, 3: {}})[1] == "b"
    assert paths({0: {"b": 1, "a": 2}, 1: {"x": 3}, 2: {"y": 3}})[3] == "a/y"
    assert paths({0: {"_b": 1, "b": 1}})[1] == "b", "private names come last"


@pytest.mark.parametrize("edges", [KERAS_2, KERAS_3])
def test_the_order_of_objects_and_children_counts_for_nothing(edges):
    names = KERAS_2_NAMES if edges is KERAS_2 else KERAS_3_NAMES
    expected = set(paths(edges, names).values())
    for seed in range(10):
        rng = random.Random(seed)
        order = list(range(1, 1 + max(max(children.values()) for children in edges.values())))
        rng.shuffle(order)
        number = {0: 0, **dict(zip(range(1, len(order) + 1), order, strict=True))}
        turned = {
            number[node]: {name: number[child] for name, child in rng.sample(sorted(children.items()), len(children))}
            for node, children in edges.items()
        }
        assert set(paths(turned, {number[node]: name for node, name in names.items()}).values()) == expected


def test_paths_are_unique():
    edges = {0: {"layer-0": 1, "layer-1": 2, "dense": 3}, 1: {"kernel": 4}, 2: {"kernel": 5}, 3: {"kernel": 6}}
    found = paths(edges, {4: "dense/kernel", 5: "dense/kernel", 6: "dense/kernel"})
    assert found[6] == "dense/kernel"
    assert found[4] == "layer-0/kernel"
    assert len(set(found.values())) == len(found)


def test_names_that_do_not_agree_tell_nothing():
    found = paths({0: {"layer-0": 1}, 1: {"kernel": 2, "bias": 3}}, {2: "a/kernel", 3: "b/bias"})
    assert found[2] == "layer-0/kernel"


def test_edges_that_lead_nowhere_are_left_out():
    objects = [SavedObject(UserObject(""), [Child(7, "a"), Child(-1, "b"), Child(1, "c")]), SavedObject()]
    assert spanning_tree(objects) == {1: Edge(0, "c")}


def test_of_two_children_of_one_name_the_first_counts():
    objects = [SavedObject(children=[Child(1, "a"), Child(2, "a")]), SavedObject(), SavedObject()]
    assert spanning_tree(objects) == {1: Edge(0, "a")}


def test_nothing_has_a_path_where_there_is_no_root():
    assert ObjectTree([], {}).paths == {}


def test_deep_and_long_paths_are_no_paths():
    deep = paths({node: {"c": node + 1} for node in range(MAX_DEPTH + 50)})
    assert max(deep) == MAX_DEPTH
    long = paths({0: {"n" * MAX_PATH_LENGTH: 1, "m" * (MAX_PATH_LENGTH + 1): 2}, 1: {"x": 3}, 2: {"x": 4}})
    assert set(long) == {0, 1}


def test_a_path_that_is_taken_gets_a_number():
    tree = ObjectTree(graph({0: {"a": 1}}), {})
    for node in (5, 6, 7):
        tree.add(node, "a")
    assert [tree.paths[node] for node in (5, 6, 7)] == ["a~2", "a~3", "a~4"]
