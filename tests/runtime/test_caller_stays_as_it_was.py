"""Live objects are traced in the caller's process, which looks afterwards as it did before."""

import json
import logging
import os
import random
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import tfthaw
from tfthaw.errors import TfthawError

pytestmark = pytest.mark.tf


def open_files():
    """Return the files that this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    return [os.readlink(item) for item in folder.iterdir() if item.is_symlink()] if folder.is_dir() else []


def state(tf):
    """Return what a user could notice of the process."""
    from tensorflow.python.ops import resource_variable_ops as resources

    v1 = tf.compat.v1
    return {
        "eager": tf.executing_eagerly(), "default graph": id(v1.get_default_graph()),
        "operations": len(v1.get_default_graph().get_operations()), "v2": v1.executing_eagerly_outside_functions(),
        "resources": v1.resource_variables_enabled(), "control flow": v1.control_flow_v2_enabled(),
        "functions eager": tf.config.functions_run_eagerly(), "soft placement": tf.config.get_soft_device_placement(),
        "floats": tf.keras.backend.floatx(), "path": list(sys.path), "arguments": list(sys.argv),
        "environment": dict(os.environ), "folder": os.getcwd(), "filters": list(warnings.filters),
        "logger": (tf.get_logger().level, list(tf.get_logger().handlers), tf.get_logger().disabled),
        "root logger": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "random": random.getstate(), "numpy": json.dumps(np.random.get_state()[1].tolist()),
        "strategy": tf.distribute.has_strategy(), "streams": (sys.stdout, sys.stderr, sys.stdin),
        "files": sorted(file for file in open_files() if "ckpt" in file),
        "watched": (dict(vars(resources.BaseResourceVariable)), tf.queue.QueueBase.dequeue, np.random.default_rng),
    }  # fmt: skip


@pytest.fixture
def net(tf, tmp_path):
    """A small Keras model, its checkpoint, and other values in it than the checkpoint has."""
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2), tf.keras.layers.Dropout(0.5)])
    model.compile(optimizer="adam", loss="mse")
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    saved = [value.copy() for value in model.get_weights()]
    model.set_weights([value + 1.0 for value in saved])
    return model, checkpoint, saved


@pytest.mark.parametrize(("to", "verify"), [("saved-model", None), ("meta-graph", "weights")])
def test_after_a_conversion(tf, net, tmp_path, to, verify):
    model, checkpoint, saved = net
    x = tf.ones([2, 3])
    expected, config = model(x).numpy(), model.to_json()
    tf.random.set_seed(5)
    drawn = tf.random.normal([3]).numpy()
    tf.random.set_seed(5)
    before = state(tf)

    result = tfthaw.convert(model, tmp_path / "out", checkpoint=checkpoint, to=to, verify=verify)

    assert state(tf) == before
    np.testing.assert_array_equal(tf.random.normal([3]).numpy(), drawn)
    assert result.verified.weights.different == 0
    assert result.verified.outputs.done == (verify is None)
    np.testing.assert_array_equal(model(x).numpy(), expected)
    for now, then in zip(model.get_weights(), saved, strict=True):
        np.testing.assert_array_equal(now, then + 1.0)
    assert model.to_json() == config
    assert model.optimizer is not None
    assert len(model.layers) == 2
    assert np.isfinite(model.fit(x, tf.ones([2, 2]), verbose=0).history["loss"][0])


def test_names_that_keras_counts_go_on_as_without_us(tf, net, tmp_path):
    def build():
        return tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])

    _, checkpoint, _ = net
    first = tf.keras.layers.Dense(2).name
    tfthaw.convert(build, tmp_path / "out.pb", checkpoint=checkpoint, to="frozen-graph", verify="weights")
    number = int(first.rpartition("_")[2]) if "_" in first else 0
    assert tf.keras.layers.Dense(2).name == f"dense_{number + 1}"


def build_graph(tf):
    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [None, 3], "x")
    return x, tf.matmul(x, v1.get_variable("w", [3, 2]), name="y")


@pytest.fixture
def graph_checkpoint(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        build_graph(tf)
        session.run(v1.global_variables_initializer())
        return v1.train.Saver().save(session, str(tmp_path / "graph-ckpt"))


def test_a_builder_of_a_graph_of_tensorflow_1_leaves_no_graph(tf, tmp_path, graph_checkpoint):
    before = state(tf)
    tfthaw.convert(lambda: build_graph(tf), tmp_path / "out.pb", checkpoint=graph_checkpoint, to="frozen-graph",
                   verify="outputs")  # fmt: skip
    assert state(tf) == before


def test_a_script_of_tensorflow_1_finds_its_graph_as_it_was(tf, net, tmp_path, graph_checkpoint):
    """In the graph that is being built: builders build elsewhere, tensors are taken where they are."""
    model, checkpoint, _ = net
    with tf.Graph().as_default():
        tensors = build_graph(tf)
        before = state(tf)
        for number, source in enumerate((lambda: build_graph(tf), tensors, lambda: tensors)):
            result = tfthaw.convert(source, tmp_path / f"{number}.pb", to="frozen-graph", checkpoint=graph_checkpoint)
            assert result.verified.outputs.done
            assert result.outputs == {"y": "y:0"}
        assert tfthaw.convert(model, tmp_path / "out", to="saved-model", checkpoint=checkpoint).verified.outputs.done
        assert state(tf) == before


def test_several_threads_at_once(tf, net, tmp_path, graph_checkpoint):
    model, checkpoint, _ = net
    sources = [(model, checkpoint), (lambda: build_graph(tf), graph_checkpoint)] * 3
    errors = []

    def convert(number):
        source, values = sources[number]
        try:
            tfthaw.convert(source, tmp_path / f"{number}.pb", to="frozen-graph", checkpoint=values, verify="weights")
        except TfthawError as error:
            errors.append(error)

    before = state(tf)
    threads = [threading.Thread(target=convert, args=[number]) for number in range(len(sources))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert state(tf) == before


@pytest.mark.parametrize("wrong", ["raises", "a number", "no checkpoint"])
def test_after_an_error(tf, net, tmp_path, wrong):
    model, checkpoint, saved = net

    def raises():
        raise ValueError("wrong")

    sources = {"raises": raises, "a number": lambda: 3, "no checkpoint": model}
    before = state(tf)
    with pytest.raises(TfthawError):
        tfthaw.convert(
            sources[wrong], tmp_path / "out", to="frozen-graph",
            checkpoint=None if wrong == "no checkpoint" else checkpoint,
        )  # fmt: skip
    assert state(tf) == before
    np.testing.assert_array_equal(model.get_weights()[0], saved[0] + 1.0)


def test_who_has_switched_eager_execution_off_for_a_while_finds_it_off(tf, net, tmp_path):
    model, _, _ = net
    with tf.Graph().as_default() as graph:
        before = state(tf)
        with pytest.raises(TfthawError):
            tfthaw.convert(model, tmp_path / "out", to="frozen-graph", checkpoint=tmp_path / "nothing")
        assert state(tf) == before
        assert not graph.get_operations()


def test_signatures_from_a_file_do_not_stay_on_the_path(tf, net, tmp_path, monkeypatch):
    model, checkpoint, _ = net
    monkeypatch.chdir(tmp_path)
    (tmp_path / "serving_of_a_test.py").write_text(
        "import tensorflow as tf\n"
        "def serve(model, x: tf.TensorSpec([None, 3])):\n  return {'y': model(x, training=False)}\n"
    )
    before = state(tf)
    result = tfthaw.convert(model, tmp_path / "out", checkpoint=checkpoint, to="saved-model",
                            signature="serve=serving_of_a_test:serve", verify="weights")  # fmt: skip
    assert state(tf) == before
    assert result.variables == 2
