"""State that only training uses, such as the seeds of dropout, is no reason to refuse a checkpoint without it."""

import numpy as np
import pytest

import tfthaw
from tfthaw.errors import RestoreError

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("quiet")]

X = np.random.default_rng(3).normal(size=(5, 3, 4)).astype(np.float32)


def build_lstm():
    """Return a model that writes the seed of its dropout even when it is not being trained."""
    from tensorflow import keras

    return keras.Sequential([keras.Input((3, 4)), keras.layers.LSTM(4, dropout=0.2, recurrent_dropout=0.1)])


@pytest.mark.parametrize("to", ["frozen-graph", "saved-model"])
def test_the_seed_of_dropout_may_be_missing(tf, tmp_path, to):
    model = build_lstm()
    model.save_weights(tmp_path / "w.weights.h5")
    result = tfthaw.convert(build_lstm, tmp_path / "out", to=to, checkpoint=str(tmp_path / "w.weights.h5"))

    assert result.variables == 3
    assert result.verified.outputs.done
    assert any("seed_generator_state" in note and "left out" in note for note in result.notes)
    if to == "saved-model":
        (found,) = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"](tf.constant(X)).values()
        np.testing.assert_allclose(found, model(X, training=False), atol=1e-6)


def test_state_that_an_output_needs_may_not(tf, tmp_path):
    class Counting(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable([1.0, 2.0], name="kernel")
            self.calls = tf.Variable(0.0, trainable=False, name="calls")

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def __call__(self, x):
            self.calls.assign_add(1.0)
            return x * self.kernel + self.calls

    tf.train.Checkpoint(kernel=tf.Variable([3.0, 4.0])).write(str(tmp_path / "ckpt"))
    with pytest.raises(RestoreError) as caught:
        tfthaw.convert(Counting, tmp_path / "out", to="saved-model", checkpoint=str(tmp_path / "ckpt"))
    assert caught.value.missing == ("calls",)
    assert not (tmp_path / "out").exists()
