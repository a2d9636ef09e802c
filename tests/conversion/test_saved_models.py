"""SavedModels and MetaGraphs with state, tables, assets and several signatures; TensorFlow reads the results."""

import shutil
import warnings

import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.errors import NotFoundError, UnsupportedError, UsageError
from v1_sessions import Original, plain_config, v1_control_flow

pytestmark = pytest.mark.tf

X = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def rich(tf, tmp_path_factory):
    """A v1 SavedModel with a vocabulary, a local variable, partitioned variables, a loop, two signatures."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "words.txt").write_text("a\nb\nc\n")
    with tf.Graph().as_default() as graph, v1_control_flow(tf), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.seed = 5
        random = tf.compat.v1.random_normal_initializer()
        x = tf.compat.v1.placeholder("float32", [None, 4], name="x")
        words = tf.compat.v1.placeholder("string", [None], name="words")
        parts = tf.compat.v1.get_variable(
            "parts", [4, 4], initializer=random, use_resource=False, partitioner=tf.compat.v1.fixed_size_partitioner(3)
        )
        step = tf.compat.v1.get_variable("step", [4], initializer=random, use_resource=True, trainable=False)
        scale = tf.compat.v1.get_local_variable("scale", initializer=tf.constant(2.0), use_resource=True)
        body = lambda i, y: (i + 1, tf.tanh(tf.matmul(y, tf.convert_to_tensor(parts))) + step)  # noqa: E731
        y = tf.compat.v1.while_loop(lambda i, y: i < 2, body, [0, x])[1] * scale
        table = tf.lookup.StaticVocabularyTable(tf.lookup.TextFileInitializer(
            tf.constant(str(folder / "words.txt")), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER), 2)  # fmt: skip
        ids = table.lookup(words)
        with tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
            init = tf.group(tf.compat.v1.tables_initializer(), tf.compat.v1.local_variables_initializer())
            session.run([tf.compat.v1.global_variables_initializer(), init])
            asset = graph.get_collection("asset_filepaths")
            builder = tf.compat.v1.saved_model.Builder(str(folder / "saved"))
            define = tf.compat.v1.saved_model.predict_signature_def
            signatures = {
                "serving_default": define({"x": x}, {"y": y}),
                "look_up": define({"words": words}, {"ids": ids}),
            }
            builder.add_meta_graph_and_variables(session, ["serve"], signatures, assets_collection=asset, main_op=init)
            builder.save()
            answers = session.run({"y": y, "ids": ids}, {x: X, words: ["b", "c", "z"]})
    return folder / "saved", answers


def run_saved(tf, path, key, feeds):
    """Run a signature of a v1 SavedModel."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def[key]
        fed = {signature.inputs[name].name: value for name, value in feeds.items()}
        return session.run({name: output.name for name, output in signature.outputs.items()}, fed)


def test_a_saved_model_again(tf, rich, tmp_path):
    source, answers = rich
    result = convert(source, tmp_path / "new", to="saved-model", verify="weights")

    np.testing.assert_array_equal(run_saved(tf, tmp_path / "new", "serving_default", {"x": X})["y"], answers["y"])
    found = run_saved(tf, tmp_path / "new", "look_up", {"words": ["b", "c", "z"]})
    assert found["ids"].tolist() == answers["ids"].tolist()
    assert (tmp_path / "new/assets/words.txt").read_text() == "a\nb\nc\n"
    assert result.variables >= 2
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
        assert {item.op.name for item in tf.compat.v1.trainable_variables()} == {f"parts/part_{n}" for n in range(3)}


def test_a_saved_model_again_as_tensorflow_2_sees_it(tf, rich, tmp_path):
    source, answers = rich
    convert(source, tmp_path / "new", to="saved-model", verify="weights")

    loaded = tf.saved_model.load(str(tmp_path / "new"))
    np.testing.assert_allclose(loaded.signatures["serving_default"](tf.constant(X))["y"], answers["y"], rtol=1e-5)
    ids = loaded.signatures["look_up"](tf.constant(["b", "c", "z"]))["ids"]
    assert ids.numpy().tolist() == answers["ids"].tolist()


def test_one_signature_leaves_the_rest(tf, rich, tmp_path):
    source, _ = rich
    convert(source, tmp_path / "new", to="saved-model", signature="look_up", verify="weights")

    assert run_saved(tf, tmp_path / "new", "look_up", {"words": ["a"]})["ids"].tolist() == [0]


@pytest.mark.parametrize("to", ["frozen-graph", "meta-graph"])
def test_the_signature_with_variables(tf, rich, tmp_path, to):
    source, answers = rich
    options = {"signature": "serving_default"} if to == "meta-graph" else {}
    convert(source, tmp_path / "new.meta", to=to, verify="weights", **options)

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        if to == "meta-graph":
            tf.compat.v1.train.import_meta_graph(str(tmp_path / "new.meta")).restore(session, str(tmp_path / "new"))
        else:
            message = tf.compat.v1.GraphDef.FromString((tmp_path / "new.meta").read_bytes())
            tf.import_graph_def(message, name="")
        np.testing.assert_array_equal(session.run("mul:0", {"x:0": X}), answers["y"])


def test_a_vocabulary_goes_into_the_frozen_graph(tf, rich, tmp_path):
    source, answers = rich
    result = convert(source, tmp_path / "new", to="frozen-graph", signature="look_up", verify="weights")

    message = tf.compat.v1.GraphDef.FromString((tmp_path / "new").read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(message, name="")
        found = session.run(result.outputs["ids"], {result.inputs["words"]: ["b", "c", "z"]})
    assert found.tolist() == answers["ids"].tolist()


def test_a_vocabulary_that_is_not_there_cannot_be_frozen(rich, tmp_path):
    shutil.copytree(rich[0], tmp_path / "source")
    (tmp_path / "source/assets/words.txt").unlink()
    with pytest.raises(UnsupportedError, match="lookup tables cannot travel"):
        convert(tmp_path / "source", tmp_path / "new", to="frozen-graph", signature="look_up")
    assert not (tmp_path / "new").exists()


def test_unknown_signatures_and_tags_come_with_known_ones(rich, tmp_path):
    with pytest.raises(NotFoundError, match="near names: look_up"):
        convert(rich[0], tmp_path / "new", to="frozen-graph", signature="lookup")
    with pytest.raises(NotFoundError, match="serve"):
        convert(rich[0], tmp_path / "new", to="frozen-graph", tags=["train"])


def test_several_signatures_are_not_guessed_between(tf, tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = tf.compat.v1.placeholder("float32", [], name="x")
        define = tf.compat.v1.saved_model.predict_signature_def
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "saved"))
        signatures = {"a": define({"x": x}, {"y": x + 1}), "b": define({"x": x}, {"y": x * 2})}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()

    with pytest.raises(UsageError, match="several signatures could be meant: a, b"):
        convert(tmp_path / "saved", tmp_path / "new", to="frozen-graph")
    result = convert(tmp_path / "saved", tmp_path / "new", to="frozen-graph", signature="b", verify="weights")
    assert result.outputs == {"y": "mul:0"}


@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("to", ["meta-graph", "saved-model"])
def test_parts_of_variables_are_saved_as_parts(tf, tmp_path, use_resource, to):
    def build(tf):
        parts = tf.compat.v1.get_variable(
            "w", [5, 4], partitioner=tf.compat.v1.fixed_size_partitioner(2), use_resource=use_resource
        )
        tf.matmul(
            tf.compat.v1.placeholder("float32", [None, 4], name="x"),
            tf.convert_to_tensor(parts),
            transpose_b=True,
            name="out",
        )

    original = Original(tf, tmp_path, build)
    convert(original.prefix, tmp_path / "new", to=to, outputs=["out"], style="v1", verify="weights")

    checkpoint = tmp_path / ("new/variables/variables" if to == "saved-model" else "new")
    assert tf.train.load_checkpoint(str(checkpoint)).get_variable_to_shape_map() == {"w": [5, 4]}
    expected = original.run(["out:0"], {"x:0": X})[0]
    if to == "saved-model":
        np.testing.assert_array_equal(run_saved(tf, tmp_path / "new", "serving_default", {"x": X})["out"], expected)
        return
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        tf.compat.v1.train.import_meta_graph(str(tmp_path / "new.meta")).restore(session, str(tmp_path / "new"))
        np.testing.assert_array_equal(session.run("out:0", {"x:0": X}), expected)


def test_a_saved_model_keeps_writes(tf, tmp_path):
    """A counter can live in a SavedModel, where a frozen graph refuses it."""

    def build(tf):
        step = tf.compat.v1.get_variable(
            "step", [], initializer=tf.compat.v1.constant_initializer(3.0), use_resource=True
        )
        tf.identity(tf.compat.v1.assign_add(step, 1.0), name="out")

    original = Original(tf, tmp_path, build)
    convert(original.prefix, tmp_path / "new", to="saved-model", outputs=["out"], verify="weights")

    assert run_saved(tf, tmp_path / "new", "serving_default", {})["out"] == 4


def test_assets_are_listed_where_every_loader_looks(tf, rich, tmp_path):
    convert(rich[0], tmp_path / "new", to="saved-model", verify="weights")

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
    assert [asset.filename for asset in meta.asset_file_def] == ["words.txt"]
    packed = meta.collection_def["saved_model_assets"].any_list.value
    assert [type(meta.asset_file_def[0]).FromString(each.value).filename for each in packed] == ["words.txt"]


def test_a_moved_saved_model_needs_nothing_of_its_source(tf, rich, tmp_path):
    source, answers = rich
    convert(source, tmp_path / "new", to="saved-model", verify="weights")
    hidden = source.parent / "words.txt"
    words = hidden.read_text()
    hidden.unlink()
    try:
        found = run_saved(tf, tmp_path / "new", "look_up", {"words": ["b", "c", "z"]})
    finally:
        hidden.write_text(words)
    assert found["ids"].tolist() == answers["ids"].tolist()
