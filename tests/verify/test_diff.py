"""What differs between two artifacts, of every pair of formats."""

import json

import numpy as np
import pytest

from tfthaw.errors import ChecksumError, NotFoundError, UnsupportedError
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY
from tfthaw.serde.artifacts import open_artifact
from tfthaw.verify.diff import diff
from verify.artifacts import PLACEHOLDER, checkpoint, const, graph, meta_graph, node, npz, safetensors

KERNEL = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
WEIGHTS = {"dense/bias": np.zeros(4, np.float32), "dense/kernel": KERNEL, "step": np.int64(7)}
FROZEN = [PLACEHOLDER, const("dense/kernel", KERNEL), const("two", 2.0), node("y", "MatMul", "x", "dense/kernel")]
VARIABLE = node("w", "VariableV2", dtype="type: DT_FLOAT", shape="shape { }")


def changes(found):
    return {item.name: item.what for item in found.changed}


def test_formats_compare_with_each_other(tmp_path):
    paths = [
        checkpoint(tmp_path, "ck", WEIGHTS),
        safetensors(tmp_path / "w.safetensors", WEIGHTS),
        npz(tmp_path / "w.npz", WEIGHTS),
    ]
    for a in paths:
        for b in paths:
            found = diff(a, b)
            assert found.same, (a, b)
            assert len(found.tensors.equal) == 3
            assert found.graph is found.signatures is None


def test_two_checkpoints_of_a_run(tmp_path):
    before = WEIGHTS | {"dense/kernel/Adam": KERNEL}
    after = before | {"dense/kernel": KERNEL + 1, "step": np.int64(8), "dense/kernel/Adam": KERNEL * 2}
    done = []
    found = diff(checkpoint(tmp_path, "a", before), checkpoint(tmp_path, "b", after), progress=done.append)
    assert not found.same
    assert {item.name for item in found.tensors.changed} == {"dense/kernel", "step", "dense/kernel/Adam"}
    assert found.tensors.equal == ("dense/bias",)
    assert sum(done) == 16 + 128 + 8 + 128


def test_renamed_tensors_are_found_and_are_a_difference(tmp_path):
    renamed = {"layer-0/bias": WEIGHTS["dense/bias"], "layer-0/kernel": KERNEL, "iterations": np.int64(7)}
    found = diff(checkpoint(tmp_path, "a", WEIGHTS), safetensors(tmp_path / "b.safetensors", renamed))
    assert {pair.a: pair.b for pair in found.renamed} == {
        "dense/bias": "layer-0/bias",
        "dense/kernel": "layer-0/kernel",
    }
    assert list(found.tensors.only_in_a) == ["step"]
    assert [(group.a, group.b) for group in found.undecided] == [(("step",), ("iterations",))]
    assert not found.same


def test_all_renamed_is_still_a_difference(tmp_path):
    found = diff(npz(tmp_path / "a.npz", {"a": KERNEL}), npz(tmp_path / "b.npz", {"b": KERNEL}))
    assert found.tensors.same
    assert not found.same


def test_tensors_that_swapped_names(tmp_path):
    other = KERNEL[::-1].copy()
    a = {"v/0": KERNEL, "v/1": other, "v/2": KERNEL[:4]}
    swapped = diff(npz(tmp_path / "a.npz", a), npz(tmp_path / "b.npz", a | {"v/0": other, "v/1": KERNEL}))
    assert {pair.a: pair.b for pair in swapped.renamed} == {"v/0": "v/1", "v/1": "v/0"}
    assert not swapped.tensors.changed
    moved = diff(npz(tmp_path / "c.npz", a), npz(tmp_path / "d.npz", a | {"v/0": other, "v/1": KERNEL + 1}))
    assert not moved.renamed  # v/1 has new content, so nothing says that it is the old v/0
    assert [item.name for item in moved.tensors.changed] == ["v/0", "v/1"]


def test_a_checkpoint_compares_with_the_graph_frozen_from_it(tmp_path):
    weights = {"dense/kernel": KERNEL, "two": np.float32(2), "step": np.int64(1)}
    found = diff(checkpoint(tmp_path, "ck", weights), graph(tmp_path / "f.pbtxt", *FROZEN))
    assert set(found.tensors.equal) == {"dense/kernel", "two"}  # a scalar is a weight where the checkpoint has it
    assert list(found.tensors.only_in_a) == ["step"]
    assert found.notes == ("only B has a graph, so graphs and signatures were not compared",)


def test_constants_of_graphs_are_compared_apart(tmp_path):
    a = graph(tmp_path / "a.pbtxt", *FROZEN)
    b = graph(tmp_path / "b.pbtxt", PLACEHOLDER, const("dense/kernel", KERNEL), const("two", 2.5), FROZEN[-1])
    assert diff(a, graph(tmp_path / "c.pbtxt", *FROZEN)).same
    found = diff(a, b)
    assert found.tensors.same
    assert found.graph.same
    assert [(item.name, item.max_abs) for item in found.constants.changed] == [("two", 0.5)]
    assert not found.same
    assert not found.as_dict()["graph"]["same"]


def test_graphs_without_values_are_compared_as_graphs(tmp_path):
    found = diff(meta_graph(tmp_path / "a.meta", VARIABLE), meta_graph(tmp_path / "b.meta", VARIABLE))
    assert found.same
    assert found.tensors is None
    assert found.notes == tuple(
        f"{side} is a graph without the values of its variables, so tensors were not compared" for side in "AB"
    )


def test_nothing_in_common_is_an_error(tmp_path):
    bare, weights = graph(tmp_path / "a.pbtxt", VARIABLE), npz(tmp_path / "w.npz", WEIGHTS)
    with pytest.raises(UnsupportedError, match="there is nothing that both have") as caught:
        diff(bare, weights)
    assert caught.value.problems[0].startswith("A is a graph without the values")


def test_signatures_are_compared(tmp_path):
    def signature(key, tensor, dtype="DT_FLOAT", shape="dim { size: -1 }"):
        info = f'name: "{tensor}" dtype: {dtype} tensor_shape {{ {shape} }}'
        outputs = f'outputs {{ key: "y" value {{ {info} }} }} method_name: "tensorflow/serving/predict"'
        return f'signature_def {{ key: "{key}" value {{ {outputs} }} }}\n'

    a = meta_graph(tmp_path / "a.meta", *FROZEN, signatures=signature("keep", "y:0") + signature("old", "y:0"))
    b = meta_graph(
        tmp_path / "b.meta",
        *FROZEN,
        signatures=signature("keep", "x:0", shape="dim { size: 3 }") + signature("new", "y:0"),
    )
    found = diff(a, b).signatures
    assert changes(found) == {"keep": {"output y": ("y:0 float32[?]", "x:0 float32[3]")}}
    assert (list(found.only_in_a), list(found.only_in_b)) == (["old"], ["new"])


def test_tag_sets_and_assets_of_saved_models(tmp_path):
    for name, vocabulary in (("a", "x\ny\n"), ("b", "x\nz\n")):
        metas = "".join(
            f'meta_graphs {{ meta_info_def {{ tags: "{tag}" }}\n'
            f"graph_def {{ {const('path', 1.0)} {const('k', value)} }}\n"
            'asset_file_def { tensor_info { name: "path:0" } filename: "vocab.txt" } }\n'
            for tag, value in (("serve", [1.0, 2.0]), ("train", [3.0, 4.0]))
        )
        folder = tmp_path / name
        (folder / "assets").mkdir(parents=True)
        (folder / "assets" / "vocab.txt").write_text(vocabulary)
        (folder / "saved_model.pbtxt").write_text(f"saved_model_schema_version: 1\n{metas}")
    a, b = tmp_path / "a", tmp_path / "b"
    assert diff(a, a, tags_a=["serve"], tags_b=["serve"]).same
    found = diff(a, b, tags_a=["serve"], tags_b=["train"])
    assert [(item.name, item.max_abs) for item in found.tensors.changed] == [("k", 2.0)]
    assert [item.name for item in found.assets.changed] == ["vocab.txt"]
    (b / "assets" / "vocab.txt").unlink()
    gone = diff(a, b, tags_a=["serve"], tags_b=["serve"]).assets
    assert changes(gone)["vocab.txt"]["content"][1] == "missing"


def test_object_graphs_are_no_tensors(tmp_path):
    def objects(content):
        return {"w/.ATTRIBUTES/VARIABLE_VALUE": KERNEL, OBJECT_GRAPH_KEY: np.array(content, object)}

    a, b = checkpoint(tmp_path, "a", objects(b"one")), checkpoint(tmp_path, "b", objects(b"two"))
    plain = npz(tmp_path / "w.npz", {"w/.ATTRIBUTES/VARIABLE_VALUE": KERNEL})
    assert diff(a, a).object_graph_is_same is True
    assert diff(a, b).object_graph_is_same is False
    assert not diff(a, b).same
    assert diff(a, plain).object_graph_is_same is None
    assert diff(a, plain).same


def test_open_artifacts_stay_open(tmp_path):
    path = checkpoint(tmp_path, "a", WEIGHTS)
    with open_artifact(path) as artifact:
        assert diff(artifact, path).same
        assert artifact.variables["step"].numpy() == 7


def test_the_document_is_plain(tmp_path):
    a = checkpoint(tmp_path, "a", WEIGHTS | {"x": np.array([np.nan, 1.0]), "gone": np.zeros(3)})
    b = checkpoint(
        tmp_path, "b", {"dense/bias": np.zeros(5, np.float32), "layer/kernel": KERNEL, "x": np.array([1.0, 2.0])}
    )
    document = json.loads(json.dumps(diff(a, b).as_dict()))
    assert document["same"] is False
    assert document["a"] == {"path": a, "format": "checkpoint"}
    shape, values = document["tensors"]["changed"]
    assert (shape["name"], shape["a"]["shape"], shape["b"]["shape"], shape["different"]) == (
        "dense/bias",
        [4],
        [5],
        None,
    )
    assert (values["name"], values["elements"], values["different"], values["not_finite"]) == ("x", 2, 2, 1)
    assert (values["max_abs"], values["max_rel"]) == (1.0, 0.5)
    assert document["tensors"]["only_in_a"][0] == {"name": "gone", "dtype": "float64", "shape": [3]}
    assert document["tensors"]["renamed"][0]["reason"] == "equal content"
    assert document["graph"] is document["signatures"] is None


def test_what_cannot_be_read_is_an_error(tmp_path):
    path = checkpoint(tmp_path, "a", WEIGHTS)
    copy = checkpoint(tmp_path, "b", WEIGHTS)
    data = tmp_path / "b.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ChecksumError, match="tensor 'step'"):
        diff(path, copy)
    with pytest.raises(NotFoundError):
        diff(path, tmp_path / "c")
