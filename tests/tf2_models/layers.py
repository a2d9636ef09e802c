"""Plain `tf.Module` models: what layers are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf2_models import DEFAULT, Live, normal, recipe


def weight(tf: Any, *shape: int, seed: int, name: str | None = None, **options: Any) -> Any:
    """Return a variable with seeded values."""
    return tf.Variable(normal(*shape, seed=seed) * 0.5, name=name, **options)


def signature(tf: Any, **specs: Any) -> Any:
    """Return a decorator: a tf.function with this signature, each argument a shape of floats or (shape, dtype)."""
    given = []
    for name, spec in specs.items():
        shape, dtype = spec if isinstance(spec, tuple) else (spec, tf.float32)
        given.append(tf.TensorSpec(shape, dtype, name=name))
    return tf.function(input_signature=given)


def live(tf: Any, root: Any, call: Any, *feeds: dict[str, Any], **options: Any) -> Live:
    """Return a model with one signature."""
    root.call = call
    return Live(root, {DEFAULT: call}, {DEFAULT: list(feeds)}, **options)


def batches(*shape: int, name: str = "x") -> list[dict[str, Any]]:
    """Return one batch of three and one of five."""
    return [{name: normal(size, *shape, seed=size)} for size in (3, 5)]


@recipe()
def dense(tf: Any) -> Live:
    root = tf.Module()
    root.first = tf.Module()
    root.first.kernel, root.first.bias = weight(tf, 4, 6, seed=1, name="kernel"), weight(tf, 6, seed=2, name="bias")
    root.second = tf.Module()
    root.second.kernel, root.second.bias = weight(tf, 6, 2, seed=3, name="kernel"), weight(tf, 2, seed=4, name="bias")

    @signature(tf, x=[None, 4])
    def call(x):
        hidden = tf.nn.relu(tf.matmul(x, root.first.kernel) + root.first.bias)
        return {"y": tf.matmul(hidden, root.second.kernel) + root.second.bias, "hidden": hidden}

    return live(tf, root, call, *batches(4))


@recipe()
def convolution(tf: Any) -> Live:
    root = tf.Module()
    root.filters = weight(tf, 3, 3, 2, 4, seed=1)
    root.gamma, root.beta = weight(tf, 4, seed=2), weight(tf, 4, seed=3)
    root.mean = weight(tf, 4, seed=4, trainable=False)
    root.variance = tf.Variable([0.5, 1.0, 2.0, 3.0], trainable=False)

    @signature(tf, image=[None, None, None, 2])
    def call(image):
        y = tf.nn.conv2d(image, root.filters, 1, "SAME")
        y, *_ = tf.compat.v1.nn.fused_batch_norm(
            y, root.gamma, root.beta, root.mean, root.variance, is_training=False, epsilon=1e-3
        )
        return {"y": tf.nn.max_pool2d(tf.nn.relu(y), 2, 2, "VALID")}

    return live(tf, root, call, {"image": normal(1, 6, 6, 2)}, {"image": normal(3, 8, 4, 2)})


@recipe(trains=False)
def no_inputs(tf: Any) -> Live:
    """A signature that takes nothing."""
    root = tf.Module()
    root.table = weight(tf, 3, 2, seed=1)
    return live(tf, root, tf.function(lambda: {"table": root.table * 2.0}, input_signature=[]), {})


@recipe()
def passes_through(tf: Any) -> Live:
    """An input that is an output, one tensor under two names, and a variable that is an output."""
    root = tf.Module()
    root.bias = weight(tf, 4, seed=1)

    @signature(tf, x=[None, 4], words=([None], tf.string))
    def call(x, words):
        y = x + root.bias
        return {"x": x, "words": words, "one": y, "other": y, "bias": root.bias.read_value()}

    feeds = [{**each, "words": np.array([b"a", b"\xff\x00", "ü".encode()], object)} for each in batches(4)]
    return live(tf, root, call, *feeds)


@recipe()
def unknown_rank(tf: Any) -> Live:
    root = tf.Module()
    root.scale = weight(tf, 4, seed=1)
    call = signature(tf, x=None)(lambda x: {"y": tf.nn.softmax(x * root.scale), "rank": tf.rank(x)})
    return live(tf, root, call, {"x": normal(4)}, {"x": normal(2, 3, 4)})


@recipe()
def several_signatures(tf: Any) -> Live:
    """Two signatures that share a variable and call one function, each with a variable of its own."""
    root = tf.Module()
    root.shared = weight(tf, 4, 5, seed=1, name="shared")
    root.encoder, root.decoder = weight(tf, 5, seed=2, name="bias"), weight(tf, 5, 4, seed=3, name="kernel")
    embed = tf.function(lambda x: tf.tanh(tf.matmul(x, root.shared)))

    @signature(tf, x=[None, 4])
    def encode(x):
        return {"code": embed(x) + root.encoder}

    @signature(tf, x=[None, 4], times=([], tf.int32))
    def reconstruct(x, times):
        return {"y": tf.matmul(embed(x), root.decoder) * tf.cast(times, tf.float32), "times": times + 1}

    root.encode, root.reconstruct = encode, reconstruct
    second = [{**feeds, "times": np.int32(2)} for feeds in batches(4)]
    return Live(root, {"encode": encode, "reconstruct": reconstruct}, {"encode": batches(4), "reconstruct": second})


@recipe()
def calls(tf: Any) -> Live:
    """One function called twice with different variables, and calls four deep."""
    root = tf.Module()
    root.kernels = [weight(tf, 4, 4, seed=seed) for seed in (1, 2)]
    root.depths = [weight(tf, 4, seed=seed) for seed in (3, 4, 5, 6)]
    apply = tf.function(lambda x, kernel: tf.tanh(tf.matmul(x, kernel)))

    def deeper(level):
        inner = deeper(level + 1) if level < 3 else lambda x: x
        return tf.function(lambda x: inner(x * 0.5) + root.depths[level])

    nested = deeper(0)

    @signature(tf, x=[None, 4])
    def call(x):
        return {"twice": apply(apply(x, root.kernels[0]), root.kernels[1]), "deep": nested(x) + nested(x + 1.0)}

    return live(tf, root, call, *batches(4))


@recipe()
def compiled(tf: Any) -> Live:
    """A function that XLA must compile inside of one that it need not."""
    root = tf.Module()
    root.kernel = weight(tf, 4, 3, seed=1)
    fast = tf.function(lambda x: tf.nn.gelu(tf.matmul(x, root.kernel)), jit_compile=True)
    return live(tf, root, signature(tf, x=[None, 4])(lambda x: {"y": fast(x) * 2.0}), *batches(4))


def _custom_gradient(tf: Any, slope: Any) -> Live:
    root = tf.Module()
    root.scale = weight(tf, 4, seed=1)
    if callable(slope):
        root.slope = slope = slope()

    @tf.custom_gradient
    def straight_through(x):
        return tf.round(x), lambda upstream: upstream * slope

    call = signature(tf, x=[None, 4])(lambda x: {"y": straight_through(x * root.scale * 5.0)})
    return live(tf, root, call, *batches(4))


@recipe()
def custom_gradient(tf: Any) -> Live:
    return _custom_gradient(tf, 3.0)


@recipe(beside=1)
def custom_gradient_of_variable(tf: Any) -> Live:
    """One whose gradient takes a variable that nothing else takes."""
    return _custom_gradient(tf, lambda: weight(tf, 4, seed=2, trainable=False))


@recipe(trains=False)
def ragged_inside(tf: Any) -> Live:
    """A ragged tensor made of flat inputs: signatures of plain functions take nothing ragged."""
    root = tf.Module()
    root.table = weight(tf, 10, 4, seed=1)

    @signature(tf, ids=([None], tf.int64), splits=([None], tf.int64))
    def call(ids, splits):
        ragged = tf.RaggedTensor.from_row_splits(ids, splits)
        rows = tf.nn.embedding_lookup(root.table, ragged)
        return {"mean": tf.reduce_mean(rows, axis=1), "lengths": ragged.row_lengths(), "padded": ragged.to_tensor(-1)}

    one = {"ids": np.array([1, 2, 3, 9], np.int64), "splits": np.array([0, 1, 4], np.int64)}
    other = {"ids": np.array([5, 0, 7], np.int64), "splits": np.array([0, 1, 2, 3], np.int64)}
    return live(tf, root, call, one, other)


@recipe()
def sparse_inside(tf: Any) -> Live:
    root = tf.Module()
    root.kernel = weight(tf, 6, 3, seed=1)

    @signature(tf, indices=([None, 2], tf.int64), values=[None], shape=([2], tf.int64))
    def call(indices, values, shape):
        sparse = tf.sparse.reorder(tf.SparseTensor(indices, values, shape))
        dense = tf.sparse.to_dense(sparse)
        return {"y": tf.sparse.sparse_dense_matmul(sparse, root.kernel), "sum": tf.reduce_sum(dense, axis=1)}

    one = {"indices": np.array([[1, 2], [0, 5]]), "values": np.float32([2, 3]), "shape": np.array([2, 6])}
    other = {"indices": np.array([[3, 0], [0, 1], [2, 4]]), "values": normal(3), "shape": np.array([4, 6])}
    return live(tf, root, call, one, other)


@recipe()
def attention(tf: Any) -> Live:
    """Attention over a length that is not known, with a causal mask."""
    root = tf.Module()
    root.query, root.key, root.value = (weight(tf, 4, 2, 3, seed=seed) for seed in (1, 2, 3))
    root.output = weight(tf, 2, 3, 4, seed=4)

    @signature(tf, x=[None, None, 4])
    def call(x):
        query, key, value = (tf.einsum("btd,dhk->bthk", x, each) for each in (root.query, root.key, root.value))
        scores = tf.einsum("bthk,bshk->bhts", query, key) / tf.sqrt(3.0)
        length = tf.shape(x)[1]
        mask = tf.linalg.band_part(tf.ones([length, length]), -1, 0)
        weights = tf.nn.softmax(scores + (1.0 - mask) * -1e9)
        return {"y": tf.einsum("bhts,bshk,hkd->btd", weights, value, root.output), "weights": weights}

    return live(tf, root, call, {"x": normal(2, 5, 4)}, {"x": normal(1, 3, 4)})
