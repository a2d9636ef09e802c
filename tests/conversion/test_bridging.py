"""`--for-tf` and `--strip-attrs`, through every format that carries a graph."""

import numpy as np
import pytest

from graphs import call, constant, function, graph, library, node, placeholder
from older_judge import unreadable
from tfthaw import proto
from tfthaw.conversion.bridging import bridge
from tfthaw.conversion.converting import convert
from tfthaw.conversion.options import Options
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError, UsageError
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.formats.meta_graph import read_meta_graph
from tfthaw.ir.attrs import AttrList
from tfthaw.ir.graph import TensorName, Versions
from tfthaw.ir.model import Model
from tfthaw.serde.artifacts import open_artifact

NOT_VERSIONS = ["1.3", "0.12", "1.16", "3.0", "2.99", "two", "1", "", "1.15; rm", "1..4", "2.4rc0", "٢.١"]


@pytest.fixture
def newer(tmp_path):
    """A frozen graph as a TensorFlow of today writes it."""
    nodes = [
        placeholder("x", (None, 3)),
        constant("c", np.float32([1, 2, 3])),
        node("a", "AddV2", "x", "c"),
        node("l", "LeakyRelu", "a", alpha=0.25),
        node("out", "MatMul", "l", "l", transpose_a=False, transpose_b=True, grad_a=False, grad_b=False),
    ]
    model = Model(graph(*nodes))
    model.graph.versions = Versions(2474, 0)
    path = tmp_path / "newer.pb"
    write_graph(model, path, Delivery(False, None, lambda written: None, lambda *some: None))
    return path


def graph_at(path):
    with open_artifact(path) as artifact:
        return artifact.model().graph


@pytest.mark.parametrize("to", ["frozen-graph", "graph-def", "meta-graph", "saved-model"])
def test_every_graph_format(newer, tmp_path, to):
    target = tmp_path / ("out.meta" if to == "meta-graph" else "out")
    options = {"style": "v1"} if to == "saved-model" else {}
    result = convert(newer, target, to=to, outputs=["out"], for_tf="1.4", verify="weights", **options)

    written = graph_at(target)
    assert unreadable(written, "1.4") == []
    assert written.versions.producer == 24
    assert {"Add", "Select"} <= {found.op for found in written.nodes}
    assert "1 AddV2 became Add for TensorFlow 1.4, which computes the same" in result.notes
    assert any("MatMul.grad_a (1), MatMul.grad_b (1)" in note for note in result.notes)


def test_nothing_is_written_where_the_version_cannot_read_it(newer, tmp_path):
    with open_artifact(newer) as artifact:
        model = artifact.model()
    model.graph.nodes.append(node("late", "Einsum", "out", N=1, equation=b"ij->ji"))
    path = tmp_path / "einsum.pb"
    write_graph(model, path, Delivery(False, None, lambda written: None, lambda *some: None))
    with pytest.raises(UnsupportedError, match=r"TensorFlow 1.14 cannot read 1 of the graph's nodes") as caught:
        convert(path, tmp_path / "old.pb", to="frozen-graph", outputs=["late"], for_tf="1.14")
    assert caught.value.hint == "TensorFlow 1.15 is the first that reads it all: --for-tf 1.15"
    assert caught.value.path == str(path)
    assert not (tmp_path / "old.pb").exists()


def test_stripped_attrs(newer, tmp_path):
    result = convert(newer, tmp_path / "out.meta", to="meta-graph", outputs=["out"], strip_attrs=True, verify="weights")

    assert "dropped 4 attrs that were at their default" in result.notes  # T of LeakyRelu is one
    attrs = {found.name: set(found.attrs) for found in graph_at(tmp_path / "out.meta").nodes}
    assert attrs["out"] == {"T", "transpose_b"}
    again = convert(tmp_path / "out.meta", tmp_path / "b.pb", to="frozen-graph", outputs=["out"], strip_attrs=True,
                    verify="weights")  # fmt: skip
    assert "no attr was at its default" in again.notes


def test_a_meta_graph_says_that_it_was_stripped(tmp_path, newer):
    convert(newer, tmp_path / "a.meta", to="meta-graph", outputs=["out"], verify="weights")
    convert(tmp_path / "a.meta", tmp_path / "b.meta", to="meta-graph", strip_attrs=True, verify="weights")
    stripped = [read_meta_graph(tmp_path / name).message.meta_info_def.stripped_default_attrs
                for name in ("a.meta", "b.meta")]  # fmt: skip
    assert stripped == [False, True]
    info = proto.MetaGraphDef()
    info.meta_info_def.tensorflow_version = "2.21.0"
    model, _ = bridge(Model(graph(), opaque=proto.serialize(info)), Options(to="meta-graph", strip_attrs=True), [])
    said = proto.parse(proto.MetaGraphDef, model.opaque).meta_info_def
    assert (said.stripped_default_attrs, said.tensorflow_version) == (True, "2.21.0")


def test_what_the_source_says_of_its_ops_is_used():
    described = proto.MetaGraphDef()
    op = described.meta_info_def.stripped_op_list.op.add(name="MatMul")
    op.attr.add(name="turbo", type="bool").default_value.b = False
    found = graph(node("m", "MatMul", "x", "x", turbo=False))
    model, _ = bridge(Model(found, opaque=proto.serialize(described)), Options(to="meta-graph", for_tf="2.0"), [])
    assert set(model.graph.nodes[0].attrs) == {"T"}
    with pytest.raises(UnsupportedError, match="has nobody say its default"):
        bridge(Model(found), Options(to="meta-graph", for_tf="2.0"), [])


def test_fetched_outputs_count():
    found = graph(node("n", "FusedBatchNormV3", *"xsomv", U=DType.float32, is_training=False))
    bridge(Model(found), Options(to="frozen-graph", for_tf="1.13"), [TensorName("n", 0)])
    with pytest.raises(UnsupportedError, match="its sixth output is used"):
        bridge(Model(found), Options(to="frozen-graph", for_tf="1.13"), [TensorName("n", 5)])


def test_calls_of_functions_need_a_version_that_has_them():
    inner = function("f", {"x": DType.float32}, [node("y", "AddV2", "x", "x")], {"y": ("y:z:0", DType.float32)})
    called = call("c", "f", "x", op="PartitionedCall")
    types = AttrList("type", [DType.float32])
    called.attrs.update(Tin=types, Tout=types, config_proto=b"\n\x07\n\x03CPU\x10\x01", executor_type=b"")
    model = Model(library([placeholder("x"), called], inner))
    with pytest.raises(UnsupportedError, match="frozen-graph and meta-graph inline calls"):
        bridge(model, Options(to="graph-def", for_tf="1.8"), [])
    found, _ = bridge(model, Options(to="graph-def", for_tf="1.9"), [])
    assert set(found.graph.nodes[1].attrs) == {"f", "Tin", "Tout"}


def test_nothing_is_done_unasked():
    model = Model(graph(node("a", "AddV2", "x", "x")))
    assert bridge(model, Options(to="frozen-graph"), []) == (model, [])


@pytest.mark.parametrize("version", NOT_VERSIONS)
def test_versions_that_nobody_knows(version):
    with pytest.raises(UsageError, match=r"expected major.minor of a TensorFlow from 1.4 to 2.\d\d"):
        Options(to="frozen-graph", for_tf=version)


@pytest.mark.parametrize("version", ["1.4", "1.15.5", "2.4.1-rc0", "2.21"])
def test_versions_with_and_without_patch(version):
    assert Options(to="frozen-graph", for_tf=version).for_tf == version


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"to": "npz", "for_tf": "1.15"}, "for_tf choose or change a part of a graph"),
        ({"to": "checkpoint", "strip_attrs": True}, "strip_attrs choose or change"),
        ({"to": "saved-model", "style": "v2", "for_tf": "1.15"}, "loads no SavedModel of functions.*--style v1"),
    ],
)
def test_where_there_is_no_graph_for_it(options, match):
    with pytest.raises(UsageError, match=match):
        Options(**options)
    Options(to="saved-model", style="v2", for_tf="2.4")


@pytest.mark.tf
def test_outputs_are_the_same(tf, newer, tmp_path):
    result = convert(newer, tmp_path / "old.pb", to="frozen-graph", outputs=["out"], for_tf="1.4", strip_attrs=True)
    assert result.verified.outputs.done
    assert result.verified.outputs.max_abs == 0
