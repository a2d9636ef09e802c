"""The text form, in the private pool."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw import proto
from tfthaw.errors import FormatError, UnsupportedError
from tfthaw.proto.text import first_field, parse_text, to_text

GRAPH = b"""# a graph
node {
  name: "x\\303\\251"
  op: "Placeholder"
  attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "shape" value { shape { dim { size: -1 } } } }
}
versions < producer: 27 >
"""


def test_parse_and_print_are_inverse():
    graph = parse_text(proto.GraphDef, GRAPH)

    assert graph.node[0].name == "xé"
    assert graph.versions.producer == 27
    text = to_text(graph)
    assert text.isascii()
    assert parse_text(proto.GraphDef, text) == graph
    assert parse_text(proto.GraphDef, b"\xef\xbb\xbf" + text.encode()) == graph


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40), st.text(max_size=10), st.floats(width=32, allow_nan=False))
def test_any_value_survives(content, name, number):
    node = proto.NodeDef(op="Const")
    try:
        node.name = name
    except (UnicodeEncodeError, ValueError):  # a lone surrogate is no UTF-8
        return
    node.attr["value"].tensor.tensor_content = content
    node.attr["f"].f = number

    assert parse_text(proto.NodeDef, to_text(node)) == node


def test_an_any_keeps_its_bytes():
    meta_graph = proto.MetaGraphDef()
    packed = meta_graph.collection_def["c"].any_list.value.add()
    packed.type_url = "type.googleapis.com/tensorflow.AssetFileDef"
    packed.value = b"\xff\xff no message"

    assert parse_text(proto.MetaGraphDef, to_text(meta_graph)) == meta_graph


def test_an_unfolded_any_is_read():
    text = "any_list { value { [type.googleapis.com/tensorflow.AssetFileDef] { filename: 'vocab.txt' } } }"

    collection = parse_text(proto.CollectionDef, text)

    assert proto.AssetFileDef.FromString(collection.any_list.value[0].value).filename == "vocab.txt"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"node {\n  name: 5\n}", "2:9"),
        (b"node {\n  nam: 'a'\n}", "2:3"),
        (b"node {", None),
        (b"node { name: 'a' } }", "1:20"),
        (b"node { name: '\xff' }", "1:15"),
        (b"node {\n name: 'a'\n op: \"\xe9\" }", "3:7"),
        (b"versions { producer: 99999999999 }", "1:22"),
        (b"versions { producer: 1e5 }", "1:22"),
        (b"node { attr { key: 'a' value { type: NO_SUCH } } }", None),
        (b"node { name: '\\377\\377' }", None),
        (b"node { name: 'a' name: 'b' }", None),
        (b"\x00\x01", None),
        (b"node: [[[[", None),
    ],
)
def test_wrong_text_is_refused_with_its_place(text, where):
    with pytest.raises(FormatError, match="text is no") as caught:
        parse_text(proto.GraphDef, text, "graph.pbtxt")
    assert caught.value.path == "graph.pbtxt"
    if where is not None:
        assert caught.value.where == where


@pytest.mark.parametrize("levels", [40, 100, 1000, 100_000])
def test_deep_nesting_is_refused(levels):
    text = "attr { key: 'f' value { func { " * levels

    with pytest.raises(FormatError):
        parse_text(proto.NodeDef, text + "}}}" * levels)


def test_unknown_fields_are_skipped_only_where_it_is_said():
    text = b"node { name: 'a' op: 'B' colour: { red: 3 } }"
    notes = []

    graph = parse_text(proto.GraphDef, text, notes=notes)

    assert graph.node[0].op == "B"
    assert [note.partition(";")[0] for note in notes] == ["1:26: tensorflow.NodeDef has no field 'colour'"]
    with pytest.raises(FormatError, match="colour"):
        parse_text(proto.GraphDef, text)
    with pytest.raises(FormatError):
        parse_text(proto.GraphDef, text + b" node { name: 5 }", notes=[])


def test_printing_never_drops_an_unknown_field():
    graph = proto.GraphDef.FromString(b"\x0a\x06\x0a\x01a\xf8\x07\x2a")

    with pytest.raises(UnsupportedError, match="text has no form"):
        to_text(graph)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (GRAPH, "node"),
        (b"\xef\xbb\xbf# x\r\n\r\nsaved_model_schema_version: 1", "saved_model_schema_version"),
        (b"\nnode{", "node"),
        (b"node\n{", "node"),
        (b"meta_info_def <", "meta_info_def"),
        (b"", None),
        (b"# only a comment", None),
        (b"plain words", None),
        (b"\n#\n\x05input", None),
        (b"\x08\x01\x12", None),
        (b'{"a": 1}', None),
        (b"\x89HDF\r\n\x1a\n", None),
    ],
)
def test_first_field(head, name):
    assert first_field(head) == name


@pytest.mark.tf
def test_tensorflow_reads_our_text():
    from google.protobuf import text_format
    from tensorflow.core.framework import graph_pb2

    graph = parse_text(proto.GraphDef, GRAPH)
    theirs = text_format.Parse(to_text(graph), graph_pb2.GraphDef())

    assert theirs.SerializeToString(deterministic=True) == proto.serialize(graph)
    assert parse_text(proto.GraphDef, text_format.MessageToString(theirs)) == graph
