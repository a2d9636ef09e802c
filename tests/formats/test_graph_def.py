"""GraphDef files: both forms, damage, and TensorFlow as the oracle."""

import io

import numpy as np
import pytest

from tfthaw import proto
from tfthaw.errors import FormatError, LimitError, NotFoundError, StructureError, TruncatedError, UnsupportedError
from tfthaw.formats.graph_def import read_graph_def, write_graph_def
from tfthaw.formats.wire import Contents
from tfthaw.limits import Limits
from tfthaw.proto.text import to_text
from tfthaw.tensors import ArrayTensor


def graph_def(content=b"\0\0\x80\x3f" * 2000):
    graph = proto.GraphDef(node=[proto.NodeDef(name="x", op="Placeholder"), proto.NodeDef(name="w", op="Const")])
    graph.node[0].attr["dtype"].type = 1
    tensor = graph.node[1].attr["value"].tensor
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=len(content) // 4)
    tensor.tensor_content = content
    graph.node[1].attr["dtype"].type = 1
    graph.versions.producer = 27
    return graph


def test_binary_and_text_give_the_same_graph(tmp_path):
    graph = graph_def()
    (tmp_path / "a.pb").write_bytes(proto.serialize(graph))
    (tmp_path / "text.pb").write_text(to_text(graph))

    binary, text = read_graph_def(tmp_path / "a.pb"), read_graph_def(str(tmp_path / "text.pb"))

    assert (binary.is_text, text.is_text) == (False, True)
    assert len(binary.contents) == 1
    assert (text.message, dict(text.contents), text.notes) == (graph, {}, ())
    assert (binary.path, binary.size) == (str(tmp_path / "a.pb"), len(proto.serialize(graph)))


@pytest.mark.parametrize("as_text", [False, True])
def test_what_was_read_is_written_again(tmp_path, as_text):
    graph = graph_def()
    (tmp_path / "a.pb").write_bytes(proto.serialize(graph))
    found = read_graph_def(tmp_path / "a.pb")

    with open(tmp_path / "b.pb", "wb") as file:
        pieces = write_graph_def(file, found.message, found.contents, as_text=as_text)

    data = (tmp_path / "b.pb").read_bytes()
    assert pieces.total_bytes == len(data)
    assert data == (to_text(graph).encode() if as_text else proto.serialize(graph))
    for offset, length in pieces.places.values():
        assert data[offset : offset + length] == graph.node[1].attr["value"].tensor.tensor_content
    assert bool(pieces.places) != as_text


def test_a_small_graph_is_these_bytes():
    graph = proto.GraphDef(node=[proto.NodeDef(name="a", op="NoOp")])
    file = io.BytesIO()

    write_graph_def(file, graph)

    assert file.getvalue() == b"\x0a\x09\x0a\x01a\x12\x04NoOp"


def test_too_large_a_graph_is_refused_before_the_first_byte():
    contents = Contents()
    graph = graph_def()
    huge = ArrayTensor(np.broadcast_to(np.float32(1), (1 << 29,)))
    graph.node[1].attr["value"].tensor.tensor_content = contents.add(huge)
    file = io.BytesIO()

    with pytest.raises(UnsupportedError, match=r"no reader opens .*convert --to saved-model"):
        write_graph_def(file, graph, contents)
    assert file.getvalue() == b""


def test_too_many_constants_for_text_are_refused():
    contents = Contents()
    graph = graph_def()
    large = ArrayTensor(np.broadcast_to(np.float32(1), (1 << 27,)))
    graph.node[1].attr["value"].tensor.tensor_content = contents.add(large)
    file = io.BytesIO()

    with pytest.raises(UnsupportedError, match="too much for text"):
        write_graph_def(file, graph, contents, as_text=True)
    assert file.getvalue() == b""


def test_a_lost_value_is_refused(tmp_path):
    (tmp_path / "a.pb").write_bytes(proto.serialize(graph_def()))

    with pytest.raises(StructureError, match="value is not there"):
        write_graph_def(io.BytesIO(), read_graph_def(tmp_path / "a.pb").message)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"\xf8\x07\x2a", "nothing in the file is a field of a GraphDef"),
        (b"\x0a\x05\x0a", "passes the end"),
        (b"node { name: 3 }", "the text is no GraphDef"),
        (b"meta_info_def { }", "nothing in the file is a field of a GraphDef"),
        (b"\x89HDF\r\n\x1a\n", "the bytes are no GraphDef"),
    ],
)
def test_other_files_are_refused(tmp_path, data, text):
    (tmp_path / "a.pb").write_bytes(data)

    with pytest.raises(FormatError, match=text) as caught:
        read_graph_def(tmp_path / "a.pb")
    assert caught.value.path == str(tmp_path / "a.pb")


def test_missing_files_and_directories_are_refused(tmp_path):
    with pytest.raises(NotFoundError):
        read_graph_def(tmp_path / "none.pb")
    with pytest.raises(FormatError, match="found a directory"):
        read_graph_def(tmp_path)
    with pytest.raises(NotFoundError, match="it has a NUL"):
        read_graph_def("a\0b")


def test_large_texts_are_bounded(tmp_path):
    (tmp_path / "a.pbtxt").write_text(to_text(graph_def()))

    with pytest.raises(LimitError, match="100 are allowed"):
        read_graph_def(tmp_path / "a.pbtxt", Limits(max_message_bytes=100))


def test_fields_unknown_to_the_schema_are_noted_in_text_and_kept_in_binary(tmp_path):
    (tmp_path / "a.pbtxt").write_text('node { name: "a" op: "NoOp" brand_new: 3 }')
    (tmp_path / "a.pb").write_bytes(b"\x0a\x0c\x0a\x01a\x12\x04NoOp\xf8\x07\x03")

    text, binary = read_graph_def(tmp_path / "a.pbtxt"), read_graph_def(tmp_path / "a.pb")

    assert text.message.node[0].op == binary.message.node[0].op == "NoOp"
    assert "brand_new" in text.notes[0]
    assert proto.serialize(binary.message) == (tmp_path / "a.pb").read_bytes()


def test_graphs_of_the_first_tensorflow_survive(tmp_path):
    # no versions but the old `version` (field 3), and the order of a writer of that time
    data = b"\x0a\x09\x0a\x01a\x12\x04NoOp\x18\x08"
    (tmp_path / "a.pb").write_bytes(data)
    file = io.BytesIO()

    found = read_graph_def(tmp_path / "a.pb")
    write_graph_def(file, found.message, found.contents)

    assert found.message.version == 8
    assert not found.message.HasField("versions")
    assert file.getvalue() == data


def test_every_cut_is_truncated_or_shorter(tmp_path):
    data = proto.serialize(graph_def(b"1234" * 3))
    for end in range(1, len(data)):
        (tmp_path / "a.pb").write_bytes(data[:end])
        try:
            found = read_graph_def(tmp_path / "a.pb")
        except TruncatedError:
            continue
        assert len(found.message.node) < 2 or not found.message.HasField("versions")


@pytest.mark.tf
def test_tensorflow_reads_what_is_written_and_we_what_it_writes(tmp_path):
    import tensorflow as tf

    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        tf.identity(tf.constant(values, name="w"), name="y")
    theirs = graph.as_graph_def(add_shapes=True)
    for name, as_text in (("theirs.pb", False), ("theirs.pbtxt", True)):
        tf.io.write_graph(theirs, str(tmp_path), name, as_text=as_text)
        found = read_graph_def(tmp_path / name)
        assert (found.is_text, len(found.contents)) == (as_text, not as_text)
        with open(tmp_path / "ours.pb", "wb") as file:
            write_graph_def(file, found.message, found.contents)

        again = tf.compat.v1.GraphDef.FromString((tmp_path / "ours.pb").read_bytes())
        assert again == theirs
        np.testing.assert_array_equal(tf.make_ndarray(again.node[0].attr["value"].tensor), values)
