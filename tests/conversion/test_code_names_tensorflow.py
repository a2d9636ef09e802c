"""What models from code call their parts: variables without names of their own, sparse and ragged inputs."""

import numpy as np
import pytest

import live_models
from live_exports import KINDS, assert_close, compute, export, scrambled
from tfthaw.errors import RuntimeFailure, UsageError

pytestmark = pytest.mark.tf

X = np.random.default_rng(9).normal(size=(2, 3, 4)).astype(np.float32)


def stateful(tf, keras):
    """Keras 3 gives the state of such a layer no name."""
    layers = keras.layers
    return keras.Sequential([keras.Input((3, 4), batch_size=2), layers.LSTM(5, stateful=True), layers.Dense(2)])


def unnamed(tf, keras):
    class Scale(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.s, self.t = tf.Variable(tf.ones(4)), tf.Variable(tf.ones(4))

        def call(self, x):
            return x * self.s + self.t

    return keras.Sequential([keras.Input((3, 4)), Scale(), Scale()])


def of_one_name(tf, keras):
    class Twice(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.one, self.other = (keras.layers.Dense(4, name="same") for _ in range(2))

        def call(self, x):
            return self.one(x) + self.other(x) * 2

    return keras.Sequential([keras.Input((3, 4)), Twice()])


@pytest.mark.parametrize(("build", "kind", "generation"), [
    (stateful, KINDS[1], 3),  # Keras 2 keeps such state out of checkpoints
    *[(build, kind, generation) for build, kind in ((unnamed, KINDS[2]), (of_one_name, KINDS[3])) for generation in
      (3, 2)],
])  # fmt: skip
def test_variables_without_names_of_their_own(tf, tmp_path, build, kind, generation):
    keras = live_models.keras_of(generation)
    model = scrambled(build(tf, keras))
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    keras = live_models.keras_of(generation)
    result = export(lambda: build(tf, keras), tmp_path, kind, checkpoint=checkpoint)
    (name,) = result.inputs
    (found,) = compute(tf, result, kind, {name: X}).values()
    assert_close(found, model(X).numpy())


def test_a_name_that_no_graph_takes_is_told(tf, tmp_path):
    keras = live_models.keras_of(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="my layer")])
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    with pytest.raises(UsageError, match=r"the name 'my layer' has characters that no graph takes; call layers"):
        export(model, tmp_path / "out", "frozen-graph", checkpoint=checkpoint)


class TestInputsOfParts:
    """Of Keras 2; no value is made of them that they do not have."""

    def build(self, tf):
        keras = live_models.keras_of(2)
        words = keras.Input((None,), dtype="int32", ragged=True, name="words")
        some = keras.Input((6,), sparse=True, name="some")
        mean = keras.layers.Lambda(lambda x: tf.reduce_mean(x, axis=1))(keras.layers.Embedding(9, 4)(words))
        return keras.Model([words, some], keras.layers.Dense(2)(mean) + keras.layers.Dense(2)(some))

    @pytest.mark.parametrize("kind", KINDS)
    def test_they_are_fed_by_their_parts(self, tf, tmp_path, kind):
        model = scrambled(self.build(tf))
        checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
        result = export(model, tmp_path, kind, checkpoint=checkpoint)
        words = tf.ragged.constant([[1, 2], [3]], dtype=tf.int32)
        some = tf.sparse.from_dense(np.eye(2, 6, dtype="f"))
        feeds = {
            "words_values": words.values, "words_row_splits_0": words.row_splits, "some_indices": some.indices,
            "some_values": some.values, "some_dense_shape": some.dense_shape,
        }  # fmt: skip
        assert result.inputs.keys() == feeds.keys()
        (found,) = compute(tf, result, kind, {name: part.numpy() for name, part in feeds.items()}).values()
        assert_close(found, model([words, some]).numpy())

    def test_inputs_by_other_names_are_refused_where_some_are_known(self, tf, tmp_path):
        keras = live_models.keras_of(3)
        one, other = keras.Input((4,), name="one"), keras.Input((4,), name="other")
        model = keras.Model([one, other], keras.layers.Dense(2)(one) + other[:, :2])
        checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
        for order in (["one", "other"], ["other", "one"]):
            result = export(model, tmp_path, "frozen-graph", checkpoint=checkpoint,
                            input=[f"{name}:float32[?,4]" for name in order])  # fmt: skip
            assert set(result.inputs) == {"one", "other"}
        with pytest.raises((UsageError, RuntimeFailure), match=r"declared are others, one; declare all"):
            export(model, tmp_path / "out", "frozen-graph", checkpoint=checkpoint,
                   input=["others:float32[?,4]", "one:float32[?,4]"])  # fmt: skip
