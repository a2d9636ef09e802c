"""The report of objects: plain values, and what can be shown of damaged graphs."""

import json

import pytest

from object_artifacts import KERNEL, SLOT, STEP, saved_graph, write_checkpoint, write_saved
from tfthaw.inspection import inspect
from tfthaw.ir.object_graph import (
    AssetObject,
    Child,
    ConcreteFunction,
    FunctionObject,
    ObjectGraph,
    SavedObject,
    SlotVariable,
    UserObject,
)
from tfthaw.serde.artifacts import open_artifact


def report_of(path):
    with open_artifact(path) as artifact:
        return inspect(artifact)


@pytest.fixture
def report(tmp_path):
    return report_of(write_saved(tmp_path / "m", saved_graph()))


def by_path(items):
    return {item["path"]: item for item in items}


def test_the_report_is_plain(report):
    assert json.loads(json.dumps(report.as_dict()))["object_graph"] == report.object_graph


def test_the_tree_has_every_object(report):
    graph = report.object_graph
    assert graph["objects"] == len(graph["tree"]) == 12
    tree = by_path(graph["tree"])
    assert tree[""]["children"] == {
        "layer_with_weights-0": 1, "optimizer": 2, "__call__": 3, "table": 8, "file": 9, "signatures": 10, "up": 0,
    }  # fmt: skip
    assert {path: item["kind"] for path, item in tree.items()} == {
        "": "object", "d": "object", "optimizer": "object", "__call__": "function", "d/kernel": "variable",
        "optimizer/iter": "variable", "optimizer/m/d/kernel": "variable", "__call__/trace_0": "concrete-function",
        "table": "resource", "file": "asset", "signatures": "object", "signatures/serving_default": "concrete-function",
    }  # fmt: skip
    assert (tree[""]["class"], tree["d"]["class"], tree["optimizer"]["class"]) == ("Sequential", "Dense", "optimizer")


def test_variables_have_paths_keys_and_slots(report):
    variables = by_path(report.object_graph["variables"])
    assert variables["d/kernel"] == {
        "node": 4, "path": "d/kernel", "name": "dense/kernel", "key": KERNEL, "dtype": "float32", "shape": [1, 2],
        "trainable": True, "slot_of": None, "slot": None,
    }  # fmt: skip
    slot = variables["optimizer/m/d/kernel"]
    assert (slot["slot_of"], slot["slot"], slot["trainable"], slot["key"]) == ("d/kernel", "m", False, SLOT)


def test_functions_say_how_they_are_called(report):
    graph = report.object_graph
    assert by_path(graph["functions"])["__call__"]["traces"] == ["f_1"]
    assert graph["traces"]["f_1"] == {
        "call": "(x: float32[?, 1], training=False)", "result": "float32[?, 2]", "captures": ["d/kernel"],
    }  # fmt: skip
    assert graph["traces"]["s_1"]["call"] == "(x: float32[?, 1])"
    assert graph["traces"]["s_1"]["result"] == "{y: float32[?, 2]}"


def test_files_tables_and_layers_are_listed(report):
    graph = report.object_graph
    assert graph["assets"] == [{"node": 9, "path": "file", "file": "words.txt"}]
    assert graph["tables"] == [{"node": 8, "path": "table", "class": "tf.StaticHashTable"}]
    assert by_path(graph["layers"])["d"] == {
        "node": 1, "path": "d", "class": "Dense", "name": "d", "config": {"units": 2, "name": "d"},
    }  # fmt: skip
    assert graph["problems"] == []


def test_variables_of_the_report_keep_their_keys_as_names(report):
    variables = {item["name"]: item for item in report.variables}
    assert (variables[KERNEL]["path"], variables[KERNEL]["trainable"]) == ("d/kernel", True)
    assert (variables[STEP]["path"], variables[STEP]["trainable"]) == ("optimizer/iter", False)
    assert (variables[SLOT]["slot_of"], variables[SLOT]["slot"]) == (KERNEL, "m")
    assert variables["_CHECKPOINTABLE_OBJECT_GRAPH"]["path"] is None


def test_a_checkpoint_shows_its_objects(tmp_path):
    report = report_of(write_checkpoint(tmp_path / "c"))
    graph = report.object_graph
    assert graph["objects"] == 6
    kernel = by_path(graph["variables"])["dense/kernel"]
    assert (kernel["key"], kernel["dtype"], kernel["shape"], kernel["trainable"]) == (KERNEL, "float32", [1, 2], None)
    assert by_path(graph["tree"])["dense/kernel"]["kind"] == "variable"
    assert graph["problems"] == []


def test_what_has_no_objects_has_no_report_of_them(tmp_path):
    folder = write_saved(tmp_path / "m", None, stored=None)
    report = report_of(folder)
    assert report.object_graph is None
    assert any("the object graph of the checkpoint cannot be read" in note for note in report.notes)
    assert "path" not in report.variables[0]


def test_a_damaged_graph_shows_what_it_has_and_what_is_wrong(tmp_path):
    graph = saved_graph()
    root, optimizer = graph.nodes[0], graph.nodes[2]
    root.children = [*root.children, Child(99, "gone"), Child(-3, "before")]
    optimizer.slot_variables = [*optimizer.slot_variables, SlotVariable(4, "v", 70)]
    graph.nodes = [*graph.nodes, SavedObject(FunctionObject(["unknown"])), SavedObject(AssetObject(5))]
    graph.concrete_functions = {**graph.concrete_functions, "lost": ConcreteFunction([0, 55])}
    report = report_of(write_saved(tmp_path / "m", graph))
    assert report.object_graph["problems"] == [
        "object 0: 2 children lead to no object: gone -> 99, before -> -3",
        "object 2: 1 slot variables lead to no object: v of 4 -> 70",
        "object 12: 1 traces (unknown) are no concrete functions of the object graph",
        "object 13: it is asset 5, and there are 1",
        "function lost is not in the library",
        "function lost: 1 captures lead to no object: 55",
        "function lost: 1 captures are neither variables nor tables, assets, constants or tensors: object 0 (User)",
    ]
    assert any(note.startswith("its object graph is not whole: object 0: 2") and "6 more" in note
               for note in report.notes)  # fmt: skip
    assert by_path(report.object_graph["variables"])["d/kernel"]["key"] == KERNEL
    assert report.object_graph["traces"]["lost"]["captures"] == ["object 0", "object 55"]
    assert report.object_graph["assets"][1]["file"] is None


def test_a_graph_of_too_many_objects_is_noted(tmp_path):
    graph = ObjectGraph([SavedObject(UserObject(""), [Child(0, f"c{number}") for number in range(150_000)])])
    report = report_of(write_saved(tmp_path / "m", graph))
    assert report.object_graph is None
    assert any("150001 objects and edges, 150000 are looked at" in note for note in report.notes)
    assert KERNEL in {item["name"] for item in report.variables}


def test_an_empty_object_graph_is_a_problem(tmp_path):
    report = report_of(write_saved(tmp_path / "m", ObjectGraph()))
    assert report.object_graph["problems"][0] == "it has no objects, not even a root"
    assert report.object_graph["tree"] == []
