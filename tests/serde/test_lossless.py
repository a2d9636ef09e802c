"""What is read and written again is the same message, whatever it holds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from generated_messages import generated
from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.formats.graph_def import read_graph_def, write_graph_def
from tfthaw.formats.wire import THRESHOLD_BYTES, Contents
from tfthaw.ir.attrs import AttrList, FunctionName
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node
from tfthaw.serde.graphs import graph_from_proto, graph_to_proto
from tfthaw.serde.meta_graphs import model_from_proto, model_to_proto
from tfthaw.tensors import ArrayTensor

SETTINGS = settings(max_examples=30, deadline=None)


def assert_same(one, other):
    """Compare the messages, and their bytes: equality alone does not see every unknown field."""
    assert proto.serialize(other) == proto.serialize(one)
    assert other == one


@pytest.mark.parametrize("unknown", [False, True])
def test_graph_defs(unknown):
    @SETTINGS
    @given(generated(proto.GraphDef, unknown=unknown))
    def check(message):
        assert_same(message, graph_to_proto(graph_from_proto(message), Contents()))

    check()


@pytest.mark.parametrize("unknown", [False, True])
def test_every_attr_of_nodes_and_functions(unknown):
    @SETTINGS
    @given(
        generated(proto.NodeDef, unknown=unknown, always=["tensorflow.NodeDef.attr"]),
        generated(proto.FunctionDef, unknown=unknown, always=["tensorflow.FunctionDef.attr"]),
    )
    def check(node, function):
        message = proto.GraphDef(node=[node], library=proto.FunctionDefLibrary(function=[function]))
        assert_same(message, graph_to_proto(graph_from_proto(message), Contents()))

    check()


@pytest.mark.parametrize("unknown", [False, True])
def test_attrs_that_were_all_looked_at(unknown):
    """Attrs that nobody reads go from message to message; here each is read, and written from what was read."""

    @settings(SETTINGS, max_examples=60)
    @given(generated(proto.NodeDef, unknown=unknown, always=["tensorflow.NodeDef.attr"]))
    def check(node):
        message = proto.GraphDef(node=[node])
        graph = graph_from_proto(message)
        graph.nodes[0].attrs = read_through(graph.nodes[0].attrs)
        assert_same(message, graph_to_proto(graph, Contents()))

    check()


def read_through(attrs):
    """Return attrs with every value read, those of functions in attrs included."""
    return {name: _read_through(value) for name, value in attrs.items()}


def _read_through(value):
    if isinstance(value, FunctionName):
        return replace(value, attrs=read_through(value.attrs))
    if isinstance(value, AttrList):
        return replace(value, items=[_read_through(item) for item in value.items])
    return value


@pytest.mark.parametrize("unknown", [False, True])
def test_meta_graphs(unknown):
    @SETTINGS
    @given(generated(proto.MetaGraphDef, unknown=unknown))
    def check(message):
        assert_same(message, model_to_proto(model_from_proto(message), Contents()))

    check()


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(
    "field",
    [
        "signature_def",
        "collection_def",
        "asset_file_def",
        "saver_def",
        "graph_def",
        "object_graph_def",
        "meta_info_def",
    ],
)
def test_each_part_of_a_meta_graph(unknown, field):
    @settings(SETTINGS, max_examples=10)
    @given(generated(proto.MetaGraphDef, unknown=unknown, always=[f"tensorflow.MetaGraphDef.{field}"]))
    def check(message):
        assert_same(message, model_to_proto(model_from_proto(message), Contents()))

    check()


@settings(SETTINGS, max_examples=10)
@given(generated(proto.SavedModel, unknown=True, always=["tensorflow.SavedModel.meta_graphs"]))
def test_the_meta_graphs_of_a_saved_model(message):
    written = proto.SavedModel()
    written.CopyFrom(message)
    del written.meta_graphs[:]
    for meta in message.meta_graphs:
        model_to_proto(model_from_proto(meta), Contents(), written.meta_graphs.add())
    assert_same(message, written)


def graph_with_big_constants():
    """Return a graph with constants above and below what stays in the file: in nodes, lists, attrs of functions."""

    def tensor(count):
        values = np.arange(count, dtype=np.float32)
        message = proto.TensorProto(dtype=1, tensor_content=values.tobytes())
        message.tensor_shape.dim.add(size=count)
        return message

    graph = proto.GraphDef()
    big = THRESHOLD_BYTES
    for name, count in (("small", 4), ("big", big), ("bigger", 3 * big)):
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = 1
        node.attr["value"].tensor.CopyFrom(tensor(count))
    graph.node[0].attr["many"].list.tensor.extend([tensor(1), tensor(big)])
    graph.node[0].attr["call"].func.attr["inside"].tensor.CopyFrom(tensor(big + 1))
    function = graph.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="c", op="Const").attr["value"].tensor.CopyFrom(tensor(2 * big))
    return graph


@pytest.mark.parametrize("look", [False, True])
def test_big_constants_that_stay_in_the_file(tmp_path, look):
    data = proto.serialize(graph_with_big_constants())
    (tmp_path / "in.pb").write_bytes(data)
    file = read_graph_def(tmp_path / "in.pb")
    assert len(file.contents) == 5

    graph = graph_from_proto(file.message, file.contents)
    if look:
        for node in graph.walk():
            node.attrs = read_through(node.attrs)
    contents = Contents(file.contents)
    with open(tmp_path / "out.pb", "wb") as out:
        write_graph_def(out, graph_to_proto(graph, contents), contents)

    assert (tmp_path / "out.pb").read_bytes() == data


def test_big_constants_have_their_values(tmp_path):
    (tmp_path / "in.pb").write_bytes(proto.serialize(graph_with_big_constants()))
    file = read_graph_def(tmp_path / "in.pb")
    graph = graph_from_proto(file.message, file.contents)

    for node in graph.nodes:
        tensor = node.tensor()
        np.testing.assert_array_equal(tensor.numpy(), np.arange(tensor.size, dtype=np.float32))
        assert b"".join(bytes(chunk) for chunk in tensor.chunks(1000)) == tensor.numpy().tobytes()


def test_tensors_of_arrays_are_written_behind_their_message_when_they_are_big(tmp_path):
    big = np.arange(5000, dtype=np.float32).reshape(50, 100)
    graph = Graph([
        Node("big", "Const", attrs={"dtype": DType.float32, "value": ArrayTensor(big)}),
        Node("text", "Const", attrs={"dtype": DType.string, "value": ArrayTensor(["a", "ä"])}),
    ])  # fmt: skip
    contents = Contents()
    message = graph_to_proto(graph, contents)
    assert len(contents) == 1

    with open(tmp_path / "out.pb", "wb") as out:
        write_graph_def(out, message, contents)

    read = proto.GraphDef.FromString((tmp_path / "out.pb").read_bytes())
    assert read.node[0].attr["value"].tensor.tensor_content == big.tobytes()
    assert list(read.node[1].attr["value"].tensor.string_val) == [b"a", "ä".encode()]
