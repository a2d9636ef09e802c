"""Every format into every format that it can become; TensorFlow reads the results."""

import os

import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.serde.artifacts import open_artifact
from v1_sessions import FrozenSession, plain_config

pytestmark = pytest.mark.tf

GRAPH_SOURCES = ["checkpoint", "checkpoint-v1", "meta-graph", "saved-model", "graph-def", "graph-def-text"]
WEIGHT_SOURCES = ["keras-h5", "keras-zip", "keras-weights", "objects", "safetensors", "npz"]


def converted(v1, source, to, tmp_path, **options):
    """Convert the v1 model; graphs without signature and values are told what they lack."""
    suffix = {"frozen-graph": ".pb", "graph-def": ".pb", "meta-graph": ".meta"}.get(to, "")
    if source != "saved-model":
        options.setdefault("outputs", ["out"])
    if source.startswith("graph-def"):
        options["checkpoint"] = str(v1.folder / "v2/model.ckpt")
    target = tmp_path / f"new{suffix}"
    return str(target), convert(v1.sources[source], target, to=to, **options)


def names(v1, source):
    return ("image", "scores") if source == "saved-model" else ("x:0", "out")


@pytest.mark.parametrize("source", [*GRAPH_SOURCES, "frozen-graph"])
def test_to_a_frozen_graph(tf, v1, tmp_path, source):
    path, result = converted(v1, source, "frozen-graph", tmp_path)

    with FrozenSession(tf, path) as frozen:
        np.testing.assert_array_equal(frozen.run("out:0", {"x:0": v1.feed}), v1.out)
    assert (result.format, result.path, result.bytes) == ("frozen-graph", path, os.path.getsize(path))
    first, last = names(v1, source)
    assert (result.inputs, result.outputs) == ({first: "x:0"}, {last: "out:0"})
    if source != "frozen-graph":
        assert result.variables == 2
        assert result.verified.weights.compared == 2
        assert result.verified.weights.bytes == 4 * (12 + 3)


@pytest.mark.parametrize("source", [*GRAPH_SOURCES, "frozen-graph"])
@pytest.mark.parametrize("suffix", [".pb", ".pbtxt"])
def test_to_a_graph_def(tf, v1, tmp_path, source, suffix):
    options = {} if source == "saved-model" else {"outputs": ["out"]}
    convert(v1.sources[source], tmp_path / f"new{suffix}", to="graph-def", **options)

    message = tf.compat.v1.GraphDef()
    if suffix == ".pbtxt":
        from google.protobuf import text_format

        text_format.Parse((tmp_path / "new.pbtxt").read_text(), message)
    else:
        message.ParseFromString((tmp_path / "new.pb").read_bytes())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(message, name="")
        reads = {node.input[0]: f"{node.name}:0" for node in message.node if node.op in ("Identity", "ReadVariableOp")}
        feeds = {reads[name]: value for name, value in v1.weights.items()} if source != "frozen-graph" else {}
        with tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
            np.testing.assert_array_equal(session.run("out:0", {"x:0": v1.feed} | feeds), v1.out)
    assert not any("Adam" in node.name for node in message.node)


@pytest.mark.parametrize("source", [*GRAPH_SOURCES, "frozen-graph"])
def test_to_a_meta_graph(tf, v1, tmp_path, source):
    path, result = converted(v1, source, "meta-graph", tmp_path)

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        saver = tf.compat.v1.train.import_meta_graph(path)
        if source != "frozen-graph":
            saver.restore(session, path.removesuffix(".meta"))
            assert tf.train.latest_checkpoint(str(tmp_path)) == path.removesuffix(".meta")
            assert {variable.op.name for variable in tf.compat.v1.global_variables()} == set(v1.weights)
            trainable = set() if source.startswith("graph-def") else set(v1.weights)  # a GraphDef does not say
            assert {variable.op.name for variable in tf.compat.v1.trainable_variables()} == trainable
        np.testing.assert_array_equal(session.run("out:0", {"x:0": v1.feed}), v1.out)
    files = ["new.meta"] if source == "frozen-graph" else ["new.meta", "new.index", "new.data-00000-of-00001"]
    assert result.bytes >= sum(os.path.getsize(tmp_path / name) for name in files)


@pytest.mark.parametrize("source", [*GRAPH_SOURCES, "frozen-graph"])
def test_to_a_saved_model(tf, v1, tmp_path, source):
    path, result = converted(v1, source, "saved-model", tmp_path)

    first, last = ("image", "scores") if source == "saved-model" else ("x", "out")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = loaded.signature_def["serving_default"]
        found = session.run(signature.outputs[last].name, {signature.inputs[first].name: v1.feed})
    np.testing.assert_array_equal(found, v1.out)

    function = tf.saved_model.load(path).signatures["serving_default"]
    np.testing.assert_allclose(function(**{first: tf.constant(v1.feed)})[last], v1.out, rtol=1e-6)
    assert result.bytes == sum(file.stat().st_size for file in (tmp_path / "new").rglob("*") if file.is_file())


@pytest.mark.parametrize("source", [*GRAPH_SOURCES, "frozen-graph"])
@pytest.mark.parametrize("to", ["checkpoint", "safetensors", "npz"])
def test_the_weights_of_graphs(tf, v1, tmp_path, source, to):
    _, result = converted(v1, source, to, tmp_path, outputs=())

    found = read_weights(tf, tmp_path / "new", to)
    if source == "frozen-graph":
        expected = v1.weights
    elif to == "checkpoint":
        expected = v1.values
    else:
        expected = {name: value for name, value in v1.values.items() if "Adam" not in name and "beta" not in name}
    assert_same(found, expected)
    assert result.variables == len(expected)
    assert result.verified.weights.different == 0


@pytest.mark.parametrize("source", WEIGHT_SOURCES)
@pytest.mark.parametrize("to", ["checkpoint", "safetensors", "npz"])
def test_weights_without_a_graph(tf, v1, weights, tmp_path, source, to):
    convert(weights[source], tmp_path / "new", to=to, optimizer="drop")

    found = read_weights(tf, tmp_path / "new", to)
    with open_artifact(weights[source]) as artifact:
        assert set(found) <= set(artifact.variables)
    by_shape = {np.shape(value): value for value in found.values()}
    np.testing.assert_array_equal(by_shape[4, 3], v1.values["dense/kernel"])
    np.testing.assert_array_equal(by_shape[3,], v1.values["dense/bias"])


def read_weights(tf, path, to):
    """Read weights with the format's own library."""
    if to == "checkpoint":
        reader = tf.train.load_checkpoint(str(path))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    if to == "safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    with np.load(path) as file:
        return dict(file)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_whole_meta_graph_keeps_everything(tf, v1, tmp_path):
    convert(v1.sources["meta-graph"], tmp_path / "new.meta", to="meta-graph")

    assert (tmp_path / "new.meta").read_bytes() == v1.sources["meta-graph"].read_bytes()
    assert_same(read_weights(tf, tmp_path / "new", "checkpoint"), v1.values)


@pytest.mark.parametrize(
    ("ema", "kernel"), [("keep", "dense/kernel"), ("use", "dense/kernel/ExponentialMovingAverage")]
)
def test_moving_averages_as_values(tf, v1, tmp_path, ema, kernel):
    path, _ = converted(v1, "meta-graph", "frozen-graph", tmp_path, ema=ema)

    with FrozenSession(tf, path) as frozen:
        np.testing.assert_array_equal(frozen.run("dense/kernel:0"), v1.values[kernel])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cast_weights(v1, tmp_path, dtype):
    convert(v1.sources["checkpoint"], tmp_path / "new", to="checkpoint", dtype=dtype)

    with open_artifact(tmp_path / "new") as artifact:
        kernel = artifact.variables["dense/kernel"]
        assert kernel.dtype.name == dtype
        np.testing.assert_array_equal(kernel.numpy(), v1.values["dense/kernel"].astype(kernel.dtype.numpy))
        assert artifact.variables["global_step"].dtype.name == "int64"


def test_renamed_keys(v1, tmp_path):
    names = {"dense/kernel": "w", "dense/bias": "b"}
    convert(v1.sources["checkpoint"], tmp_path / "new", to="npz", map=names, allow_unused=["*"])

    with np.load(tmp_path / "new") as file:
        assert sorted(file) == ["b", "w"]
        np.testing.assert_array_equal(file["w"], v1.values["dense/kernel"])
