"""Training graphs train the same with resource variables as with references, with TensorFlow as the oracle."""

import numpy as np
import pytest

from reference_pairs import Pair, X, feed, variable

pytestmark = pytest.mark.tf


def optimizers(tf):
    train = tf.compat.v1.train
    return {
        "sgd": train.GradientDescentOptimizer(0.1),
        "momentum": train.MomentumOptimizer(0.1, 0.9),
        "nesterov": train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
        "adam": train.AdamOptimizer(0.1),
        "adagrad": train.AdagradOptimizer(0.1),
        "adagrad_da": train.AdagradDAOptimizer(0.1, tf.compat.v1.train.get_or_create_global_step()),
        "adadelta": train.AdadeltaOptimizer(0.1),
        "ftrl": train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
        "rmsprop": train.RMSPropOptimizer(0.1, momentum=0.5),
        "centered": train.RMSPropOptimizer(0.1, centered=True),
        "proximal": train.ProximalGradientDescentOptimizer(0.1, l1_regularization_strength=0.01),
        "proximal_adagrad": train.ProximalAdagradOptimizer(0.1, l1_regularization_strength=0.01),
    }


@pytest.mark.parametrize("kind", [
    "sgd", "momentum", "nesterov", "adam", "adagrad", "adagrad_da", "adadelta", "ftrl", "rmsprop", "centered",
    "proximal", "proximal_adagrad",
])  # fmt: skip
def test_steps_of_an_optimizer(tf, kind):
    """Dense and sparse gradients alike; the loss of each step and all slots stay the same."""

    def build(tf):
        with tf.compat.v1.variable_scope("", use_resource=False):
            kernel, table = variable(tf, "kernel", [4, 2]), variable(tf, "table", [6, 4])
            rows = tf.compat.v1.nn.embedding_lookup(table, feed(tf, [None], "int32", "ids"))
            loss = tf.reduce_mean(tf.square(tf.matmul(feed(tf) + rows, kernel) - 1.0), name="loss")
            step = tf.compat.v1.train.get_or_create_global_step()
            optimizers(tf)[kind].minimize(loss, global_step=step, name="train")

    feeds = X | {"ids:0": np.array([0, 5, 5], np.int32)}
    pair = Pair(tf, build, ["loss:0", "train:0"]).assert_same(["loss:0", "train"], feeds)

    assert any(name.endswith("global_step") for name in pair.result.variables)


def test_the_graphs_own_saver_saves_and_restores(tf, tmp_path):
    def build(tf):
        variable(tf, "w", [4])
        variable(tf, "parts", [5], partitioner=tf.compat.v1.fixed_size_partitioner(2))
        tf.compat.v1.train.Saver()

    pair = Pair(tf, build)
    kept = pair.values(pair.after)
    prefix = {"save/Const:0": str(tmp_path / "model.ckpt")}
    pair.after.run("save/control_dependency:0", prefix)
    pair.after.run("w/Assign")
    pair.after.run("save/restore_all", prefix)

    for name, value in pair.values(pair.after).items():
        np.testing.assert_array_equal(value, kept[name], err_msg=name)
    assert {key for key, _ in tf.train.list_variables(str(tmp_path / "model.ckpt"))} == {"w", "parts"}
