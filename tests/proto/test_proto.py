"""Parsing and serialising in the private pool."""

import pytest

from tfthaw import proto
from tfthaw.errors import FormatError


def test_parse_reads_what_serialize_writes():
    node = proto.NodeDef(name="a", op="Const")
    node.attr["dtype"].type = 1

    assert proto.parse(proto.NodeDef, proto.serialize(node)) == node
    assert proto.parse(proto.NodeDef, memoryview(proto.serialize(node))) == node


def test_serialize_is_the_same_for_equal_messages():
    one, other = proto.NodeDef(), proto.NodeDef()
    for key in "abcdefgh":
        one.attr[key].i = ord(key)
    for key in "hgfedcba":
        other.attr[key].i = ord(key)

    assert proto.serialize(one) == proto.serialize(other)


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x0a\x01\xff", b"\x0b", b"\x00"])
def test_parse_refuses_what_is_no_message(data):
    with pytest.raises(FormatError, match="the bytes are no NodeDef") as caught:
        proto.parse(proto.NodeDef, data, path="graph.pb", where="node 3")
    assert (caught.value.path, caught.value.where) == ("graph.pb", "node 3")


def test_unknown_fields_are_kept_and_seen():
    data = b"\x0a\x01a" + b"\xf8\x07\x2a"  # field 127, varint 42

    node = proto.parse(proto.NodeDef, data)

    assert proto.has_unknown_fields(node)
    assert not proto.has_unknown_fields(proto.NodeDef(name="a"))
    assert proto.serialize(node) == data


def test_message_class_knows_nested_messages():
    assert proto.message_class("tensorflow.MetaGraphDef.MetaInfoDef") is proto.MetaInfoDef
    with pytest.raises(KeyError):
        proto.message_class("tensorflow.NoSuchMessage")
