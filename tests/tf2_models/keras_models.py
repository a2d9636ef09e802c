"""Models of Keras 3 and of Keras 2 (tf_keras; `tf.keras` before TensorFlow 2.16), each built by the same lines.

A recipe is called `keras_...` where it is Keras 3 and `tf_keras_...` where it is Keras 2. They are saved as their users
save them: `export` in Keras 3, `save` in Keras 2; those with several outputs by `tf.saved_model.save`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tf2_models import DEFAULT, Live, Recipe, add, normal
from tf2_models.tables import WORDS, vocabulary_file, words

Build = Callable[[Any, Any], tuple[Any, list[dict[str, Any]]]]
"""TensorFlow and a Keras -> a model and the inputs of its calls."""


def keras_of(tf: Any, generation: int) -> Any:
    """Return Keras 3 or Keras 2, whichever package has it."""
    if generation == 3:
        import keras

        return keras
    if tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
        return tf.keras
    import tf_keras

    return tf_keras


def keras_recipe(
    *, trained: bool = True, recurrent: bool = False, bare: bool = False, **options: Any
) -> Callable[[Build], Build]:
    """Register a model under each generation of Keras.

    Args:
        trained: Whether its weights are drawn anew, so that no bias is zero.
        recurrent: Whether it has loops, whose gradients Keras 2 takes many seconds to build.
        bare: Whether Keras 2 saves only its weights and its signature, since saving its layers takes many seconds too.
        **options: Those of `Recipe`.
    """

    def register(build: Build) -> Build:
        for generation in (3, 2):
            name = f"{'keras' if generation == 3 else 'tf_keras'}_{build.__name__}"
            since = (2, 16) if generation == 3 else (2, 12)
            trains = {"trains": False} if recurrent and generation == 2 else {}
            add(Recipe(name, _maker(build, generation, trained, bare), **{"since": since, **options, **trains}))
        return build

    return register


def _maker(build: Build, generation: int, trained: bool, bare: bool) -> Callable[[Any], Live]:
    def make(tf: Any) -> Live:
        keras = keras_of(tf, generation)
        keras.backend.clear_session()
        keras.utils.set_random_seed(5)
        model, feeds = build(tf, keras)
        if trained:
            _draw(model)
        function = _function(tf, model)
        if bare and generation == 2:
            root = tf.Module()
            root.weights = model.weights
            return Live(root, {DEFAULT: function}, {DEFAULT: feeds})
        return Live(model, {DEFAULT: function}, {DEFAULT: feeds}, save=_saver(tf, model, function, generation))

    return make


def _function(tf: Any, model: Any) -> Any:
    """Return the model's inference as a concrete function with an argument for each input, by its name."""
    inputs = model.inputs
    names = [each.name.split(":")[0] for each in inputs]

    def call(*given):
        outputs = model(list(given) if len(given) > 1 else given[0], training=False)
        return dict(sorted(outputs.items())) if isinstance(outputs, dict) else outputs

    specs = [tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in zip(names, inputs, strict=True)]
    return tf.function(call, input_signature=specs).get_concrete_function()


def _saver(tf: Any, model: Any, function: Any, generation: int) -> Callable[[str], Any] | None:
    if isinstance(function.structured_outputs, dict):
        return None
    if generation == 3:
        return lambda path: model.export(path, verbose=False)
    return lambda path: model.save(path, save_format="tf")


def _draw(model: Any) -> None:
    """Give every floating weight a value that is no initial one; variances stay positive."""
    drawn = []
    for index, value in enumerate(model.get_weights()):
        new = value
        if value.dtype.kind in "fV" and value.size:
            new = normal(*value.shape, seed=index) * 0.3
            new = (np.abs(new) + 0.5 if "variance" in model.weights[index].name else new).astype(value.dtype)
        drawn.append(new)
    model.set_weights(drawn)


def _sizes(*shape: int, name: str = "x") -> list[dict[str, Any]]:
    return [{name: normal(size, *shape, seed=size)} for size in (2, 3)]


@keras_recipe()
def dense(tf: Any, keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((4,), name="x")
    hidden = layers.Dense(6, activation="relu", name="hidden")(inputs)
    hidden = layers.LayerNormalization()(layers.Dropout(0.5)(hidden))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(hidden)), _sizes(4)


@keras_recipe(trained=False)
def fitted(tf: Any, keras: Any) -> Any:
    """Trained with Adam, so that the optimizer's state and the metrics are there too."""
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(5, "tanh"),
                              keras.layers.BatchNormalization(), keras.layers.Dense(2)])  # fmt: skip
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(normal(32, 4, seed=1), normal(32, 2, seed=2), batch_size=16, epochs=2, verbose=0)
    return model, _sizes(4)


@keras_recipe()
def convolutions(tf: Any, keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((8, 8, 3), name="x")
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs))
    y = layers.SeparableConv2D(6, 3, strides=2, activation="relu")(y)
    y = layers.UpSampling2D(2)(layers.DepthwiseConv2D(2)(y))
    y = layers.Conv2DTranspose(2, 2, strides=2)(y)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(y)), _sizes(8, 8, 3)


@keras_recipe(recurrent=True)
def lstm(tf: Any, keras: Any) -> Any:
    """Batch and time are not known."""
    layers = keras.layers
    inputs = keras.Input((None, 4), name="x")
    feeds = [{"x": normal(2, 5, 4)}, {"x": normal(3, 2, 4)}]
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(3)(inputs))), feeds


@keras_recipe(recurrent=True)
def gru_unrolled(tf: Any, keras: Any) -> Any:
    inputs = keras.Input((3, 4), name="x")
    return keras.Model(inputs, keras.layers.GRU(3, unroll=True, reset_after=False)(inputs)), _sizes(3, 4)


@keras_recipe(recurrent=True)
def gru_static(tf: Any, keras: Any) -> Any:
    """Batch and time are known: two calls of the same sizes."""
    inputs = keras.Input((3, 4), batch_size=2, name="x")
    feeds = [{"x": normal(2, 3, 4, seed=seed)} for seed in (1, 2)]
    return keras.Model(inputs, keras.layers.GRU(3, return_sequences=True, go_backwards=True)(inputs)), feeds


@keras_recipe(bare=True, trains=False)
def bidirectional(tf: Any, keras: Any) -> Any:
    """Words that are looked up and read from both ends."""
    layers = keras.layers
    inputs = keras.Input((None,), dtype="int32", name="x")
    y = layers.Embedding(10, 4)(inputs)
    y = layers.Bidirectional(layers.GRU(3), merge_mode="mul")(y)
    one, other = np.int32([[1, 2, 0, 0], [9, 3, 4, 1]]), np.int32([[5, 0], [6, 7], [1, 1]])
    return keras.Model(inputs, y), [{"x": one}, {"x": other}]


@keras_recipe(trains=False)
def stacked_cells(tf: Any, keras: Any) -> Any:
    """Cells upon each other, over steps that are masked where they are zero."""
    layers = keras.layers
    inputs = keras.Input((None, 4), name="x")
    masked = layers.Masking()(inputs)
    y = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True)(masked)
    padded = normal(2, 3, 4)
    padded[1, 1:] = 0.0
    feeds = [{"x": padded}, {"x": normal(1, 4, 4)}]
    return keras.Model(inputs, layers.TimeDistributed(layers.Dense(2))(y)), feeds


@keras_recipe()
def attention(tf: Any, keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((None, 4), name="x")
    y = layers.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True)
    y = layers.Add()([inputs, layers.LayerNormalization()(y)])
    return keras.Model(inputs, layers.Attention()([y, inputs])), [{"x": normal(2, 3, 4)}, {"x": normal(3, 5, 4)}]


@keras_recipe()
def shared_layers(tf: Any, keras: Any) -> Any:
    """A layer used twice, a model inside of a model, two inputs and two outputs."""
    layers = keras.layers
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="inner")], name="tower")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    both = layers.Concatenate()([inner(left), inner(right)])
    difference = layers.Subtract()([inner(left), inner(right)])
    outputs = {"score": layers.Dense(1, name="score")(both), "difference": difference}
    feeds = [{"left": normal(size, 4, seed=1), "right": normal(size, 4, seed=2)} for size in (2, 3)]
    return keras.Model([left, right], outputs), feeds


@keras_recipe()
def custom_layers(tf: Any, keras: Any) -> Any:
    """A layer of one's own, with a layer inside and a weight that does not train, in a model of one's own."""

    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")
            self.shift = self.add_weight(name="shift", shape=(), initializer="zeros", trainable=False)
            self.inner = keras.layers.Dense(3)
            self.inner.build(shape)
            super().build(shape)

        def call(self, x, training=False):
            return self.inner(x * self.scale + (self.shift if not training else 0.0))

    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, keras.layers.Dense(2)(Scaled(name="scaled")(inputs))), _sizes(4)


def _mixed(policy: str) -> Build:
    def build(tf: Any, keras: Any) -> Any:
        keras.mixed_precision.set_global_policy(policy)
        try:
            inputs = keras.Input((4,), name="x")
            y = keras.layers.Dense(5, activation="relu")(inputs)
            model = keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(keras.layers.BatchNormalization()(y)))
        finally:
            keras.mixed_precision.set_global_policy("float32")
        return model, _sizes(4)

    build.__name__ = policy
    return build


keras_recipe(precision="float16")(_mixed("mixed_float16"))
keras_recipe(precision="bfloat16")(_mixed("mixed_bfloat16"))


@keras_recipe(precision="bfloat16")
def half_weights(tf: Any, keras: Any) -> Any:
    """Weights of 16 bits, both kinds, that are computed in 32 bits at the end."""
    inputs = keras.Input((4,), name="x")
    y = keras.layers.Dense(4, dtype="bfloat16")(keras.layers.Dense(3, dtype="float16")(inputs))
    return keras.Model(inputs, keras.layers.Activation("tanh", dtype="float32")(y)), _sizes(4)


@keras_recipe(trained=False, trains=False)
def string_lookup(tf: Any, keras: Any) -> Any:
    """Words from a list and from a file, and numbers that are looked up as well."""
    layers = keras.layers
    inputs = keras.Input((1,), dtype="string", name="x")
    ids = layers.StringLookup(vocabulary=WORDS, mask_token=None)(inputs)
    other = layers.StringLookup(vocabulary=vocabulary_file(), num_oov_indices=2)(inputs)
    codes = layers.IntegerLookup(vocabulary=[3, 1, 2], output_mode="one_hot")(ids)
    rows = layers.Flatten()(layers.Embedding(7, 3)(other))
    model = keras.Model(inputs, layers.Concatenate()([layers.Flatten()(codes), rows]))
    return model, [{"x": words("fig", "apple").reshape(2, 1)}, {"x": words("kiwi", "pear", "plum").reshape(3, 1)}]


@keras_recipe(trained=False, trains=False)
def text_vectorization(tf: Any, keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((1,), dtype="string", name="x")
    vectorize = layers.TextVectorization(output_sequence_length=4)
    vectorize.adapt(np.array(["the quick brown fox", "the lazy dog"]))
    y = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(vectorize(inputs)))
    feeds = [{"x": words("The quick, dog!").reshape(1, 1)}, {"x": words("a", "brown fox").reshape(2, 1)}]
    return keras.Model(inputs, y), feeds


@keras_recipe(trained=False)
def preprocessing(tf: Any, keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((4,), name="x")
    normalize = layers.Normalization()
    normalize.adapt(normal(50, 4, seed=3) * 2.0 + 1.0)
    buckets = layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.5], output_mode="int")(inputs)
    rows = layers.Flatten()(layers.Embedding(4, 2)(buckets))
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([normalize(inputs), rows]))), _sizes(4)


@keras_recipe(frozen=False, trains=False)
def stateful_gru(tf: Any, keras: Any) -> Any:
    """What the last call left is where the next one begins."""
    inputs = keras.Input((3, 4), batch_size=2, name="x")
    feeds = [{"x": normal(2, 3, 4, seed=seed)} for seed in (1, 2)]
    return keras.Model(inputs, keras.layers.GRU(3, stateful=True)(inputs)), feeds


def _composite(tf: Any, keras: Any, inputs: Any, outputs: Any, feeds: list[dict[str, Any]], make: Any) -> Live:
    """Return a model of Keras 2 whose input is composite: its signature takes the components one by one."""
    model = keras.Model(inputs, outputs)
    _draw(model)
    names = list(feeds[0])
    specs = [tf.TensorSpec([None, *values.shape[1:]], values.dtype, name=name) for name, values in feeds[0].items()]
    specs[-1] = tf.TensorSpec([2] if "2" in names[-1] else [None], tf.int64, name=names[-1])
    function = tf.function(lambda *parts: model(make(*parts), training=False), input_signature=specs)
    save = lambda path: model.save(path, save_format="tf")  # noqa: E731  the one that users call
    return Live(model, {DEFAULT: function.get_concrete_function()}, {DEFAULT: feeds}, save=save)


def tf_keras_ragged(tf: Any) -> Live:
    """A ragged input: its signature has the values and the row splits."""
    keras = keras_of(tf, 2)
    inputs = keras.Input((None,), dtype="int64", ragged=True, name="x")
    rows = keras.layers.Embedding(10, 4)(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(rows))
    feeds = [{"args_0": np.array([1, 2, 9]), "args_0_1": np.array([0, 1, 3])},
             {"args_0": np.array([4, 5, 6, 7]), "args_0_1": np.array([0, 2, 3, 4])}]  # fmt: skip
    return _composite(tf, keras, inputs, outputs, feeds, tf.RaggedTensor.from_row_splits)


def tf_keras_sparse(tf: Any) -> Live:
    """A sparse input: its signature has the indices, the values and the shape."""
    keras = keras_of(tf, 2)
    inputs = keras.Input((6,), sparse=True, name="x")
    feeds = [{"args_0": np.array([[0, 2], [1, 5]]), "args_0_1": np.float32([2, 3]), "args_0_2": np.array([2, 6])},
             {"args_0": np.array([[2, 0]]), "args_0_1": np.float32([4]), "args_0_2": np.array([3, 6])}]  # fmt: skip
    return _composite(tf, keras, inputs, keras.layers.Dense(3)(inputs), feeds, tf.SparseTensor)


add(Recipe("tf_keras_ragged", tf_keras_ragged))
add(Recipe("tf_keras_sparse", tf_keras_sparse, trains=False))
