"""What an artifact says of its objects, and its tensors by readable path."""

import json
from dataclasses import replace

import numpy as np
import pytest

from object_artifacts import KERNEL, METADATA, SLOT, STEP, STORED, saved_graph, write_checkpoint, write_saved
from tfthaw import proto
from tfthaw.errors import NotFoundError
from tfthaw.export.weights import write_bundle
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY
from tfthaw.ir.object_graph import ObjectGraph, SavedObject, UserObject
from tfthaw.limits import Limits
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import ArrayTensor


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "c")


@pytest.fixture
def saved_model(tmp_path):
    return write_saved(tmp_path / "m", saved_graph())


def test_tensors_of_a_checkpoint_are_named_by_key_and_found_by_path(checkpoint):
    with open_artifact(checkpoint) as artifact:
        variables = artifact.variables
        assert list(variables) == [OBJECT_GRAPH_KEY, KERNEL, SLOT, STEP] == list(dict(variables))
        assert len(variables) == 4
        for name in (KERNEL, "dense/kernel", "layer_with_weights-0/kernel"):
            assert name in variables
            assert variables[name].numpy().tolist() == [[1, 2]]
        assert variables["optimizer/m/dense/kernel"].numpy().tolist() == [[3, 4]]
        assert variables["optimizer/iter"].numpy() == 7


def test_a_name_that_is_neither_is_refused_with_near_names(checkpoint):
    with open_artifact(checkpoint) as artifact:
        assert "dense/kernal" not in artifact.variables
        assert 3 not in artifact.variables
        with pytest.raises(NotFoundError, match="dense/kernel"):
            artifact.variables["dense/kernal"]


def test_keys_alone_fill_the_variables_of_graphs(checkpoint, saved_model):
    with open_artifact(checkpoint) as artifact:
        assert "dense/kernel" not in artifact.tensors
        assert KERNEL in artifact.tensors
    with open_artifact(saved_model) as artifact:
        assert "d/kernel" not in artifact.model().values
        assert KERNEL in artifact.model().values


def test_a_saved_model_knows_the_names_of_its_layers(saved_model):
    with open_artifact(saved_model) as artifact:
        assert artifact.variables["d/kernel"].numpy().tolist() == [[1, 2]]
        objects = artifact.objects()
        assert objects.paths_by_key() == {
            KERNEL: "d/kernel", SLOT: "optimizer/m/d/kernel", STEP: "optimizer/iter",
        }  # fmt: skip
        assert objects.layers[1].config == {"units": 2, "name": "d"}
        assert objects.notes == []
        assert artifact.objects() is objects, "they are looked at once"


def test_metadata_stood_in_the_objects_before_tensorflow_2_5(tmp_path):
    graph = saved_graph()
    graph.nodes[1].kind.metadata = METADATA[1][1]
    graph.nodes[2].kind.metadata = "of another class"
    with open_artifact(write_saved(tmp_path / "m", graph, metadata=None)) as artifact:
        assert list(artifact.objects().layers) == [1]
        assert "d/kernel" in artifact.variables


def test_names_are_told_by_variables_where_keras_says_none(tmp_path):
    with open_artifact(write_saved(tmp_path / "m", saved_graph(), metadata=None)) as artifact:
        assert "dense/kernel" in artifact.variables


@pytest.mark.parametrize("text", ["", "no json", "[]", "3", "[" * 100_000, '{"a": NaN'])
def test_metadata_that_are_no_json_objects_are_noted(tmp_path, text):
    metadata = {1: ("_tf_keras_layer", text), 77: ("_tf_keras_layer", "{}"), -1: ("_tf_keras_layer", "{}")}
    with open_artifact(write_saved(tmp_path / "m", saved_graph(), metadata=metadata)) as artifact:
        objects = artifact.objects()
        assert objects.notes == ["the Keras metadata of 1 objects are no JSON objects: 1"]
        assert objects.layers == {}


def test_damaged_metadata_are_noted(tmp_path):
    folder = write_saved(tmp_path / "m", saved_graph())
    (folder / "keras_metadata.pb").write_bytes(b"\xff\xff")
    with open_artifact(folder) as artifact:
        assert "the metadata of Keras cannot be read" in artifact.objects().notes[0]
        assert "dense/kernel" in artifact.variables


def test_a_damaged_object_graph_leaves_the_keys(tmp_path):
    with open_artifact(write_checkpoint(tmp_path / "c", None)) as artifact:
        assert KERNEL in artifact.variables
        assert "dense/kernel" not in artifact.variables
        assert "cannot be read" in artifact.objects().notes[0]


@pytest.mark.parametrize("tensor", [np.array(3, np.int64), np.array([b"", b""], object)])
def test_an_object_graph_that_is_no_string_is_noted(tmp_path, tensor):
    with open_artifact(write_checkpoint(tmp_path / "c", graph_tensor=tensor)) as artifact:
        assert "expected one string" in artifact.objects().notes[0]
        assert "dense/kernel" not in artifact.variables


def test_keys_of_a_saved_model_are_told_by_its_checkpoint(tmp_path):
    """The variables of both have one numbering in files of TensorFlow; here they have not."""
    moved = [0, 2, 1, 4, 3, 5]
    objects = [STORED.nodes[moved.index(position)] for position in range(6)]
    turned = [
        replace(
            item, children=[child._replace(node=moved[child.node]) for child in item.children],
            slot_variables=[replace(slot, original=moved[slot.original], variable=moved[slot.variable])
                            for slot in item.slot_variables],
        )
        for item in objects
    ]  # fmt: skip
    with open_artifact(write_saved(tmp_path / "m", saved_graph(), replace(STORED, nodes=turned))) as artifact:
        assert set(artifact.objects().paths_by_key()) == {KERNEL, SLOT, STEP}


def test_of_several_meta_graphs_each_has_its_objects(tmp_path):
    folder = write_saved(tmp_path / "m", saved_graph())
    message = proto.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    message.meta_graphs.add().meta_info_def.tags.extend(["serve", "gpu"])
    (folder / "saved_model.pb").write_bytes(proto.serialize(message))
    with open_artifact(folder) as artifact:
        assert artifact.objects().graph is not None
        assert artifact.objects(["serve", "gpu"]).graph is None
        assert "d/kernel" in artifact.variables


def test_names_alone_have_no_objects(tmp_path):
    write_bundle({"dense/kernel": ArrayTensor(np.zeros(2, np.float32))}, tmp_path, "names", None)
    with open_artifact(tmp_path / "names") as artifact:
        assert artifact.objects() is None
        assert list(artifact.variables) == ["dense/kernel"]


def test_more_objects_than_are_allowed_are_left_out(tmp_path):
    graph = ObjectGraph([SavedObject(UserObject(""))] * 30)
    folder = write_saved(tmp_path / "m", graph)
    with open_artifact(folder, Limits(max_objects=20)) as artifact:
        assert "30 objects and edges, 20 are looked at" in artifact.objects().notes[0]
        assert KERNEL in artifact.variables
    with open_artifact(folder, Limits(max_objects=30)) as artifact:
        assert artifact.objects().graph is not None


def test_metadata_survive_as_they_are(saved_model):
    with open_artifact(saved_model) as artifact:
        assert artifact.objects().layers[0].metadata == json.loads(METADATA[0][1])
