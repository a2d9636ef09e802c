"""Where the wire format is wrong: always and only where protobuf, too, refuses."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfthaw import proto
from tfthaw.formats.wire_check import WireError, fields, first_fault, sample_fault


def every_kind():
    """A GraphDef with every wire type and every kind of field in it."""
    graph = proto.GraphDef(node=[proto.NodeDef(name="é", op="Const", input=["^x"], device="/cpu:0")])
    tensor = graph.node[0].attr["value"].tensor
    tensor.dtype = 1
    tensor.tensor_content = b"\x00\xff"
    tensor.float_val.extend([1.0, 2.0])
    tensor.double_val.extend([3.0])
    tensor.int64_val.extend([-1, 300])
    tensor.bool_val.append(True)
    tensor.tensor_shape.dim.add(size=-1, name="n")
    graph.node[0].attr["f"].f = 0.5
    graph.node[0].attr["l"].list.type.extend([1, 2])
    graph.versions.bad_consumers.extend([1, 2, 300])
    return proto.serialize(graph) + b"\xfb\x07\x08\x01\xfc\x07\xf9\x07" + b"8" * 8 + b"\xfd\x07" + b"4" * 4


def parses(cls, data):
    try:
        cls.FromString(data)
    except DecodeError:
        return False
    return True


def test_a_good_message_has_no_fault():
    data = every_kind()

    assert parses(proto.GraphDef, data)
    assert first_fault(memoryview(data), proto.GraphDef.DESCRIPTOR, max_depth=100) is None
    assert sample_fault(memoryview(data), proto.GraphDef.DESCRIPTOR, strict=False) is None
    assert sample_fault(memoryview(data), proto.GraphDef.DESCRIPTOR, strict=True).message == (
        "GraphDef has no field 127 of wire type 3"
    )


def test_every_flipped_byte_is_judged_as_protobuf_does():
    data = every_kind()
    judged = set()
    for index in range(len(data)):
        for value in (0x00, 0x0A, 0x7F, 0x80, 0xFF):
            broken = data[:index] + bytes([value]) + data[index + 1 :]
            fault = first_fault(memoryview(broken), proto.GraphDef.DESCRIPTOR, max_depth=100)
            good = parses(proto.GraphDef, broken)
            judged.add(good)
            assert (fault is None) == good, (index, value, fault)
    assert judged == {True, False}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
@example(b"\x08" + b"\xff" * 9 + b"\x01")
@example(b"\x0a\x02\x10\x80")
def test_any_bytes_are_judged_as_protobuf_does(data):
    for cls in (proto.GraphDef, proto.TensorProto, proto.VersionDef):
        fault = first_fault(memoryview(data), cls.DESCRIPTOR, max_depth=100)
        assert (fault is None) == parses(cls, data), fault
        assert fault is None or 0 <= fault.offset <= len(data)


def test_a_sample_of_a_cut_message_is_only_truncated():
    data = every_kind()[:-30]
    for end in range(1, len(data)):
        fault = sample_fault(memoryview(data[:end]), proto.GraphDef.DESCRIPTOR, strict=True)
        assert fault is None or fault.truncated, (end, fault)


def test_fields():
    data = memoryview(b"\x08\x96\x01\x12\x02ab\x1d1234\x12\x09cut")

    assert list(fields(data, 0, len(data), most=9)) == [(1, 0, 1, 3), (2, 2, 5, 7), (3, 5, 8, 12), (2, 2, 14, 17)]
    assert len(list(fields(data, 0, len(data), most=2))) == 2
    with pytest.raises(WireError, match="passes the end of its message"):
        list(fields(data, 0, 15, most=9))
