"""Placeholders that outputs need and that are no input: refused, with the cure."""

import pytest

from graphs import constant, node, placeholder
from tfthaw.conversion.converting import convert
from tfthaw.dtypes import DType
from tfthaw.errors import StructureError, UsageError
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.export.meta_graph import write_meta_graph
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph
from tfthaw.ir.model import Model
from tfthaw.ir.signatures import Signature, SignatureTensor

FORMATS = ("frozen-graph", "graph-def", "meta-graph", "saved-model")


def signature(inputs, outputs):
    def entries(names):
        return {name: SignatureTensor(f"{name}:0", DType.float32, Shape(None)) for name in names.split()}

    return Signature(entries(inputs), entries(outputs))


def nodes():
    return [
        placeholder("x", (None, 4)), placeholder("rate", ()), placeholder("nobody", ()),
        node("y", "Neg", "x"), node("z", "Mul", "y", "rate"), node("last", "Identity", "z"),
    ]  # fmt: skip


@pytest.fixture
def make(tmp_path):
    def make(signatures, graph=None):
        path = tmp_path / "in" / "model.meta"
        path.parent.mkdir()
        write_meta_graph(Model(Graph(graph or nodes()), signatures=signatures), {}, path, Delivery())
        return path

    return make


@pytest.mark.parametrize("to", FORMATS)
def test_a_signature_that_could_never_run(make, tmp_path, to):
    source = make({"predict": signature("x", "y z last")})
    with pytest.raises(StructureError) as caught:
        convert(source, tmp_path / "out", to=to, signature="predict", verify="weights")
    assert caught.value.problems == ("rate (float32[]) is needed by last, z of predict",)
    assert "--set rate=VALUE" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", FORMATS)
def test_a_value_is_the_cure(make, tmp_path, to):
    source = make({"predict": signature("x", "z")})
    result = convert(source, tmp_path / "out", to=to, signature="predict", set={"rate": 2.0}, verify="weights")
    assert result.inputs == {"x": "x:0"}


def test_every_signature_that_needs_one_is_named(make, tmp_path):
    signatures = {"fit": signature("x", "y"), "one": signature("x", "z"), "two": signature("rate", "z")}
    with pytest.raises(StructureError) as caught:
        convert(make(signatures), tmp_path / "out", to="saved-model", verify="weights")
    assert caught.value.problems == (
        "rate (float32[]) is needed by z of one", "x (float32[?, 4]) is needed by z of two")  # fmt: skip
    assert "or take another --signature: fit" in str(caught.value)


def test_the_signature_that_was_chosen_counts_alone(make, tmp_path):
    source = make({"fit": signature("x", "y"), "one": signature("x", "z")})
    convert(source, tmp_path / "out", to="saved-model", signature="fit", verify="weights")


@pytest.mark.parametrize("to", FORMATS)
def test_inputs_that_the_user_named(tmp_path, to):
    write_graph(Model(Graph(nodes())), tmp_path / "graph.pb", Delivery())
    with pytest.raises(UsageError, match=r"rate \(float32\[\]\) is needed by z; .*--inputs.* rate="):
        convert(tmp_path / "graph.pb", tmp_path / "out", to=to, inputs=["x"], outputs=["z"], verify="weights")
    convert(tmp_path / "graph.pb", tmp_path / "out", to=to, outputs=["z"], verify="weights")


def test_what_is_fed_further_on_needs_nothing(make, tmp_path):
    """An input may be any tensor; what computed it does not run."""
    source = make({"late": Signature({"y": SignatureTensor("z:0", DType.float32)},
                                     {"o": SignatureTensor("last:0", DType.float32)})})  # fmt: skip
    for to in FORMATS:
        convert(source, tmp_path / to, to=to, signature="late", verify="weights")


def test_a_branch_that_may_never_run_is_a_note(make, tmp_path):
    graph = [
        placeholder("x", ()), constant("p", 1.0), node("less", "Less", "p", "x"), node("s", "Switch", "x", "less"),
        node("pivot", "Identity", "s:1"), placeholder("inside", (), DType.float32, "Placeholder", "^pivot"),
        node("m", "Merge", "s", "inside", N=2),
    ]  # fmt: skip
    source = make({"cond": signature("x", "m")}, graph)
    result = convert(source, tmp_path / "out", to="frozen-graph", signature="cond", verify="weights")
    assert "inside is no input, and a branch of a cond needs it; --set gives it a value" in result.notes
