"""SavedModels of Keras 3, tf_keras and `tf.Module` in every format that carries a graph: the outputs stay the same.

TensorFlow makes the models and reads what was written; the outputs are those of the model while it lived. Each model
is asked with batches of several sizes, so that a size that was baked in shows.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest

import tf2_models
from tfthaw.conversion.converting import convert
from tfthaw.errors import UnsupportedError
from tfthaw.verify.outputs import TOLERANCES
from v1_sessions import plain_config

pytestmark = pytest.mark.tf

FROZEN = [name for name, recipe in tf2_models.RECIPES.items() if recipe.frozen]
STATEFUL = [name for name, recipe in tf2_models.RECIPES.items() if not recipe.frozen]
VARIABLE_OPS = {
    "Variable", "VariableV2", "VarHandleOp", "ReadVariableOp", "AssignVariableOp", "AssignAddVariableOp",
    "VariableShape", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp",
}  # fmt: skip

IMMOVABLE = [name for name, recipe in tf2_models.RECIPES.items() if not recipe.moves]

every_model = pytest.mark.parametrize("name", tf2_models.RECIPES)
movable = pytest.mark.parametrize("name", [name for name in tf2_models.RECIPES if name not in IMMOVABLE])


@pytest.fixture(scope="session")
def saved(tf, tmp_path_factory):
    """A function that makes a model by its name, once."""
    folder = tmp_path_factory.mktemp("tf2")
    made = {}

    def make(name):
        if name not in made:
            made[name] = tf2_models.save(tf, tf2_models.RECIPES[name], folder)
        return made[name]

    return make


def assert_same(name, call, found):
    """Hold outputs to those of the living model: floats to a tolerance, all else to the bit."""
    precision = tf2_models.RECIPES[name].precision
    assert found.keys() == call.expected.keys()
    for output, expected in call.expected.items():
        values = np.asarray(found[output])
        where = f"{call.signature}/{output}"
        assert (values.dtype, values.shape) == (expected.dtype, expected.shape), where
        tolerance = TOLERANCES.get(expected.dtype.name, 0.0) and TOLERANCES[precision or expected.dtype.name]
        if tolerance:
            finite = np.isfinite(expected)
            assert np.array_equal(finite, np.isfinite(values)), where
            scale = float(np.max(np.abs(expected[finite]), initial=0.0)) or 1.0
            assert float(np.max(np.abs(values - expected)[finite], initial=0.0)) <= tolerance * scale, where
        else:
            assert values.tolist() == expected.tolist(), where


def assert_session_answers(session, model, key, result):
    """Run a signature's calls in a session; `result` says where its inputs and outputs are."""
    for call in model.calls_of(key):
        feeds = {result.inputs[name]: values for name, values in call.feeds.items()}
        names = list(call.expected)
        found = session.run([result.outputs[name] for name in names], feeds)
        assert_same(model.name, call, dict(zip(names, found, strict=True)))


def assert_loaded_answers(tf, loaded, model, keys):
    for call in (call for call in model.calls if call.signature in keys):
        function = loaded.signatures[call.signature]
        specs = function.structured_input_signature[1]
        feeds = {name: tf.constant(values, specs[name].dtype) for name, values in call.feeds.items()}
        assert_same(model.name, call, {name: value.numpy() for name, value in function(**feeds).items()})


def ops_of(message):
    """Return the ops of a graph and of its library."""
    nodes = [*message.node, *(node for function in message.library.function for node in function.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("name", FROZEN)
def test_frozen(tf, saved, tmp_path, name):
    model = saved(name)
    for key in model.signatures:
        result = convert(model.path, tmp_path / key, to="frozen-graph", signature=key, verify="weights")
        message = tf.compat.v1.GraphDef.FromString((tmp_path / key).read_bytes())
        assert not ops_of(message) & VARIABLE_OPS
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
            tf.import_graph_def(message, name="")
            assert_session_answers(session, model, key, result)


@pytest.mark.parametrize("name", STATEFUL)
def test_what_keeps_state_cannot_be_frozen(saved, tmp_path, name):
    with pytest.raises(UnsupportedError) as caught:
        convert(saved(name).path, tmp_path / "frozen.pb", to="frozen-graph", verify="weights")
    assert caught.value.problems
    assert not (tmp_path / "frozen.pb").exists()


@pytest.mark.parametrize(("to", "options"), [
    ("meta-graph", {}), ("saved-model", {"style": "v1"}), ("saved-model", {"signature": tf2_models.DEFAULT}),
])  # fmt: skip
@pytest.mark.parametrize("name", IMMOVABLE)
def test_tables_that_change_stay_where_they_are(saved, tmp_path, name, to, options):
    with pytest.raises(UnsupportedError, match="MutableHashTable"):
        convert(saved(name).path, tmp_path / "new", to=to, verify="weights", **options)
    assert not (tmp_path / "new").exists()


@movable
def test_a_meta_graph(tf, saved, tmp_path, name):
    model = saved(name)
    for key in model.signatures:
        target = tmp_path / key / "model.ckpt.meta"
        target.parent.mkdir()
        result = convert(model.path, target, to="meta-graph", signature=key, verify="weights")
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
            saver = tf.compat.v1.train.import_meta_graph(str(target))
            if saver is not None:
                saver.restore(session, str(target)[: -len(".meta")])
            assert_session_answers(session, model, key, result)


@movable
def test_a_saved_model_of_graph_style(tf, saved, tmp_path, name):
    model = saved(name)
    convert(model.path, tmp_path / "new", to="saved-model", style="v1", verify="weights")

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        message = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
        for call in model.calls:
            signature = message.signature_def[call.signature]
            feeds = {signature.inputs[name].name: values for name, values in call.feeds.items()}
            fetches = {output: signature.outputs[output].name for output in call.expected}
            assert_same(name, call, session.run(fetches, feeds))


@pytest.mark.parametrize("name", ["several_signatures", "custom_gradient", "table_of_constants", "table_of_file",
                                  "keras_string_lookup", "tf_keras_text_vectorization", "counter"])  # fmt: skip
def test_a_saved_model_of_graph_style_in_tensorflow_2(tf, saved, tmp_path, name):
    model = saved(name)
    convert(model.path, tmp_path / "new", to="saved-model", style="v1", verify="weights")

    assert_loaded_answers(tf, load(tf, tmp_path / "new"), model, model.signatures)


@movable
def test_a_saved_model_with_chosen_signatures(tf, saved, tmp_path, name):
    """The object graph is a new one then: just what the signature needs."""
    model = saved(name)
    for key in model.signatures:
        convert(model.path, tmp_path / key, to="saved-model", signature=key, verify="weights")
        loaded = load(tf, tmp_path / key)
        assert list(loaded.signatures) == [key]
        captured, trainable = model.captured[key]
        assert (len(loaded.variables), len(loaded.trainable_variables)) == (captured, trainable)
        assert_loaded_answers(tf, loaded, model, [key])
        assert_same_gradients(tf, loaded, model, key)


@every_model
def test_a_saved_model_kept_whole(tf, saved, tmp_path, name):
    model = saved(name)
    convert(model.path, tmp_path / "new", to="saved-model", verify="weights")
    before, after = load(tf, model.path), load(tf, tmp_path / "new")

    assert set(after.signatures) == set(before.signatures)
    for attribute in ("variables", "trainable_variables"):
        assert described(getattr(after, attribute, ())) == described(getattr(before, attribute, ()))
    assert_loaded_answers(tf, after, model, model.signatures)


def described(variables):
    """Return what variables are; Keras 2 counts vocabularies too, of which nothing is left when they are loaded."""
    return [each is not None and [each.name, each.shape, each.dtype] for each in variables]


def load(tf, path: Path):
    with warnings.catch_warnings(), tf2_models.quiet(tf):
        warnings.simplefilter("ignore")
        return tf.saved_model.load(str(path))


def assert_same_gradients(tf, loaded, model, key):
    """Hold gradients of a signature to those of the living model, as far as they were recorded."""
    recorded = model.gradients.get(key)
    if recorded is None:
        return
    feeds = model.calls_of(key)[0].feeds
    found = tf2_models.gradient_norms(tf, loaded.signatures[key], list(loaded.variables), feeds)
    precision = tf2_models.RECIPES[model.name].precision
    np.testing.assert_allclose(found, recorded, rtol=TOLERANCES[precision] if precision else 1e-3, atol=1e-6)
