"""Keras files as checkpoints of code: what users load computes what the model computed that was saved."""

import warnings

import numpy as np
import pytest

import live_models
from live_exports import assert_close, compute, export
from tfthaw.errors import RestoreError

pytestmark = pytest.mark.tf

def quietly(action, *arguments):
    """Do what Keras warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action(*arguments)


X = np.random.default_rng(4).normal(size=(5, 4)).astype(np.float32)


def normalized_by_its_spectrum(keras):
    """Its kernel is in the file twice."""
    layers = keras.layers
    return keras.Sequential([keras.Input((4,)), layers.SpectralNormalization(layers.Dense(4)), layers.Dense(2)])


def query_key_value(keras):
    """Keras 2 saves two of the layers before it counts those that are left."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (keras.layers.Dense(4) for _ in range(3))

        def call(self, x):
            return self.query(x) * self.key(x) + self.value(x)

    return Net()


def tied(keras):
    """A layer that has a variable of another one."""

    class Head(keras.layers.Layer):
        def __init__(self, other, **options):
            super().__init__(**options)
            self.other = other.kernel

        def build(self, shape):
            self.bias = self.add_weight(name="bias", shape=(4,))
            self.built = True

        def call(self, x):
            return x @ self.other + self.bias

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(4)
            self.first.build((None, 4))
            self.head = Head(self.first)

        def call(self, x):
            return self.head(self.first(x))

    return Net()


def quantized(keras):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    quietly(model.quantize, "int8")
    return model


@pytest.mark.parametrize(("build", "generation"), [
    (normalized_by_its_spectrum, 3), (quantized, 3), (query_key_value, 3), (query_key_value, 2), (tied, 3), (tied, 2),
])  # fmt: skip
@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_every_layer_finds_its_values(tf, tmp_path, build, generation, ending):
    if ending == ".keras" and build in (query_key_value, tied):
        return  # Keras cannot save a class of a test
    model = build(live_models.keras_of(generation))
    model(tf.constant(X))
    for number, variable in enumerate(model.weights):
        if "float" in str(variable.dtype):
            variable.assign(np.random.default_rng(number).uniform(0.1, 1.0, variable.shape))
    path = tmp_path / f"trained{ending}"
    quietly(model.save if ending == ".keras" else model.save_weights, path)
    expected = model(tf.constant(X)).numpy()
    keras = live_models.keras_of(generation)
    options = {} if build in (normalized_by_its_spectrum, quantized) else {"input": ["x:float32[?,4]"]}
    result = export(lambda: build(keras), tmp_path, "frozen-graph", checkpoint=path, **options)
    (name,) = result.inputs
    (found,) = compute(tf, result, "frozen-graph", {name: X}).values()
    assert_close(found, expected)


def nested(keras, names, inner=("d0", "d1", "d2")):
    layers = keras.layers
    body = keras.Sequential([keras.Input((4,)), *(layers.Dense(4, name=name) for name in inner)], name="body")
    inputs = keras.Input((4,))
    outputs = body(inputs)
    for name in names:
        outputs = layers.Dense(4, name=name)(outputs)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("generation", [3, 2])
class TestOrderAndNames:
    def saved(self, tf, generation, path):
        keras = live_models.keras_of(generation)
        model = nested(keras, ["one", "two"])
        model.get_layer("body").layers[0].trainable = False  # its variables come last in the file
        live_models.fill(model)
        quietly(model.save if path.name.endswith("model.h5") else model.save_weights, path)
        return live_models.keras_of(generation), model(tf.constant(X)).numpy()

    @pytest.mark.parametrize("name", ["model.h5", "model.weights.h5"])
    def test_what_was_frozen_when_it_was_saved_makes_no_difference(self, tf, tmp_path, name, generation):
        keras, expected = self.saved(tf, generation, tmp_path / name)
        result = export(lambda: nested(keras, ["one", "two"]), tmp_path, "frozen-graph", checkpoint=tmp_path / name)
        (fed,) = result.inputs
        (found,) = compute(tf, result, "frozen-graph", {fed: X}).values()
        assert_close(found, expected)

    @pytest.mark.parametrize("name", ["model.h5", "model.weights.h5"])
    def test_layers_that_changed_places_are_refused(self, tf, tmp_path, name, generation):
        keras, _ = self.saved(tf, generation, tmp_path / name)
        if name == "model.weights.h5" and generation == 2:
            return  # there Keras 2 has no names
        with pytest.raises(RestoreError, match="which value fills which variable"):
            export(lambda: nested(keras, ["two", "one"]), tmp_path / "out", "frozen-graph", checkpoint=tmp_path / name)

    def test_an_attribute_that_the_code_has_not_is_told(self, tf, tmp_path, generation):
        keras = live_models.keras_of(generation)

        def net(has_norm):
            class Net(keras.Model):
                def __init__(self):
                    super().__init__()
                    self.zero = keras.layers.Dense(4)
                    if has_norm:
                        self.a_norm = keras.layers.LayerNormalization()

                def call(self, x):
                    return self.a_norm(self.zero(x)) if has_norm else self.zero(x)

            return Net()

        model = net(True)
        model(tf.constant(X))
        quietly(model.save_weights, tmp_path / "m.weights.h5")
        with pytest.raises(RestoreError, match=r"2 variables that the code does not.*--allow-unused '\w+/.*vars/\*'"):
            export(lambda: net(False), tmp_path / "out", "frozen-graph", checkpoint=tmp_path / "m.weights.h5",
                   input=["x:float32[?,4]"])  # fmt: skip

    def test_a_class_that_reads_files_in_its_own_way_is_refused(self, tf, tmp_path, generation):
        keras = live_models.keras_of(generation)

        class Scaled(keras.layers.Dense):
            def save_own_variables(self, store):
                store["0"], store["1"] = self.bias.numpy(), self.kernel.numpy() * 2

        model = keras.Sequential([keras.Input((4,)), Scaled(4)])
        quietly(model.save_weights, tmp_path / "m.weights.h5")
        with pytest.raises(RestoreError) as caught:
            export(model, tmp_path / "out", "frozen-graph", checkpoint=tmp_path / "m.weights.h5")
        assert "Scaled (scaled) reads its values in a way of its own" in caught.value.mismatched[0]
