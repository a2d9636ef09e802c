"""Code that builds graphs of TensorFlow 1: what users load computes what a session of the training computed."""

import numpy as np
import pytest

from live_exports import KINDS, assert_close, compute, export
from tfthaw.conversion.converting import convert
from tfthaw.errors import RestoreError, UnsupportedError, UsageError

pytestmark = pytest.mark.tf

X = np.array([[1.0, -2.0, 3.0, 0.5], [0.25, 4.0, -1.0, 2.0]], np.float32)


def placeholder(tf, name="x", shape=(None, 4), dtype="float32"):
    return tf.compat.v1.placeholder(dtype, shape, name=name)


def named_scopes(tf):
    v1 = tf.compat.v1
    with v1.name_scope("in"):
        x = placeholder(tf)
    with v1.variable_scope("net"):
        w = v1.get_variable("w", (4, 3))
        b = v1.get_variable("b", (3,), initializer=v1.zeros_initializer())
        logits = tf.add(tf.matmul(x, w), b, name="logits")
    return {"x": x}, {"y": tf.nn.softmax(logits, name="y")}


def reused_scope(tf):
    v1, x = tf.compat.v1, placeholder(tf)

    def net(value):
        with v1.variable_scope("net", reuse=v1.AUTO_REUSE):
            return tf.matmul(value, v1.get_variable("w", (4, 4)))

    return x, tf.identity(net(net(x)), name="y")


def partitioned(tf):
    v1, x = tf.compat.v1, placeholder(tf)
    w = v1.get_variable("w", (4, 6), partitioner=v1.fixed_size_partitioner(2, axis=1))
    return x, tf.matmul(x, tf.convert_to_tensor(w), name="y")


def reference_variables(tf):
    x = placeholder(tf)
    return x, tf.matmul(x, tf.compat.v1.get_variable("w", (4, 6), use_resource=False), name="y")


def loop_of_frames(tf):
    v1, x = tf.compat.v1, placeholder(tf)
    w = v1.get_variable("w", (4, 4))
    v1.disable_control_flow_v2()
    try:
        y = v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.matmul(a, w)), [tf.constant(0), x])[1]
    finally:
        v1.enable_control_flow_v2()
    return x, tf.identity(y, name="y")


def cond_of_functions(tf):
    x = placeholder(tf)
    w = tf.compat.v1.get_variable("w", (4, 4))
    return x, tf.identity(tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, w), lambda: x * 2), name="y")


def function_inside(tf):
    x = placeholder(tf)
    w = tf.compat.v1.get_variable("w", (4, 4))
    return x, tf.identity(tf.function(lambda value: tf.matmul(value, w))(x), name="y")


def with_training(tf):
    v1, x = tf.compat.v1, placeholder(tf)
    w = v1.get_variable("w", (4, 4))
    y = tf.matmul(x, w, name="y")
    step = v1.train.get_or_create_global_step()
    v1.train.AdamOptimizer().minimize(tf.reduce_sum(y), global_step=step)
    tf.train.ExponentialMovingAverage(0.9).apply([w])
    return x, y


def keras_layer(tf):
    x = placeholder(tf)
    return x, tf.identity(tf.keras.layers.Dense(3, name="d")(x), name="y")


def outputs_alone(tf):
    x = placeholder(tf)
    return {"y": tf.matmul(x, tf.compat.v1.get_variable("w", (4, 4)), name="y")}


def switch(tf):
    """A graph that a placeholder of its own turns from training to inference."""
    x, training = placeholder(tf), placeholder(tf, "is_training", (), "bool")
    mean = tf.compat.v1.get_variable("mean", (4,), trainable=False)
    mean = tf.compat.v1.cond(training, lambda: tf.reduce_mean(x, 0), lambda: mean + 0.0)
    return {"x": x, "is_training": training}, {"y": tf.identity(x - mean, name="y")}


def train(tf, build, folder, feeds, saver=None):
    """Build, give each variable values of its own, save, and return the checkpoint and the value of `y`."""
    v1, generator = tf.compat.v1, np.random.default_rng(5)
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        for variable in v1.global_variables():
            if variable.dtype.base_dtype.is_floating:
                variable.load(generator.uniform(0.1, 1.0, variable.shape).astype("f"), session)
        saver = v1.train.Saver() if saver is None else saver()
        path = saver.save(session, str(folder / "trained" / "ckpt"), write_meta_graph=False)
        return path, session.run("y:0", feeds)


BUILDERS = [
    named_scopes, reused_scope, partitioned, reference_variables, loop_of_frames, cond_of_functions, function_inside,
    with_training, keras_layer, outputs_alone,
]  # fmt: skip


@pytest.mark.parametrize(("build", "kind"), [
    *[(build, KINDS[position % len(KINDS)]) for position, build in enumerate(BUILDERS)],
    *[(build, kind) for build in (named_scopes, partitioned) for kind in KINDS],
])  # fmt: skip
def test_what_a_session_gave(tf, tmp_path, build, kind):
    where = "in/x:0" if build is named_scopes else "x:0"
    source = lambda: build(tf)  # noqa: E731
    checkpoint, expected = train(tf, source, tmp_path, {where: X})
    result = export(source, tmp_path, kind, checkpoint=checkpoint)
    (name,), (output,) = result.inputs, result.outputs
    assert_close(compute(tf, result, kind, {name: X})[output], expected)


def test_scopes_and_collections_are_those_of_the_code(tf, tmp_path):
    source = lambda: named_scopes(tf)  # noqa: E731
    checkpoint, _ = train(tf, source, tmp_path, {"in/x:0": X})
    result = export(source, tmp_path, "meta-graph", checkpoint=checkpoint)
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(result.path)
        names = {item.name for item in graph.get_operations()}
        assert {"in/x", "net/w", "net/b", "net/logits", "y"} <= names
        assert sorted(item.op.name for item in tf.compat.v1.trainable_variables()) == ["net/b", "net/w"]


def test_code_that_returns_nothing_needs_outputs(tf, tmp_path):
    def build():
        tf.matmul(placeholder(tf), tf.compat.v1.get_variable("w", (4, 4)), name="y")

    checkpoint, expected = train(tf, build, tmp_path, {"x:0": X})
    result = export(build, tmp_path, "frozen-graph", checkpoint=checkpoint, outputs=["y"])
    (name,), (output,) = result.inputs, result.outputs
    assert_close(compute(tf, result, "frozen-graph", {name: X})[output], expected)
    with pytest.raises(UsageError, match="--outputs"):
        export(build, tmp_path / "none", "frozen-graph", checkpoint=checkpoint)


@pytest.mark.parametrize("gives", ["graph", "session", "live graph"])
def test_a_graph_may_be_given_itself(tf, tmp_path, gives):
    v1 = tf.compat.v1

    def in_a_graph():
        tf.matmul(placeholder(tf), v1.get_variable("w", (4, 4)), name="y")

    def build():
        with tf.Graph().as_default() as graph:
            in_a_graph()
        return v1.Session(graph=graph) if gives == "session" else graph

    checkpoint, expected = train(tf, in_a_graph, tmp_path, {"x:0": X})
    source = build() if gives == "live graph" else build
    result = export(source, tmp_path, "frozen-graph", checkpoint=checkpoint, outputs=["y"])
    (name,), (output,) = result.inputs, result.outputs
    assert_close(compute(tf, result, "frozen-graph", {name: X})[output], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_switch_is_set(tf, tmp_path, kind):
    source = lambda: switch(tf)  # noqa: E731
    checkpoint, expected = train(tf, source, tmp_path, {"x:0": X, "is_training:0": False})
    result = export(source, tmp_path, kind, checkpoint=checkpoint, set={"is_training": False})
    assert list(result.inputs) == ["x"]
    assert_close(compute(tf, result, kind, {"x": X})["y"], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_come_along_with_their_vocabulary(tf, tmp_path, kind):
    v1, vocabulary = tf.compat.v1, tmp_path / "words.txt"
    vocabulary.write_text("a\nb\nc\n")

    def build():
        index = tf.lookup.TextFileIndex
        words = placeholder(tf, "k", (None,), "string")
        given = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], [1.0, 2.0]), 0.5)
        read = tf.lookup.TextFileInitializer(
            str(vocabulary), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
        )
        rows = tf.gather(v1.get_variable("w", (10, 4)), tf.lookup.StaticVocabularyTable(read, 2).lookup(words))
        return {"k": words}, {"y": tf.identity(given.lookup(words)[:, None] * rows, name="y")}

    words = np.array([b"b", b"c", b"neither"], object)
    checkpoint, expected = train(tf, build, tmp_path, {"k:0": words})
    result = export(build, tmp_path, kind, checkpoint=checkpoint)
    vocabulary.unlink()  # what was written needs nothing of this machine
    assert_close(compute(tf, result, kind, {"k": words})["y"], expected)


def test_local_variables_have_no_value(tf, tmp_path):
    def build():
        v1 = tf.compat.v1
        x = placeholder(tf)
        scale = v1.get_local_variable("scale", (4,), initializer=v1.ones_initializer())
        return x, tf.matmul(x, v1.get_variable("w", (4, 4)) * scale, name="y")

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        checkpoint = v1.train.Saver().save(session, str(tmp_path / "ckpt"), write_meta_graph=False)
    with pytest.raises(RestoreError, match="scale"):
        export(build, tmp_path / "out", "frozen-graph", checkpoint=checkpoint)


def test_an_op_that_initialises_everything_gives_no_values(tf, tmp_path):
    """Whatever a session runs besides restoring: what a Saver saves comes from the checkpoint, or there is none."""

    def build():
        v1 = tf.compat.v1
        x, w = placeholder(tf), v1.get_variable("w", (4, 4))
        bias = v1.get_variable("bias", (4,), initializer=v1.ones_initializer())
        mean = v1.get_variable("mean", (4,), initializer=v1.zeros_initializer(), trainable=False)
        v1.add_to_collection(v1.GraphKeys.LOCAL_INIT_OP, v1.global_variables_initializer())
        return x, tf.matmul(x, w) + bias - mean

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver([variable for variable in v1.global_variables() if variable.op.name == "w"])
        checkpoint = saver.save(session, str(tmp_path / "ckpt"), write_meta_graph=False)
        meta = str(tmp_path / "train.meta")
        v1.train.export_meta_graph(meta, graph=graph)
    with pytest.raises(RestoreError, match="2 of 3 variables have no value"):
        export(build, tmp_path / "out", "frozen-graph", checkpoint=checkpoint)
    with pytest.raises(RestoreError, match="2 of 3 variables have no value"):
        convert(meta, tmp_path / "frozen.pb", to="frozen-graph", checkpoint=checkpoint, outputs=["sub"])


def test_python_and_chance_in_a_graph_are_refused(tf, tmp_path):
    v1 = tf.compat.v1

    def calling():
        x = placeholder(tf)
        return x, tf.matmul(v1.py_func(lambda a: a, [x], tf.float32), v1.get_variable("w", (4, 4)), name="y")

    def chance():
        x = placeholder(tf)
        noise = np.random.normal(size=(4, 4)).astype("f")
        return x, tf.matmul(x, v1.get_variable("w", (4, 4)) * noise, name="y")

    for build, said in ((calling, "calls back into Python"), (chance, "come out differently")):
        checkpoint, _ = train(tf, build, tmp_path, {"x:0": np.ones((1, 4), np.float32)})
        with pytest.raises(UnsupportedError, match=said):
            export(build, tmp_path / "out", "frozen-graph", checkpoint=checkpoint)


def test_the_empty_graph_and_two_graphs_are_refused(tf, tmp_path):
    def two():
        found = []
        for _ in range(2):
            with tf.Graph().as_default():
                found.append(tf.identity(placeholder(tf)))
        return found

    with pytest.raises(UsageError, match="several graphs"):
        export(two, tmp_path / "out", "frozen-graph")
    with pytest.raises(UsageError, match="built no graph"):
        export(lambda: None, tmp_path / "out", "frozen-graph")
