"""Keras models that their configuration does not wholly explain, optimizers, and Keras models in SavedModels."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import keras_models
from tfthaw.conversion.converting import convert
from tfthaw.errors import RestoreError, UnsupportedError
from tfthaw.serde.artifacts import open_artifact

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FLAVORS = pytest.mark.parametrize("flavor", keras_models.KERAS)


def scale_class(keras):
    class Scale(keras.layers.Layer):
        """A layer of the user's own: it has variables, and a layer in it."""

        def build(self, shape):
            self.count = self.add_weight(shape=(2,), name="count", trainable=False)
            self.factor = self.add_weight(shape=(shape[-1],), name="factor", initializer="uniform")
            self.inner = keras.layers.Dense(5)
            self.inner.build(shape)
            self.built = True

        def call(self, inputs):
            return self.inner(inputs * self.factor)

    return Scale


def with_custom_layer(keras, seed):
    keras.utils.set_random_seed(seed)
    start = keras.Input((3,))
    return keras.Model(start, keras.layers.Dense(2)(scale_class(keras)()(start)))


def filled(model, seed):
    random = np.random.default_rng(seed)
    model.set_weights([random.random(value.shape).astype(value.dtype) for value in model.get_weights()])
    return model


def save(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)


def weights_of(path):
    with open_artifact(path) as artifact:
        return {name: tensor.numpy() for name, tensor in artifact.variables.items()}


class TestCustomLayers:
    @FLAVORS
    @pytest.mark.parametrize("source", ["model.keras", "model.h5"])
    def test_values_of_a_checkpoint_by_evidence(self, tf, tmp_path, flavor, source):
        keras = keras_models.load(flavor)
        one, other = filled(with_custom_layer(keras, 1), 1), filled(with_custom_layer(keras, 2), 2)
        tf.train.Checkpoint(model=one).write(str(tmp_path / "checkpoint"))
        save(other, tmp_path / source)
        target = tmp_path / f"new_{source}"
        to = "keras-zip" if source.endswith("keras") else "keras-h5"
        convert(tmp_path / source, target, to=to, checkpoint=str(tmp_path / "checkpoint"))

        other.load_weights(str(target))
        for value, expected in zip(other.get_weights(), one.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)

    @FLAVORS
    def test_values_of_a_keras_file_in_a_checkpoint(self, tf, tmp_path, flavor):
        keras = keras_models.load(flavor)
        one, other = filled(with_custom_layer(keras, 1), 1), filled(with_custom_layer(keras, 2), 2)
        save(one, tmp_path / "model.keras")
        tf.train.Checkpoint(model=other).write(str(tmp_path / "old"))
        convert(tmp_path / "old", tmp_path / "new", to="checkpoint", keys="objects",
                checkpoint=str(tmp_path / "model.keras"))  # fmt: skip

        tf.train.Checkpoint(model=other).read(str(tmp_path / "new")).assert_consumed()
        for value, expected in zip(other.get_weights(), one.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)

    @FLAVORS
    @pytest.mark.parametrize(("to", "options"), [("keras-h5", {}), ("checkpoint", {"keys": "objects"})])
    def test_another_layout_is_refused_by_name(self, tmp_path, flavor, to, options):
        save(with_custom_layer(keras_models.load(flavor), 1), tmp_path / "model.keras")
        with pytest.raises(UnsupportedError) as caught:
            convert(tmp_path / "model.keras", tmp_path / "new", to=to, **options)
        (problem,) = caught.value.problems
        assert re.fullmatch(r"scale(_\d+)?: 4 variables", problem)
        assert "--checkpoint" in caught.value.hint
        assert not (tmp_path / "new").exists()

    def test_what_shapes_do_not_tell_apart_needs_a_map(self, tf, tmp_path):
        keras = keras_models.load("keras")

        class Twins(keras.layers.Layer):
            def build(self, shape):
                self.b, self.a = self.add_weight(shape=(2,), name="b"), self.add_weight(shape=(2,), name="a")

            def call(self, inputs):
                return inputs * self.a + self.b

        start = keras.Input((2,))
        model = filled(keras.Model(start, Twins(name="twins")(start)), 1)
        save(model, tmp_path / "model.keras")
        tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
        options = {"to": "keras-weights", "checkpoint": str(tmp_path / "checkpoint")}
        with pytest.raises(RestoreError, match=r"layer twins: which of .* nothing tells") as caught:
            convert(tmp_path / "model.keras", tmp_path / "new.weights.h5", **options)
        assert "a map says it" in caught.value.hint

        keys = {name: f"model/_operations/1/{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in "ab"}
        said = {keys["b"]: "layers/twins/vars/0", keys["a"]: "layers/twins/vars/1"}
        convert(tmp_path / "model.keras", tmp_path / "new.weights.h5", map=said, **options)
        assert_equal(weights_of(tmp_path / "new.weights.h5"), weights_of(tmp_path / "model.keras"))

    def test_checkpoints_of_keras_3_lack_layers_in_lists(self, tf, tmp_path):
        keras = keras_models.load("keras")
        cells = [keras.layers.LSTMCell(2), keras.layers.GRUCell(2)]
        model = keras.Sequential([keras.Input((3, 2)), keras.layers.RNN(cells), keras.layers.Dense(1)])
        save(model, tmp_path / "model.keras")
        with pytest.raises(UnsupportedError, match="layers that are in lists") as caught:
            convert(tmp_path / "model.keras", tmp_path / "new", to="checkpoint", keys="objects")
        assert len(caught.value.problems) == 2
        tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
        with pytest.raises(RestoreError) as missing:
            convert(tmp_path / "model.keras", tmp_path / "new", to="keras-zip", checkpoint=str(tmp_path / "checkpoint"))
        assert len(missing.value.missing) == 6

    @FLAVORS
    def test_a_subclassed_model_keeps_its_layout(self, tmp_path, flavor):
        keras = keras_models.load(flavor)

        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.first, self.blocks = keras.layers.Dense(3), [keras.layers.Dense(2)]

            def call(self, inputs):
                return self.blocks[0](self.first(inputs))

        one, other = Model(), Model()
        for model, seed in ((one, 1), (other, 2)):
            model(np.ones((1, 4), "float32"))
            filled(model, seed)
        one.save_weights(str(tmp_path / "model.weights.h5"))
        convert(tmp_path / "model.weights.h5", tmp_path / "middle.safetensors", to="safetensors")
        convert(tmp_path / "middle.safetensors", tmp_path / "new.weights.h5", to="keras-weights")
        other.load_weights(str(tmp_path / "new.weights.h5"))
        for value, expected in zip(other.get_weights(), one.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)


class TestOptimizers:
    def trained(self, keras, folder, seed=1):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(np.ones((8, 4), "float32") * seed, np.ones((8, 2), "float32"), verbose=0, epochs=2)
        save(model, folder / f"model{seed}.keras")
        save(model, folder / f"model{seed}.h5")
        return model

    def untrained(self, keras):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    def state(self, model):
        variables = model.optimizer.variables
        return [np.asarray(item) for item in (variables() if callable(variables) else variables)]

    @FLAVORS
    @pytest.mark.parametrize("to", ["keras-weights", "checkpoint"])
    @pytest.mark.parametrize("source", ["model1.keras", "model1.h5"])
    def test_its_state_goes_along(self, tf, tmp_path, flavor, source, to):
        keras = keras_models.load(flavor)
        one, other = self.trained(keras, tmp_path), self.untrained(keras)
        target = tmp_path / ("new.weights.h5" if to == "keras-weights" else "new")
        options = {"keys": "objects"} if to == "checkpoint" else {}
        convert(tmp_path / source, target, to=to, optimizer="keep", **options)

        if to == "checkpoint":
            tf.train.Checkpoint(model=other).restore(str(target)).expect_partial()
        else:
            other.load_weights(str(target))
        for value, expected in zip(self.state(other), self.state(one), strict=True):
            np.testing.assert_array_equal(value, expected)

    @FLAVORS
    def test_from_a_checkpoint_where_both_have_it(self, tf, tmp_path, flavor):
        keras = keras_models.load(flavor)
        one, other = self.trained(keras, tmp_path), self.trained(keras, tmp_path, 2)
        tf.train.Checkpoint(model=one).write(str(tmp_path / "checkpoint"))
        convert(tmp_path / "model2.keras", tmp_path / "new.keras", to="keras-zip", optimizer="keep",
                checkpoint=str(tmp_path / "checkpoint"))  # fmt: skip
        other.load_weights(str(tmp_path / "new.keras"))
        for value, expected in zip(self.state(other), self.state(one), strict=True):
            np.testing.assert_array_equal(value, expected)

    @FLAVORS
    @pytest.mark.parametrize("to", ["keras-weights", "keras-zip", "checkpoint"])
    def test_it_is_dropped_when_asked(self, tmp_path, flavor, to):
        self.trained(keras_models.load(flavor), tmp_path)
        result = convert(tmp_path / "model1.keras", tmp_path / "new", to=to, optimizer="drop",
                         **({"keys": "objects"} if to == "checkpoint" else {}))  # fmt: skip
        assert any("optimizer's state were left out" in note for note in result.notes)
        assert not any("optimizer" in name for name in weights_of(tmp_path / "new"))

    @FLAVORS
    def test_it_may_stay_out_on_the_way_through_safetensors(self, tmp_path, flavor):
        keras = keras_models.load(flavor)
        one = self.trained(keras, tmp_path)
        convert(tmp_path / "model1.h5", tmp_path / "middle.safetensors", to="safetensors")
        convert(tmp_path / "middle.safetensors", tmp_path / "new.h5", to="keras-h5")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = keras.models.load_model(tmp_path / "new.h5", compile=False)  # Keras 3 finds no loss by "mse"
        assert not any("optimizer" in name for name in weights_of(tmp_path / "new.h5"))
        for value, expected in zip(other.get_weights(), one.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)

    def test_a_legacy_file_says_that_it_is_left_out(self, tmp_path):
        self.trained(keras_models.load("keras"), tmp_path)
        result = convert(tmp_path / "model1.keras", tmp_path / "new.h5", to="keras-h5")
        assert any("optimizer/vars/0" in note for note in result.notes)
        assert any("compile the model again" in note for note in result.notes)


class TestSavedModels:
    @pytest.mark.parametrize("to", ["keras-h5", "keras-zip", "keras-weights"])
    def test_of_tf_keras_have_the_configuration(self, tf, tmp_path, to):
        keras = keras_models.load("tf_keras")
        one = keras_models.make(keras, "nested")
        save(one.model, tmp_path / "saved")
        target = tmp_path / {"keras-h5": "new.h5", "keras-zip": "new.keras", "keras-weights": "new.weights.h5"}[to]
        convert(tmp_path / "saved", target, to=to)
        if to == "keras-weights":
            other = keras_models.make(keras, "nested", seed=1).model
            other.load_weights(str(target))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other = keras.models.load_model(str(target))
        for value, expected in zip(other.get_weights(), one.model.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)

    @pytest.mark.parametrize("name", ["nested", "late"])
    def test_exported_by_keras_3_list_their_values(self, tf, tmp_path, name):
        keras = keras_models.load("keras")
        one = keras_models.make(keras, name)
        one.model.export(str(tmp_path / "saved"), verbose=False)
        save(keras_models.make(keras, name, seed=1).model, tmp_path / "other.keras")
        convert(tmp_path / "other.keras", tmp_path / "new.keras", to="keras-zip", checkpoint=str(tmp_path / "saved"))
        other = keras.models.load_model(str(tmp_path / "new.keras"))
        for value, expected in zip(other.get_weights(), one.model.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)


class TestAcrossVersions:
    @pytest.mark.parametrize(("target", "source", "name", "values"), [
        ("keras", "tf_keras", "convolutions", "checkpoint"), ("keras", "tf_keras", "attention", "model.keras"),
        ("keras", "tf_keras", "recurrent", "checkpoint"), ("tf_keras", "keras", "convolutions", "model.keras"),
        ("tf_keras", "keras", "attention", "checkpoint"),
    ])  # fmt: skip
    def test_values_of_the_other_keras(self, tf, tmp_path, target, source, name, values):
        one = keras_models.make(keras_models.load(source), name)
        save(one.model, tmp_path / "model.keras")
        tf.train.Checkpoint(model=one.model).write(str(tmp_path / "checkpoint"))
        other = keras_models.make(keras_models.load(target), name, seed=1)
        save(other.model, tmp_path / "other.keras")
        convert(tmp_path / "other.keras", tmp_path / "new.keras", to="keras-zip", checkpoint=str(tmp_path / values))
        other.model.load_weights(str(tmp_path / "new.keras"))
        np.testing.assert_allclose(keras_models.outputs(other), keras_models.outputs(one), rtol=1e-4, atol=1e-6)


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
