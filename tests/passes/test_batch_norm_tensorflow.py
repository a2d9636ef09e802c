"""Batch normalisation of training graphs: as it is, with the flag set, with its averages; TensorFlow is the oracle."""

import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.errors import UnsupportedError
from v1_sessions import FrozenSession, Original

pytestmark = pytest.mark.tf

both_kinds = pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
DECAY = 0.9


def images(seed=0):
    return np.random.default_rng(seed).normal(size=(2, 3, 3, 4)).astype(np.float32)


def variables(tf, use_resource):
    """Return gamma, beta, moving mean and moving variance, none of them at its usual initial value."""
    made = []
    for name, trainable in (("gamma", True), ("beta", True), ("moving_mean", False), ("moving_variance", False)):
        initializer = tf.compat.v1.random_uniform_initializer(0.5, 1.5)
        made.append(
            tf.compat.v1.get_variable(
                name, [4], initializer=initializer, trainable=trainable, use_resource=use_resource
            )
        )
    return made


def average(tf, moving, value):
    """Write a moving average as `assign_moving_average` does."""
    return tf.compat.v1.assign_sub(moving, (moving - value) * (1 - DECAY))


def fused(tf, x, gamma, beta, mean, variance, *, training):
    return tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, None if training else mean, None if training else variance,
                                            is_training=training)  # fmt: skip


def layer(tf, x, flag, use_resource):
    """Batch normalisation as `tf.layers` builds it: both modes in a cond on the flag, averages in UPDATE_OPS."""
    with tf.compat.v1.variable_scope("bn"):
        gamma, beta, mean, variance = variables(tf, use_resource)
        y, used_mean, used_variance = tf.compat.v1.cond(
            flag, lambda: fused(tf, x, gamma, beta, mean, variance, training=True),
            lambda: fused(tf, x, gamma, beta, mean, variance, training=False),
        )  # fmt: skip
        decay = tf.compat.v1.cond(flag, lambda: 1 - DECAY, lambda: 0.0)
        for moving, value in ((mean, used_mean), (variance, used_variance)):
            update = tf.compat.v1.assign_sub(moving, (moving - value) * decay)
            tf.compat.v1.add_to_collection("update_ops", update)
    return y


def slim(tf, x, flag, use_resource):
    """Batch normalisation as slim builds it with `updates_collections=None`: averages are written in a cond."""
    with tf.compat.v1.variable_scope("bn"):
        gamma, beta, mean, variance = variables(tf, use_resource)
        batch_mean, batch_variance = tf.nn.moments(x, [0, 1, 2])

        def updated():
            with tf.control_dependencies([average(tf, mean, batch_mean), average(tf, variance, batch_variance)]):
                return tf.identity(batch_mean), tf.identity(batch_variance)

        used = tf.compat.v1.cond(flag, updated, lambda: (tf.identity(mean), tf.identity(variance)))
        return tf.nn.batch_normalization(x, *used, beta, gamma, 1e-3)


def network(kind, use_resource):
    def build(tf):
        x = tf.compat.v1.placeholder("float32", [None, 3, 3, 4], name="x")
        flag = tf.compat.v1.placeholder("bool", [], name="is_training")
        tf.nn.relu(kind(tf, x, flag, use_resource), name="out")

    return build


@both_kinds
@pytest.mark.parametrize("kind", [layer, slim])
@pytest.mark.parametrize("training", [True, False])
def test_the_flag_stays_an_input(tf, tmp_path, use_resource, kind, training):
    original = Original(tf, tmp_path, network(kind, use_resource))
    original.assert_freezes(["out:0"], {"x:0": images(), "is_training:0": training})


@both_kinds
@pytest.mark.parametrize("kind", [layer, slim])
def test_the_flag_is_set_to_false(tf, tmp_path, use_resource, kind):
    original = Original(tf, tmp_path, network(kind, use_resource))
    path, result = original.frozen(["out:0"], set={"is_training": False})

    with FrozenSession(tf, path) as frozen:
        for seed in range(2):
            after = frozen.run("out:0", {"x:0": images(seed)})
            np.testing.assert_array_equal(
                after, original.run(["out:0"], {"x:0": images(seed), "is_training:0": False})[0]
            )
    assert result.inputs == {"x:0": "x:0"}
    assert result.variables == 4


@both_kinds
def test_the_flag_set_to_true_leaves_the_statistics_of_the_batch(tf, tmp_path, use_resource):
    original = Original(tf, tmp_path, network(layer, use_resource))
    path, result = original.frozen(["out:0"], set={"is_training": True})

    with FrozenSession(tf, path) as frozen:
        after = frozen.run("out:0", {"x:0": images()})
    np.testing.assert_array_equal(after, original.run(["out:0"], {"x:0": images(), "is_training:0": True})[0])
    assert any("run in training mode" in note for note in result.notes)


def always_training(tf, use_resource):
    x = tf.compat.v1.placeholder("float32", [None, 3, 3, 4], name="x")
    with tf.compat.v1.variable_scope("bn"):
        gamma, beta, mean, variance = variables(tf, use_resource)
        y, batch_mean, batch_variance = fused(tf, x, gamma, beta, mean, variance, training=True)
        tf.nn.relu(y, name="out")
        tf.group(average(tf, mean, batch_mean), average(tf, variance, batch_variance), name="updates")
        tf.nn.relu(fused(tf, x, gamma, beta, mean, variance, training=False)[0], name="wanted")


@both_kinds
def test_training_mode_is_kept_and_said(tf, tmp_path, use_resource):
    original = Original(tf, tmp_path, lambda tf: always_training(tf, use_resource))
    result = original.assert_freezes(["bn/out:0"], {"x:0": images()})

    assert result.variables == 2
    assert any("1 batch normalisations run in training mode" in note for note in result.notes)


@both_kinds
def test_training_mode_becomes_inference_when_asked(tf, tmp_path, use_resource):
    original = Original(tf, tmp_path, lambda tf: always_training(tf, use_resource))
    path, result = original.frozen(["bn/out:0"], batch_norm="inference")

    with FrozenSession(tf, path) as frozen:
        after = frozen.run("bn/out:0", {"x:0": images()})
    np.testing.assert_array_equal(after, original.run(["bn/wanted:0"], {"x:0": images()})[0])
    assert result.variables == 4
    assert any("uses its moving averages now" in note for note in result.notes)


@both_kinds
def test_averages_that_make_up_for_their_start_are_found(tf, tmp_path, use_resource):
    """`zero_debias` averages into a variable of its own first; the average itself is what inference uses."""
    from tensorflow.python.training.moving_averages import assign_moving_average

    def build(tf):
        x = tf.compat.v1.placeholder("float32", [None, 3, 3, 4], name="x")
        gamma, beta, mean, variance = variables(tf, use_resource)
        y, batch_mean, batch_variance = fused(tf, x, gamma, beta, mean, variance, training=True)
        for average, now in ((mean, batch_mean), (variance, batch_variance)):
            assign_moving_average(average, now, DECAY, zero_debias=True)
        tf.identity(y, name="out")
        tf.identity(fused(tf, x, gamma, beta, mean, variance, training=False)[0], name="wanted")

    original = Original(tf, tmp_path, build)
    path, _ = original.frozen(["out:0"], batch_norm="inference")
    with FrozenSession(tf, path) as frozen:
        after = frozen.run("out:0", {"x:0": images()})
    np.testing.assert_array_equal(after, original.run(["wanted:0"], {"x:0": images()})[0])


def test_averages_that_cannot_be_found_are_refused(tf, tmp_path):
    def build(tf):
        x = tf.compat.v1.placeholder("float32", [None, 3, 3, 4], name="x")
        gamma, beta, mean, variance = variables(tf, False)
        tf.identity(fused(tf, x, gamma, beta, mean, variance, training=True)[0], name="out")

    with pytest.raises(UnsupportedError, match=r"moving averages.*\n  FusedBatchNormV3"):
        Original(tf, tmp_path, build).frozen(["out:0"], batch_norm="inference")


def test_a_badly_frozen_graph_is_mended(tf, tmp_path):
    """Freezing left RefSwitch and AssignSub on what are constants now, and importers refuse them."""
    original = Original(tf, tmp_path, network(slim, False))
    message = tf.compat.v1.GraphDef()
    message.CopyFrom(original.graph.as_graph_def())
    values = {
        variable.op.name: original.session.run(variable) for variable in original.graph.get_collection("variables")
    }
    for node in message.node:
        if node.op == "VariableV2":
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = 1
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[node.name]))
    kept = tf.compat.v1.graph_util.extract_sub_graph(message, ["out"])
    (tmp_path / "bad.pb").write_bytes(kept.SerializeToString())
    with pytest.raises(ValueError, match="float_ref"), tf.Graph().as_default():
        tf.import_graph_def(kept)

    convert(tmp_path / "bad.pb", tmp_path / "good.pb", to="frozen-graph", outputs=["out"], set={"is_training": False})

    with FrozenSession(tf, tmp_path / "good.pb") as frozen:
        after = frozen.run("out:0", {"x:0": images()})
    np.testing.assert_array_equal(after, original.run(["out:0"], {"x:0": images(), "is_training:0": False})[0])


def functions(tf, folder, *, loop):
    """Save a model of TensorFlow 2 whose signature normalises by the batch and writes its averages; return the path."""
    root = tf.Module()
    root.mean, root.variance = tf.Variable([1.0] * 4, trainable=False), tf.Variable([4.0] * 4, trainable=False)

    def normalised(x):
        y, mean, variance = fused(tf, x, [1.0] * 4, [0.0] * 4, None, None, training=True)
        for moving, value in ((root.mean, mean), (root.variance, variance)):
            moving.assign_sub((moving - value) * (1 - DECAY))
        return y

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 3, 4], tf.float32, name="x")])
    def serve(x):
        if loop:
            return {"y": tf.while_loop(lambda i, x: i < 1, lambda i, x: (i + 1, normalised(x)), [0, x])[1]}
        return {"y": normalised(x)}

    tf.saved_model.save(root, str(folder / "saved"), signatures=serve)
    return folder / "saved"


def test_batch_norm_of_functions_uses_the_averages_when_asked(tf, tmp_path):
    path = functions(tf, tmp_path, loop=False)
    kept = convert(path, tmp_path / "kept.pb", to="frozen-graph")
    convert(path, tmp_path / "averages.pb", to="frozen-graph", batch_norm="inference")

    assert any("training mode" in note for note in kept.notes)
    with FrozenSession(tf, tmp_path / "averages.pb") as frozen:
        y = frozen.run("StatefulPartitionedCall:0", {"serving_default_x:0": images()})
    np.testing.assert_allclose(y, (images() - 1) / np.sqrt(4 + 1e-3), rtol=1e-5, atol=1e-6)


def test_batch_norm_in_a_loop_of_functions_is_named(tf, tmp_path):
    path = functions(tf, tmp_path, loop=True)

    with pytest.raises(UnsupportedError, match="writes variables") as caught:
        convert(path, tmp_path / "f.pb", to="frozen-graph")
    assert "while" in caught.value.problems[0]
    with pytest.raises(UnsupportedError, match="cannot be found") as caught:
        convert(path, tmp_path / "s", to="saved-model", signature="serving_default", batch_norm="inference")
    assert " in " in caught.value.problems[0]
