"""Plain `tf.Module` models whose variables are of every kind, and are reached in every way."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf2_models import DEFAULT, Live, normal, recipe
from tf2_models.layers import batches, live, signature, weight

_KINDS = ("float16", "bfloat16", "float64", "int8", "uint8", "int32", "int64", "bool", "complex64", "string")


@recipe(trains=False)
def every_dtype(tf: Any) -> Live:
    """A variable of every dtype, read as an output."""
    root = tf.Module()
    values = np.arange(-3, 3).reshape(2, 3)
    for kind in _KINDS:
        if kind == "string":
            value = tf.constant([[b"", b"a"], [b"\xff\x00", b"long " * 50]])
        else:
            value = tf.cast(tf.constant(values, tf.float32), kind)
        setattr(root, kind, tf.Variable(value, name=kind))

    @signature(tf, x=([None, 2], tf.float16))
    def call(x):
        read = {kind: tf.identity(getattr(root, kind)) for kind in _KINDS if kind != "bfloat16"}
        mixed = tf.matmul(tf.cast(x, tf.bfloat16), root.bfloat16)
        return {**read, "half": tf.matmul(x, root.float16), "brain": tf.cast(mixed, tf.float32)}

    return live(tf, root, call, *({"x": each["x"].astype(np.float16)} for each in batches(2)))


@recipe()
def half_precision(tf: Any) -> Live:
    """Weights of 16 bits that compute in 16 and in 32 bits."""
    root = tf.Module()
    root.half = tf.Variable(normal(4, 3, seed=1).astype(np.float16))
    root.brain = tf.Variable(tf.cast(normal(4, 3, seed=2), tf.bfloat16))

    @signature(tf, x=[None, 4])
    def call(x):
        half = tf.matmul(tf.cast(x, tf.float16), root.half)
        brain = tf.cast(root.brain, tf.float32)
        return {"half": half, "brain": tf.matmul(x, brain), "exact": tf.cast(x, tf.bfloat16) * root.brain[0, 0]}

    return live(tf, root, call, *batches(4))


@recipe(trains=False)
def odd_shapes(tf: Any) -> Live:
    """Scalars, nothing at all, and shapes that the variable does not promise."""
    root = tf.Module()
    root.scalar = tf.Variable(3.5)
    root.empty = tf.Variable(np.zeros([0, 4], np.float32))
    root.open = tf.Variable(normal(3, 4, seed=1), shape=tf.TensorShape(None))
    root.partly = tf.Variable(normal(2, 4, seed=2), shape=[None, 4])

    @signature(tf, x=[None, 4])
    def call(x):
        rows = tf.concat([x * root.scalar, root.empty, root.partly, tf.reshape(root.open, [-1, 4])], 0)
        return {"rows": rows, "rank": tf.rank(root.open), "count": tf.shape(root.partly)}

    return live(tf, root, call, *batches(4))


@recipe(trains=False)  # there is no gradient of a gather in batches
def gathers(tf: Any) -> Live:
    """Variables that are gathered from, or asked for their shape, without being read."""
    root = tf.Module()
    root.table, root.cube = weight(tf, 8, 3, seed=1), weight(tf, 4, 5, 2, seed=2)

    @signature(tf, ids=([None], tf.int32), places=([None, 2], tf.int32))
    def call(ids, places):
        batched = tf.reshape(tf.tile(ids[:1], [8]), [4, 2])
        return {
            "rows": tf.gather(root.table, ids), "cells": tf.gather_nd(root.cube, places),
            "shape": tf.raw_ops.VariableShape(input=root.cube.handle, out_type=tf.int64),
            "set": tf.raw_ops.VarIsInitializedOp(resource=root.cube.handle),
            "batched": tf.raw_ops.ResourceGather(
                resource=root.cube.handle, indices=batched, batch_dims=1, dtype=tf.float32
            ),
        }  # fmt: skip

    one = {"ids": np.int32([1, 7, 7]), "places": np.int32([[0, 4], [3, 3]])}
    return live(tf, root, call, one, {"ids": np.int32([2]), "places": np.int32([[1, 1]])})


@recipe()
def same_names(tf: Any) -> Live:
    """Variables whose names are equal, or begin like another's, or are words that objects use themselves."""
    root = tf.Module()
    root.one, root.other = weight(tf, 4, seed=1, name="w"), weight(tf, 4, seed=2, name="w")
    root.inner, root.deep = weight(tf, 4, seed=3, name="w/inner"), weight(tf, 4, seed=4, name="w/inner/w")
    root.words = [weight(tf, 4, seed=5, name="variables"), weight(tf, 4, seed=6, name="signatures")]
    root.nameless = weight(tf, 4, seed=7)

    @signature(tf, x=[None, 4])
    def call(x):
        y = ((x + root.one) * root.other + root.inner) * root.deep
        return {"y": (y + root.words[0]) * root.words[1] + root.nameless}

    return live(tf, root, call, *batches(4))


@recipe()
def structures(tf: Any) -> Live:
    """Variables in lists, tuples and dicts, one of them at two places, and a cycle of objects."""
    root = tf.Module()
    shared = weight(tf, 4, seed=1, name="shared")
    root.list = [shared, tf.Module(), (weight(tf, 4, seed=2), {"a/b": weight(tf, 4, seed=3), "c.d": shared})]
    root.list[1].parent, root.list[1].scale = root, weight(tf, 4, seed=4)
    root.again = shared
    root.unused = weight(tf, 7, seed=5)

    @signature(tf, x=[None, 4])
    def call(x):
        return {"y": (x * root.again + root.list[2][0]) * root.list[2][1]["a/b"] + root.list[1].scale}

    return live(tf, root, call, *batches(4))


@recipe()
def frozen_layers(tf: Any) -> Live:
    """Variables that do not train beside one that does."""
    root = tf.Module()
    root.kernel = weight(tf, 4, 4, seed=1, name="kernel", trainable=False)
    root.bias = weight(tf, 4, seed=2, name="bias")
    root.scale = tf.Variable(3, trainable=False, name="scale")

    @signature(tf, x=[None, 4])
    def call(x):
        return {"y": tf.tanh(tf.matmul(x, root.kernel) + root.bias) * tf.cast(root.scale, tf.float32)}

    return live(tf, root, call, *batches(4))


@recipe()
def names_of_arguments(tf: Any) -> Live:
    """Arguments called like those of methods, and outputs whose names graphs and Python do not take as they are."""
    root = tf.Module()
    root.scale = weight(tf, 4, seed=1)
    specs = [tf.TensorSpec([None, 4], tf.float32, name=name) for name in ("training", "in_2")]
    call = tf.function(lambda a, b: {"lambda": a * root.scale, "a b/c:0": b - a}, input_signature=specs)
    root.call = call
    feeds = [{"training": normal(size, 4, seed=1), "in_2": normal(size, 4, seed=2)} for size in (1, 3)]
    return Live(root, {DEFAULT: call}, {DEFAULT: feeds})
