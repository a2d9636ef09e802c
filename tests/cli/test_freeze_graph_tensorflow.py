"""`tfthaw freeze-graph` gives what TensorFlow's own script gives, node for node and bit for bit."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cli.freeze_graphs import X, described, fetch, save_everywhere, script, spelled

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("quiet")]

EVERY_SOURCE = ("graph", "text", "meta", "saver", "sharded", "version 1", "saved model")


@pytest.fixture
def quiet(tf):
    """Keep TensorFlow's script from telling what it does."""
    level = tf.get_logger().level
    tf.get_logger().setLevel("ERROR")
    yield
    tf.get_logger().setLevel(level)


@pytest.fixture(scope="module")
def saved(tf, tmp_path_factory):
    """Return a model by name and kind of variables, built when it is asked for first."""
    made = {}

    def saved(name, use_resource=False):
        if (name, use_resource) not in made:
            made[name, use_resource] = save_everywhere(tf, tmp_path_factory.mktemp(name), name, use_resource)
        return made[name, use_resource]

    return saved


@pytest.fixture
def freeze(tf, run, tmp_path):
    """Run the command and return the GraphDef that it writes, and what it says."""

    def freeze(**flags):
        path = tmp_path / "ours.pb"
        status, out, err = run("freeze-graph", *spelled(flags), f"--output_graph={path}", "--json")
        assert (status, err) == (0, "")
        return SimpleNamespace(
            message=tf.compat.v1.GraphDef.FromString(path.read_bytes()), **json.loads(out)
        )

    return freeze


def assert_same(tf, theirs, ours, outputs=("out:0",)):
    """Compare two graphs node for node, and what they compute bit for bit."""
    assert described(tf, ours) == described(tf, theirs)
    for one, other in zip(
        fetch(tf, theirs, outputs, {"x:0": X}), fetch(tf, ours, outputs, {"x:0": X}), strict=True
    ):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("source", EVERY_SOURCE)
@pytest.mark.parametrize("name", ["dense", "batch_norm", "control_flow", "embedding", "training"])
def test_references(tf, saved, freeze, tmp_path, name, source):
    flags = {**saved(name).flags(source), "output_node_names": "out"}
    ours = freeze(**flags)
    assert_same(tf, script(tf, tmp_path, **flags), ours.message)
    assert ours.format == "frozen-graph"
    assert ours.verified["weights"]["different"] == 0


@pytest.mark.parametrize("source", ["meta", "sharded", "saved model"])
@pytest.mark.parametrize("name", ["dense", "batch_norm", "control_flow", "training", "partitioned"])
def test_resources(tf, saved, freeze, tmp_path, name, source):
    flags = {**saved(name, True).flags(source), "output_node_names": "out"}
    assert_same(tf, script(tf, tmp_path, **flags), freeze(**flags).message)


@pytest.mark.parametrize("source", ["graph", "text", "saver", "version 1"])
@pytest.mark.parametrize("name", ["dense", "embedding", "control_flow", "partitioned"])
def test_resources_of_a_graph_alone_which_the_script_cannot_restore(tf, saved, freeze, name, source):
    model = saved(name, True)
    flags = {"output_node_names": "out"}
    expected = fetch(tf, freeze(**model.flags("meta"), **flags).message, ["out:0"], {"x:0": X})[0]
    assert fetch(tf, freeze(**model.flags(source), **flags).message, ["out:0"], {"x:0": X})[0].tobytes() == (
        expected.tobytes()
    )


def test_gathers_of_resources_compute_what_the_scripts_do(tf, saved, freeze, tmp_path):
    flags = {**saved("embedding", True).flags("meta"), "output_node_names": "out"}
    theirs, ours = script(tf, tmp_path, **flags), freeze(**flags).message
    assert {node.name: node.op for node in theirs.node} == {node.name: node.op for node in ours.node}
    assert fetch(tf, theirs, ["out:0"], {"x:0": X})[0].tobytes() == fetch(tf, ours, ["out:0"], {"x:0": X})[0].tobytes()


@pytest.mark.parametrize("use_resource", [False, True])
@pytest.mark.parametrize("source", ["graph", "text", "meta", "saver"])
def test_partitioned_variables(tf, saved, freeze, source, use_resource):
    model = saved("partitioned", use_resource)
    ours = freeze(**model.flags(source), output_node_names="out")
    whole = np.concatenate([model.values["w/part_0"], model.values["w/part_1"]], axis=0)
    np.testing.assert_array_equal(fetch(tf, ours.message, ["w:0"], {})[0], whole)


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("source", ["graph", "meta", "saved model"])
def test_devices(tf, saved, freeze, tmp_path, source, clear):
    flags = {**saved("dense").flags(source), "output_node_names": "out", "clear_devices": clear}
    theirs, ours = script(tf, tmp_path, **flags), freeze(**flags).message
    if source == "saved model" and clear:  # the script forgets these
        for node in theirs.node:
            node.device = ""
    assert_same(tf, theirs, ours)
    assert any(node.device for node in ours.node) is not clear


@pytest.mark.parametrize("use_resource", [False, True])
@pytest.mark.parametrize(
    ("lists", "kept"),
    [
        ({"variable_names_whitelist": "w"}, {"b"}),
        ({"variable_names_whitelist": "w, b"}, set()),
        ({"variable_names_denylist": "w"}, {"w"}),
        ({"variable_names_denylist": "w,b"}, {"w", "b"}),
        ({"variable_names_whitelist": "b", "variable_names_denylist": "b"}, {"w", "b"}),
        ({"variable_names_whitelist": "other"}, {"w", "b"}),
    ],
)
def test_variables_that_stay(tf, saved, freeze, tmp_path, lists, kept, use_resource):
    model = saved("dense", use_resource)
    flags = {**model.flags("meta"), "output_node_names": "out,set_w" if "w" in kept else "out", **lists}
    ours = freeze(**flags)
    assert described(tf, ours.message) == described(tf, script(tf, tmp_path, **flags))
    assert set(ours.kept_variables) == kept
    assert ours.format == ("graph-def" if kept else "frozen-graph")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(ours.message, name="")
        for name in kept:
            place = session.graph.get_tensor_by_name(f"{name}:0")
            if use_resource:
                session.run(tf.raw_ops.AssignVariableOp(resource=place, value=model.values[name]))
            else:
                session.run(tf.raw_ops.Assign(ref=place, value=model.values[name]))
        whole = freeze(**model.flags("meta"), output_node_names="out")
        expected = fetch(tf, whole.message, ["out:0"], {"x:0": X})[0]
        np.testing.assert_array_equal(session.run("out:0", {"x:0": X}), expected)


@pytest.mark.parametrize("lists", [{}, {"variable_names_denylist": "w"}])
@pytest.mark.parametrize("name", ["control_flow", "training"])
def test_variables_that_stay_in_loops_and_beside_training(tf, saved, freeze, tmp_path, name, lists):
    outputs = "out,train" if name == "training" and lists else "out"
    flags = {**saved(name).flags("meta"), "output_node_names": outputs, **lists}
    if outputs != "out":  # all that training writes stays
        flags["variable_names_denylist"] = ",".join(saved(name).values)
    assert described(tf, freeze(**flags).message) == described(tf, script(tf, tmp_path, **flags))


def test_nodes_of_several_outputs_and_of_none(tf, saved, freeze, tmp_path):
    flags = {**saved("outputs_of_several_kinds").flags("graph"), "output_node_names": "halves, best,done,w"}
    ours = freeze(**flags).message
    assert_same(tf, script(tf, tmp_path, **flags), ours, ["halves:1", "best:0", "best:1", "w:0", "out:0"])


def test_only_a_node_without_output(tf, saved, freeze, tmp_path):
    flags = {**saved("outputs_of_several_kinds").flags("graph"), "output_node_names": "done"}
    assert described(tf, freeze(**flags).message) == described(tf, script(tf, tmp_path, **flags))


def test_the_same_file_whatever_the_spelling_of_an_output(saved, freeze):
    flags = saved("dense").flags("graph")
    assert freeze(**flags, output_node_names="out:0").message == freeze(**flags, output_node_names="out,out").message


@pytest.mark.parametrize("form", ["saver.pb", "saver.pbtxt"])
def test_a_saver_in_either_form(saved, freeze, form):
    model = saved("dense")
    flags = {**model.flags("saver"), "input_saver": str(model.folder / form)}
    assert freeze(**flags, output_node_names="out").variables == 2


@pytest.mark.parametrize("source", ["graph", "meta"])
def test_outputs_are_compared_where_that_is_asked_for(saved, freeze, source):
    done = freeze(**saved("dense", True).flags(source), output_node_names="out", verify="outputs").verified["outputs"]
    assert done["done"]
    assert done["max_abs"] <= 1e-6
