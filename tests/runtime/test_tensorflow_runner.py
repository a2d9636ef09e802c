"""Running artifacts with TensorFlow."""

import importlib.util
import logging
import os
import sys

import numpy as np
import pytest

from tfthaw import demo
from tfthaw.conversion.converting import convert
from tfthaw.errors import MissingDependencyError, RuntimeFailure, UnsupportedError, UsageError
from tfthaw.runtime import tensorflow_runner
from tfthaw.runtime.tensorflow_runner import import_tensorflow, is_installed, run_graph, runtime_name

IMAGES, PROBABILITIES = "images:0", "probabilities:0"


@pytest.fixture
def images():
    with np.load(demo.HELD_OUT) as file:
        return file["images"][:5]


@pytest.fixture
def expected(tf, images):
    """What TensorFlow makes of the demo's checkpoint, without the runner."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(str(demo.META_GRAPH)).restore(
            session, str(demo.META_GRAPH)[: -len(".meta")]
        )
        return session.run(PROBABILITIES, {IMAGES: images})


@pytest.mark.tf
@pytest.mark.parametrize(
    ("to", "name"),
    [("frozen-graph", "f.pb"), ("frozen-graph", "f.pbtxt"), ("saved-model", "sm"), ("meta-graph", "m.meta")],
)
def test_what_is_converted_runs(tmp_path, images, expected, to, name):
    result = convert(
        demo.META_GRAPH, tmp_path / name, to=to, inputs=[IMAGES], outputs=[PROBABILITIES], verify="weights"
    )
    fed, fetched = result.inputs[IMAGES], result.outputs[PROBABILITIES]
    found = run_graph(tmp_path / name, {fed: images}, [fetched])
    np.testing.assert_allclose(found[fetched], expected, atol=1e-6)


@pytest.mark.tf
def test_a_checkpoint_runs_with_the_graph_beside_it(images, expected):
    found = run_graph(demo.META_GRAPH.with_suffix(""), {IMAGES: images}, [PROBABILITIES, "dense1/bias:0"])
    assert list(found) == [PROBABILITIES, "dense1/bias:0"]
    np.testing.assert_allclose(found[PROBABILITIES], expected, atol=1e-6)


@pytest.mark.tf
def test_the_process_stays_as_it_was(tf, images):
    logger = logging.getLogger("tensorflow")
    before = (logger.level, dict(os.environ), tf.compat.v1.get_default_graph(), os.fstat(2))
    run_graph(demo.META_GRAPH, {IMAGES: images}, [PROBABILITIES])
    assert tf.executing_eagerly()
    after = (logger.level, dict(os.environ), tf.compat.v1.get_default_graph(), os.fstat(2))
    assert after[:2] == before[:2]
    assert after[2] is before[2]
    assert (after[3].st_dev, after[3].st_ino) == (before[3].st_dev, before[3].st_ino)


@pytest.mark.tf
def test_tensorflow_s_errors_are_chained(tf, images):
    with pytest.raises(RuntimeFailure, match=r"TensorFlow cannot run it: .*nothing") as caught:
        run_graph(demo.META_GRAPH, {"nothing:0": images}, [PROBABILITIES])
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.path == str(demo.META_GRAPH)
    with pytest.raises(RuntimeFailure) as caught:
        run_graph(demo.META_GRAPH, {IMAGES: images[:, :3]}, [PROBABILITIES])
    assert isinstance(caught.value.__cause__, (ValueError, tf.errors.OpError))


@pytest.mark.tf
def test_devices_are_not_honoured(tf, tmp_path):
    with tf.Graph().as_default() as graph, tf.device("/job:worker/task:7/device:GPU:3"):
        tf.add(tf.constant(1.0), 2.0, name="sum")
    path = tmp_path / "far.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    assert run_graph(path, {}, ["sum:0"])["sum:0"] == 3.0


@pytest.mark.tf
def test_the_runtime_has_a_name(tf):
    assert runtime_name() == f"tensorflow {tf.__version__}"


def test_what_has_no_graph_does_not_run():
    with pytest.raises(UnsupportedError, match="npz carries no graph that could be run"):
        run_graph(demo.HELD_OUT, {}, ["y:0"])


def test_one_of_several_tag_sets_must_be_chosen(tmp_path):
    metas = "".join(f'meta_graphs {{ meta_info_def {{ tags: "{tag}" }} }}\n' for tag in ("train", "eval"))
    (tmp_path / "saved_model.pbtxt").write_text(f"saved_model_schema_version: 1\n{metas}")
    with pytest.raises(UsageError, match="several tag sets could be meant: train; eval"):
        run_graph(tmp_path, {}, ["y:0"])


def test_a_missing_tensorflow_is_said_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert not is_installed()
    with pytest.raises(MissingDependencyError, match=r'pip install "tfthaw\[tf\]"'):
        runtime_name()


def test_a_broken_tensorflow_is_said_with_the_cure(monkeypatch, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('built for another numpy')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert is_installed()
    with pytest.raises(
        MissingDependencyError, match="RuntimeError: built for another numpy; install it anew"
    ) as caught:
        import_tensorflow("test this")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_module_without_a_spec_counts_as_installed(monkeypatch):
    def find_spec(_):
        raise ValueError("tensorflow.__spec__ is None")

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    assert is_installed()


def test_chatter_goes_nowhere_unless_asked_for(monkeypatch, capfd):
    def chatter():
        os.write(2, b"oneDNN custom operations are on\n")

    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with tensorflow_runner.quiet():
        chatter()
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert capfd.readouterr().err == ""
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with tensorflow_runner.quiet():
        chatter()
    assert "oneDNN" in capfd.readouterr().err
