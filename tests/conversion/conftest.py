"""One small model in every format that a conversion can begin with."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from v1_sessions import plain_config

INPUT = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope="session")
def v1(tf, tmp_path_factory):
    """A v1 training graph (Adam, moving averages) in each format, with its values and what it computes."""
    folder = tmp_path_factory.mktemp("v1")
    made = SimpleNamespace(folder=folder, feed=INPUT)
    with tf.Graph().as_default() as graph, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.seed = 3
        x = tf.compat.v1.placeholder("float32", [None, 4], name="x")
        random = tf.compat.v1.random_normal_initializer()
        kernel = tf.compat.v1.get_variable("dense/kernel", [4, 3], initializer=random, use_resource=False)
        bias = tf.compat.v1.get_variable("dense/bias", [3], initializer=random, use_resource=True)
        out = tf.nn.softmax(tf.matmul(x, kernel) + bias, name="out")
        step = tf.compat.v1.train.get_or_create_global_step()
        loss = tf.reduce_sum(tf.square(out - 1.0))
        train = tf.compat.v1.train.AdamOptimizer(0.1).minimize(loss, global_step=step)
        averages = tf.train.ExponentialMovingAverage(0.5)
        average = averages.apply([kernel])
        with tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
            for variable in tf.compat.v1.global_variables():  # one by one: an average begins with its variable's value
                session.run(variable.initializer)
            session.run(train, {x: INPUT})
            session.run(average)
            made.out = session.run(out, {x: INPUT})
            made.values = {variable.op.name: session.run(variable) for variable in tf.compat.v1.global_variables()}
            made.weights = {name: made.values[name] for name in ("dense/kernel", "dense/bias")}
            saver, old = tf.compat.v1.train.Saver(), tf.compat.v1.train.Saver(write_version=1)
            (folder / "v1").mkdir()
            (folder / "v2").mkdir()
            saver.save(session, str(folder / "v2/model.ckpt"))
            old.save(session, str(folder / "v1/model.ckpt"))
            tf.io.write_graph(graph, str(folder), "graph.pb", as_text=False)
            tf.io.write_graph(graph, str(folder), "graph.pbtxt", as_text=True)
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["out"])
            (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
            builder = tf.compat.v1.saved_model.Builder(str(folder / "saved"))
            signature = tf.compat.v1.saved_model.predict_signature_def({"image": x}, {"scores": out})
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
            builder.save()
    made.sources = {
        "checkpoint": folder / "v2/model.ckpt", "checkpoint-v1": folder / "v1/model.ckpt",
        "meta-graph": folder / "v2/model.ckpt.meta", "saved-model": folder / "saved", "graph-def": folder / "graph.pb",
        "graph-def-text": folder / "graph.pbtxt", "frozen-graph": folder / "frozen.pb",
    }  # fmt: skip
    return made


@pytest.fixture(scope="session")
def weights(tf, tmp_path_factory, v1):
    """The same weights in formats that carry no graph: path by format."""
    import keras
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("weights")
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, name="dense")])
    model.set_weights([v1.values["dense/kernel"], v1.values["dense/bias"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("model.h5", "model.keras"):
            model.save(folder / name)
        model.save_weights(folder / "model.weights.h5")
    tf.train.Checkpoint(model=model).write(str(folder / "objects"))
    save_file(v1.weights, folder / "model.safetensors")
    np.savez(folder / "model.npz", **v1.weights)
    return {
        "keras-h5": folder / "model.h5",
        "keras-zip": folder / "model.keras",
        "keras-weights": folder / "model.weights.h5",
        "objects": folder / "objects",
        "safetensors": folder / "model.safetensors",
        "npz": folder / "model.npz",
    }


@pytest.fixture
def quiet(tf):
    """Keep TensorFlow from warning of what it deprecates itself."""
    level = tf.get_logger().level
    tf.get_logger().setLevel("ERROR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    tf.get_logger().setLevel(level)
