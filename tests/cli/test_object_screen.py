"""What `tfthaw inspect` shows of objects on the screen."""

import json

import pytest

from object_artifacts import KERNEL, saved_graph, write_checkpoint, write_saved
from tfthaw.cli.object_screen import SHORT_LINES
from tfthaw.ir.object_graph import Child, FunctionObject, SavedObject, UserObject


@pytest.fixture
def saved_model(tmp_path):
    return write_saved(tmp_path / "m", saved_graph())


def section(text, name="objects"):
    """Return the lines below a heading."""
    _, _, rest = text.partition(f"\n{name}")
    return rest.split("\n\n")[0].splitlines()


def test_the_tree_is_short(run, saved_model):
    status, out, _ = run("inspect", saved_model)
    assert status == 0
    assert section(out) == [
        ": 12, the root is Sequential",
        "  __call__            (x: float32[?, 1], training=False) -> float32[?, 2]",
        "  d                   Dense(units=2)",
        "    kernel            float32[1, 2]  trainable",
        "  file                asset words.txt",
        "  optimizer           optimizer",
        "    iter              int64[]",
        "  table               tf.StaticHashTable",
        "  (1 slot variables)  m",
        "  -v shows all 12 objects",
    ]


def test_the_whole_tree_has_keys_captures_and_slots(run, saved_model):
    _, out, _ = run("inspect", saved_model, "-v")
    lines = section(out)
    assert any(line.split() == ["kernel", "float32[1,", "2]", "trainable", KERNEL] for line in lines)
    assert any("captures d/kernel" in line for line in lines)
    assert any("slot m of d/kernel" in line for line in lines)
    assert any(line.strip().startswith("trace_0") for line in lines)
    assert not any("-v shows" in line for line in lines)


def test_variables_go_by_their_paths(run, saved_model):
    _, out, _ = run("inspect", saved_model)
    lines = [line.split() for line in section(out, "variables")]
    assert ["d/kernel", "float32[1,", "2]", "8", "B", "trainable"] in lines
    assert ["optimizer/m/d/kernel", "float32[1,", "2]", "8", "B", "slot", "m", "of", "d/kernel"] in lines


def test_json_has_the_objects(run, saved_model):
    _, out, _ = run("inspect", saved_model, "--json")
    document = json.loads(out)
    assert document["object_graph"]["objects"] == 12
    assert KERNEL in {item["name"] for item in document["variables"]}


def test_a_checkpoint_has_a_tree(run, tmp_path):
    _, out, _ = run("inspect", write_checkpoint(tmp_path / "c"))
    assert section(out)[:3] == [": 6", "  dense", "    kernel            float32[1, 2]"]


def test_long_trees_are_cut_on_the_screen(run, tmp_path):
    graph = saved_graph()
    children = [Child(len(graph.nodes) + number, f"part{number:03}") for number in range(100)]
    more = [SavedObject(UserObject("my_class")) for _ in range(99)] + [SavedObject(FunctionObject(["gone"]))]
    graph.nodes = [SavedObject(graph.nodes[0].kind, [*graph.nodes[0].children, *children]), *graph.nodes[1:], *more]
    folder = write_saved(tmp_path / "m", graph)
    _, out, _ = run("inspect", folder)
    assert len(section(out)) == SHORT_LINES + 2
    assert section(out)[-1].startswith("  ... and ")
    _, out, _ = run("inspect", folder, "-v")
    assert any(line.split() == ["part099", "gone", "(not", "known)"] for line in section(out))
