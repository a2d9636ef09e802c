"""What a builder of a graph returned, as inputs and outputs by name."""

import collections
import dataclasses

import numpy as np
import pytest

from tfthaw.runtime.graph_code import graph_signatures, holds_tensors

pytestmark = pytest.mark.tf

Out = collections.namedtuple("Out", ["logits", "chosen"])


@dataclasses.dataclass
class Result:
    logits: object
    chosen: object


@pytest.fixture
def x(tf):
    with tf.Graph().as_default():
        yield tf.compat.v1.placeholder(tf.float32, (None, 4), name="in/x")


def named(tf, result):
    """Return the names of inputs and outputs with their tensors, for each signature, and the notes."""
    notes = []
    found = graph_signatures(tf, result, notes)
    assert bool(found) <= holds_tensors(tf, result)
    return {key: tuple({name: tensor.name for name, tensor in part.items()} for part in parts)
            for key, parts in found.items()}, notes  # fmt: skip


def test_tensors_lists_and_dicts(tf, x):
    y, z = tf.identity(x, "y"), tf.identity(x, "out/z")
    for result in ((x, [y, z]), ([x], (y, z))):
        assert named(tf, result) == (
            {"serving_default": ({"in_x": "in/x:0"}, {"y": "y:0", "out_z": "out/z:0"})}, []
        )  # fmt: skip
    assert named(tf, ({"a": x}, {"b": [y, z]}))[0] == {
        "serving_default": ({"a": "in/x:0"}, {"b_0": "y:0", "b_1": "out/z:0"})
    }  # fmt: skip


@pytest.mark.parametrize("kind", [Out, Result, dict])
def test_parts_that_have_names(tf, x, kind):
    result = kind(logits=tf.identity(x, "y"), chosen=tf.identity(x, "z"))
    expected = {"logits": "y:0", "chosen": "z:0"}
    assert named(tf, (x, result))[0] == {"serving_default": ({"in_x": "in/x:0"}, expected)}
    assert named(tf, result)[0]["serving_default"][1] == expected


def test_several_signatures(tf, x):
    pairs = {"code": (x, {"c": tf.identity(x, "c")}), "score": ({"x": x}, tf.identity(x, "s"))}
    assert named(tf, pairs) == (
        {"code": ({"in_x": "in/x:0"}, {"c": "c:0"}), "score": ({"x": "in/x:0"}, {"s": "s:0"})}, []
    )  # fmt: skip


def test_nothing_gets_lost_where_names_meet(tf, x):
    a, b = tf.split(x, 2, axis=1)
    c, d = tf.split(x, 2, axis=1)
    outputs, notes = named(tf, (x, [a, b, c, d]))
    assert list(outputs["serving_default"][1].values()) == ["split:0", "split:1", "split_1:0", "split_1:1"]
    assert outputs["serving_default"][1]["split_1"] == "split_1:0"
    assert "split:1 is called split_1_1, since split_1:0 is called split_1" in notes
    nested = {"a": [tf.identity(x, "p"), tf.identity(x, "q")], "a_1": tf.identity(x, "r")}
    assert named(tf, (x, nested))[0]["serving_default"][1] == {"a_0": "p:0", "a_1_1": "q:0", "a_1": "r:0"}
    other = tf.compat.v1.placeholder(tf.float32, name="in_x")
    assert named(tf, ([x, other], tf.add(x, other)))[0]["serving_default"][0] == {"in_x_1": "in/x:0", "in_x": "in_x:0"}


@pytest.mark.parametrize("use_resource", [True, False])
def test_variables_and_what_is_no_tensor(tf, x, use_resource):
    w = tf.compat.v1.get_variable("w", (4, 2), use_resource=use_resource)
    before = len(x.graph.get_operations())
    found, notes = named(tf, (x, {"y": tf.identity(x, "y"), "w": w, "names": np.array(["a"]), "none": None}))
    assert len(x.graph.get_operations()) == before + 1
    assert found["serving_default"][1]["w"].startswith("w/")
    assert notes == ["names is left out: ndarray is no tensor of the graph"]


def test_what_is_fed_need_not_be_a_placeholder(tf, x):
    read = tf.compat.v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensors(np.ones(4, "f"))).get_next()
    y = tf.identity(read, "y")
    assert named(tf, (read, y))[0]["serving_default"] == ({"IteratorGetNext": "IteratorGetNext:0"}, {"y": "y:0"})
    decoded = tf.reshape(x, (-1,), name="decoded")
    result = ({"a": decoded}, {"b": tf.identity(decoded, "b")})
    assert named(tf, result) == ({"serving_default": ({"a": "decoded:0"}, {"b": "b:0"})}, [])


def test_one_of_two_tensors_is_not_taken_for_the_input_of_the_other(tf, x):
    logits = tf.identity(x, "logits")
    for result in ((logits, tf.nn.softmax(logits, name="p")), Out(logits, tf.nn.softmax(logits, name="p_1"))):
        inputs, outputs = named(tf, result)[0]["serving_default"]
        assert inputs == {"in_x": "in/x:0"}
        assert len(outputs) == 2


def test_inputs_alone_and_nothing(tf, x):
    assert named(tf, x)[0] == {}
    assert named(tf, None)[0] == {}
    assert named(tf, [3, "a"])[0] == {}
