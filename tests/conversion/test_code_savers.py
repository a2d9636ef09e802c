"""Savers in code that builds a graph: which of them say whose value is whose."""

import numpy as np
import pytest
from test_from_code_graphs import X, placeholder, train

from live_exports import assert_close, compute, export
from tfthaw.errors import RestoreError

pytestmark = pytest.mark.tf


def layers(tf, scope):
    v1 = tf.compat.v1
    with v1.variable_scope(scope):
        return v1.get_variable("a", (4, 4)), v1.get_variable("b", (4, 4))


def product(tf, a, b):
    x = placeholder(tf)
    return x, tf.matmul(tf.tanh(tf.matmul(x, a)), b, name="y")


def require_trained(tf, build, folder, checkpoint, expected, **options):
    result = export(build, folder, "frozen-graph", checkpoint=checkpoint, **options)
    assert_close(compute(tf, result, "frozen-graph", {"x": X})["y"], expected)


class TestWhatWroteTheCheckpoint:
    """A Saver that exchanges two names."""

    def build(self, tf):
        a, b = layers(tf, "net")
        return tf.compat.v1.train.Saver({"net/a": b, "net/b": a}), product(tf, a, b)

    def trained(self, tf, tmp_path):
        kept = []

        def build():
            kept[:] = self.build(tf)
            return kept[1]

        return train(tf, build, tmp_path, {"x:0": X}, saver=lambda: kept[0])

    def test_graphs_take_what_it_saved(self, tf, tmp_path):
        checkpoint, expected = self.trained(tf, tmp_path)
        require_trained(tf, lambda: self.build(tf)[1], tmp_path, checkpoint, expected)

    @pytest.mark.parametrize(
        ("to", "options"), [("npz", {}), ("safetensors", {}), ("checkpoint", {"keys": "names"})], ids=lambda each: each
    )
    def test_weights_alone_have_the_names_of_the_variables(self, tf, tmp_path, to, options):
        import tfthaw

        checkpoint, expected = self.trained(tf, tmp_path)
        tfthaw.convert(lambda: self.build(tf)[1], tmp_path / "out", to=to, checkpoint=checkpoint, **options)
        with tfthaw.open(tmp_path / "out") as written:
            a, b = (written.variables[f"net/{name}"].numpy() for name in "ab")
        assert_close(np.tanh(X @ a) @ b, expected)


def test_a_saver_of_the_code_says_which_keys_are_which(tf, tmp_path):
    v1 = tf.compat.v1

    def build():
        x = placeholder(tf)
        w = v1.get_variable("w", (4, 4))
        v1.train.Saver({"renamed": w})
        return x, tf.matmul(x, w, name="y")

    def saver():
        return v1.train.Saver({"renamed": v1.global_variables()[0]})

    checkpoint, expected = train(tf, build, tmp_path, {"x:0": X}, saver)
    require_trained(tf, build, tmp_path, checkpoint, expected)


class TestAWarmStart:
    """The training began with the values of a teacher, which the checkpoint has as well."""

    def both(self, tf):
        layers(tf, "teacher")
        return product(tf, *layers(tf, "student"))

    def by_initialisers(self, tf, teacher):
        built = product(tf, *layers(tf, "student"))
        tf.compat.v1.train.init_from_checkpoint(teacher, {"teacher/": "student/"})
        return built

    def by_a_saver(self, tf, *, and_its_own):
        built = product(tf, *layers(tf, "student"))
        v1 = tf.compat.v1
        v1.train.Saver({each.op.name.replace("student", "teacher"): each for each in v1.trainable_variables()})
        if and_its_own:
            v1.train.Saver()
        return built

    def test_the_variables_own_values_are_taken(self, tf, tmp_path):
        checkpoint, expected = train(tf, lambda: self.both(tf), tmp_path, {"x:0": X})
        require_trained(tf, lambda: self.by_initialisers(tf, checkpoint), tmp_path, checkpoint, expected)
        require_trained(tf, lambda: self.by_a_saver(tf, and_its_own=True), tmp_path, checkpoint, expected)

    def test_one_saver_that_may_have_written_it_is_no_proof(self, tf, tmp_path):
        checkpoint, expected = train(tf, lambda: self.both(tf), tmp_path, {"x:0": X})
        build = lambda: self.by_a_saver(tf, and_its_own=False)  # noqa: E731
        with pytest.raises(RestoreError) as caught:
            export(build, tmp_path / "out", "frozen-graph", checkpoint=checkpoint)
        assert "'teacher/a' by a Saver of the graph that did not write the checkpoint" in caught.value.mismatched[0]
        own = {f"student/{name}": f"student/{name}" for name in "ab"}
        require_trained(tf, build, tmp_path, checkpoint, expected, map=own)


def test_parts_of_a_partitioned_variable_are_the_whole_in_weights_alone(tf, tmp_path):
    import tfthaw

    def build():
        partitioner = tf.compat.v1.fixed_size_partitioner(3)
        w = tf.compat.v1.get_variable("w", (4, 6), partitioner=partitioner)
        x = placeholder(tf)
        return x, tf.matmul(x, tf.convert_to_tensor(w), name="y")

    checkpoint, expected = train(tf, build, tmp_path, {"x:0": X})
    tfthaw.convert(build, tmp_path / "out.npz", to="npz", checkpoint=checkpoint)
    with np.load(tmp_path / "out.npz") as written:
        assert written.files == ["w"]
        assert_close(X @ written["w"], expected)


class TestAverages:
    def build(self, tf):
        x = placeholder(tf)
        w = tf.compat.v1.get_variable("w", (4, 4))
        averages = tf.compat.v1.train.ExponentialMovingAverage(0.9)
        averages.apply([w])
        tf.compat.v1.train.Saver(averages.variables_to_restore())
        return x, tf.matmul(x, w, name="y")

    @pytest.mark.parametrize(("ema", "key"), [("use", "w/ExponentialMovingAverage"), ("drop", "w")])
    def test_the_user_says_which(self, tf, tmp_path, ema, key):
        import tfthaw

        checkpoint, _ = train(tf, lambda: self.build(tf), tmp_path, {"x:0": X})
        with tfthaw.open(checkpoint) as trained:
            expected = trained.variables[key].numpy()
        require_trained(tf, lambda: self.build(tf), tmp_path, checkpoint, X @ expected, ema=ema)
        tfthaw.convert(lambda: self.build(tf), tmp_path / "out.npz", to="npz", checkpoint=checkpoint, ema=ema)
        with np.load(tmp_path / "out.npz") as written:
            assert written.files == ["w"]
            assert_close(written["w"], expected)

    def test_it_is_not_guessed(self, tf, tmp_path):
        checkpoint, _ = train(tf, lambda: self.build(tf), tmp_path, {"x:0": X})
        with pytest.raises(RestoreError) as caught:
            export(lambda: self.build(tf), tmp_path / "out", "frozen-graph", checkpoint=checkpoint)
        assert caught.value.mismatched[0].endswith("--ema use or --ema drop says which it is")
