"""SavedModels of TensorFlow 1 with reference variables, as TensorFlow 2 calls and trains what becomes of them."""

import warnings

import numpy as np
import pytest

from reference_pairs import feed, images, reference, variable
from tfthaw.conversion.converting import convert
from tfthaw.errors import UnsupportedError
from v1_sessions import plain_config, v1_control_flow

pytestmark = pytest.mark.tf


class Served:
    """A SavedModel of TensorFlow 1 in its session, and what TensorFlow 2 loads of it."""

    def __init__(self, tf, folder, build):
        self.tf = tf
        graph = tf.Graph()
        with graph.as_default(), v1_control_flow(tf), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.seed = 5
            signatures = build(tf)
            self.session = tf.compat.v1.Session(config=plain_config(tf), graph=graph)
            self.session.run(tf.compat.v1.global_variables_initializer())
            define = tf.compat.v1.saved_model.predict_signature_def
            builder = tf.compat.v1.saved_model.Builder(str(folder / "source"))
            builder.add_meta_graph_and_variables(
                self.session, ["serve"], {key: define(*ends) for key, ends in signatures.items()}
            )
            builder.save()
        self.signatures = signatures
        self.result = convert(folder / "source", folder / "new", to="saved-model", style="v2", verify="weights")
        self.loaded = tf.saved_model.load(str(folder / "new"))

    def assert_same(self, key, **given):
        """Check that a call gives what the session gives."""
        inputs, outputs = self.signatures[key]
        expected = self.session.run(outputs, {inputs[name]: value for name, value in given.items()})
        tensors = {name: self.tf.constant(value) for name, value in given.items()}
        found = self.loaded.signatures[key](**tensors)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-6, err_msg=f"{key}: {name}")


def test_what_one_signature_writes_the_next_one_reads(tf, tmp_path):
    def build(tf):
        w = variable(tf, "w", [4])
        x = feed(tf)
        step = tf.compat.v1.assign_add(w, tf.reduce_sum(x, 0))
        return {
            "read": ({"x": x}, {"y": tf.raw_ops.Mul(x=x, y=reference(w)), "w": w.value(), "itself": reference(w)}),
            "step": ({"x": x}, {"new": step}),
        }

    served = Served(tf, tmp_path, build)

    for seed in range(3):
        served.assert_same("read", x=images(seed))
        served.assert_same("step", x=images(seed + 7))
    served.assert_same("read", x=images())
    assert any("resource variables now" in note for note in served.result.notes)
    assert [item.name for item in served.loaded.trainable_variables] == ["w:0"]


def test_control_flow_that_reads_and_writes(tf, tmp_path):
    def build(tf):
        w, total = variable(tf, "w", [4, 4]), variable(tf, "total", [])
        x, flag = feed(tf), tf.compat.v1.placeholder("bool", [], name="flag")

        def body(i, y):
            count = tf.compat.v1.assign_add(total, tf.reduce_sum(y))
            with tf.control_dependencies([count]):
                return i + 1, tf.tanh(tf.matmul(y, w)) + tf.identity(count)

        looped = tf.compat.v1.while_loop(lambda i, y: i < 3, body, [0, x], parallel_iterations=1)[1]
        written = tf.compat.v1.cond(
            flag, lambda: tf.compat.v1.assign_add(w, tf.ones([4, 4])), lambda: tf.compat.v1.assign(w, 0.5 * w)
        )
        return {"loop": ({"x": x}, {"y": looped}), "cond": ({"flag": flag}, {"w": tf.raw_ops.Neg(x=written)})}

    served = Served(tf, tmp_path, build)

    for flag in (True, False):
        served.assert_same("loop", x=images())
        served.assert_same("cond", flag=flag)
    served.assert_same("loop", x=images(1))


def test_a_training_step_as_a_signature(tf, tmp_path):
    def build(tf):
        kernel, table = variable(tf, "kernel", [4, 2]), variable(tf, "table", [6, 4])
        x, ids = feed(tf), feed(tf, [None], "int32", "ids")
        loss = tf.reduce_mean(tf.square(tf.matmul(x + tf.compat.v1.nn.embedding_lookup(table, ids), kernel) - 1.0))
        step = tf.compat.v1.train.get_or_create_global_step()
        train = tf.compat.v1.train.AdamOptimizer(0.1).minimize(loss, global_step=step)
        with tf.control_dependencies([train]):
            done = tf.identity(reference(kernel))
        asked = {"x": x, "ids": ids}
        return {"train": (asked, {"loss": loss, "kernel": done}), "loss": (asked, {"loss": loss})}

    served = Served(tf, tmp_path, build)

    for seed in range(3):
        served.assert_same("train", x=images(seed), ids=np.array([0, 5, 5], np.int32))
    served.assert_same("loss", x=images(), ids=np.array([1, 2, 5], np.int32))


def test_gradients_reach_variables_that_were_references(tf, tmp_path):
    def build(tf):
        kernel, table = variable(tf, "dense/kernel", [4, 2]), variable(tf, "table", [6, 4])
        ids = feed(tf, [None], "int32", "ids")
        rows = tf.raw_ops.GatherV2(params=reference(table), indices=ids, axis=0)
        return {"serving_default": ({"ids": ids}, {"y": tf.raw_ops.MatMul(a=rows, b=reference(kernel))})}

    served = Served(tf, tmp_path, build)
    function = served.loaded.signatures["serving_default"]
    ids = tf.constant([0, 5, 5])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(function(ids=ids)["y"]))
    variables = served.loaded.trainable_variables
    gradients = tape.gradient(loss, variables)
    for item, gradient in zip(variables, gradients, strict=True):
        item.assign_sub(0.01 * tf.convert_to_tensor(gradient))

    assert {item.name for item in variables} == {"dense/kernel:0", "table:0"}
    assert tf.reduce_sum(tf.square(function(ids=ids)["y"])) < loss


def test_a_graph_that_only_references_can_mean_keeps_its_style(tf, tmp_path):
    def build(tf):
        a, b = variable(tf, "a", [4]), variable(tf, "b", [4])
        old = a.value()
        with tf.control_dependencies([tf.compat.v1.assign(a, b)]):
            swapped = tf.compat.v1.assign(b, old)
        x = feed(tf)
        return {"serving_default": ({"x": x}, {"y": x * tf.identity(swapped)})}

    with pytest.raises(UnsupportedError, match="through a/read, and runs after Assign") as caught:
        Served(tf, tmp_path, build)
    assert "--style v1" in caught.value.hint
    assert not (tmp_path / "new").exists()
    convert(tmp_path / "source", tmp_path / "new", to="saved-model", style="v1", verify="weights")
