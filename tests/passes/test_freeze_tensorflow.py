"""Frozen graphs compute what the original did, with TensorFlow as the oracle."""

import numpy as np
import pytest

from tfthaw.errors import UnsupportedError
from v1_sessions import FrozenSession, Original

pytestmark = pytest.mark.tf

VARIABLE_OPS = {"VariableV2", "Variable", "VarHandleOp", "ReadVariableOp", "Assign"}

both_kinds = pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])


def images(seed=0, shape=(3, 4)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def variable(tf, name, shape, use_resource, **options):
    initializer = options.pop("initializer", tf.compat.v1.random_normal_initializer())
    return tf.compat.v1.get_variable(name, shape, initializer=initializer, use_resource=use_resource, **options)


def feed(tf, shape=(None, 4), dtype="float32", name="x"):
    return tf.compat.v1.placeholder(dtype, shape, name=name)


@both_kinds
def test_a_dense_layer(tf, tmp_path, use_resource):
    def build(tf):
        with tf.compat.v1.variable_scope("dense"):
            kernel, bias = variable(tf, "kernel", [4, 2], use_resource), variable(tf, "bias", [2], use_resource)
            tf.nn.bias_add(tf.matmul(feed(tf), kernel), bias, name="out")

    original = Original(tf, tmp_path, build)
    result = original.assert_freezes(["dense/out:0"], {"dense/x:0": images()}, {"dense/x:0": images(1)})

    assert result.variables == 2
    with FrozenSession(tf, tmp_path / "frozen.pb") as frozen:
        assert not frozen.ops() & VARIABLE_OPS


@both_kinds
@pytest.mark.parametrize("part", ["whole", "one part"])
def test_partitioned_variables(tf, tmp_path, use_resource, part):
    def build(tf):
        whole = variable(tf, "w", [10, 2], use_resource, partitioner=tf.compat.v1.fixed_size_partitioner(3))
        pieces = list(whole)
        tf.identity(tf.convert_to_tensor(whole) if part == "whole" else tf.convert_to_tensor(pieces[1]), name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"])


@both_kinds
def test_embeddings(tf, tmp_path, use_resource):
    def build(tf):
        table = variable(tf, "table", [20, 3], use_resource)
        parts = variable(tf, "parts", [20, 3], use_resource, partitioner=tf.compat.v1.fixed_size_partitioner(4))
        ids = feed(tf, [None], "int64", "ids")
        tf.identity(tf.compat.v1.nn.embedding_lookup(table, ids), name="one")
        tf.identity(tf.compat.v1.nn.embedding_lookup(parts, ids, partition_strategy="div"), name="many")

    ids = np.array([0, 19, 7, 7, 3], np.int64)
    Original(tf, tmp_path, build).assert_freezes(["one:0", "many:0"], {"ids:0": ids})


def test_resource_gathers_and_shapes(tf, tmp_path):
    def build(tf):
        table = variable(tf, "table", [5, 4, 3], True)
        ids, places = feed(tf, [None], "int32", "ids"), feed(tf, [None, 2], "int32", "places")
        batched = feed(tf, [5, 2], "int32", "batched")
        tf.raw_ops.ResourceGather(resource=table.handle, indices=ids, dtype=tf.float32, name="gather")
        tf.raw_ops.ResourceGather(
            resource=table.handle, indices=batched, dtype=tf.float32, batch_dims=1, name="batch_gather"
        )
        tf.raw_ops.ResourceGatherNd(resource=table.handle, indices=places, dtype=tf.float32, name="gather_nd")
        tf.raw_ops.VariableShape(input=table.handle, name="shape")
        tf.raw_ops.VariableShape(input=table.handle, out_type=tf.int64, name="shape64")
        tf.raw_ops.VarIsInitializedOp(resource=table.handle, name="is_set")

    feeds = {"ids:0": np.array([4, 0], np.int32), "places:0": np.array([[1, 2], [4, 3]], np.int32),
             "batched:0": np.array([[0, 3]] * 5, np.int32)}  # fmt: skip
    original = Original(tf, tmp_path, build)
    names = ["gather:0", "batch_gather:0", "gather_nd:0", "shape:0", "shape64:0", "is_set:0"]
    original.assert_freezes(names, feeds)


@both_kinds
@pytest.mark.parametrize("also_outside", [False, True])
def test_variables_inside_a_loop(tf, tmp_path, use_resource, also_outside):
    def build(tf):
        kernel, step = variable(tf, "kernel", [4, 4], use_resource), variable(tf, "step", [], use_resource)
        x = feed(tf)
        if also_outside:
            x = x + step
        _, y = tf.compat.v1.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(tf.matmul(y, kernel)) + step), [0, x]
        )
        tf.identity(y, name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"], {"x:0": images()})


@both_kinds
def test_embeddings_inside_a_loop(tf, tmp_path, use_resource):
    def build(tf):
        table = variable(tf, "table", [8, 4], use_resource)
        ids = feed(tf, [None], "int32", "ids")

        def body(i, y):
            return i + 1, y + tf.reduce_sum(tf.compat.v1.nn.embedding_lookup(table, (ids + i) % 8))

        tf.identity(tf.compat.v1.while_loop(lambda i, y: i < 3, body, [0, 0.0])[1], name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"], {"ids:0": np.array([1, 7], np.int32)})


@both_kinds
def test_variables_inside_a_cond(tf, tmp_path, use_resource):
    def build(tf):
        one, other = variable(tf, "one", [4, 2], use_resource), variable(tf, "other", [4, 2], use_resource)
        x, flag = feed(tf), feed(tf, [], "bool", "flag")
        y = tf.compat.v1.cond(flag, lambda: tf.matmul(x, one), lambda: tf.matmul(x, other) + one[0])
        tf.identity(y, name="out")

    feeds = [{"x:0": images(), "flag:0": flag} for flag in (True, False)]
    Original(tf, tmp_path, build).assert_freezes(["out:0"], *feeds)


@both_kinds
def test_a_cond_in_a_loop_in_a_cond_in_a_loop(tf, tmp_path, use_resource):
    def build(tf):
        w, b = variable(tf, "w", [4, 4], use_resource), variable(tf, "b", [4], use_resource)
        x, flag = feed(tf), feed(tf, [], "bool", "flag")

        def inner(y):
            step = lambda i, z: (i + 1, tf.compat.v1.cond(i % 2 > 0, lambda: tf.tanh(tf.matmul(z, w)), lambda: z + b))  # noqa: E731
            return tf.compat.v1.while_loop(lambda i, z: i < 4, step, [0, y])[1]

        def outer(i, y):
            return i + 1, tf.compat.v1.cond(flag, lambda: inner(y), lambda: y * b)

        tf.identity(tf.compat.v1.while_loop(lambda i, y: i < 2, outer, [0, x])[1], name="out")

    feeds = [{"x:0": images(), "flag:0": flag} for flag in (True, False)]
    Original(tf, tmp_path, build).assert_freezes(["out:0"], *feeds)


@both_kinds
def test_is_initialized_inside_a_cond(tf, tmp_path, use_resource):
    def build(tf):
        w = variable(tf, "w", [4], use_resource)
        flag = feed(tf, [], "bool", "flag")
        asked = tf.compat.v1.cond(flag, lambda: tf.compat.v1.is_variable_initialized(w), lambda: tf.constant(False))
        tf.identity(asked, name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"], {"flag:0": True}, {"flag:0": False})


def test_every_type_of_variable(tf, tmp_path):
    names = ["float16", "bfloat16", "float64", "int8", "int32", "int64", "bool", "complex64", "string"]

    def build(tf):
        for name in names:
            value = tf.constant(["a", "bc"]) if name == "string" else tf.cast(tf.constant([0, 1, 1]), name)
            tf.identity(
                tf.compat.v1.get_variable(f"v_{name}", initializer=value, use_resource=True), name=f"out_{name}"
            )

    Original(tf, tmp_path, build).assert_freezes([f"out_{name}:0" for name in names])


@both_kinds
def test_writes_that_nothing_waits_for_go(tf, tmp_path, use_resource):
    def build(tf):
        w, step = variable(tf, "w", [4, 2], use_resource), variable(tf, "step", [], use_resource)
        y = tf.matmul(feed(tf), w, name="out")
        gradient = tf.gradients(y, [w])[0]
        tf.group(tf.compat.v1.assign_sub(w, gradient), tf.compat.v1.assign_add(step, 1.0), name="train")

    result = Original(tf, tmp_path, build).assert_freezes(["out:0"], {"x:0": images()})
    assert result.variables == 1


@both_kinds
def test_a_write_that_the_output_only_waits_for_is_dropped_and_said(tf, tmp_path, use_resource):
    def build(tf):
        w, step = variable(tf, "w", [4, 2], use_resource), variable(tf, "step", [], use_resource)
        with tf.control_dependencies([tf.compat.v1.assign_add(step, 1.0)]):
            tf.matmul(feed(tf), w, name="out")

    result = Original(tf, tmp_path, build).assert_freezes(["out:0"], {"x:0": images()})

    assert any("step" in note and "no output needs it" in note for note in result.notes)


@both_kinds
def test_a_counter_that_is_the_output_is_refused(tf, tmp_path, use_resource):
    def build(tf):
        step = variable(tf, "step", [], use_resource, initializer=tf.compat.v1.zeros_initializer())
        tf.identity(tf.compat.v1.assign_add(step, 1.0, name="count"), name="out")

    with pytest.raises(UnsupportedError) as caught:
        Original(tf, tmp_path, build).frozen(["out:0"])
    assert "writes step" in str(caught.value)
    assert not (tmp_path / "frozen.pb").exists()


@both_kinds
def test_a_read_after_a_write_is_refused(tf, tmp_path, use_resource):
    def build(tf):
        step = variable(tf, "step", [], use_resource)
        with tf.control_dependencies([tf.compat.v1.assign_add(step, 1.0, name="count").op]):
            read = step.read_value() if use_resource else tf.identity(step)
            tf.multiply(read, 2.0, name="out")

    with pytest.raises(UnsupportedError, match="writes step"):
        Original(tf, tmp_path, build).frozen(["out:0"])


@both_kinds
def test_a_write_in_a_loop_that_the_loop_reads_is_refused(tf, tmp_path, use_resource):
    def build(tf):
        total = variable(tf, "total", [], use_resource)

        def body(i):
            with tf.control_dependencies([tf.compat.v1.assign_add(total, 1.0, name="count")]):
                return i + 1

        count = tf.compat.v1.while_loop(lambda i: i < 3, body, [0])
        with tf.control_dependencies([count]):
            tf.identity(total.read_value() if use_resource else total, name="out")

    with pytest.raises(UnsupportedError, match="writes total"):
        Original(tf, tmp_path, build).frozen(["out:0"])


@both_kinds
def test_a_write_in_a_loop_that_nothing_reads_goes(tf, tmp_path, use_resource):
    def build(tf):
        total, w = variable(tf, "total", [], use_resource), variable(tf, "w", [], use_resource)

        def body(i, y):
            with tf.control_dependencies([tf.compat.v1.assign_add(total, 1.0, name="count")]):
                return i + 1, y * w

        tf.identity(tf.compat.v1.while_loop(lambda i, y: i < 3, body, [0, 1.0])[1], name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"])


@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
def test_metrics_give_their_first_answer(tf, tmp_path, use_resource):
    def build(tf):
        w = variable(tf, "w", [4, 2], use_resource)
        y = tf.matmul(feed(tf), w, name="y")
        total = tf.compat.v1.get_local_variable("total", initializer=tf.zeros([]), use_resource=use_resource)
        count = tf.compat.v1.get_local_variable("count", initializer=tf.zeros([]), use_resource=use_resource)
        update = tf.compat.v1.assign_add(total, tf.reduce_sum(y))
        counted = tf.compat.v1.assign_add(count, tf.cast(tf.size(y), "float32"))
        tf.divide(update, counted, name="mean")
        tf.compat.v1.add_to_collection("local_init_op", tf.compat.v1.local_variables_initializer())

    result = Original(tf, tmp_path, build).assert_freezes(["y:0", "mean:0"], {"x:0": images()})

    assert any("keeps no count" in note for note in result.notes)
    assert any("total" in note and "in no checkpoint" in note for note in result.notes)


def test_feeds_in_the_middle(tf, tmp_path):
    def build(tf):
        w = variable(tf, "w", [4, 4], False)
        x = feed(tf, [2, 8])
        one, other = tf.split(tf.square(x), 2, axis=1, name="parts")
        tf.add(tf.matmul(one, w), other, name="out")

    original = Original(tf, tmp_path, build)
    fed = images(shape=(2, 4))
    result = original.assert_freezes(["out:0"], {"parts:0": fed, "parts:1": fed + 1}, inputs=["parts:0", "parts:1"])
    assert set(result.inputs) == {"parts:0", "parts:1"}

    path, result = original.frozen(["out:0"], inputs=["parts:1", "x:0"])
    before = original.run(["out:0"], {"x:0": images(shape=(2, 8)), "parts:1": fed})
    with FrozenSession(tf, path) as frozen:
        after = frozen.run(["out:0"], {result.inputs["x:0"]: images(shape=(2, 8)), result.inputs["parts:1"]: fed})
    np.testing.assert_array_equal(before, after)
    assert any("parts:1 was no placeholder" in note for note in result.notes)


def test_a_fed_variable_is_not_needed(tf, tmp_path):
    def build(tf):
        w = variable(tf, "w", [4, 2], False)
        tf.matmul(feed(tf), w, name="out")

    original = Original(tf, tmp_path, build)
    feeds = {"x:0": images(), "w/read:0": images(1, (4, 2))}
    result = original.assert_freezes(["out:0"], feeds, inputs=["x:0", "w/read:0"])
    assert result.variables == 0


def test_placeholders_with_default(tf, tmp_path):
    def build(tf):
        w = variable(tf, "w", [4, 2], True)
        keep = tf.compat.v1.placeholder_with_default(0.5, [], name="keep")
        tf.multiply(tf.matmul(feed(tf), w), keep, name="out")

    original = Original(tf, tmp_path, build)
    original.assert_freezes(["out:0"], {"x:0": images()})
    original.assert_freezes(["out:0"], {"x:0": images(), "keep:0": 0.25}, inputs=["x:0", "keep:0"])

    path, _ = original.frozen(["out:0"], set={"keep": 1.0})
    with FrozenSession(tf, path) as frozen:
        np.testing.assert_array_equal(
            frozen.run("out:0", {"x:0": images()}), original.run(["out:0"], {"x:0": images(), "keep:0": 1.0})[0]
        )
        assert "PlaceholderWithDefault" not in frozen.ops()


def test_colocations_with_nodes_that_went(tf, tmp_path):
    def build(tf):
        w = variable(tf, "w", [4, 2], False)
        unused = tf.constant(1.0, name="unused")
        with tf.compat.v1.colocate_with(unused), tf.compat.v1.colocate_with(w.op):
            y = tf.matmul(feed(tf), w)
        with tf.compat.v1.colocate_with(unused):
            tf.identity(y, name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"], {"x:0": images()})


def test_a_frozen_graph_freezes_again(tf, tmp_path):
    from tfthaw.conversion.converting import convert

    def build(tf):
        tf.matmul(feed(tf), variable(tf, "w", [4, 2], True), name="out")

    original = Original(tf, tmp_path, build)
    path, _ = original.frozen(["out:0"])
    again = convert(path, tmp_path / "again.pb", to="frozen-graph", outputs=["out"])

    assert any("frozen already" in note for note in again.notes)
    assert again.inputs == {"x:0": "x:0"}
    with FrozenSession(tf, tmp_path / "again.pb") as frozen:
        np.testing.assert_array_equal(
            frozen.run("out:0", {"x:0": images()}), original.run(["out:0"], {"x:0": images()})[0]
        )


def test_functions_without_variables_pass_through(tf, tmp_path):
    def build(tf):
        @tf.function
        def double(x):
            return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1)

        w = variable(tf, "w", [4, 2], True)
        tf.identity(double(tf.matmul(feed(tf), w)), name="out")

    Original(tf, tmp_path, build, control_flow="v2").assert_freezes(["out:0"], {"x:0": images()}, {"x:0": -images()})


def test_variables_in_loops_of_functions(tf, tmp_path):
    def build(tf):
        w = variable(tf, "w", [4, 4], True)
        y = tf.compat.v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.matmul(y, w)), [0, feed(tf)])[1]
        tf.identity(y, name="out")

    Original(tf, tmp_path, build, control_flow="v2").assert_freezes(["out:0"], {"x:0": images()}, {"x:0": -images()})


def test_a_loop_that_writes_what_it_reads_is_refused(tf, tmp_path):
    def build(tf):
        w = variable(tf, "w", [], True)

        def body(i):
            with tf.control_dependencies([w.assign_add(1.0)]):
                return i + 1

        loop = tf.compat.v1.while_loop(lambda i: i < 3, body, [0])
        with tf.control_dependencies([loop]):
            tf.multiply(tf.reduce_sum(feed(tf)), w.read_value(), name="out")

    with pytest.raises(UnsupportedError, match="writes w") as caught:
        Original(tf, tmp_path, build, control_flow="v2").frozen(["out:0"])
    assert any(problem.startswith("while (") for problem in caught.value.problems)


def test_a_fetched_reference_shows_a_write_from_beside_it(tf, tmp_path):
    def build(tf):
        step = variable(tf, "step", [], False)
        with tf.control_dependencies([tf.compat.v1.assign_add(step, 1.0)]):
            tf.identity(feed(tf), name="out")

    with pytest.raises(UnsupportedError, match="writes step, which step/read reads after it"):
        Original(tf, tmp_path, build).frozen(["out:0", "step/read:0"])
