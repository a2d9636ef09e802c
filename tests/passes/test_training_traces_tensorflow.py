"""What training leaves in graphs that scripts of TensorFlow 1 built, whatever they called it."""

import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.errors import UnsupportedError, UsageError
from tfthaw.ir.graph import GraphIndex
from tfthaw.passes.training_traces import left_in_training, training_defaults
from tfthaw.serde.graphs import graph_from_proto
from v1_sessions import v1_control_flow

NAMES = {
    "as layers call them": ("moving_mean", "moving_variance", "gamma", "beta"),
    "of its own": ("mean", "var", "scale", "offset"),
    "of populations": ("pop_mean", "pop_var", "gamma", "beta"),
    "without scale and offset": ("moving_mean", "moving_variance", None, None),
    "mixed": ("moving_mean", "moving_variance", "scale", "offset"),
}


def normalised(tf, x, names, training, zero_debias=None, use_resource=False):
    """Build batch normalisation of single ops."""
    v1 = tf.compat.v1
    with v1.variable_scope("bn", reuse=v1.AUTO_REUSE, use_resource=use_resource):
        made = [
            None if name is None else v1.get_variable(name, [3], initializer=v1.ones_initializer(), trainable=place > 1)
            for place, name in enumerate(names)
        ]  # fmt: skip
        mean, variance, scale, offset = made
        if not training:
            return tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-3)
        batch_mean, batch_variance = tf.nn.moments(x, [0, 1, 2])
        for average, now in ((mean, batch_mean), (variance, batch_variance)):
            if zero_debias is None:
                v1.assign_sub(average, (average - now) * 0.1)
            else:
                from tensorflow.python.training.moving_averages import assign_moving_average

                assign_moving_average(average, now, 0.9, zero_debias=zero_debias)
        return tf.nn.batch_normalization(x, batch_mean, batch_variance, offset, scale, 1e-3)


def built(tf, build):
    """Return a graph whose output is `out`, pruned and whole."""
    from tfthaw import proto

    with tf.Graph().as_default() as graph, v1_control_flow(tf):
        x = tf.compat.v1.placeholder(tf.float32, [None, None, None, 3], name="x")
        tf.identity(build(x), name="out")
    whole = graph_from_proto(proto.GraphDef.FromString(graph.as_graph_def().SerializeToString()))
    reached = GraphIndex(whole.nodes).reach(["out"])
    return whole.with_nodes(node for node in whole.nodes if node.name in reached), whole


@pytest.mark.parametrize("use_resource", [False, True], ids=["references", "resources"])
@pytest.mark.parametrize("zero_debias", [None, False, True])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_statistics_of_the_batch_are_found_by_what_is_averaged(tf, names, zero_debias, use_resource):
    pruned, whole = built(tf, lambda x: normalised(tf, x, names, True, zero_debias, use_resource) * 2.0)
    found = left_in_training(pruned, whole, ["out"])
    if zero_debias:  # averages of their own, such as bn/bn/mean/biased
        assert found
        assert all(scope.startswith("bn") for scope in found)
    else:
        assert found == ["bn"]
    pruned, whole = built(tf, lambda x: normalised(tf, x, names, False))
    assert left_in_training(pruned, whole, ["out"]) == []


def test_means_that_are_watched_elsewhere_are_no_statistics(tf):
    """Averages of losses, and means over pixels, are no batch normalisation."""

    def build(x):
        pooled = tf.reduce_mean(x, [1, 2])
        loss = tf.reduce_mean(tf.square(tf.reduce_mean(pooled @ np.ones((3, 3), "f4"), 0)))
        tf.compat.v1.train.ExponentialMovingAverage(0.9).apply([loss])
        watched = tf.compat.v1.get_variable("watched", [], trainable=False)
        tf.compat.v1.assign_sub(watched, (watched - tf.reduce_mean(tf.abs(pooled))) * 0.1)
        return pooled

    pruned, whole = built(tf, build)
    assert left_in_training(pruned, whole, ["out"]) == []


@pytest.mark.parametrize("is_lazy", [True, False], ids=["cond", "where"])
@pytest.mark.parametrize("name", ["is_training", "mode_flag", "f"])
def test_flags_that_choose_the_statistics_of_the_batch(tf, name, is_lazy):
    def build(x, default=True):
        flag = tf.compat.v1.placeholder_with_default(default, [], name=name)
        mean = tf.compat.v1.get_variable("bn/moving_mean", [3], trainable=False)
        of_batch = lambda: tf.reduce_mean(x, [-4, -3, -2])  # noqa: E731
        if is_lazy:
            chosen = tf.compat.v1.cond(flag, of_batch, lambda: tf.identity(mean))
        else:
            chosen = tf.where(flag, of_batch(), mean)
        return tf.reduce_mean(x - chosen, [1, 2])

    assert training_defaults(built(tf, build)[0], ["out"]) == [name]
    assert training_defaults(built(tf, lambda x: build(x, default=False))[0], ["out"]) == []


def test_flags_that_choose_dropout_or_something_else(tf):
    def dropout(x):
        flag = tf.compat.v1.placeholder_with_default(True, [], name="noisy")
        return tf.compat.v1.cond(flag, lambda: x * tf.random.uniform([3]), lambda: x)

    def head(x):
        flag = tf.compat.v1.placeholder_with_default(True, [], name="small")
        weights = tf.compat.v1.get_variable("w", [3])
        return tf.compat.v1.cond(flag, lambda: tf.reduce_mean(x, [1, 2]), lambda: tf.reduce_sum(x * weights, [1, 2]))

    assert training_defaults(built(tf, dropout)[0], ["out"]) == ["noisy"]
    assert training_defaults(built(tf, head)[0], ["out"]) == []


@pytest.mark.parametrize("how", ["negative axes", "sufficient statistics", "sums"])
def test_statistics_that_are_computed_otherwise(tf, how):
    def build(x):
        v1 = tf.compat.v1
        average = v1.get_variable("bn/mm", [3], trainable=False)
        if how == "negative axes":
            mean = tf.reduce_mean(x, [-4, -3, -2])
        elif how == "sufficient statistics":
            mean = tf.nn.normalize_moments(*tf.nn.sufficient_statistics(x, [0, 1, 2])[:3], None)[0]
        else:
            mean = tf.reduce_sum(x, [0, 1, 2]) / tf.cast(tf.size(x), tf.float32)
        v1.assign_sub(average, (average - mean) * 0.1)
        return x - mean

    pruned, whole = built(tf, build)
    assert left_in_training(pruned, whole, ["out"]) == ["bn"]


@pytest.fixture
def saved(tf, tmp_path):
    """Return what saves a training run of a normalisation under names."""

    def save(names):
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1_control_flow(tf):
            x = v1.placeholder(tf.float32, [None, None, None, 3], name="x")
            tf.identity(normalised(tf, x, names, True), name="out")
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                v1.train.Saver().save(session, str(tmp_path / "model"))
        return tmp_path / "model.meta"

    return save


@pytest.mark.parametrize("to", ["frozen-graph", "saved-model", "meta-graph"])
def test_single_ops_cannot_be_told_to_use_averages(saved, tmp_path, to):
    source = saved(NAMES["of its own"])
    with pytest.raises(UnsupportedError, match="made of single ops") as caught:
        convert(source, tmp_path / "new", to=to, outputs=["out"], batch_norm="inference")
    assert caught.value.problems == ("bn",)
    assert "--batch-norm keep" in caught.value.hint
    result = convert(source, tmp_path / "new", to=to, outputs=["out"])
    assert any("of single ops take the statistics of the batch, as in the source: bn;" in note for note in result.notes)


def test_a_flag_whose_default_is_to_train_has_to_be_set(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1_control_flow(tf), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        mean = v1.get_variable("moving", [3], trainable=False)
        flag = v1.placeholder_with_default(True, [], name="flag")
        tf.identity(x - tf.where(flag, tf.reduce_mean(x, 0), mean), name="out")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model"))
    options = {"to": "frozen-graph", "outputs": ["out"], "batch_norm": "inference"}
    with pytest.raises(UsageError, match="flag would tell the exported graph to train") as caught:
        convert(tmp_path / "model.meta", tmp_path / "new.pb", **options)
    assert "--set flag=false" in caught.value.hint
    assert convert(tmp_path / "model.meta", tmp_path / "new.pb", set={"flag": False}, **options).variables == 1
