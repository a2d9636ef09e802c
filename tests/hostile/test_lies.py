"""Artifacts that are well made and tempt a converter to succeed with something wrong."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import ml_dtypes
import numpy as np
import pytest
from seeds import B, F, S, W, add, meta_graph, signed, variable_graph, write_checkpoint
from tensor_lies import rewrite_index

import tfthaw
from tfthaw.cli.main import main
from tfthaw.errors import RestoreError, UsageError, VerificationError

OTHER = W[::-1].copy()


def node(graph, name):
    return next(item for item in graph.node if item.name == name)


@pytest.fixture
def make(tmp_path):
    """Write a MetaGraph with its checkpoint; `change` changes the graph first."""

    def make(change=lambda graph: None, tensors=None):
        graph = variable_graph()
        change(graph)
        write_checkpoint(tmp_path / "in", tensors=tensors)
        path = tmp_path / "in" / "model.meta"
        path.write_bytes(meta_graph(graph).SerializeToString())
        return path

    return make


def freeze(source, tmp_path, **options):
    options = {"outputs": ["softmax"], "verify": "weights"} | options
    return tfthaw.convert(source, tmp_path / "out.pb", to="frozen-graph", **options)


def constants(path):
    with tfthaw.open(path) as artifact:
        return {item.name: item.tensor().numpy() for item in artifact.model().graph.nodes if item.op == "Const"}


def test_a_saver_that_restores_crosswise_is_believed(make, tmp_path):
    def cross(graph):
        add(graph, "v", "VariableV2", dtype=F, shape=W.shape)
        add(graph, "names", "Const", dtype=S, value=np.array([b"w", b"v"], object))
        add(graph, "slices", "Const", dtype=S, value=np.array([b"", b""], object))
        add(graph, "restore", "RestoreV2", "save/Const", "names", "slices", dtypes=[F, F])
        add(graph, "assign", "Assign", "v", "restore:0", T=F)
        node(graph, "save/Assign_0").input[1] = "restore:1"
        node(graph, "save/restore_all").input.append("^assign")

    freeze(make(cross, {"w": W, "v": OTHER, "b": B}), tmp_path)
    np.testing.assert_array_equal(constants(tmp_path / "out.pb")["w"], OTHER)


def test_a_saver_that_computes_a_value_is_not_taken_for_one_that_restores_it(make, tmp_path):
    def negate(graph):
        add(graph, "negative", "Neg", "save/RestoreV2:0", T=F)
        node(graph, "save/Assign_0").input[1] = "negative"

    source = make(negate)
    with pytest.raises(RestoreError, match=r"w is computed by Neg \(negative\)"):
        freeze(source, tmp_path)
    assert not (tmp_path / "out.pb").exists()
    freeze(source, tmp_path, map={"w": "w"})  # the user may say that it is the value
    np.testing.assert_array_equal(constants(tmp_path / "out.pb")["w"], W)


def test_a_value_of_another_type_and_the_same_size_is_refused(make, tmp_path):
    with pytest.raises(RestoreError, match="w is float32, the checkpoint has int32"):
        freeze(make(tensors={"w": W.view(np.int32), "b": B}), tmp_path)


def test_a_value_of_another_shape_and_the_same_size_is_refused(make, tmp_path):
    with pytest.raises(RestoreError, match=r"w is \[4, 3\], the checkpoint has \[3, 4\]"):
        freeze(make(tensors={"w": W.reshape(3, 4), "b": B}), tmp_path)


def test_two_variables_of_one_shared_name_are_not_mixed_up(make, tmp_path):
    def share(graph):
        for name in ("w", "b"):
            item = node(graph, name)
            item.op = "VarHandleOp"
            item.attr["shared_name"].s = b"same"
            read = node(graph, f"{name}/read")
            read.op = "ReadVariableOp"
            read.attr["dtype"].type = int(F)
            del read.attr["T"]
        kept = [item for item in graph.node if not item.name.startswith("save/")]
        del graph.node[:]
        graph.node.extend(kept)

    with pytest.raises(RestoreError, match=r"same is \[3\]"):
        freeze(make(share, {"same": W}), tmp_path)


def name_alike(graph):
    add(graph, "a/b", "Identity", "softmax", T=F)
    add(graph, "a_b", "Identity", "logits", T=F)


@pytest.mark.parametrize("to", ["saved-model", "meta-graph"])
def test_two_outputs_that_would_have_one_name_are_refused(make, tmp_path, to):
    with pytest.raises(UsageError, match="would both be 'a_b'"):
        tfthaw.convert(make(name_alike), tmp_path / "out", to=to, outputs=["a/b", "a_b"], verify="weights")


def test_a_frozen_graph_has_no_signature_in_which_names_could_meet(make, tmp_path):
    given = {"outputs": ["a/b", "a_b"], "verify": "weights"}
    result = tfthaw.convert(make(name_alike), tmp_path / "out.pb", to="frozen-graph", **given)

    assert result.outputs == {"a/b": "a/b:0", "a_b": "a_b:0"}
    with tfthaw.open(tmp_path / "out.pb") as frozen:
        nodes = {node.name: node for node in frozen.model().graph.nodes}
    assert nodes["a/b"].inputs == ["softmax"]
    assert nodes["a_b"].inputs == ["logits"]


def test_an_output_given_twice_is_one_output(make, tmp_path):
    result = freeze(make(), tmp_path, outputs=["softmax", "softmax:0"])
    assert set(result.outputs.values()) == {"softmax:0"}


def test_an_input_that_is_an_output(make, tmp_path):
    result = freeze(make(), tmp_path, inputs=["x"], outputs=["x", "softmax"])
    assert (result.inputs, result.outputs) == ({"x": "x:0"}, {"x": "x:0", "softmax": "softmax:0"})


def test_a_set_placeholder_is_no_input_any_more(make, tmp_path):
    result = freeze(make(), tmp_path, inputs=["x"], set={"x": [[1, 2, 3, 4]]})
    assert result.inputs == {}
    np.testing.assert_array_equal(constants(tmp_path / "out.pb")["x"], [[1, 2, 3, 4]])


def test_two_keys_may_share_their_bytes(tmp_path):
    prefix = write_checkpoint(tmp_path / "in", tensors={"v": OTHER, "w": W})
    rewrite_index(prefix, lambda _, entries: setattr(entries["v"], "offset", entries["w"].offset))
    with pytest.raises(tfthaw.ChecksumError):
        tfthaw.convert(prefix, tmp_path / "out.npz", to="npz")
    rewrite_index(prefix, lambda _, entries: setattr(entries["v"], "crc32c", entries["w"].crc32c))
    tfthaw.convert(prefix, tmp_path / "out.npz", to="npz")
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["v"], W)


def bits(dtype, unsigned, *values):
    return np.array(values, unsigned).view(dtype)


ODD_VALUES = {
    "nan-payloads": bits(np.float32, np.uint32, 0x7F800001, 0xFFC00001, 0x7FFFFFFF),
    "negative-zero": np.array([-0.0, 0.0]),
    "denormal": bits(np.float32, np.uint32, 1, 0x80000001),
    "bfloat16": bits(ml_dtypes.bfloat16, np.uint16, 1, 0x8001, 0x7F81, 0xFFFF),
    "float16": bits(np.float16, np.uint16, 1, 0x7C01),
    "no-rows": np.zeros((0, 5), np.float32),
    "no-columns": np.zeros((3, 0), np.int64),
    "scalar": np.float64(3),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j, np.nan], np.complex64),
    "uint64": np.array([2**64 - 1], np.uint64),
}


@pytest.mark.parametrize("to", ["checkpoint", "safetensors", "npz"])
def test_odd_values_survive_bit_for_bit(tmp_path, to):
    prefix = write_checkpoint(tmp_path / "in", tensors={k: v for k, v in ODD_VALUES.items() if v.dtype.kind != "c"}
                              if to == "safetensors" else ODD_VALUES)  # fmt: skip
    tfthaw.convert(prefix, tmp_path / "there", to=to)
    tfthaw.convert(tmp_path / "there", tmp_path / "back", to="checkpoint")
    assert tfthaw.diff(prefix, tmp_path / "back").same


def test_strings_with_zero_bytes_survive(tmp_path):
    strings = np.array([b"a\0b", b"", b"\0", b"\xff"], object)
    prefix = write_checkpoint(tmp_path / "in", tensors={"s": strings})
    tfthaw.convert(prefix, tmp_path / "out", to="checkpoint")
    with tfthaw.open(tmp_path / "out") as artifact:
        assert artifact.variables["s"].numpy().tolist() == strings.tolist()


@pytest.mark.parametrize(("one", "other"), [
    (np.array([0.0]), np.array([-0.0])),
    (bits(np.float32, np.uint32, 0x7FC00001), bits(np.float32, np.uint32, 0x7FC00002)),
    (np.zeros((0, 3)), np.zeros((3, 0))),
    (np.array([b"a"], object), np.array([b"a\0"], object)),
])  # fmt: skip
def test_diff_sees_what_compares_equal_and_is_not(tmp_path, one, other):
    paths = [write_checkpoint(tmp_path / name, tensors={"w": value}) for name, value in (("a", one), ("b", other))]
    assert not tfthaw.diff(*paths).same


def test_a_signature_with_an_output_that_does_not_exist(make, tmp_path):
    path = make()
    path.write_bytes(signed(meta_graph(), y="softmax:7").SerializeToString())
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        assert main(["convert", str(path), str(tmp_path / "out"), "--to", "saved-model", "--verify", "weights"]) == 2
    assert "softmax (Softmax) has 1 output" in said.getvalue()


def test_what_is_written_wrong_is_found_and_removed(make, tmp_path, monkeypatch):
    """The proof reads what was written: a writer that errs is caught."""
    from tfthaw.formats import npz

    source = write_checkpoint(tmp_path / "in")
    write = npz.write_npz

    def wrong(file, tensors, **options):
        from tfthaw.tensors import ArrayTensor

        write(file, tensors | {"w": ArrayTensor(OTHER)}, **options)

    monkeypatch.setattr("tfthaw.formats.npz.write_npz", wrong)
    with pytest.raises(VerificationError, match="w: the first different byte"):
        tfthaw.convert(source, tmp_path / "out.npz", to="npz")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in"]


def test_json_of_an_odd_model_is_json(make):
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["inspect", "--json", str(make())]) == 0
    assert json.loads(said.getvalue())["format"] == "meta-graph"
