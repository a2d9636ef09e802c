"""Which constants could be chance, and which ones changed."""

import numpy as np
import pytest

from tfthaw.errors import UnsupportedError
from tfthaw.runtime.chance import Drawn, changed_constants, digests, may_be_chance, refuse_changed

pytestmark = pytest.mark.tf


def graph_of(tf, *constants):
    """Return the GraphDef of the sum of constants, and its output."""
    with tf.Graph().as_default() as graph:
        for constant in constants:
            tf.identity(tf.constant(constant), name="y")
            tf.raw_ops.Identity(input=tf.constant(constant))
        names = [operation.outputs[0].name for operation in graph.get_operations() if operation.type == "Identity"]
        return graph.as_graph_def(), names


WRITTEN = [
    0.0, 1.0, -2.5, 0.001, 1e-12, 127.5, 0.044715, 1 / 255, 1 / 3, 2**0.5, 64**-0.5, 5**-0.5, np.inf, np.nan,
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(WRITTEN, "f4"), False), (np.array(WRITTEN, "f8"), False), (np.full((3, 3), 0.5, "f4"), False),
        (np.float32(np.random.default_rng(1).uniform()), True), (np.float64(0.1234567), True),
        (np.full(4, 0.7234561, "f4"), True), (np.random.default_rng(1).normal(size=3).astype("f4"), True),
        (np.linspace(0, 1, 50, dtype="f4"), True), (np.arange(12), True), (np.full(12, 3), False),
        (np.array([1, 2, 3]), False), (np.array([3, 2, 1]), False), (np.array([2, 0, 3, 1]), True),
        (np.array([True, False]), True), (np.array([True, True]), False), (np.array([b"a", b"b"], object), True),
        (np.array([b"a"], object), False), (np.zeros(0, "f4"), False), (np.array([1, 2], "c8"), True),
        (np.array([1, 2.1], "f2"), True),
    ],
)  # fmt: skip
def test_what_nobody_would_write_could_be_chance(tf, values, expected):
    assert may_be_chance(tf, *graph_of(tf, values)) is expected


def test_whole_numbers_that_are_shapes_are_none(tf):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (2, 3, 4, 5))
        y = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [8, -1, 5])
        assert not may_be_chance(tf, graph.as_graph_def(), [y.name])
        z = tf.gather(x, [1, 0, 2], axis=1)
        assert may_be_chance(tf, graph.as_graph_def(), [z.name])


def test_functions_count_that_are_called_and_others_do_not(tf):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None,), name="x")
        y = tf.function(lambda value: value * 0.7234561)(x)
        tf.function(lambda value: value * 0.1234567)(x)
        message = graph.as_graph_def()
    assert may_be_chance(tf, message, [y.name])
    found = digests(tf, message, [y.name])
    assert len(found) == 1
    assert next(iter(found)).startswith("__inference_")


def test_where_a_constant_is_and_what(tf):
    message, names = graph_of(tf, np.array([b"a", b"b"], object))
    found = digests(tf, message, names)
    assert [value.split()[0] for values in found.values() for value in values] == ["object[2]", "object[2]"]
    (first, *_), paths = sorted(found), [f"{name}:0" for name in found]
    assert sorted(digests(tf, message, names, paths[1:])) == [first]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": ["1"]}, {"a": ["1"]}, []), ({"a": ["1"]}, {"a": ["2"]}, ["a"]), ({"a": ["1"]}, {"b": ["1"]}, []),
        ({"a": ["1"]}, {"b": ["2"]}, ["a"]), ({"a": ["1"], "b": ["2"]}, {"a": ["2"], "b": ["1"]}, ["a", "b"]),
        ({"a": ["1"], "b": ["1"]}, {"c": ["1"]}, ["b"]), ({"f/a": ["1", "2"]}, {"f/a": ["1", "3"]}, ["f/a"]),
        ({}, {"a": ["1"]}, []),
    ],
)  # fmt: skip
def test_constants_that_changed(first, second, expected):
    assert changed_constants(first, second) == expected


def test_each_of_them_is_told():
    with pytest.raises(UnsupportedError, match="come out differently each time") as caught:
        refuse_changed({"a": ["1"], "b": ["2"]}, {"a": ["3"], "b": ["4"]}, "train.py:build")
    assert caught.value.problems == ("a", "b")


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda: np.random.normal(), True), (lambda: np.random.seed(3), True),
        (lambda: np.random.default_rng().normal(), True), (lambda: np.arange(3), False),
    ],
)  # fmt: skip
def test_what_numpy_draws_is_seen(draw, expected):
    made, state, drawn = np.random.default_rng, np.random.get_state(), Drawn()
    with drawn.watched():
        draw()
    np.random.set_state(state)
    assert drawn.any is expected
    assert np.random.default_rng is made
