"""What exporters leave on disk: names, forms, and nothing where something goes wrong."""

import numpy as np
import pytest

from graphs import constant, graph, placeholder, variable
from tfthaw import proto
from tfthaw.errors import ChecksumError, NotFoundError, OutputExistsError, StructureError, UnsafePathError, UsageError
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.export.meta_graph import write_meta_graph
from tfthaw.export.saved_model import write_saved_model
from tfthaw.export.weights import write_checkpoint, write_weights_file
from tfthaw.ir.model import Asset, Model, Saver
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import ArrayTensor

VALUES = {"w": ArrayTensor(np.float32([1, 2]))}


def model(**options):
    return Model(graph(variable("w", [2]), placeholder("file"), constant("c", [1.0, 2.0])), **options)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def failing(written):
    """Refuse what was written, which is there to be looked at."""
    assert written.exists()
    raise ChecksumError("it is not what it should be")


def test_a_graph_is_binary_or_text_by_its_name(tmp_path):
    assert write_graph(model(), tmp_path / "a.pb", Delivery()) == [tmp_path / "a.pb"]
    write_graph(model(), tmp_path / "a.pbtxt", Delivery())

    assert proto.GraphDef.FromString((tmp_path / "a.pb").read_bytes()).node[0].name == "w"
    assert (tmp_path / "a.pbtxt").read_text().startswith('node {\n  name: "w"\n')


@pytest.mark.parametrize("given", ["m.ckpt", "m.ckpt.meta"])
def test_a_meta_graph_comes_with_its_checkpoint(tmp_path, given):
    saver = Saver("save/Const:0", "save/done:0", "save/restore_all")
    files = write_meta_graph(model(saver=saver), VALUES, tmp_path / given, Delivery())

    assert names(tmp_path) == ["checkpoint", "m.ckpt.data-00000-of-00001", "m.ckpt.index", "m.ckpt.meta"]
    assert 'model_checkpoint_path: "m.ckpt"' in (tmp_path / "checkpoint").read_text()
    assert {path.name for path in files} == {"m.ckpt.meta", "m.ckpt.index", "m.ckpt.data-00000-of-00001"}
    with open_artifact(tmp_path / "m.ckpt.meta") as artifact:
        assert artifact.variables["w"].numpy().tolist() == [1, 2]
        assert artifact.model().saver == saver


def test_the_state_of_a_training_run_is_not_taken_over(tmp_path):
    (tmp_path / "checkpoint").write_text("mine")
    write_meta_graph(model(), VALUES, tmp_path / "m.ckpt", Delivery(overwrite=True))

    assert (tmp_path / "checkpoint").read_text() == "mine"


def test_a_meta_graph_without_variables_is_alone(tmp_path):
    write_meta_graph(Model(graph(constant("c", 1.0))), {}, tmp_path / "m.meta", Delivery())

    assert names(tmp_path) == ["m.meta"]


def test_a_meta_graph_needs_a_name(tmp_path):
    with pytest.raises(UsageError, match=r"name before .meta"):
        write_meta_graph(model(), VALUES, tmp_path / ".meta", Delivery())


def test_a_saved_model_has_its_assets(tmp_path):
    (tmp_path / "words.txt").write_text("a\nb\n")
    assets = [Asset("file:0", "deep/words.txt", tmp_path / "words.txt")]
    write_saved_model(model(assets=assets, tags=("serve",)), VALUES, tmp_path / "saved", Delivery())

    assert names(tmp_path / "saved") == [
        "assets/deep/words.txt",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    with open_artifact(tmp_path / "saved") as artifact:
        assert artifact.tag_sets == [["serve"]]
        found = artifact.model().assets[0]
        assert (found.tensor, found.filename, found.source.read_text()) == ("file:0", "deep/words.txt", "a\nb\n")


def test_assets_that_are_not_there_are_named(tmp_path):
    assets = [Asset("file:0", "words.txt"), Asset("c:0", "more.txt", tmp_path / "gone.txt")]
    with pytest.raises(NotFoundError, match=r"words\.txt, more\.txt"):
        write_saved_model(model(assets=assets), {}, tmp_path / "saved", Delivery())
    assert names(tmp_path) == []


def test_assets_do_not_leave_the_saved_model(tmp_path):
    (tmp_path / "words.txt").write_text("a")
    with pytest.raises(UnsafePathError):
        write_saved_model(
            model(assets=[Asset("file:0", "../../out.txt", tmp_path / "words.txt")]), {}, tmp_path / "saved", Delivery()
        )
    assert names(tmp_path) == ["words.txt"]


WRITERS = {
    "graph-def": lambda path, delivery: write_graph(model(), path, delivery),
    "meta-graph": lambda path, delivery: write_meta_graph(model(), VALUES, path, delivery),
    "saved-model": lambda path, delivery: write_saved_model(model(), VALUES, path, delivery),
    "checkpoint": lambda path, delivery: write_checkpoint(VALUES, path, delivery),
    "safetensors": lambda path, delivery: write_weights_file(VALUES, path, delivery, to="safetensors"),
    "npz": lambda path, delivery: write_weights_file(VALUES, path, delivery, to="npz"),
}


@pytest.mark.parametrize("writer", list(WRITERS.values()), ids=list(WRITERS))
def test_what_does_not_pass_its_check_never_appears(tmp_path, writer):
    with pytest.raises(ChecksumError, match="not what it should be"):
        writer(tmp_path / "new", Delivery(check=failing))
    assert names(tmp_path) == []

    writer(tmp_path / "new", Delivery())
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    with pytest.raises(ChecksumError):
        writer(tmp_path / "new", Delivery(overwrite=True, check=failing))
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


@pytest.mark.parametrize("writer", list(WRITERS.values()), ids=list(WRITERS))
def test_what_is_there_stays_without_overwrite(tmp_path, writer):
    writer(tmp_path / "new", Delivery())
    with pytest.raises(OutputExistsError):
        writer(tmp_path / "new", Delivery())
    counted = []
    writer(tmp_path / "new", Delivery(overwrite=True, progress=counted.append))
    assert sum(counted) > 0


def test_a_tensor_that_lies_about_its_size_leaves_nothing(tmp_path):
    class Short(ArrayTensor):
        nbytes = 1 << 20

    with pytest.raises(StructureError):
        write_checkpoint({"w": Short(np.float32([1]))}, tmp_path / "new", Delivery())
    assert names(tmp_path) == []
