"""Small models in Keras 3 and tf_keras, one for each way in which layers keep their variables."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np

NAMES = ["dense", "late", "convolutions", "recurrent", "nested", "attention", "normalized", "frozen", "float16",
         "mixed_precision"]  # fmt: skip
KERAS = ["keras", "tf_keras"]


def load(name):
    """Import a Keras; both can be loaded in one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "keras":
            import keras
        else:
            import tf_keras as keras
    return keras


def make(keras, name, seed=0):
    """Make a model whose every variable has a value of its own; equal seeds give equal models."""
    keras.backend.clear_session()
    model, shape, dtype = _MAKERS[name](keras, keras.layers)
    random = np.random.default_rng(seed)
    model.set_weights([_values(random, value) for value in model.get_weights()])
    settle(model)
    feed = random.integers(0, 9, shape) if dtype == "int32" else np.random.default_rng(5).normal(size=shape)
    return SimpleNamespace(model=model, feed=np.random.default_rng(5).integers(0, 9, shape).astype("int32")
                           if dtype == "int32" else feed.astype(dtype))  # fmt: skip


def _values(random, value):
    """Return positive values, which every variable can have: a variance too."""
    if value.dtype.kind in "iu":
        return random.integers(1, 9, value.shape).astype(value.dtype)
    return (random.random(value.shape) + 0.1).astype(value.dtype)


def settle(model):
    """Let layers take up values that they compute once of their variables."""
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def outputs(made):
    settle(made.model)
    return np.asarray(made.model(made.feed)).astype("float32")


def _dense(keras, layers):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="first"),
                             layers.Dense(2, use_bias=False)]), (2, 4), "float32"  # fmt: skip


def _late(keras, layers):
    model = keras.Sequential([layers.Dense(3), layers.Dropout(0.5), layers.Dense(2)])
    model.build((None, 4))
    return model, (2, 4), "float32"


def _convolutions(keras, layers):
    start = keras.Input((8, 8, 3))
    out = layers.BatchNormalization()(layers.Conv2D(4, 3)(start))
    out = layers.SeparableConv2D(4, 2)(layers.DepthwiseConv2D(3, use_bias=False)(out))
    out = layers.Conv2DTranspose(2, 2)(layers.BatchNormalization(scale=False)(layers.PReLU()(out)))
    return keras.Model(start, layers.Dense(2)(layers.Flatten()(out))), (2, 8, 8, 3), "float32"


def _recurrent(keras, layers):
    start = keras.Input((5,), dtype="int32")
    out = layers.LSTM(3, return_sequences=True)(layers.Embedding(9, 4)(start))
    out = layers.Bidirectional(layers.GRU(3, return_sequences=True))(out)
    out = layers.RNN(layers.LSTMCell(2), return_sequences=True)(layers.SimpleRNN(2, return_sequences=True)(out))
    out = layers.TimeDistributed(layers.Dense(3))(out)
    return keras.Model(start, layers.Bidirectional(layers.LSTM(2))(out)), (2, 5), "int32"


def _nested(keras, layers):
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.BatchNormalization()], name="inner")
    middle = keras.Input((3,))
    function = keras.Model(middle, layers.Dense(3)(layers.Dense(3)(middle)), name="function")
    shared = layers.Dense(3, name="shared")
    start = keras.Input((3,))
    out = layers.Add()([function(shared(inner(shared(start)))), start])
    return keras.Model(start, layers.Dense(2, name="out")(out)), (2, 3), "float32"


def _attention(keras, layers):
    start = keras.Input((5, 4))
    out = layers.Conv1D(3, 2)(layers.MultiHeadAttention(2, 2)(start, start))
    return keras.Model(start, layers.LayerNormalization()(out)), (2, 5, 4), "float32"


def _normalized(keras, layers):
    adapted = layers.Normalization()
    adapted.adapt(np.arange(12, dtype="float32").reshape(4, 3))
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(2)(adapted(start))), (2, 3), "float32"


def _frozen(keras, layers):
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(3)])
    inner.trainable = False
    start = keras.Input((3,))
    out = layers.Dense(3, trainable=False)(layers.BatchNormalization()(inner(start)))
    return keras.Model(start, layers.Dense(2)(out)), (2, 3), "float32"


def _float16(keras, layers):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="float16"),
                             layers.Dense(2, dtype="float64")]), (2, 4), "float32"  # fmt: skip


def _bfloat16(keras, layers):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="bfloat16")]), (2, 4), "float32"


def _operation(keras, layers):
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(2)(layers.Dense(3)(start) * 2.0 + start)), (2, 3), "float32"


def _mixed_precision(keras, layers):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16"),
                             layers.BatchNormalization(dtype="mixed_bfloat16")]), (2, 4), "float32"  # fmt: skip


_MAKERS = {
    "dense": _dense, "late": _late, "convolutions": _convolutions, "recurrent": _recurrent, "nested": _nested,
    "attention": _attention, "normalized": _normalized, "frozen": _frozen, "float16": _float16,
    "bfloat16": _bfloat16, "operation": _operation, "mixed_precision": _mixed_precision,
}  # fmt: skip
