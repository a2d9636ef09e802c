"""Values that no checkpoint holds: constants of chance and of initial values, empty tables, other people's data."""

import numpy as np
import pytest

from live_exports import assert_close, compute, export, scrambled
from tfthaw.errors import UnsupportedError, UsageError

pytestmark = pytest.mark.tf

X = np.array([[1.0, -2.0, 3.0, 0.5]], np.float32)


def module_that(tf, compute_once):
    """Return the class of a module that computes something once, of its variable, and multiplies with that."""

    class Module(tf.Module):
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 4)), name="w")
            self.kept = compute_once(self.w)

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x):
            return x @ self.w * self.kept

    return Module


@pytest.mark.parametrize(
    "compute_once",
    [
        lambda tf, w: tf.identity(w)[0],
        lambda tf, w: w.numpy().sum(),
        lambda tf, w: float(w[0, 0]),
        lambda tf, w: np.argmax(w.numpy()[0] > 1.0) + 1.0 * len(np.unique(w)) + w.numpy()[0, 0],
        lambda tf, w: tf.matmul(w, w)[0],
        lambda tf, w: tf.gather(w, [0])[0],
        lambda tf, w: np.random.normal(size=4).astype("f"),
        lambda tf, w: np.random.permutation(16)[:12].astype("f")[:4],
    ],
    ids=["tensor", "numpy", "float", "several", "op that reads by itself", "gather", "chance", "permutation"],
)
def test_what_a_builder_computes_of_initial_values_or_chance_is_refused(tf, tmp_path, compute_once):
    kind = module_that(tf, lambda w: compute_once(tf, w))
    checkpoint = tf.train.Checkpoint(kind()).write(str(tmp_path / "ckpt"))
    with pytest.raises(UnsupportedError, match="come out differently each time") as caught:
        export(kind, tmp_path / "out", "frozen-graph", checkpoint=checkpoint)
    assert caught.value.problems
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "compute_once",
    [
        lambda tf, w: np.arange(4, dtype="f"),
        lambda tf, w: tf.constant([1.0, 2.0, 3.0, 4.0]),
        lambda tf, w: w.shape[0] * 0.5,
        lambda tf, w: w.assign(tf.eye(4)) is None or 2.0,
        lambda tf, w: np.random.default_rng(3).normal(size=4).astype("f"),
    ],
    ids=["numpy", "constant", "shape", "assigned", "seeded"],
)
def test_constants_that_code_says_are_kept(tf, tmp_path, compute_once):
    kind = module_that(tf, lambda w: compute_once(tf, w))
    trained = scrambled(kind())
    checkpoint = tf.train.Checkpoint(trained).write(str(tmp_path / "ckpt"))
    result = export(kind, tmp_path, "frozen-graph", checkpoint=checkpoint)
    assert_close(compute(tf, result, "frozen-graph", {"x": X})["output_0"], trained(X).numpy())


def test_a_live_model_says_which_constants_it_brings(tf, tmp_path):
    model = module_that(tf, lambda w: tf.reduce_sum(w, 0))()
    checkpoint = tf.train.Checkpoint(model).write(str(tmp_path / "ckpt"))
    result = export(model, tmp_path, "frozen-graph", checkpoint=checkpoint)
    assert any("float32(4,)" in note and "constant" in note for note in result.notes)


def test_code_that_runs_only_once_is_taken_with_a_note(tf, tmp_path):
    kind = module_that(tf, lambda w: np.arange(4, dtype="f") / 7)
    trained, runs = scrambled(kind()), []
    checkpoint = tf.train.Checkpoint(trained).write(str(tmp_path / "ckpt"))

    def build():
        runs.append(1)
        if len(runs) > 1:
            raise ValueError("only once")
        return kind()

    result = export(build, tmp_path, "frozen-graph", checkpoint=checkpoint)
    assert_close(compute(tf, result, "frozen-graph", {"x": X})["output_0"], trained(X).numpy())
    assert any("cannot be run twice" in note and "only once" in note for note in result.notes)


def test_code_that_reads_nothing_and_has_no_constants_runs_once(tf, tmp_path):
    kind = module_that(tf, lambda w: 2.0)
    checkpoint, runs = tf.train.Checkpoint(kind()).write(str(tmp_path / "ckpt")), []

    def build():
        runs.append(1)
        return kind()

    export(build, tmp_path, "frozen-graph", checkpoint=checkpoint)
    assert runs == [1]


def test_watching_leaves_variables_as_they_were(tf, tmp_path):
    from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable

    before = dict(vars(BaseResourceVariable))
    kind = module_that(tf, lambda w: w.numpy()[0])
    checkpoint = tf.train.Checkpoint(kind()).write(str(tmp_path / "ckpt"))
    with pytest.raises(UnsupportedError):
        export(kind, tmp_path / "out", "frozen-graph", checkpoint=checkpoint)
    assert dict(vars(BaseResourceVariable)) == before
    assert tf.Variable(2.0).numpy() == 2.0


@pytest.mark.parametrize("kind", ["frozen-graph", "saved-model", "saved-model of graphs", "meta-graph"])
def test_a_vocabulary_of_adapt_is_in_no_checkpoint(tf, tmp_path, kind):
    layers = tf.keras.layers

    def build():
        text = tf.keras.Input((), dtype="string")
        return tf.keras.Model(text, layers.Embedding(9, 2)(layers.TextVectorization(9, output_sequence_length=3)(text)))

    model = build()
    model.layers[1].adapt(np.array(["some words", "and words"]))
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    with pytest.raises(UnsupportedError, match="vocabulary="):
        export(build, tmp_path / "out", kind, checkpoint=checkpoint)


def test_tables_that_change_are_refused(tf, tmp_path):
    class Changing(tf.Module):
        def __init__(self):
            self.w = tf.Variable(1.0)
            self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
        def __call__(self, words):
            return self.table.lookup(words) * self.w

    checkpoint = tf.train.Checkpoint(w=tf.Variable(1.0)).write(str(tmp_path / "ckpt"))
    with pytest.raises(UnsupportedError, match="MutableHashTable"):
        export(Changing, tmp_path, "saved-model", checkpoint=checkpoint)


def test_iterators_are_refused(tf, tmp_path):
    class Iterating(tf.Module):
        def __init__(self):
            self.w = tf.Variable(1.0)
            self.numbers = iter(tf.data.Dataset.range(5))

        @tf.function(input_signature=[tf.TensorSpec((), tf.float32)])
        def __call__(self, x):
            return x * self.w + tf.cast(next(self.numbers), tf.float32)

    checkpoint = tf.train.Checkpoint(w=tf.Variable(1.0)).write(str(tmp_path / "ckpt"))
    with pytest.raises(UnsupportedError, match="resource is captured"):
        export(Iterating, tmp_path, "saved-model", checkpoint=checkpoint)


def test_the_queue_of_a_training_is_no_input(tf, tmp_path):
    v1 = tf.compat.v1

    def build():
        taken = v1.FIFOQueue(3, [tf.float32], [(4,)]).dequeue(name="batch")
        return {"y": tf.matmul(taken[None], v1.get_variable("w", (4, 2)), name="y")}

    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        checkpoint = v1.train.Saver().save(session, str(tmp_path / "ckpt"), write_meta_graph=False)
    with pytest.raises(UsageError, match=r"input pipeline: batch \(QueueDequeueV2\)"):
        export(build, tmp_path, "frozen-graph", checkpoint=checkpoint)
    result = export(build, tmp_path, "frozen-graph", checkpoint=checkpoint, inputs=["batch"], outputs=["y"])
    expected = X @ tf.train.load_variable(checkpoint, "w")
    (name,) = result.inputs
    assert_close(compute(tf, result, "frozen-graph", {name: X[0]})["y"], expected)
