"""Libraries that TensorFlow never writes, in every format that carries a graph: the outputs stay the same."""

from types import SimpleNamespace

import numpy as np
import pytest

from function_graphs import GRAPHS
from tfthaw.conversion.converting import convert
from v1_sessions import FrozenSession, plain_config

pytestmark = pytest.mark.tf

UNIMPORTABLE = {"polymorphic", "lists_of_types"}
"""TensorFlow's Python wants the dtype of each argument; its C++, and what is frozen here, does not."""

UNLOADABLE = {"call_in_a_v1_loop", "lists_of_tensors"}
"""What TensorFlow has in main graphs only: calls in frames of v1, and functions that name lists as a whole."""

every_graph = pytest.mark.parametrize("name", GRAPHS)
importable = pytest.mark.parametrize("name", sorted(GRAPHS.keys() - UNIMPORTABLE))


@pytest.fixture(scope="module")
def source(tf, tmp_path_factory):
    """A function that writes a graph and its checkpoint, once, and runs it in TensorFlow."""
    folder = tmp_path_factory.mktemp("functions")
    made = {}

    def make(name):
        if name not in made:
            graph = GRAPHS[name](tf)
            path, checkpoint = folder / f"{name}.pb", folder / f"{name}.ckpt"
            path.write_bytes(graph.message.SerializeToString())
            names, values = list(graph.values), list(graph.values.values())
            slices = [""] * len(names)
            tf.raw_ops.SaveV2(prefix=str(checkpoint), tensor_names=names, tensors=values, shape_and_slices=slices)
            made[name] = SimpleNamespace(path=path, checkpoint=checkpoint, graph=graph, expected=answers(tf, graph))
        return made[name]

    return make


def answers(tf, graph):
    if graph.expected is not None:
        return graph.expected
    with tf.Graph().as_default() as original, tf.compat.v1.Session(config=plain_config(tf), graph=original) as session:
        tf.import_graph_def(graph.message, name="")
        for name, value in graph.values.items():
            handle = original.get_tensor_by_name(f"{name}:0")
            session.run(tf.raw_ops.AssignVariableOp(resource=handle, value=value))
        return [session.run(graph.outputs, feeds) for feeds in graph.feeds]


def options(made):
    return {"checkpoint": str(made.checkpoint), "outputs": made.graph.outputs, "verify": "weights"}


def assert_session_answers(session, made, result):
    for feeds, expected in zip(made.graph.feeds, made.expected, strict=True):
        found = session.run([result.outputs[name] for name in made.graph.outputs], feeds)
        assert_equal(found, expected)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


@every_graph
def test_frozen(tf, source, tmp_path, name):
    made = source(name)
    result = convert(made.path, tmp_path / "frozen.pb", to="frozen-graph", **options(made))

    with FrozenSession(tf, tmp_path / "frozen.pb") as frozen:
        functions = [node.op for function in frozen.message.library.function for node in function.node_def]
        assert not {"VarHandleOp", "ReadVariableOp"} & {*frozen.ops(), *functions}
        assert_session_answers(frozen.session, made, result)


@importable
def test_a_meta_graph(tf, source, tmp_path, name):
    made = source(name)
    result = convert(made.path, tmp_path / "model.ckpt.meta", to="meta-graph", **options(made))

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        saver = tf.compat.v1.train.import_meta_graph(str(tmp_path / "model.ckpt.meta"))
        if saver is not None:
            saver.restore(session, str(tmp_path / "model.ckpt"))
        assert_session_answers(session, made, result)


@importable
def test_a_saved_model_of_graph_style(tf, source, tmp_path, name):
    made = source(name)
    result = convert(made.path, tmp_path / "new", to="saved-model", style="v1", **options(made))

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
        assert_session_answers(session, made, result)


@pytest.mark.parametrize("name", sorted(GRAPHS.keys() - UNIMPORTABLE - UNLOADABLE))
def test_a_saved_model(tf, source, tmp_path, name):
    made = source(name)
    convert(made.path, tmp_path / "new", to="saved-model", **options(made))

    loaded = tf.saved_model.load(str(tmp_path / "new"))
    function = loaded.signatures["serving_default"]
    assert [each.name for each in loaded.variables] == [f"{name}:0" for name in made.graph.used]
    for feeds, expected in zip(made.graph.feeds, made.expected, strict=True):
        found = function(**{name.removesuffix(":0"): tf.constant(value) for name, value in feeds.items()})
        keys = [key.removesuffix(":0") for key in made.graph.outputs]
        keys = [key if key in found else key.replace(":", "_") for key in keys]
        assert_equal([found[key].numpy() for key in keys], expected)
