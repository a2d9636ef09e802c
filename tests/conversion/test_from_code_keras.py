"""Keras models from their code: what users load computes what the trained model computes."""

import numpy as np
import pytest

from live_exports import KINDS, assert_close, compute, export, scrambled
from tfthaw.errors import UsageError

pytestmark = pytest.mark.tf


def floats(*shape):
    return np.random.default_rng(9).normal(size=shape).astype(np.float32)


def two_inputs(keras, layers):
    one, other = keras.Input((4,), name="one"), keras.Input((3,), name="other")
    shared = layers.Dense(4)
    joined = layers.Concatenate()([shared(one), shared(shared(one)), other])
    return keras.Model([other, one], [layers.Dense(2, name="first")(joined), layers.Dense(1, name="second")(joined)])


def dict_of_inputs(keras, layers):
    one, other = keras.Input((4,), name="one"), keras.Input((3,), name="other")
    return keras.Model({"one": one, "other": other}, {"z": layers.Dense(2)(one), "y": layers.Dense(2)(other)})


def recurrent(keras, layers):
    return keras.Sequential([
        keras.Input((5, 3)), layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.GRU(3),
        layers.Dense(1),
    ])  # fmt: skip


def convolutional(keras, layers):
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Rescaling(1 / 255.0), layers.RandomFlip(), layers.Conv2D(4, 3, padding="same"),
        layers.BatchNormalization(), layers.ReLU(), layers.SeparableConv2D(4, 3), layers.PReLU(),
        layers.GlobalAveragePooling2D(), layers.Dropout(0.5), layers.LayerNormalization(), layers.Dense(2),
    ])  # fmt: skip


def attentive(keras, layers):
    inputs = keras.Input((5, 8))
    attended = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization()(layers.Add()([attended, inputs]))))


def nested_twice(keras, layers):
    inner, inputs = keras.Sequential([layers.Dense(3), layers.Dense(4)], name="inner"), keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(inner(inner(inputs))))


def of_words(keras, layers):
    words = keras.Input((1,), dtype="string", name="words")
    return keras.Model(words, layers.Embedding(9, 3)(layers.StringLookup(vocabulary=["a", "b"])(words)))


def of_numbers(keras, layers):
    numbers = keras.Input((1,), dtype="int64", name="numbers")
    return keras.Model(numbers, layers.Embedding(9, 3)(layers.IntegerLookup(vocabulary=[7, 9])(numbers)))


def of_doubles(keras, layers):
    return keras.Sequential([keras.Input((4,), dtype="float64"), layers.Dense(3, dtype="float64")])


MODELS = {
    two_inputs: [floats(2, 3), floats(2, 4)], recurrent: [floats(2, 5, 3)], convolutional: [floats(2, 8, 8, 3)],
    attentive: [floats(2, 5, 8)], nested_twice: [floats(2, 4)], of_words: [np.array([[b"a"], [b"?"]], object)],
    of_numbers: [np.array([[7], [3]])], of_doubles: [floats(2, 4).astype("f8")],
}  # fmt: skip


@pytest.mark.parametrize(("build", "kind"), [
    *[(build, KINDS[position % len(KINDS)]) for position, build in enumerate(MODELS)],
    (recurrent, "frozen-graph"), (recurrent, "meta-graph"), (of_words, "meta-graph"), (of_words, "frozen-graph"),
])  # fmt: skip
def test_functional_models(tf, tmp_path, build, kind):
    source = lambda: build(tf.keras, tf.keras.layers)  # noqa: E731
    model, feeds = scrambled(source()), MODELS[build]
    expected = model(feeds if len(feeds) > 1 else tf.constant(feeds[0]), training=False)
    expected = expected if isinstance(expected, list) else [expected]
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    result = export(source, tmp_path, kind, checkpoint=checkpoint)
    names = ["other", "one"] if build is two_inputs else list(result.inputs)
    found = compute(tf, result, kind, dict(zip(names, feeds, strict=True)))
    outputs = model.output_names if len(expected) > 1 else list(found)
    assert found.keys() == set(outputs)
    for name, value in zip(outputs, expected, strict=True):
        assert_close(found[name], value.numpy())


def test_a_dict_goes_in_and_out_by_its_keys(tf, tmp_path):
    source = lambda: dict_of_inputs(tf.keras, tf.keras.layers)  # noqa: E731
    model, feeds = scrambled(source()), {"one": floats(2, 4), "other": floats(2, 3)}
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    result = export(source, tmp_path, "saved-model", checkpoint=checkpoint)
    found, expected = compute(tf, result, "saved-model", feeds), model(feeds)
    assert found.keys() == {"y", "z"}
    for name in found:
        assert_close(found[name], expected[name].numpy())


@pytest.fixture(scope="module")
def subclassed(tf):
    """Subclassed models, by how they are called."""
    keras, layers = tf.keras, tf.keras.layers

    class Base(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.other = layers.Dense(4), layers.Dense(4)

    class OneTensor(Base):
        def call(self, x, training=None):
            return {"a": self.one(x), "b": self.other(self.one(x))}

    class TwoArguments(Base):
        def call(self, x, y, training):
            z = self.one(x) + self.other(y)
            return tf.nn.dropout(z, 0.5) if training else z

    class Dict(Base):
        def call(self, inputs):
            return self.one(inputs["x"]) - self.other(inputs["y"])

    class List(Base):
        def call(self, inputs):
            x, y = inputs
            return self.one(x) - self.other(y)

    return {kind.__name__: kind for kind in (OneTensor, TwoArguments, Dict, List)}


@pytest.mark.parametrize("name", ["OneTensor", "TwoArguments", "Dict", "List"])
@pytest.mark.parametrize("how", ["class", "live"])
def test_subclassed_models_take_what_is_declared(tf, tmp_path, subclassed, name, how):
    kind, feeds = subclassed[name], {"x": floats(2, 4), "y": floats(2, 3)}
    if name == "OneTensor":
        del feeds["y"]
    declared = [f"{key}:float32[?,{value.shape[1]}]" for key, value in feeds.items()]

    def call(model):
        if name == "TwoArguments":
            return model(feeds["x"], y=feeds["y"], training=False)
        return model({"OneTensor": feeds["x"], "Dict": feeds, "List": list(feeds.values())}[name])

    model = kind()
    call(model)
    expected = call(scrambled(model))
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    if how == "live":
        scrambled(model, seed=4)
    source = kind if how == "class" else model
    result = export(source, tmp_path, "frozen-graph", checkpoint=checkpoint, input=declared)
    found = compute(tf, result, "frozen-graph", dict(zip(feeds, feeds.values(), strict=True)))
    expected = expected if isinstance(expected, dict) else {next(iter(found)): expected}
    for key, value in expected.items():
        assert_close(found[key], value.numpy())
    if how == "class":
        with pytest.raises(UsageError, match="--input"):
            export(kind, tmp_path / "not", "frozen-graph", checkpoint=checkpoint)


def test_an_adapted_normalization_computes_with_the_checkpoint(tf, tmp_path):
    keras, layers = tf.keras, tf.keras.layers

    def build():
        return keras.Sequential([keras.Input((4,)), layers.Normalization(), layers.Dense(2)])

    model = build()
    model.layers[0].adapt(floats(50, 4) * 7 + 3)
    scrambled(model.layers[1])
    feed = floats(3, 4)
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    for source in (build, lambda: {"model": (made := build()), "serve": tf.function(
            lambda x: made(x), input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])}):  # fmt: skip
        result = export(source, tmp_path, "frozen-graph", checkpoint=checkpoint)
        (name,), (output,) = result.inputs, result.outputs
        assert_close(compute(tf, result, "frozen-graph", {name: feed})[output], model(feed).numpy())


def test_mixed_precision(tf, tmp_path):
    keras, layers = tf.keras, tf.keras.layers

    def build():
        return keras.Sequential([
            keras.Input((4,)), layers.Dense(3, dtype="mixed_float16"), layers.BatchNormalization(dtype="mixed_float16"),
            layers.Dense(2, dtype="float32"),
        ])  # fmt: skip

    model, feed = scrambled(build()), floats(2, 4)
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    result = export(build, tmp_path, "saved-model", checkpoint=checkpoint)
    (found,) = compute(tf, result, "saved-model", {next(iter(result.inputs)): feed}).values()
    np.testing.assert_allclose(found, model(feed, training=False).numpy(), rtol=5e-3)


def test_scopes_are_called_as_the_layers_are(tf, tmp_path):
    keras, layers = tf.keras, tf.keras.layers

    def build():
        inputs = keras.Input((4,), name="image")
        return keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(3, name="body")(inputs)), name="net")

    checkpoint = tf.train.Checkpoint(model=build()).write(str(tmp_path / "ckpt"))
    result = export(build, tmp_path, "meta-graph", checkpoint=checkpoint)
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(result.path)
        names = {item.name for item in graph.get_operations()}
    assert {"image", "net/body/MatMul", "net/head/MatMul", "body/kernel", "head/kernel"} <= names


def test_a_keras_model_in_a_module_and_the_other_way(tf, tmp_path):
    keras, layers = tf.keras, tf.keras.layers

    class Outer(tf.Module):
        def __init__(self):
            self.net = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
            self.scale = tf.Variable([1.0, 2.0, 3.0], name="scale")

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x):
            return self.net(x, training=False) * self.scale

    class Inner(tf.Module):
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 2)), name="w")

        def __call__(self, x):
            return x @ self.w

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.dense = Inner(), layers.Dense(2)

        def call(self, x):
            return self.dense(self.inner(x))

    feed = floats(2, 4)
    for kind, options in ((Outer, {}), (Net, {"input": ["x:float32[?,4]"]})):
        model = kind()
        model(feed)
        scrambled(model)
        checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / kind.__name__))
        result = export(kind, tmp_path, "frozen-graph", checkpoint=checkpoint, **options)
        (found,) = compute(tf, result, "frozen-graph", {"x": feed}).values()
        assert_close(found, model(feed).numpy())
