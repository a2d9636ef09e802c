"""Small models, each built by the same lines in Keras 2 and in Keras 3, with weights in the same order in both.

No two of its weights are equal, whichever Keras made the model, so that a value in the wrong place is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import keras_models

Build = Callable[[Any, Any], Any]
"""TensorFlow and a Keras -> a model whose variables are there."""

MODELS: dict[str, Build] = {}


def model(build: Build) -> Build:
    MODELS[build.__name__] = build
    return build


def keras_of(generation: int) -> Any:
    """Return Keras 3 or Keras 2, with no layer counted yet."""
    keras = keras_models.load("keras" if generation == 3 else "tf_keras")
    keras.backend.clear_session()
    return keras


def build(tf: Any, name: str, generation: int) -> Any:
    """Return a model as code in a fresh process makes it."""
    return MODELS[name](tf, keras_of(generation))


_BUILT: dict[tuple[str, int], Any] = {}


def built(tf: Any, name: str, generation: int) -> Any:
    """Return a model as `build` makes it, for tests that change nothing of it; it is built once."""
    if (name, generation) not in _BUILT:
        _BUILT[name, generation] = build(tf, name, generation)
    return _BUILT[name, generation]


def nodes_of(live: Any) -> dict[int, str]:
    """Return a node for each weight, named by its position: what a traced graph says."""
    held = [weight.value if hasattr(weight, "path") else weight for weight in live.weights]
    return {id(variable): f"weight {number}" for number, variable in enumerate(held)}


def fill(live: Any, seed: int = 0) -> list[np.ndarray]:
    """Give each weight values of its own, and return them."""
    values = [
        np.random.default_rng([seed, number]).normal(size=value.shape).astype(value.dtype)
        for number, value in enumerate(live.get_weights())
    ]
    live.set_weights(values)
    return values


@model
def sequential(tf, keras):
    layers = keras.layers
    return keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.1),
                             layers.Dense(4), layers.Activation("relu"), layers.Dense(4)])  # fmt: skip


@model
def functional(tf, keras):
    layers = keras.layers
    one, other = keras.Input((4,)), keras.Input((4,))
    x = layers.Dense(4, name="first")(one)
    y = layers.Dense(4)(other)
    z = layers.Dense(4)(x) + y * 2.0
    w = layers.Dense(4)(layers.Concatenate()([layers.Dense(4)(z), layers.Dense(4)(other)]))
    return keras.Model([other, one], [layers.Dense(4, name="second")(x), w])


@model
def shared_layer(tf, keras):
    shared, inputs = keras.layers.Dense(4), keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(4)(shared(keras.layers.Dense(4)(shared(inputs)))))


@model
def nested(tf, keras):
    layers = keras.layers
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.BatchNormalization()], name="inner")
    inputs = keras.Input((4,))
    deeper = keras.Model(inputs, layers.Dense(4)(inner(inputs)), name="deeper")
    return keras.Sequential([keras.Input((4,)), layers.Dense(4), deeper, layers.Dense(4)])


@model
def subclassed(tf, keras):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(4)
            self.norm = keras.layers.BatchNormalization()
            self.head = keras.layers.Dense(4)

        def call(self, x, training=False):
            return self.head(self.norm(self.hidden(x), training=training))

    return _called(tf, Subclassed())


@model
def lists_of_layers(tf, keras):
    """What Keras 3 leaves out of checkpoints."""

    class Listed(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [keras.layers.Dense(4), [keras.layers.Dense(4)]]
            self.heads = {"a": keras.layers.Dense(4), "b": keras.layers.Dense(4)}

        def call(self, x):
            x = self.blocks[1][0](self.blocks[0](x))
            return self.heads["a"](x) + self.heads["b"](x)

    return _called(tf, Listed())


@model
def convolutions(tf, keras):
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same"), layers.PReLU(), layers.SeparableConv2D(3, 3),
        layers.DepthwiseConv2D(2), layers.Conv2DTranspose(2, 2), layers.LayerNormalization(),
    ])  # fmt: skip


@model
def recurrent(tf, keras):
    layers = keras.layers
    return keras.Sequential([
        keras.Input((5,), dtype="int32"), layers.Embedding(9, 4),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True)), layers.GRU(4, return_sequences=True),
        layers.RNN([layers.LSTMCell(4), layers.GRUCell(4)]),
    ])  # fmt: skip


@model
def attention(tf, keras):
    inputs = keras.Input((3, 4))
    x = keras.layers.MultiHeadAttention(2, 2)(inputs, inputs)
    x = keras.layers.TimeDistributed(keras.layers.Dense(4))(x)
    return keras.Model(inputs, keras.layers.LayerNormalization()(x))


@model
def own_weights(tf, keras):
    class Scaled(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(4)

        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(4,), initializer="ones")
            self.shift = self.add_weight(name="offset", shape=(4,), initializer="zeros")
            self.inner.build(shape)
            super().build(shape)

        def call(self, x):
            return self.inner(x * self.scale + self.shift)

    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(4)(Scaled()(Scaled()(inputs))))


def _called(tf: Any, live: Any) -> Any:
    live(tf.zeros((1, 4)))
    return live
