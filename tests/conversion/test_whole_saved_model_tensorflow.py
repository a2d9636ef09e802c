"""SavedModels of TensorFlow 2 that are written again: whole, with other values, or with chosen signatures."""

import shutil

import numpy as np
import pytest

from tfthaw import proto
from tfthaw.conversion.converting import convert
from tfthaw.errors import RestoreError, UsageError

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("quiet")]

X = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def modern(tf, tmp_path_factory):
    """A SavedModel of TensorFlow 2 with a method that is no signature."""
    folder = tmp_path_factory.mktemp("modern")

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(np.ones((4, 2), np.float32), name="w")
            self.count = tf.Variable(7, trainable=False, name="count")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": x @ self.w}

    module = Module()
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.__call__)
    module.w.assign(np.full((4, 2), 3, np.float32))
    tf.train.Checkpoint(w=module.w, count=module.count, more=tf.Variable(1.0)).write(str(folder / "later"))
    tf.train.Checkpoint(w=module.w).write(str(folder / "less"))
    tf.train.Checkpoint(w=tf.Variable([1.0]), count=module.count).write(str(folder / "other"))
    tf.train.Checkpoint(kernel=module.w, count=module.count).write(str(folder / "renamed"))
    return folder


def test_a_saved_model_of_tensorflow_2_is_kept_whole(tf, modern, tmp_path):
    result = convert(modern / "saved", tmp_path / "new", to="saved-model", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    np.testing.assert_allclose(loaded(tf.constant(X))["y"], X @ np.ones((4, 2)), rtol=1e-5)
    assert loaded.count.numpy() == 7
    assert result.variables == 2
    assert result.outputs == {"y": "StatefulPartitionedCall:0"}
    before, after = (
        proto.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        for folder in (modern / "saved", tmp_path / "new")
    )
    assert before == after


def test_other_values_for_a_saved_model_of_tensorflow_2(tf, modern, tmp_path):
    result = convert(modern / "saved", tmp_path / "new", to="saved-model", checkpoint=str(modern / "later"))

    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path / "new")).w.numpy(), np.full((4, 2), 3))
    assert any("1 values of the checkpoint are not in the model: more/" in note for note in result.notes)
    given = {"checkpoint": str(modern / "renamed"),
             "map": {"kernel/.ATTRIBUTES/VARIABLE_VALUE": "w/.ATTRIBUTES/VARIABLE_VALUE"}}  # fmt: skip
    convert(modern / "saved", tmp_path / "mapped", to="saved-model", **given)
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path / "mapped")).w.numpy(), np.full((4, 2), 3))


def test_values_that_do_not_fit_a_saved_model_of_tensorflow_2(tf, modern, tmp_path):
    with pytest.raises(RestoreError) as caught:
        convert(modern / "saved", tmp_path / "new", to="saved-model", checkpoint=str(modern / "less"))
    assert caught.value.missing == ("count/.ATTRIBUTES/VARIABLE_VALUE",)
    with pytest.raises(RestoreError, match=r"w/.ATTRIBUTES/VARIABLE_VALUE is float32\[4, 2\], .* has float32\[1\]"):
        convert(modern / "saved", tmp_path / "new", to="saved-model", checkpoint=str(modern / "other"))
    assert not (tmp_path / "new").exists()
    result = convert(modern / "saved", tmp_path / "new", to="saved-model", checkpoint=str(modern / "less"),
                     allow_missing=["count/*"])  # fmt: skip
    assert tf.saved_model.load(str(tmp_path / "new")).count.numpy() == 7
    assert any("kept as allowed: count/" in note for note in result.notes)
    with pytest.raises(UsageError, match="--checkpoint"):
        convert(modern / "saved", tmp_path / "more", to="saved-model", map={"a": "b"})


def test_a_chosen_signature_of_tensorflow_2_is_built_anew(tf, modern, tmp_path):
    convert(modern / "saved", tmp_path / "new", to="saved-model", signature="score=serving_default",
            checkpoint=str(modern / "later"), verify="weights")  # fmt: skip
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    assert list(loaded.signatures) == ["score"]
    assert [item.name for item in loaded.variables] == ["w:0"]
    np.testing.assert_allclose(loaded.signatures["score"](x=tf.constant(X))["y"], X @ np.full((4, 2), 3), rtol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.signatures["score"](x=tf.constant(X))["y"])
    np.testing.assert_allclose(tape.gradient(loss, loaded.w)[:, 0], X.sum(0), rtol=1e-5)


def test_custom_gradients_keep_the_variables_that_they_take(tf, tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable([1.0, 2.0, 3.0, 4.0], name="w")
            self.unseen = tf.Variable(5.0, name="unseen")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def seen(self, x):
            @tf.custom_gradient
            def scaled(y):
                return y * 2.0, lambda dy: dy * 100.0 * self.w

            return {"y": scaled(x * self.w)}

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def hidden(self, x):
            @tf.custom_gradient
            def scaled(y):
                return y * 2.0, lambda dy: dy * self.unseen

            return {"y": scaled(x * self.w)}

    module = Module()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(module.seen(tf.constant(X))["y"])
    expected = tape.gradient(loss, module.w)
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"seen": module.seen, "hidden": module.hidden})

    seen = convert(tmp_path / "saved", tmp_path / "new", to="saved-model", signature="seen", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.signatures["seen"](x=tf.constant(X))["y"])
    np.testing.assert_allclose(tape.gradient(loss, loaded.w), expected, rtol=1e-5)
    assert not any("custom gradient" in note for note in seen.notes)
    hidden = convert(tmp_path / "saved", tmp_path / "other", to="saved-model", signature="hidden", verify="weights")
    assert hidden.variables == 2  # one of them is in the gradient alone
    loaded = tf.saved_model.load(str(tmp_path / "other"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.signatures["hidden"](x=tf.constant(X))["y"])
    np.testing.assert_allclose(tape.gradient(loss, loaded.w), X.sum(0) * 5, rtol=1e-5)


def test_a_saved_model_without_its_values_takes_those_of_a_checkpoint(tf, modern, tmp_path):
    shutil.copytree(modern / "saved", tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved" / "variables")

    with pytest.raises(RestoreError) as caught:
        convert(tmp_path / "saved", tmp_path / "new", to="saved-model", verify="weights")
    assert caught.value.missing == ("w",)
    assert not (tmp_path / "new").exists()
    given = {"checkpoint": str(modern / "later"), "verify": "weights"}
    result = convert(tmp_path / "saved", tmp_path / "new", to="saved-model", **given)
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    assert result.variables == 1
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](tf.constant(X))["y"], X @ np.full((4, 2), 3), rtol=1e-5
    )
