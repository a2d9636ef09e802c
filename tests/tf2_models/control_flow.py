"""Plain `tf.Module` models with branches and loops, and variables inside of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf2_models import Live, normal, recipe
from tf2_models.layers import batches, live, signature, weight


def _both_sides(name: str = "x") -> list[dict[str, Any]]:
    """Return a batch that is positive and one that is negative, of different sizes."""
    return [{name: np.abs(normal(3, 4))}, {name: -np.abs(normal(5, 4))}]


@recipe()
def branches(tf: Any) -> Live:
    """A cond whose sides have a variable each, and share one, which is read outside too."""
    root = tf.Module()
    root.positive, root.negative, root.both = (weight(tf, 4, 4, seed=seed) for seed in (1, 2, 3))

    @signature(tf, x=[None, 4])
    def call(x):
        y = tf.cond(
            tf.reduce_sum(x) > 0,
            lambda: tf.matmul(x, root.positive) + root.both[0],
            lambda: tf.matmul(tf.matmul(x, root.negative), root.both),
        )
        return {"y": tf.matmul(y, root.both)}

    return live(tf, root, call, *_both_sides())


@recipe()
def branch_on_variable(tf: Any) -> Live:
    """A cond that a variable decides, nested into another, with functions that are called inside."""
    root = tf.Module()
    root.flag = tf.Variable(True, trainable=False)
    root.kernel, root.bias = weight(tf, 4, 4, seed=1), weight(tf, 4, seed=2)
    dense = tf.function(lambda x: tf.matmul(x, root.kernel) + root.bias)

    @signature(tf, x=[None, 4])
    def call(x):
        def inner():
            return tf.cond(tf.reduce_mean(x) > 0, lambda: dense(x), lambda: x - root.bias)

        return {"y": tf.cond(root.flag, inner, lambda: x)}

    return live(tf, root, call, *_both_sides())


@recipe()
def loop(tf: Any) -> Live:
    """A loop whose condition and body both read variables."""
    root = tf.Module()
    root.kernel, root.bias, root.limit = weight(tf, 4, 4, seed=1), weight(tf, 4, seed=2), tf.Variable(2.5)

    @signature(tf, x=[None, 4], most=([], tf.int32))
    def call(x, most):
        def body(step, y):
            return step + 1, tf.tanh(tf.matmul(y, root.kernel)) * 2.0 + root.bias

        step, y = tf.while_loop(
            lambda step, y: tf.logical_and(step < most, tf.reduce_max(tf.abs(y)) < root.limit + 100.0), body, [0, x]
        )
        return {"y": y, "steps": step}

    return live(tf, root, call, *({**each, "most": np.int32(size)} for size, each in enumerate(batches(4), 2)))


@recipe(trains=False)  # TensorFlow finds no gradients in such a model once it is saved
def nested_loops(tf: Any) -> Live:
    """A loop in a loop, a cond in the inner one, and variables at every level."""
    root = tf.Module()
    root.outer, root.inner, root.kernel = weight(tf, 4, seed=1), weight(tf, 4, seed=2), weight(tf, 4, 4, seed=3)

    @signature(tf, x=[None, 4])
    def call(x):
        for outer in tf.range(2):
            for inner in tf.range(3):
                if (inner + outer) % 2 == 0:  # noqa: SIM108  a branch of the graph
                    x = tf.tanh(tf.matmul(x, root.kernel))
                else:
                    x = x + root.inner
            x = x * root.outer
        return {"y": x}

    return live(tf, root, call, *batches(4))


@recipe()
def maps(tf: Any) -> Live:
    """`tf.map_fn` and `tf.vectorized_map` over a batch that is not known."""
    root = tf.Module()
    root.kernel = weight(tf, 4, 2, seed=1)
    one = lambda row: tf.tensordot(row, root.kernel, 1)  # noqa: E731  the row's own function

    @signature(tf, x=[None, 4])
    def call(x):
        return {"mapped": tf.map_fn(one, x, fn_output_signature=tf.float32), "at_once": tf.vectorized_map(one, x)}

    return live(tf, root, call, *batches(4))


@recipe()
def scans(tf: Any) -> Live:
    """`tf.scan` and `tf.foldl`: each step sees the last one's result."""
    root = tf.Module()
    root.kernel, root.bias = weight(tf, 4, 4, seed=1), weight(tf, 4, seed=2)

    @signature(tf, x=[None, 4])
    def call(x):
        states = tf.scan(lambda state, row: tf.tanh(tf.linalg.matvec(root.kernel, state) + row), x, root.bias)
        return {"states": states, "sum": tf.foldl(lambda total, row: total * 0.5 + row * root.bias, x)}

    return live(tf, root, call, *batches(4))


@recipe()
def tensor_array(tf: Any) -> Live:
    """A recurrent network over TensorArrays, with a length that is not known; one of them grows."""
    root = tf.Module()
    root.kernel, root.recurrent = weight(tf, 4, 3, seed=1), weight(tf, 3, 3, seed=2)

    @signature(tf, x=[None, None, 4])
    def call(x):
        inputs = tf.TensorArray(tf.float32, tf.shape(x)[1]).unstack(tf.transpose(x, [1, 0, 2]))
        outputs = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[None, 3])
        state = tf.zeros([tf.shape(x)[0], 3])

        def body(step, state, outputs):
            state = tf.tanh(tf.matmul(inputs.read(step), root.kernel) + tf.matmul(state, root.recurrent))
            return step + 1, state, outputs.write(step, state)

        _, state, outputs = tf.while_loop(lambda step, *_: step < tf.shape(x)[1], body, [0, state, outputs])
        return {"states": tf.transpose(outputs.stack(), [1, 0, 2]), "last": state}

    return live(tf, root, call, {"x": normal(2, 3, 4)}, {"x": normal(3, 5, 4)})


@recipe()
def switch(tf: Any) -> Live:
    """`tf.switch_case` with a variable for each branch, one of them for two."""
    root = tf.Module()
    root.kernels = [weight(tf, 4, 4, seed=seed) for seed in (1, 2)]

    @signature(tf, x=[None, 4], which=([], tf.int32))
    def call(x, which):
        branches = [lambda: tf.matmul(x, root.kernels[0]), lambda: tf.matmul(x, root.kernels[1]),
                    lambda: tf.matmul(tf.matmul(x, root.kernels[1]), root.kernels[0])]  # fmt: skip
        return {"y": tf.switch_case(which, branches)}

    chosen = ((1, 0), (3, 1), (2, 2), (2, 9))
    return live(tf, root, call, *({"x": normal(size, 4, seed=size), "which": np.int32(n)} for size, n in chosen))


@recipe()
def loop_of_calls(tf: Any) -> Live:
    """A loop in a function that takes its variable as an argument, called with two variables."""
    root = tf.Module()
    root.kernels = [weight(tf, 4, 4, seed=seed) for seed in (1, 2)]

    @tf.function
    def power(x, kernel):
        body = lambda step, y: (step + 1, tf.tanh(tf.matmul(y, kernel)))  # noqa: E731
        return tf.while_loop(lambda step, y: step < 3, body, [0, x])[1]

    @signature(tf, x=[None, 4])
    def call(x):
        return {"y": power(power(x, root.kernels[0]), root.kernels[1]) + power(x, root.kernels[1])}

    return live(tf, root, call, *batches(4))


@recipe(trains=False)  # TensorFlow finds no gradients in such a model once it is saved
def gathers_in_a_loop(tf: Any) -> Live:
    """An embedding that is looked up in a loop and in a branch, so that no op reads the whole of it."""
    root = tf.Module()
    root.table = weight(tf, 8, 4, seed=1)

    @signature(tf, ids=([None], tf.int32))
    def call(ids):
        def body(step, total):
            rows = tf.nn.embedding_lookup(root.table, (ids + step) % 8)
            return step + 1, total + tf.cond(step > 1, lambda: tf.gather(root.table, ids) + rows, lambda: rows)

        return {"y": tf.while_loop(lambda step, _: step < 4, body, [0, tf.zeros([tf.size(ids), 4])])[1]}

    return live(tf, root, call, {"ids": np.int32([1, 7])}, {"ids": np.int32([0, 3, 3])})


@recipe(frozen=False, trains=False)
def writes_in_a_loop(tf: Any) -> Live:
    """A variable that a loop writes and that is read behind it."""
    root = tf.Module()
    root.total = tf.Variable(tf.zeros([4]), trainable=False)

    @signature(tf, x=[None, 4])
    def call(x):
        root.total.assign(tf.zeros([4]))
        for row in x:
            root.total.assign_add(row)
        return {"total": root.total.read_value()}

    return live(tf, root, call, *batches(4))
