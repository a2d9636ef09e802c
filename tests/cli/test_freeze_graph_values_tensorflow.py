"""Which value `tfthaw freeze-graph` gives each variable, where TensorFlow's script may be silently wrong or fails."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from cli.freeze_graphs import X, described, fetch, placeholder, script, spelled, variable
from v1_sessions import plain_config

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("quiet")]


@pytest.fixture
def quiet(tf):
    """Keep TensorFlow's script from telling what it does."""
    level = tf.get_logger().level
    tf.get_logger().setLevel("ERROR")
    yield
    tf.get_logger().setLevel(level)


@pytest.fixture
def save(tf, tmp_path):
    """Build a graph and save it with its values; return its flags, its values and its session's graph."""

    def save(build, *, before_save=None):
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.seed = 5
            savers = build() or {}
            every = [*v1.global_variables(), *v1.local_variables(), *v1.get_collection("mine")]
            with v1.Session(config=plain_config(tf), graph=graph) as session:
                session.run([v1.variables_initializer(every), v1.tables_initializer("tables")])
                if before_save:
                    before_save(session)
                saver = v1.train.Saver(**savers)
                saver.save(session, str(tmp_path / "model.ckpt"))
                values = {each.op.name: session.run(each) for each in every}
            tf.io.write_graph(graph, str(tmp_path), "graph.pb", as_text=False)
        graph_flags = {"input_graph": str(tmp_path / "graph.pb"), "input_checkpoint": str(tmp_path / "model.ckpt")}
        meta_flags = {**graph_flags, "input_graph": "", "input_meta_graph": str(tmp_path / "model.ckpt.meta")}
        return SimpleNamespace(graph=graph_flags, meta=meta_flags, values=values)

    return save


@pytest.fixture
def freeze(tf, run, tmp_path):
    """Run the command and return the GraphDef that it writes, and what it says."""

    def freeze(output_node_names="out", **flags):
        path = tmp_path / "ours.pb"
        arguments = spelled({**flags, "output_node_names": output_node_names, "output_graph": str(path)})
        status, out, err = run("freeze-graph", *arguments, "--json")
        if status:
            return SimpleNamespace(status=status, error=err)
        message = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        constants = {
            node.name: tf.make_ndarray(node.attr["value"].tensor) for node in message.node if node.op == "Const"
        }
        return SimpleNamespace(status=0, message=message, constants=constants, **json.loads(out))

    return freeze


class TestSavers:
    def two(self, tf, **savers):
        def build():
            one, other = variable(tf, "w", [4, 3], False), variable(tf, "v", [4, 3], False)
            tf.matmul(placeholder(tf), one - 2 * other, name="out")
            return {"var_list": {key: {"w": one, "v": other}[name] for key, name in savers.items()}} if savers else {}

        return build

    @pytest.mark.parametrize("source", ["graph", "meta"])
    def test_a_saver_that_calls_variables_by_each_others_names(self, tf, save, freeze, tmp_path, source):
        saved = save(self.two(tf, w="v", v="w"))
        ours = freeze(**getattr(saved, source))
        for name in ("w", "v"):
            np.testing.assert_array_equal(ours.constants[name], saved.values[name])
        theirs = described(tf, script(tf, tmp_path, **getattr(saved, source), output_node_names="out"))
        is_right = theirs["w"][-1][-1] == saved.values["w"].tolist()
        assert is_right is (source == "meta")  # from a graph alone the script gives each the other's value

    def test_a_saver_with_names_of_its_own(self, tf, save, freeze):
        saved = save(self.two(tf, first="w", second="v"))
        ours = freeze(**saved.graph)
        for name in ("w", "v"):
            np.testing.assert_array_equal(ours.constants[name], saved.values[name])

    def test_a_warm_start_from_another_model_is_no_matter(self, tf, save, freeze, tmp_path):
        def build():
            self.two(tf)()
            tf.compat.v1.train.Saver({"v": tf.compat.v1.global_variables()[0]}, name="warm")

        saved = save(build)
        ours = freeze(**saved.graph)
        assert described(tf, ours.message) == described(
            tf, script(tf, tmp_path, **saved.graph, output_node_names="out")
        )

    def test_restore_nodes_that_say_another_key_are_told_of(self, tf, save, freeze, tmp_path):
        """An inference graph that restores averages, with the checkpoint of training."""
        def training():
            weight = variable(tf, "w", [4, 3], False)
            average = variable(tf, "w/ExponentialMovingAverage", [4, 3], False)
            tf.matmul(placeholder(tf), weight + average, name="out")

        def inference():
            weight = variable(tf, "w", [4, 3], False)
            tf.matmul(placeholder(tf), weight, name="out")
            tf.compat.v1.train.Saver({"w/ExponentialMovingAverage": weight})

        saved = save(training)
        with tf.Graph().as_default() as graph:
            inference()
            tf.io.write_graph(graph, str(tmp_path), "inference.pb", as_text=False)
            tf.compat.v1.train.export_meta_graph(str(tmp_path / "inference.meta"), saver_def=None)
        ours = freeze(**{**saved.graph, "input_graph": str(tmp_path / "inference.pb")})
        np.testing.assert_array_equal(ours.constants["w"], saved.values["w"])  # as the script does
        assert any("w (w/ExponentialMovingAverage)" in note for note in ours.notes)


class TestInitializerNodes:
    """A switch that is trained as true, and a factor that no checkpoint holds."""

    @pytest.fixture
    def saved(self, tf, save):
        def build():
            v1 = tf.compat.v1
            x, weight = placeholder(tf), variable(tf, "w", [4, 3], False)
            factor = v1.get_variable("factor", [], use_resource=False, initializer=v1.constant_initializer(0.5),
                                     collections=["mine"])  # fmt: skip
            noise = v1.get_variable("noise", [3], use_resource=False, initializer=v1.random_normal_initializer(),
                                    collections=["mine"])  # fmt: skip
            training = v1.get_variable("training", [], tf.bool, v1.ones_initializer(), use_resource=False)
            v1.assign(training, False, name="to_inference")
            tf.group(factor.initializer, name="set_factor")
            tf.group(weight.initializer, name="set_w")
            tf.group(training.initializer, name="set_training")
            tf.group(noise.initializer, name="set_noise")
            tf.where(training, tf.matmul(x, weight), tf.matmul(x, weight) * factor, name="out")
            tf.add(tf.matmul(x, weight), noise, name="noisy")
            return {"var_list": [weight, training]}

        return save(build)

    @pytest.mark.parametrize("source", ["graph", "meta"])
    @pytest.mark.parametrize("nodes", ["set_factor", " set_factor, to_inference "])
    def test_what_is_constant_is_taken_as_the_script_takes_it(self, tf, saved, freeze, tmp_path, source, nodes):
        flags = {**getattr(saved, source), "initializer_nodes": nodes}
        ours = freeze(**flags)
        theirs = script(tf, tmp_path, **flags, output_node_names="out")
        assert described(tf, ours.message) == described(tf, theirs)
        assert any("factor has the value that factor/Assign gives it, which" in note for note in ours.notes)
        assert any("instead of that of the checkpoint" in note for note in ours.notes) is ("inference" in nodes)

    def test_without_them_what_is_missing_is_named(self, saved, freeze):
        refused = freeze(**saved.graph)
        assert refused.status == 1
        assert "missing: factor" in refused.error
        assert "--initializer_nodes" in refused.error

    @pytest.mark.parametrize(
        ("nodes", "said"),
        [
            ("set_factor,set_w", "w would be set by w/Assign to what is no constant"),
            ("set_factor,set_training", "training would get back its initial value from training/Assign"),
        ],
    )
    def test_what_would_undo_the_restore_is_refused(self, saved, freeze, nodes, said):
        refused = freeze(**saved.graph, initializer_nodes=nodes)
        assert refused.status == 2
        assert "would undo the restore" in refused.error
        assert said in refused.error

    def test_random_values_are_never_taken(self, saved, freeze):
        refused = freeze("noisy", **saved.graph, initializer_nodes="set_noise")
        assert refused.status == 1
        assert "missing: noise" in refused.error

    def test_a_node_that_is_not_there(self, saved, freeze):
        assert "no node 'set_facto'; near names: set_factor" in freeze(
            **saved.graph, initializer_nodes="set_facto"
        ).error

    def test_outputs_cannot_be_compared_then(self, saved, freeze):
        refused = freeze(**saved.graph, initializer_nodes="set_factor", verify="outputs")
        assert "initializer nodes change what was restored" in refused.error


class TestTables:
    def build(self, tf, table):
        def build():
            keys = tf.compat.v1.placeholder("string", [None], name="keys")
            rows = variable(tf, "rows", [5, 2], False)
            tf.gather(rows, table(tf).lookup(keys), name="out")

        return build

    @staticmethod
    def of_constants(tf):
        filler = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
        return tf.lookup.StaticHashTable(filler, 4)

    def of_a_file(self, path):
        def table(tf):
            index = tf.lookup.TextFileIndex
            filler = tf.lookup.TextFileInitializer(str(path), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
            return tf.lookup.StaticHashTable(filler, 4)

        return table

    def test_they_fill_themselves(self, tf, save, freeze):
        saved = save(self.build(tf, self.of_constants))
        got = fetch(tf, freeze(**saved.graph).message, ["out:0"], {"keys:0": [b"b", b"a", b"?"]})[0]
        np.testing.assert_array_equal(got, saved.values["rows"][[2, 1, 4]])

    def test_and_may_be_filled_by_a_node_that_is_kept_for_it(self, tf, save, freeze):
        saved = save(self.build(tf, self.of_constants))
        ours = freeze("out,tables", **saved.graph)
        assert any("fills itself" in note for note in ours.notes)
        assert self.run_and_fetch(tf, ours.message)[0].tolist() == saved.values["rows"][1].tolist()

    def test_those_of_a_file_are_filled_by_a_kept_node_or_refused(self, tf, save, freeze, tmp_path):
        (tmp_path / "vocabulary.txt").write_text("a\nb\n", encoding="utf-8")
        saved = save(self.build(tf, self.of_a_file(tmp_path / "vocabulary.txt")))
        assert "lookup tables cannot travel" in freeze(**saved.graph).error
        ours = freeze("out,tables", **saved.graph)
        assert any("are empty until tables is run" in note for note in ours.notes)
        assert self.run_and_fetch(tf, ours.message)[0].tolist() == saved.values["rows"][0].tolist()

    def run_and_fetch(self, tf, message):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(message, name="")
            session.run("tables")
            return session.run("out:0", {"keys:0": [b"a"]})


class TestObjects:
    """TensorFlow's script skips the keys of object-based checkpoints, and then fails for want of values."""

    def test_keys_are_found_by_recorded_names(self, tf, save, freeze, tmp_path):
        def build():
            tf.matmul(placeholder(tf), variable(tf, "dense/w", [4, 3], True), name="out")

        saved = save(build)
        weight = tf.Variable(saved.values["dense/w"] + 1, name="dense/w")
        tf.train.Checkpoint(layer=weight).write(str(tmp_path / "objects"))
        ours = freeze(**{**saved.graph, "input_checkpoint": str(tmp_path / "objects")})
        np.testing.assert_array_equal(ours.constants["dense/w"], saved.values["dense/w"] + 1)

    def test_names_that_two_objects_have_say_nothing(self, tf, save, freeze, tmp_path):
        def build():
            tf.matmul(placeholder(tf), variable(tf, "w", [4, 3], True), name="out")

        saved = save(build)
        pair = [tf.Variable(saved.values["w"], name="w"), tf.Variable(saved.values["w"], name="w")]
        tf.train.Checkpoint(pair=pair).write(str(tmp_path / "objects"))
        refused = freeze(**{**saved.graph, "input_checkpoint": str(tmp_path / "objects")})
        assert refused.status == 1
        assert "missing: w" in refused.error


def test_a_write_that_outputs_wait_for_goes(tf, save, freeze, tmp_path):
    """What the script writes then cannot be imported."""
    def build():
        weight = variable(tf, "w", [4, 3], False)
        count = tf.compat.v1.get_variable("count", [], initializer=tf.compat.v1.zeros_initializer(), use_resource=False)
        with tf.control_dependencies([tf.compat.v1.assign_add(count, 1.0)]):
            tf.matmul(placeholder(tf), weight, name="out")

    saved = save(build)
    ours = freeze(**saved.graph)
    np.testing.assert_allclose(fetch(tf, ours.message, ["out:0"], {"x:0": X})[0], X @ saved.values["w"], rtol=1e-5)
    assert any("dropped AssignAdd" in note for note in ours.notes)
    with pytest.raises(ValueError, match="incompatible with expected"), tf.Graph().as_default():
        tf.import_graph_def(script(tf, tmp_path, **saved.graph, output_node_names="out"), name="")


def test_names_that_would_be_one_argument_of_a_signature(tf, save, freeze):
    def build():
        weight = variable(tf, "w", [4, 3], False)
        tf.matmul(placeholder(tf, "a/b") + placeholder(tf, "a_b"), weight, name="out/y")
        tf.matmul(placeholder(tf), weight, name="out_y")

    assert freeze("out/y,out_y", **save(build).graph).outputs == {"out/y:0": "out/y:0", "out_y:0": "out_y:0"}


@pytest.mark.parametrize("use_resource", [False, True])
def test_a_variable_that_stays_and_one_that_does_not_go_no_common_way(tf, save, freeze, use_resource):
    def build():
        one, other = variable(tf, "one", [3], use_resource), variable(tf, "other", [3], use_resource)
        flag = tf.compat.v1.placeholder("bool", [], name="flag")
        if use_resource:
            sides = [tf.raw_ops.Switch(data=each.handle, pred=flag) for each in (one, other)]
            merged = tf.raw_ops.Merge(inputs=[sides[0].output_false, sides[1].output_true]).output
            tf.raw_ops.ReadVariableOp(resource=merged, dtype=tf.float32, name="out")
        else:
            sides = [tf.raw_ops.RefSwitch(data=each._ref(), pred=flag) for each in (one, other)]
            merged = tf.raw_ops.RefMerge(inputs=[sides[0].output_false, sides[1].output_true]).output
            tf.identity(merged, name="out")

    saved = save(build)
    assert freeze(**saved.meta).variables == 2
    refused = freeze(**saved.meta, variable_names_denylist="one")
    assert "may be other or one, which stays" in refused.error


@pytest.fixture(scope="module")
def functions(tf, tmp_path_factory):
    """Return the path of a SavedModel of TensorFlow 2 whose function gives two tensors."""
    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(np.eye(4, dtype=np.float32) * 2, name="w")
            self.b = tf.Variable(np.ones(4, np.float32), name="b")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def serve(self, x):
            y = x @ self.w + self.b
            return {"a": y, "b": tf.reduce_sum(y, axis=0)}

    path = tmp_path_factory.mktemp("saved")
    model = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(model, str(path), signatures=model.serve)
    return str(path)


class TestFunctions:
    def test_a_call_gives_all_that_it_gave_under_its_own_name(self, tf, functions, freeze, tmp_path):
        names, feeds = ["StatefulPartitionedCall:0", "StatefulPartitionedCall:1"], {"serving_default_x:0": X}
        ours = freeze("StatefulPartitionedCall", input_saved_model_dir=functions, verify="outputs")
        theirs = script(tf, tmp_path, input_saved_model_dir=functions, output_node_names="StatefulPartitionedCall")
        for one, other in zip(fetch(tf, ours.message, names, feeds), fetch(tf, theirs, names, feeds), strict=True):
            assert one.tobytes() == other.tobytes()
        assert list(ours.outputs.values()) == names
        assert not ours.message.library.function

    def test_a_variable_of_a_function_may_stay(self, tf, functions, freeze):
        ours = freeze("StatefulPartitionedCall", input_saved_model_dir=functions, variable_names_denylist="b")
        assert ours.kept_variables == ["b"]
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(ours.message, name="")
            handle = session.graph.get_tensor_by_name("b:0")
            session.run(tf.raw_ops.AssignVariableOp(resource=handle, value=np.zeros(4, np.float32)))
            np.testing.assert_array_equal(session.run("StatefulPartitionedCall:0", {"serving_default_x:0": X}), X * 2)
