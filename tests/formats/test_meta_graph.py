"""MetaGraphDef files."""

import pytest

from tfthaw import proto
from tfthaw.errors import FormatError, UnsupportedError
from tfthaw.formats.meta_graph import read_meta_graph, write_meta_graph
from tfthaw.formats.wire import Contents
from tfthaw.proto.text import to_text


def meta_graph(content=b"c" * 9000):
    message = proto.MetaGraphDef()
    message.meta_info_def.tags.append("train")
    message.graph_def.node.add(name="w", op="Const").attr["value"].tensor.tensor_content = content
    message.saver_def.filename_tensor_name = "save/Const:0"
    for name in ("trainable_variables", "variables"):
        message.collection_def[name].bytes_list.value.append(b"\x0a\x01w")
    return message


@pytest.mark.parametrize("as_text", [False, True])
def test_read_is_the_inverse_of_write(tmp_path, as_text):
    path = tmp_path / "model.meta"
    with open(path, "wb") as file:
        write_meta_graph(file, meta_graph(), as_text=as_text)

    found = read_meta_graph(path)

    assert found.is_text == as_text
    assert len(found.contents) == (not as_text)
    with open(tmp_path / "again", "wb") as file:
        write_meta_graph(file, found.message, found.contents)
    assert (tmp_path / "again").read_bytes() == proto.serialize(meta_graph())


def test_too_large_a_message_is_refused(tmp_path):
    class Huge:
        nbytes = 1 << 31

        def chunks(self):
            raise AssertionError("nothing may be read")

    contents = Contents()
    message = meta_graph(contents.add(Huge()))

    with open(tmp_path / "a", "wb") as file, pytest.raises(UnsupportedError, match="no reader opens"):
        write_meta_graph(file, message, contents)
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        proto.serialize(proto.GraphDef(node=[proto.NodeDef(name="a" * 30, op="NoOp")])),
        to_text(proto.GraphDef(node=[proto.NodeDef(name="a")])).encode(),
        proto.serialize(meta_graph())[:-20],
    ],
)
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "a.meta").write_bytes(data)

    with pytest.raises(FormatError) as caught:
        read_meta_graph(tmp_path / "a.meta")
    assert caught.value.path == str(tmp_path / "a.meta")


@pytest.mark.tf
def test_tensorflow_imports_what_we_write(tmp_path):
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        v1.get_variable("w", [3], use_resource=False)
        v1.train.Saver()
        v1.train.export_meta_graph(str(tmp_path / "theirs.meta"), graph=graph)

    found = read_meta_graph(tmp_path / "theirs.meta")
    with open(tmp_path / "ours.meta", "wb") as file:
        write_meta_graph(file, found.message, found.contents)

    with tf.Graph().as_default() as again:
        v1.train.import_meta_graph(str(tmp_path / "ours.meta"))
    assert {node.name for node in again.as_graph_def().node} >= {node.name for node in graph.as_graph_def().node}
