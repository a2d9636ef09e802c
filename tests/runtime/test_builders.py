"""Which way a builder is called, and what it gave."""

import functools

import pytest

from tfthaw.errors import UsageError
from tfthaw.runtime.builders import Way, computes, likely_way, may_be_traced, models_alive, refuse_nothing
from tfthaw.runtime.endpoints import Request

pytestmark = pytest.mark.tf


def placed(tf):
    return tf.compat.v1.placeholder(tf.float32)


def through_another(tf):
    return placed(tf)


def plain(tf):
    return tf.Variable(1.0)


class Network:
    def build(self, tf):
        return [placed(tf) for _ in range(2)]


class Plain:
    def __call__(self):
        return None


def made_of(tf):
    def inner():
        return placed(tf)

    return inner


@pytest.mark.parametrize(
    ("builder", "expected"),
    [
        (placed, Way.IN_A_GRAPH), (through_another, Way.IN_A_GRAPH), (plain, Way.EAGERLY), (Network, Way.IN_A_GRAPH),
        (Network().build, Way.IN_A_GRAPH), (functools.partial(placed, None), Way.IN_A_GRAPH), (Plain, Way.EAGERLY),
        (Plain(), Way.EAGERLY), (made_of(None), Way.IN_A_GRAPH), (lambda: made_of(None)(), Way.IN_A_GRAPH),
        (len, Way.EAGERLY),
    ],
)  # fmt: skip
def test_its_code_says_which_way_it_is_meant(tf, builder, expected):
    assert likely_way(tf, builder) is expected
    assert expected.other.other is expected


def test_where_eager_execution_is_off_there_is_one_way(tf):
    with tf.Graph().as_default():
        assert likely_way(tf, plain) is Way.IN_A_GRAPH


def test_what_it_gave(tf):
    layer = tf.keras.layers.Dense(1)
    assert computes(tf, None)
    assert computes(tf, {"y": tf.zeros(2)})
    assert not computes(tf, layer)
    assert not computes(tf, [])
    assert may_be_traced(tf, {"a": layer})
    assert may_be_traced(tf, plain)
    assert not may_be_traced(tf, None)
    assert not may_be_traced(tf, 3)


def test_a_model_that_was_not_returned(tf):
    before = models_alive(tf)
    refuse_nothing(tf, None, Request(code="f.py:build"), before)
    made = tf.keras.layers.Dense(1)
    with pytest.raises(UsageError, match=r"f.py:build: the code builds a model and gives nothing; return the model"):
        refuse_nothing(tf, None, Request(code="f.py:build"), before)
    refuse_nothing(tf, made, Request(), before)
    refuse_nothing(tf, None, Request(graph_outputs=["y"]), before)
