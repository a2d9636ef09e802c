"""What cannot be converted is said, and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.dtypes import DType
from tfthaw.errors import (
    ChecksumError,
    FormatError,
    NotFoundError,
    OutputExistsError,
    RestoreError,
    UnsupportedError,
    UsageError,
)
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.export.weights import write_checkpoint
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph
from tfthaw.ir.model import Model
from tfthaw.ir.nodes import Node
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import ArrayTensor, LazyTensor

TARGETS = ["frozen-graph", "meta-graph", "saved-model", "checkpoint", "safetensors", "npz"]


def dense(shape=(4, 3), name="dense/kernel"):
    """Return a graph that multiplies `x` with a variable."""
    dtype = DType.float32
    return Model(Graph([
        Node("x", "Placeholder", attrs={"dtype": dtype, "shape": Shape((None, shape[0]))}),
        Node(name, "VariableV2", attrs={"dtype": dtype, "shape": Shape(shape), "container": b"", "shared_name": b""}),
        Node(f"{name}/read", "Identity", [name], attrs={"T": dtype}),
        Node("out", "MatMul", ["x", f"{name}/read"], attrs={"T": dtype, "transpose_a": False, "transpose_b": False}),
    ]))  # fmt: skip


@pytest.fixture
def source(tmp_path):
    """A directory with `graph.pb` and the checkpoint `model.ckpt` that belongs to it."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_graph(dense(), folder / "graph.pb", Delivery())
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_checkpoint({"dense/kernel": ArrayTensor(values)}, folder / "model.ckpt", Delivery())
    return folder


def run(source, target, to, **options):
    """Convert the graph with its checkpoint, or the checkpoint alone to weights formats."""
    if to in ("checkpoint", "safetensors", "npz"):
        return convert(source / "model.ckpt", target, to=to, **options)
    options = {"outputs": ["out"], "checkpoint": str(source / "model.ckpt")} | options
    return convert(source / "graph.pb", target, to=to, **options)


def left(folder):
    """Return every file below a folder but the source's."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "source" not in path.parts)


@pytest.mark.parametrize("to", TARGETS)
def test_what_is_there_stays(source, tmp_path, to):
    run(source, tmp_path / "new", to)
    before = {name: (tmp_path / name).read_bytes() for name in left(tmp_path) if (tmp_path / name).is_file()}

    with pytest.raises(OutputExistsError):
        run(source, tmp_path / "new", to)
    assert {name: (tmp_path / name).read_bytes() for name in left(tmp_path) if (tmp_path / name).is_file()} == before

    run(source, tmp_path / "new", to, overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(("to", "name"), [
    ("frozen-graph", "model.ckpt.index"),
    ("frozen-graph", "model.ckpt.data-00000-of-00001"),
    ("saved-model", ""),
    ("meta-graph", "model.ckpt"),
])  # fmt: skip
def test_what_is_read_is_never_written_over(source, tmp_path, to, name):
    before = {path: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(UsageError, match="not replaced"):
        run(source, source / name, to, overwrite=True)
    assert {path: path.read_bytes() for path in source.iterdir()} == before


def test_code_is_never_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("def build(): ...")
    for code in ("train.py:build", "train:build"):
        with pytest.raises(UsageError, match="it is what the result is made of"):
            convert(None, "train.py", to="frozen-graph", code=code, overwrite=True)
    with pytest.raises(UsageError, match=r"what would be lost: train\.py"):
        convert(None, ".", to="saved-model", code="train.py:build", overwrite=True)
    assert (tmp_path / "train.py").read_text() == "def build(): ..."


def test_a_checkpoint_may_be_named_by_its_index(source, tmp_path):
    result = run(source, tmp_path / "new.index", "checkpoint")
    assert result.path == str(tmp_path / "new")
    assert left(tmp_path) == ["new.data-00000-of-00001", "new.index"]


def test_a_file_is_replaced_in_its_own_place_when_that_is_asked(source):
    run(source, source / "graph.pb", "frozen-graph", overwrite=True)
    with open_artifact(source / "graph.pb") as artifact:
        assert artifact.format == "frozen-graph"


def test_no_outputs_names_the_likely_ones(source, tmp_path):
    with pytest.raises(UsageError, match=r"--outputs; likely ones: out:0"):
        run(source, tmp_path / "new", "frozen-graph", outputs=[])


@pytest.mark.parametrize(("outputs", "inputs", "match"), [
    (["outt"], [], "no node 'outt'; near names: out"),
    (["out"], ["y"], "no node 'y'"),
    (["dense/kernl/read:0"], [], "near names: dense/kernel/read, dense/kernel"),
])  # fmt: skip
def test_unknown_names_come_with_near_ones(source, tmp_path, outputs, inputs, match):
    with pytest.raises(NotFoundError, match=match):
        run(source, tmp_path / "new", "frozen-graph", outputs=outputs, inputs=inputs)
    assert left(tmp_path) == []


@pytest.mark.parametrize("output", ["out:1", "x:7", "^out"])
def test_outputs_that_a_node_does_not_have_are_refused(source, tmp_path, output):
    with pytest.raises((NotFoundError, UsageError), match=r"out|x"):
        run(source, tmp_path / "new", "frozen-graph", outputs=[output])
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", ["frozen-graph", "meta-graph", "saved-model"])
def test_a_graph_without_values(source, tmp_path, to):
    with pytest.raises(RestoreError, match="1 of 1 variables have no value") as caught:
        convert(source / "graph.pb", tmp_path / "new", to=to, outputs=["out"])
    assert caught.value.missing == ("dense/kernel",)
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", ["checkpoint", "safetensors", "npz"])
def test_a_graph_without_values_has_no_weights(source, tmp_path, to):
    with pytest.raises(UnsupportedError, match=r"carries no weights; .*--checkpoint"):
        convert(source / "graph.pb", tmp_path / "new", to=to)


@pytest.mark.parametrize("to", ["frozen-graph", "graph-def", "meta-graph", "saved-model"])
def test_weights_alone_become_no_graph(source, tmp_path, to):
    with pytest.raises(UnsupportedError, match="carries no graph"):
        convert(source / "model.ckpt", tmp_path / "new", to=to, outputs=["out"])
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", ["frozen-graph", "meta-graph", "saved-model"])
def test_the_checkpoint_of_another_model(source, tmp_path, to):
    other = {
        "conv/kernel": ArrayTensor(np.ones((3, 3), np.float32)),
        "dense/kernel": ArrayTensor(np.ones((4, 5), np.float32)),
    }
    write_checkpoint(other, source / "other.ckpt", Delivery())

    with pytest.raises(RestoreError) as caught:
        run(source, tmp_path / "new", to, checkpoint=str(source / "other.ckpt"))
    assert caught.value.mismatched == ("shape: dense/kernel is [4, 3], the checkpoint has [4, 5] under 'dense/kernel'",)
    assert "other.ckpt" in str(caught.value)
    assert left(tmp_path) == []


def test_values_of_another_type(source, tmp_path):
    write_checkpoint({"dense/kernel": ArrayTensor(np.ones((4, 3)))}, source / "double.ckpt", Delivery())

    with pytest.raises(RestoreError, match="dtype: dense/kernel is float32, the checkpoint has float64"):
        run(source, tmp_path / "new", "frozen-graph", checkpoint=str(source / "double.ckpt"))


def test_a_missing_value_that_is_allowed_cannot_be_frozen(source, tmp_path):
    write_checkpoint({"other": ArrayTensor(np.float32(1))}, source / "other.ckpt", Delivery())
    options = {"checkpoint": str(source / "other.ckpt"), "allow_missing": ["dense/*"]}

    with pytest.raises(UnsupportedError, match=r"cannot hold variables without value"):
        run(source, tmp_path / "new", "frozen-graph", **options)
    with pytest.raises(UnsupportedError, match=r"loads no variables without value(?s:.*)dense/kernel"):
        run(source, tmp_path / "saved", "saved-model", **options)
    result = run(source, tmp_path / "saved", "saved-model", style="v1", **options)
    assert any("left without value, as allowed: dense/kernel" in note for note in result.notes)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_damaged_byte(source, tmp_path, to, overwrite):
    if overwrite:
        run(source, tmp_path / "new", to)
    before = {name: (tmp_path / name).read_bytes() for name in left(tmp_path) if (tmp_path / name).is_file()}
    data = source / "model.ckpt.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    damaged[17] ^= 1
    data.write_bytes(damaged)

    with pytest.raises(ChecksumError, match=r"dense/kernel.*checksum mismatch"):
        run(source, tmp_path / "new", to, overwrite=overwrite)
    assert {name: (tmp_path / name).read_bytes() for name in left(tmp_path) if (tmp_path / name).is_file()} == before


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index"])
@pytest.mark.parametrize("keep", [0, 20])
def test_a_checkpoint_that_was_cut(source, tmp_path, to, suffix, keep):
    file = source / f"model.ckpt{suffix}"
    file.write_bytes(file.read_bytes()[:keep])

    with pytest.raises(FormatError):
        run(source, tmp_path / "new", to)
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", TARGETS)
def test_a_missing_shard(source, tmp_path, to):
    (source / "model.ckpt.data-00000-of-00001").unlink()

    with pytest.raises((NotFoundError, FormatError)):
        run(source, tmp_path / "new", to)
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", ["frozen-graph", "graph-def"])
def test_a_graph_past_two_gibibytes_is_refused_before_any_byte(tmp_path, to):
    def never():
        raise AssertionError("the values were asked for")

    huge = LazyTensor(DType.float32, (1 << 15, 1 << 15), never)
    graph = Graph([Node("w", "Const", attrs={"dtype": DType.float32, "value": huge})])

    with pytest.raises(UnsupportedError, match=r"no reader opens more.*saved-model"):
        write_graph(Model(graph), tmp_path / "new.pb", Delivery())
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"to": "onnx"}, "to is 'onnx'; expected one of"),
        ({"to": "npz", "ema": "maybe"}, "ema is 'maybe'"),
        ({"to": "frozen-graph", "inputs": ["x"]}, "--inputs without --outputs"),
        ({"to": "frozen-graph", "signature": "s", "outputs": ["out"]}, "not both"),
        ({"to": "saved-model", "dtype": "float16"}, "--dtype casts weights formats"),
        ({"to": "frozen-graph", "outputs": ["out"], "tags": ["serve"]}, "tags choose a MetaGraph"),
        ({"to": "frozen-graph", "outputs": ["out"], "set": {"dense/kernel": 1}}, "not a placeholder"),
        ({"to": "frozen-graph", "outputs": ["out"], "set": {"x": "a"}}, "does not fit float32"),
        ({"to": "frozen-graph", "outputs": ["out"], "set": {"x": [[1, 2]]}}, r"shape \[1, 2\], the placeholder"),
    ],
)
def test_options_that_make_no_sense(source, tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        convert(source / "graph.pb", tmp_path / "new", **options)
    assert left(tmp_path) == []


@pytest.mark.parametrize(("options", "match"), [
    ({"signature": "predict"}, "no signature 'predict'; it has no signature at all"),
    ({"outputs": ["out"], "set": {"y": 1}}, "no placeholder 'y'; near names: x"),
])  # fmt: skip
def test_options_that_name_what_is_not_there(source, tmp_path, options, match):
    with pytest.raises(NotFoundError, match=match):
        convert(source / "graph.pb", tmp_path / "new", to="frozen-graph", **options)


def test_a_map_must_cover_the_checkpoint(source, tmp_path):
    with pytest.raises(RestoreError) as caught:
        convert(source / "model.ckpt", tmp_path / "new", to="npz", map={"dense/krenel": "w"})
    assert (caught.value.missing, caught.value.unused) == (("dense/krenel",), ("dense/kernel",))
    assert left(tmp_path) == []


def test_a_map_renames_variables_of_a_graph(source, tmp_path):
    values = {"w": ArrayTensor(np.ones((4, 3), np.float32))}
    write_checkpoint(values, source / "renamed.ckpt", Delivery())

    result = run(
        source, tmp_path / "new", "frozen-graph", checkpoint=str(source / "renamed.ckpt"), map={"w": "dense/kernel"}
    )

    assert result.variables == 1


def test_the_result_is_what_json_prints(source, tmp_path):
    result = run(source, tmp_path / "new", "frozen-graph")

    found = result.as_dict()
    assert list(found) == ["format", "path", "bytes", "variables", "seconds", "verified", "inputs", "outputs", "notes"]
    assert found["verified"]["weights"] == {"compared": 1, "bytes": 48, "different": 0}
    assert (found["inputs"], found["outputs"]) == ({"x:0": "x:0"}, {"out": "out:0"})
    assert found["seconds"] >= 0


def test_progress_counts_what_is_written_and_compared(source, tmp_path):
    counted = []
    run(source, tmp_path / "new", "safetensors", progress=counted.append)

    assert sum(counted) >= 2 * 48


def test_a_frozen_model_takes_constant_memory(tmp_path):
    """256 MB of weights are frozen, and read again to be proved, in less than 100 MB."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_graph(dense((8192, 8192)), folder / "graph.pb", Delivery())
    values = ArrayTensor(np.broadcast_to(np.float32(1.5), (8192, 8192)))
    write_checkpoint({"dense/kernel": values}, folder / "model.ckpt", Delivery())

    program = """
import resource, sys
from tfthaw.conversion.converting import convert
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
graph, values, target = sys.argv[1] + "/graph.pb", sys.argv[1] + "/model.ckpt", sys.argv[2]
result = convert(graph, target, to="frozen-graph", outputs=["out"], checkpoint=values)
assert result.verified.weights.bytes == 1 << 28
print(peak() - before)
"""
    try:
        arguments = [sys.executable, "-c", program, str(folder), str(tmp_path / "new.pb")]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert int(done.stdout) < 100_000  # KiB
        assert os.path.getsize(tmp_path / "new.pb") > 1 << 28
    finally:
        (tmp_path / "new.pb").unlink(missing_ok=True)
        shutil.rmtree(folder)


@pytest.mark.tf
def test_variables_in_functions_are_no_reason_to_refuse(tf, tmp_path):
    class Multiply(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(tf.ones([4, 3]), name="w")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], "float32")])
        def __call__(self, x):
            return {"y": x @ self.w}

    model = Multiply()
    tf.saved_model.save(model, str(tmp_path / "source"), signatures=model.__call__)

    for to in ("frozen-graph", "saved-model", "meta-graph"):
        result = convert(tmp_path / "source", tmp_path / f"new-{to}.meta", to=to, signature="serving_default")
        assert result.variables == 1
    result = convert(tmp_path / "source", tmp_path / "new", to="npz")
    assert result.variables == 1
    assert Path(result.path).is_file()
