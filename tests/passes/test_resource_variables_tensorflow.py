"""Graphs compute the same with resource variables as with references, with TensorFlow as the oracle."""

import contextlib

import numpy as np
import pytest

from reference_pairs import Fresh, Pair, X, feed, images, reference, variable
from tfthaw.errors import UnsupportedError
from tfthaw.ir.graph import TensorName

pytestmark = pytest.mark.tf


def test_a_dense_layer(tf):
    def build(tf):
        kernel, bias = variable(tf, "kernel", [4, 2]), variable(tf, "bias", [2])
        tf.nn.bias_add(tf.matmul(feed(tf), kernel), bias, name="out")

    pair = Pair(tf, build).assert_same(["out:0"], X)

    assert pair.result.variables == ("kernel", "bias")
    assert not pair.result.reads


def test_values_taken_from_the_reference_share_a_read(tf):
    def build(tf):
        w = variable(tf, "w", [4, 4])
        tf.raw_ops.MatMul(a=tf.raw_ops.MatMul(a=feed(tf), b=reference(w)), b=reference(w), name="out")
        tf.raw_ops.GatherV2(params=reference(w), indices=[1, 3], axis=0, name="rows")

    pair = Pair(tf, build).assert_same(["out:0", "rows:0", "w/read:0"], X)

    assert not pair.result.reads
    assert pair.after.graph.get_operation_by_name("rows").inputs[0].name == "w/read:0"


@pytest.mark.parametrize("strategy", ["div", "mod"])
def test_embeddings_and_partitioned_variables(tf, strategy):
    def build(tf):
        table = variable(tf, "table", [20, 3])
        parts = variable(tf, "parts", [20, 3], partitioner=tf.compat.v1.fixed_size_partitioner(4))
        ids = feed(tf, [None], "int64", "ids")
        tf.identity(tf.compat.v1.nn.embedding_lookup(table, ids), name="one")
        tf.identity(tf.compat.v1.nn.embedding_lookup(parts, ids, partition_strategy=strategy), name="many")
        tf.identity(tf.convert_to_tensor(parts), name="whole")

    Pair(tf, build).assert_same(["one:0", "many:0", "whole:0"], {"ids:0": np.array([0, 19, 7, 7, 3])})


def test_a_chain_of_assignments(tf):
    def build(tf):
        w = variable(tf, "w", [4])
        first = tf.compat.v1.assign(w, feed(tf, [4]))
        second = tf.compat.v1.assign_add(first, tf.ones([4]))
        third = tf.compat.v1.assign_sub(second, tf.raw_ops.Mul(x=second, y=0.5))
        tf.raw_ops.Neg(x=third, name="out")
        tf.identity(third, name="same")

    Pair(tf, build).assert_same(["out:0", "same:0"], {"x:0": images(shape=(4,))})


def test_what_waits_for_a_write_reads_after_it(tf):
    def build(tf):
        w = variable(tf, "w", [4])
        old = tf.raw_ops.Mul(x=reference(w), y=2.0, name="old")
        with tf.control_dependencies([old]):
            count = tf.compat.v1.assign_add(w, tf.ones([4]))
        with tf.control_dependencies([count]):
            tf.identity(reference(w), name="read")
            tf.raw_ops.Mul(x=reference(w), y=3.0, name="new")
        tf.raw_ops.Add(x=reference(w), y=count, name="both")  # data tells that it comes after as well

    pair = Pair(tf, build).assert_same(["old:0", "read:0", "new:0", "both:0"])

    assert pair.result.reads


def test_a_later_write_is_refused_where_memory_is_shared(tf):
    """Of two variables that are swapped without a copy TensorFlow 1 loses one."""

    def build(tf):
        a, b = variable(tf, "a", [4]), variable(tf, "b", [4])
        old = a.value()
        with tf.control_dependencies([tf.compat.v1.assign(a, b, name="first")]):
            tf.compat.v1.assign(b, old, name="second")

    with pytest.raises(UnsupportedError) as caught:
        Pair(tf, build)
    assert caught.value.problems == (
        "second (Assign) takes the value of a through a/read, and runs after first (Assign), which writes it",
    )


def test_an_output_that_shares_memory_is_refused_where_a_write_runs_beside_it(tf):
    def build(tf):
        w = variable(tf, "w", [4])
        tf.raw_ops.Reshape(tensor=w.value(), shape=[2, 2], name="out")
        tf.compat.v1.assign_add(w, tf.ones([4]), name="count")

    Pair(tf, build, ["out:0"])
    with pytest.raises(UnsupportedError) as caught:
        Pair(tf, build, ["out:0", "count:0"])
    assert caught.value.problems == (
        "out (Reshape) takes the value of w through w/read, and is fetched after count (AssignAdd), which writes it",
    )


@pytest.mark.parametrize("flag", [True, False])
def test_conds_that_read_write_and_choose(tf, flag):
    def build(tf):
        w, v = variable(tf, "w", [4]), variable(tf, "v", [4])
        x, flag = feed(tf), tf.compat.v1.placeholder("bool", [], name="flag")
        tf.compat.v1.cond(flag, lambda: x * w, lambda: x + 1.0, name="reading")
        written = tf.compat.v1.cond(
            flag, lambda: tf.compat.v1.assign_add(v, tf.ones([4])), lambda: tf.compat.v1.assign(v, 2.0 * w)
        )
        tf.raw_ops.Neg(x=written, name="written")
        tf.identity(tf.compat.v1.cond(flag, lambda: x * w, lambda: x + 1.0), name="out")

    Pair(tf, build).assert_same(["written:0", "out:0"], X | {"flag:0": flag})


@pytest.mark.parametrize("flag", [True, False])
def test_a_switch_hands_on_the_variable_itself(tf, flag):
    def build(tf):
        w, v = variable(tf, "w", [4]), variable(tf, "v", [4])
        flag = tf.compat.v1.placeholder("bool", [], name="flag")
        off, on = tf.raw_ops.RefSwitch(data=reference(w), pred=flag)
        also_off, also_on = tf.raw_ops.RefSwitch(data=reference(v), pred=flag)
        add = tf.compat.v1.assign_add(on, tf.ones([4]))
        one, _ = tf.raw_ops.RefMerge(inputs=[add, also_off])  # one variable or the other
        other, index = tf.raw_ops.RefMerge(inputs=[tf.raw_ops.RefIdentity(input=off), also_on])
        tf.raw_ops.Neg(x=one, name="one")
        done = tf.compat.v1.assign_sub(other, tf.raw_ops.Mul(x=other, y=0.25), name="done")
        tf.raw_ops.Neg(x=done, name="written")
        tf.identity(index, name="index")

    pair = Pair(tf, build)
    pair.assert_same(["one:0"], {"flag:0": flag})
    pair.assert_same(["written:0", "done:0", "index:0"], {"flag:0": flag})


def test_loops_that_read_and_write(tf):
    def build(tf):
        w, total = variable(tf, "w", [4, 4]), variable(tf, "total", [])
        x = feed(tf)

        def body(i, y):
            count = tf.compat.v1.assign_add(total, tf.reduce_sum(y))
            with tf.control_dependencies([count]):
                return i + 1, tf.tanh(tf.matmul(y, w)) + tf.identity(count)

        tf.identity(tf.compat.v1.while_loop(lambda i, y: i < 3, body, [0, x], parallel_iterations=1)[1], name="out")

    Pair(tf, build).assert_same(["out:0"], X)


def test_a_loop_that_reads_the_variable_itself_in_every_iteration(tf):
    def build(tf):
        total = variable(tf, "total", [])

        def body(i, y):
            count = tf.raw_ops.AssignAdd(ref=reference(total), value=y)
            with tf.control_dependencies([count]):
                return i + 1, tf.raw_ops.Mul(x=reference(total), y=0.5)

        tf.identity(tf.compat.v1.while_loop(lambda i, y: i < 4, body, [0, 1.0])[1], name="out")

    pair = Pair(tf, build).assert_same(["out:0"])

    assert "RefEnter" in {node.type for node in pair.before.graph.get_operations()}


def test_a_loop_that_reads_outside_and_writes_inside_is_refused(tf):
    def build(tf):
        w = variable(tf, "w", [])

        def body(i, y):
            with tf.control_dependencies([tf.compat.v1.assign_add(w, 1.0)]):
                return i + 1, y + w

        tf.identity(tf.compat.v1.while_loop(lambda i, y: i < 4, body, [0, 1.0])[1], name="out")

    with pytest.raises(UnsupportedError, match="through w/read, and runs after while/AssignAdd"):
        Pair(tf, build)


def test_moving_averages(tf):
    def build(tf):
        w = variable(tf, "w", [4])
        average = tf.compat.v1.train.ExponentialMovingAverage(0.9, zero_debias=True)
        with tf.control_dependencies([average.apply([w])]):
            tf.raw_ops.Mul(x=feed(tf), y=reference(average.average(w)), name="out")

    Pair(tf, build).assert_same(["out:0"], X)


def test_batch_normalisation(tf):
    def build(tf):
        x, flag = feed(tf, [None, 2, 2, 4]), tf.compat.v1.placeholder("bool", [], name="flag")
        scale, offset = variable(tf, "scale", [4]), variable(tf, "offset", [4])
        mean, variance = (variable(tf, name, [4], tf.compat.v1.ones_initializer()) for name in ("mean", "variance"))

        def training():
            y, m, v = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, is_training=True)
            moved = tf.compat.v1.assign_sub(mean, (mean - m) * 0.1)
            with tf.control_dependencies([moved, tf.compat.v1.assign_sub(variance, (variance - v) * 0.1)]):
                return tf.identity(y)

        def inference():
            return tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, is_training=False)[0]

        tf.identity(tf.compat.v1.cond(flag, training, inference), name="out")

    data = images(shape=(3, 2, 2, 4))
    Pair(tf, build).assert_same(["out:0"], *({"x:0": data, "flag:0": flag} for flag in (True, False)))


SCATTERS = ["Update", "Add", "Sub", "Mul", "Div", "Min", "Max"]


@pytest.mark.parametrize("kind", SCATTERS)
def test_scatters(tf, kind):
    def build(tf):
        w = variable(tf, "w", [5, 2])
        op = getattr(tf.raw_ops, f"Scatter{kind}")
        written = op(ref=reference(w), indices=[1, 3, 1], updates=tf.constant(images(shape=(3, 2)) + 1), name="out")
        tf.raw_ops.Neg(x=written, name="negative")

    Pair(tf, build).assert_same(["out:0", "negative:0"])


@pytest.mark.parametrize("kind", ["Update", "Add", "Sub", "Min", "Max"])
def test_scatters_of_slices(tf, kind):
    def build(tf):
        w = variable(tf, "w", [5, 2])
        op = getattr(tf.raw_ops, f"ScatterNd{kind}")
        written = op(ref=reference(w), indices=[[1, 0], [3, 1]], updates=[0.5, -0.5], name="out")
        tf.raw_ops.StridedSliceAssign(
            ref=written, begin=[0, 1], end=[2, 2], strides=[1, 1], value=[[7.0], [8.0]], name="assigned"
        )

    Pair(tf, build).assert_same(["assigned:0"])


def test_counters_and_questions(tf):
    def build(tf):
        count = variable(tf, "count", [], tf.compat.v1.zeros_initializer(), dtype="int32")
        tf.raw_ops.CountUpTo(ref=reference(count), limit=100, name="next")
        tf.raw_ops.IsVariableInitialized(ref=reference(count), name="is_set")
        words = variable(tf, "words", [2], tf.compat.v1.constant_initializer(["a", "b"]), dtype="string")
        tf.identity(words, name="told")

    Pair(tf, build).assert_same(["next:0", "is_set:0", "told:0"])


def test_a_variable_says_that_it_has_no_value_yet(tf):
    def build(tf):
        w = variable(tf, "w", [2])
        tf.raw_ops.IsVariableInitialized(ref=reference(w), name="is_set")
        tf.identity(w.initialized_value(), name="out")

    with Fresh(tf, Pair(tf, build)) as (before, after):
        assert before.run("is_set:0") == after.run("is_set:0") == np.False_
        np.testing.assert_array_equal(before.run("out:0"), after.run("out:0"))  # runs the initialiser only
        after.run("w/Assign")
        assert after.run("is_set:0")


def program(tf, seed, *, in_loop):
    """Build a random program of reads and writes, each step after the one before, so that it has one meaning."""
    random = np.random.default_rng(seed)
    variables = [variable(tf, name, [4]) for name in "ab"]

    def steps(begin):
        taken = [begin, tf.identity(begin)]
        with contextlib.ExitStack() as after:
            for _ in range(random.integers(3, 9)):
                item, other = variables[random.integers(2)], taken[random.integers(len(taken))]
                choices = [
                    lambda item, other: tf.identity(reference(item)),
                    lambda item, other: item.value(),
                    lambda item, other: tf.raw_ops.Mul(x=reference(item), y=other),
                    lambda item, other: tf.raw_ops.Sub(x=other, y=0.5),
                    lambda item, other: tf.reshape(other, [4]),
                    lambda item, other: tf.compat.v1.assign(item, other),
                    lambda item, other: tf.compat.v1.assign_add(item, other),
                ]
                taken.append(choices[random.integers(len(choices))](item, other))
                after.enter_context(tf.control_dependencies([taken[-1]]))
            return tf.tanh(tf.add_n([tf.raw_ops.Mul(x=item, y=0.3) for item in taken[random.integers(len(taken)):]]))

    begin = tf.constant([0.1, -0.2, 0.3, 0.4])
    if in_loop:
        loop = tf.compat.v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, steps(y)), [0, begin])
        tf.identity(loop[1], name="out")
    else:
        tf.identity(steps(begin), name="out")


@pytest.mark.parametrize("in_loop", [False, True], ids=["straight", "loop"])
def test_random_programs_are_the_same_or_refused(tf, in_loop):
    accepted = refused = 0
    for seed in range(16):
        try:
            Pair(tf, lambda tf, seed=seed: program(tf, seed, in_loop=in_loop), ["out:0"]).assert_same(["out:0"], runs=2)
            accepted += 1
        except UnsupportedError:
            refused += 1
    assert accepted > 3
    assert refused > 3


def test_the_variable_itself_as_output(tf):
    def build(tf):
        w = variable(tf, "w", [2])
        tf.compat.v1.assign_add(w, tf.ones([2]), name="add")

    pair = Pair(tf, build, ["w:0"])

    assert pair.result.outputs == {TensorName("w", 0): TensorName("w/read", 0)}
    np.testing.assert_array_equal(pair.before.run("w:0"), pair.after.run("w/read:0"))


def test_shapes_that_change(tf):
    def build(tf):
        w = tf.compat.v1.get_variable(
            "w", initializer=lambda: tf.ones([2]), validate_shape=False, dtype="float32", use_resource=False
        )
        tf.compat.v1.assign(w, feed(tf, [None]), validate_shape=False, name="set")
        tf.raw_ops.Shape(input=reference(w), name="shape")

    pair = Pair(tf, build)
    pair.assert_same(["shape:0"])
    for size in (3, 5, 1):
        pair.assert_same(["set:0"], {"x:0": images(shape=(size,))}, runs=1)
        pair.assert_same(["shape:0"], runs=1)


def test_functions_that_take_a_value(tf):
    def build(tf):
        w = variable(tf, "w", [4])

        @tf.function(autograph=False)
        def twice(x):
            return x * 2.0

        tf.identity(twice(w), name="out")
        with tf.control_dependencies([tf.compat.v1.assign_add(w, tf.ones([4]))]):
            tf.identity(twice(tf.identity(reference(w))), name="after")

    pair = Pair(tf, build)
    pair.assert_same(["out:0"])
    pair.assert_same(["after:0"])


def test_colocation_and_devices(tf):
    def build(tf):
        with tf.device("/cpu:0"):
            w = variable(tf, "w", [4])
        with tf.compat.v1.colocate_with(w):
            tf.raw_ops.Neg(x=reference(w), name="out")
            tf.compat.v1.assign_add(w, tf.ones([4]), name="add")

    pair = Pair(tf, build)
    pair.assert_same(["out:0"])
    pair.assert_same(["add:0"])


def test_variables_of_one_shared_name_stay_one(tf):
    def build(tf):
        options = {"shape": [2], "dtype": tf.float32, "shared_name": "both"}
        one, other = (tf.raw_ops.VariableV2(**options, name=name) for name in ("one", "other"))
        tf.raw_ops.Assign(ref=one, value=[1.0, 2.0], name="set")
        with tf.control_dependencies([tf.raw_ops.AssignAdd(ref=one, value=[1.0, 1.0], name="add")]):
            tf.raw_ops.Neg(x=other, name="out")

    pair = Pair(tf, build)
    for session in (pair.before, pair.after):
        session.run("set")
    pair.assert_same(["out:0"])
