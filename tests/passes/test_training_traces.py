"""What training leaves in a graph: batch statistics, random numbers, flags."""

import pytest

from graphs import constant, function, graph, handle, library, node, placeholder, variable
from tfthaw.dtypes import DType
from tfthaw.passes.training_traces import left_in_training, random_nodes, training_defaults

SCOPE = [variable("bn/gamma", (3,)), variable("bn/moving_mean", (3,)), variable("bn/moving_variance", (3,))]


def left(found, whole):
    """Return what is left of training in a graph all of whose nodes are outputs."""
    return left_in_training(found, whole, [item.name for item in found.nodes])


def test_averages_that_nothing_uses_tell_of_batch_statistics():
    whole = graph(*SCOPE)
    assert left(graph(SCOPE[0]), whole) == ["bn"]
    assert left(whole, whole) == []
    assert left(graph(), whole) == []
    assert left(graph(SCOPE[0]), graph(SCOPE[0])) == []


def test_resource_variables_go_by_their_shared_names():
    gamma, mean = handle("a", (3,), shared_name="bn/gamma"), handle("b", (3,), shared_name="bn/moving_mean")
    assert left(graph(gamma), graph(gamma, mean)) == ["bn"]
    assert left(graph(gamma, mean), graph(gamma, mean)) == []


def test_random_numbers_are_found_in_functions_too():
    noise = node("noise", "RandomUniform", "x", dtype=DType.float32)
    body = function("drop", {"x": DType.int32}, [noise], {"y": ("noise:output:0", DType.float32)})
    assert random_nodes(library([node("a", "TruncatedNormal", "s"), node("b", "Relu", "a")], body)) == [
        "a", "noise in drop"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "default", "found"),
    [
        ("is_training", True, True), ("is_training", False, False), ("keras_learning_phase", True, True),
        ("use_boxes", True, False),
    ],
)  # fmt: skip
def test_flags_whose_default_is_to_train(name, default, found):
    flag = placeholder(f"a/{name}", (), DType.bool, "PlaceholderWithDefault", "default")
    assert training_defaults(graph(constant("default", default), flag), [flag.name]) == ([f"a/{name}"] if found else [])


def test_flags_without_default_or_of_numbers():
    numbers = placeholder("train_rate", (), DType.float32, "PlaceholderWithDefault", "half")
    assert training_defaults(graph(constant("half", 0.5), numbers, placeholder("training", (), DType.bool)), []) == []
