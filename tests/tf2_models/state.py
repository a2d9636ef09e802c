"""Plain `tf.Module` models with side effects, randomness, and values of unusual kinds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf2_models import Live, normal, recipe
from tf2_models.layers import batches, live, signature, weight


@recipe(frozen=False, trains=False)
def counter(tf: Any) -> Live:
    """A count that goes up with every call and is an output."""
    root = tf.Module()
    root.count = tf.Variable(3, dtype=tf.int64, name="count", trainable=False)
    root.scale = weight(tf, 4, seed=1)

    @signature(tf, x=[None, 4])
    def call(x):
        return {"y": x * root.scale, "count": root.count.assign_add(tf.cast(tf.shape(x)[0], tf.int64))}

    return live(tf, root, call, *batches(4))


@recipe(frozen=False, trains=False)
def remembers(tf: Any) -> Live:
    """What the last call left is read, then written anew: every call but the first sees what was written."""
    root = tf.Module()
    root.state = tf.Variable(normal(4, seed=1), trainable=False)

    @signature(tf, x=[None, 4])
    def call(x):
        before = root.state.read_value()
        root.state.assign(tf.reduce_sum(x, axis=0))
        return {"y": x + before}

    return live(tf, root, call, *batches(4))


@recipe(trains=False)
def counts_aside(tf: Any) -> Live:
    """A count that no output sees."""
    root = tf.Module()
    root.count = tf.Variable(0, dtype=tf.int64, trainable=False)
    root.scale = weight(tf, 4, seed=1)
    count = tf.function(lambda: root.count.assign_add(1))

    @signature(tf, x=[None, 4])
    def call(x):
        count()
        return {"y": x * root.scale}

    return live(tf, root, call, *batches(4))


@recipe()
def checks_and_prints(tf: Any) -> Live:
    """Assertions and prints, which only control outputs hold, in a function of their own and in the signature."""
    root = tf.Module()
    root.scale = weight(tf, 4, seed=1)

    @tf.function
    def checked(x):
        tf.debugging.assert_all_finite(x, "not finite")
        tf.print("mean", tf.reduce_mean(root.scale), output_stream="file:///dev/null")
        return x * root.scale

    @signature(tf, x=[None, 4])
    def call(x):
        tf.debugging.assert_greater(tf.shape(x)[0], 0, "nothing")
        return {"y": checked(x)}

    return live(tf, root, call, *batches(4))


@recipe()
def optional(tf: Any) -> Live:
    """Variants: values that may be there or not."""
    root = tf.Module()
    root.bias, root.other = weight(tf, 4, seed=1), weight(tf, 4, seed=2)

    @signature(tf, x=[None, 4])
    def call(x):
        some = tf.experimental.Optional.from_value(x + root.bias)
        y = tf.cond(some.has_value(), lambda: some.get_value() * 2.0, lambda: x + root.other)
        none = tf.experimental.Optional.empty(tf.TensorSpec([None, 4]))
        return {"y": y, "none": none.has_value()}

    return live(tf, root, call, *batches(4))


@recipe()
def stateless_random(tf: Any) -> Live:
    root = tf.Module()
    root.scale = weight(tf, 4, seed=1)

    @signature(tf, x=[None, 4], seed=([2], tf.int32))
    def call(x, seed):
        noise = tf.random.stateless_normal(tf.shape(x), seed)
        return {"y": x + noise * root.scale, "index": tf.random.stateless_uniform([3], seed, 0, 100, tf.int32)}

    return live(tf, root, call, *({**each, "seed": np.int32([1, 2])} for each in batches(4)))


@recipe(trains=False)
def dataset(tf: Any) -> Live:
    """A dataset inside of a function: its functions are named by attrs, and its values are variants."""
    root = tf.Module()
    root.scale = weight(tf, 4, seed=1)

    @signature(tf, x=[None, 4], count=([], tf.int64))
    def call(x, count):
        squares = tf.data.Dataset.range(count).map(lambda each: each * each)
        total = squares.reduce(tf.constant(0, tf.int64), lambda one, other: one + other)
        return {"y": x * root.scale, "total": total}

    return live(tf, root, call, *({**each, "count": np.int64(5)} for each in batches(4)))


@recipe(trains=False)
def scatter(tf: Any) -> Live:
    """Tensors that are written to, without a variable behind them."""
    root = tf.Module()
    root.rows = weight(tf, 3, 4, seed=1)

    @signature(tf, places=([3, 1], tf.int32), x=[None, 4])
    def call(places, x):
        moved = tf.tensor_scatter_nd_update(tf.zeros([6, 4]), places, root.rows)
        return {"y": tf.matmul(x, moved, transpose_b=True), "moved": moved}

    return live(tf, root, call, *({**each, "places": np.int32([[5], [0], [2]])} for each in batches(4)))


@recipe(frozen=False, trains=False)
def dataset_of_variables(tf: Any) -> Live:
    """A dataset whose map function takes a variable's handle, which only ops of datasets hand on."""
    root = tf.Module()
    root.scale = weight(tf, 4, seed=1)

    @signature(tf, x=[None, 4])
    def call(x):
        rows = tf.data.Dataset.from_tensor_slices(x).map(lambda row: row * root.scale)
        return {"y": rows.reduce(tf.zeros([4]), lambda total, row: total + row)}

    return live(tf, root, call, *batches(4))


@recipe(frozen=False, trains=False)
def random_generator(tf: Any) -> Live:
    """Random numbers whose state is a variable that every call moves on."""
    root = tf.Module()
    root.generator = tf.random.Generator.from_seed(7)

    @signature(tf, x=[None, 4])
    def call(x):
        return {"y": x + root.generator.normal(tf.shape(x)), "index": root.generator.uniform([2], 0, 99, tf.int32)}

    return live(tf, root, call, *batches(4))
