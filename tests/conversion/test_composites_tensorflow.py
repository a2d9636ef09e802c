"""Signatures with sparse and ragged tensors: converted by their components, as TensorFlow 2 names them."""

import json
import warnings

import numpy as np
import pytest

from tfthaw.cli.main import main
from tfthaw.conversion.converting import convert
from v1_sessions import plain_config

pytestmark = pytest.mark.tf

VALUES = np.array([1, 2, 3], np.float32)
SPARSE = {"x_indices": np.array([[0, 0], [0, 2], [1, 1]]), "x_values": VALUES, "x_dense_shape": np.array([2, 3])}
RAGGED = {"x_component_0": VALUES, "x_component_1": np.array([0, 1, 2]), "x_component_2": np.array([0, 1, 3])}
ANSWERS = {"sparse": [6, 18, 4], "ragged": [2, 4, 6]}
FEEDS = {"sparse": SPARSE, "ragged": RAGGED}


@pytest.fixture(scope="module")
def saved(tf, tmp_path_factory):
    """v1 SavedModels whose signature takes one composite tensor and gives another one and a plain tensor."""
    folder = tmp_path_factory.mktemp("composite")
    for kind in FEEDS:
        with tf.Graph().as_default() as graph, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scale = tf.compat.v1.get_variable("scale", initializer=tf.constant(2.0), use_resource=True)
            if kind == "sparse":
                x = tf.compat.v1.sparse_placeholder("float32", [None, 3], name="in")
                y = tf.sparse.reduce_sum(x, axis=0) * scale * tf.constant([3.0, 3.0, 1.0])
                out = x * 2.0
            else:
                x = tf.compat.v1.ragged.placeholder("float32", 2, [], name="in")
                y, out = x.flat_values * scale, x * 2.0
            info = tf.compat.v1.saved_model.build_tensor_info
            signature = tf.compat.v1.saved_model.build_signature_def(
                {"x": info(x)}, {"y": info(y), "twice": info(out)}, "tensorflow/serving/predict"
            )
            builder = tf.compat.v1.saved_model.Builder(str(folder / kind))
            with tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
                session.run(scale.initializer)
                builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
            builder.save()
    return folder


def run_graph(tf, result, load):
    """Run a converted graph by the names that the conversion returned."""
    feeds = FEEDS["sparse" if "x_indices" in result.inputs else "ragged"]
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        load(session)
        return session.run(result.outputs, {result.inputs[name]: value for name, value in feeds.items()})


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.parametrize("to", ["frozen-graph", "meta-graph"])
def test_graphs_take_the_components(tf, saved, tmp_path, kind, to):
    def load(session):
        if to == "meta-graph":
            tf.compat.v1.train.import_meta_graph(str(tmp_path / "new.meta")).restore(session, str(tmp_path / "new"))
        else:
            tf.import_graph_def(tf.compat.v1.GraphDef.FromString((tmp_path / "new.meta").read_bytes()), name="")

    result = convert(saved / kind, tmp_path / "new.meta", to=to, verify="weights")
    assert set(result.inputs) == set(FEEDS[kind])
    found = run_graph(tf, result, load)
    assert found["y"].tolist() == ANSWERS[kind]
    twice = "twice_values" if kind == "sparse" else "twice_component_0"
    np.testing.assert_array_equal(found[twice], 2 * VALUES)


@pytest.mark.parametrize("kind", FEEDS)
def test_a_saved_model_keeps_its_signature(tf, saved, tmp_path, kind):
    convert(saved / kind, tmp_path / "new", to="saved-model", style="v1", verify="weights")

    loaded = [tf.saved_model.load(str(path)) for path in (saved / kind, tmp_path / "new")]
    old, new = (model.signatures["serving_default"] for model in loaded)
    assert new.structured_input_signature == old.structured_input_signature
    feeds = {name: tf.constant(value) for name, value in FEEDS[kind].items()}
    expected, found = old(**feeds), new(**feeds)
    assert type(found["twice"]) is type(expected["twice"])
    np.testing.assert_array_equal(found["y"], expected["y"])
    flat = [tf.nest.flatten(item["twice"], expand_composites=True) for item in (expected, found)]
    for one, other in zip(*flat, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", FEEDS)
def test_a_component_may_be_set(tf, saved, tmp_path, kind):
    name, value = ("in/shape", [2, 3]) if kind == "sparse" else ("in/row_splits_0", [0, 1, 2])
    result = convert(saved / kind, tmp_path / "new", to="saved-model", style="v1", set={name: value}, verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new")).signatures["serving_default"]
    assert set(loaded.structured_input_signature[1]) == set(result.inputs)
    assert len(result.inputs) == 2


def test_inspect_shows_the_components(saved, capsys):
    assert main(["inspect", "--json", str(saved / "sparse")]) == 0
    shown = json.loads(capsys.readouterr().out)["signatures"]["serving_default"]["inputs"]["x"]
    assert shown["components"]["indices"] == {"tensor": "in/indices:0", "dtype": "int64", "shape": [None, 2]}
    assert main(["inspect", str(saved / "ragged")]) == 0
    text = capsys.readouterr().out
    assert "x_component_2" in text
    assert "in/row_splits_1:0" in text


@pytest.mark.parametrize("kind", FEEDS)
def test_signatures_of_tensorflow_2(tf, tmp_path, kind):
    """TensorFlow 2 takes arguments apart itself, under other names, and keeps results whole."""

    ragged = tf.RaggedTensorSpec([None, None, None], ragged_rank=2)

    class Doubler(tf.Module):
        @tf.function(input_signature=[tf.SparseTensorSpec([None, 3]) if kind == "sparse" else ragged])
        def double(self, x):
            return {"twice": x * 2.0}

    model = Doubler()
    tf.saved_model.save(model, str(tmp_path / "in"), signatures=model.double)
    result = convert(tmp_path / "in", tmp_path / "out.pb", to="frozen-graph", verify="weights")
    feeds = dict(zip(("x", "x_1", "x_2"), FEEDS[kind].values(), strict=True))
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString((tmp_path / "out.pb").read_bytes()), name="")
        found = session.run(result.outputs, {result.inputs[name]: value for name, value in feeds.items()})
    twice = "twice_values" if kind == "sparse" else "twice_component_0"
    np.testing.assert_array_equal(found[twice], 2 * VALUES)
