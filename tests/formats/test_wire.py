"""Cut and splice: messages without their big constants."""

import contextlib
import io
import tracemalloc

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw import proto
from tfthaw._files import SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, LimitError, StructureError, TfthawError, TruncatedError
from tfthaw.formats.wire import TOKEN_BYTES, Contents, cut, splice
from tfthaw.limits import Limits
from tfthaw.tensors import ArrayTensor, FileTensor


def const(name, content):
    node = proto.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = 4
    node.attr["value"].tensor.dtype = 4
    node.attr["value"].tensor.tensor_shape.dim.add(size=len(content))
    node.attr["value"].tensor.tensor_content = content
    return node


def listed(name, contents):
    node = proto.NodeDef(name=name, op="Many")
    for content in contents:
        node.attr["values"].list.tensor.add(dtype=4, tensor_content=content)
    return node


def everywhere(content):
    """A SavedModel with a content in each kind of place."""
    graph = proto.GraphDef(node=[const("main", content), listed("list", [content, b"small", content])])
    function = graph.library.function.add(node_def=[const("inner", content)])
    function.attr["api"].func.attr["default"].tensor.tensor_content = content
    variant = const("variant", b"")
    variant.attr["value"].tensor.variant_val.add().tensors.add(tensor_content=content)
    graph.node.append(variant)
    saved_model = proto.SavedModel(saved_model_schema_version=1)
    for tag in ("serve", "train"):
        meta_graph = saved_model.meta_graphs.add(graph_def=graph)
        meta_graph.meta_info_def.tags.append(tag)
        meta_graph.meta_info_def.stripped_op_list.op.add().attr.add().default_value.tensor.tensor_content = content
        meta_graph.signature_def["serving_default"].defaults["x"].tensor_content = content
    return saved_model, 16


def source(tmp_path, data, name="graph.pb"):
    path = tmp_path / name
    path.write_bytes(data)
    return SourceFile(path)


def written(pieces):
    file = io.BytesIO()
    pieces.write(file)
    assert len(file.getvalue()) == pieces.total_bytes
    return file.getvalue()


def test_cut_leaves_big_contents_in_the_file(tmp_path):
    content = bytes(range(256)) * 40
    data = proto.serialize(proto.GraphDef(node=[const("a", content), const("b", b"1234")]))

    with source(tmp_path, data) as file:
        found = cut(file.slice(), proto.GraphDef)

        first, second = (node.attr["value"].tensor.tensor_content for node in found.message.node)
        assert list(found.contents) == [first]
        assert second == b"1234"
        assert len(first) == TOKEN_BYTES
        part = found.contents[first]
        assert (part.offset, part.length, part.nbytes) == (data.index(content), len(content), len(content))
        assert FileTensor(DType.uint8, [len(content)], part).numpy().tobytes() == content


def test_contents_are_found_everywhere_and_put_back(tmp_path):
    content = np.random.default_rng(0).bytes(5000)
    saved_model, count = everywhere(content)
    data = proto.serialize(saved_model)

    with source(tmp_path, data) as file:
        found = cut(file.slice(), proto.SavedModel)

        assert len(found.contents) == count
        assert content not in proto.serialize(found.message)
        assert all(part.view().tobytes() == content for part in found.contents.values())
        pieces = splice(found.message, found.contents)
        assert written(pieces) == data
        for token, (offset, length) in pieces.places.items():
            assert data[offset : offset + length] == content
            assert token in found.contents


def test_a_message_within_a_larger_file(tmp_path):
    content = b"x" * 9000
    data = proto.serialize(proto.GraphDef(node=[const("a", content)]))

    with source(tmp_path, b"before" + data + b"after") as file:
        found = cut(file.slice(6, len(data)), proto.GraphDef)

        assert [part.offset for part in found.contents.values()] == [6 + data.index(content)]


def test_the_threshold_is_exclusive(tmp_path):
    data = proto.serialize(proto.GraphDef(node=[const("a", b"x" * 4096), const("b", b"y" * 4097)]))

    with source(tmp_path, data) as file:
        assert [part.length for part in cut(file.slice(), proto.GraphDef).contents.values()] == [4097]


def test_unknown_fields_and_the_order_of_fields_survive(tmp_path):
    content = b"z" * 300
    tensor = b"\x22\xac\x02" + content + b"\xa0\x06\x07"  # tensor_content before an unknown field 100
    tensor += b"\xab\x06\x08\x01\xac\x06"  # and an unknown group 101
    value = b"\x42" + bytes([len(tensor) & 127 | 128, len(tensor) >> 7]) + tensor
    entry = b"\x12" + bytes([len(value) & 127 | 128, len(value) >> 7]) + value + b"\x0a\x05value"  # value before key
    node = b"\x2a" + bytes([len(entry) & 127 | 128, len(entry) >> 7]) + entry + b"\x0a\x01a"  # attr before name
    data = b"\x22\x02\x08\x1b\x0a" + bytes([len(node) & 127 | 128, len(node) >> 7]) + node  # versions before node

    with source(tmp_path, data) as file:
        found = cut(file.slice(), proto.GraphDef, threshold=100)

        assert [part.view().tobytes() for part in found.contents.values()] == [content]
        whole = proto.GraphDef.FromString(data)
        assert written(splice(found.message, found.contents)) == proto.serialize(whole)
        assert b"\xa0\x06\x07\xab\x06\x08\x01\xac\x06" in proto.serialize(found.message)


def test_a_file_cannot_forge_a_token(tmp_path):
    content = b"x" * 5000
    with source(tmp_path, proto.serialize(proto.GraphDef(node=[const("a", content)]))) as file:
        known = next(iter(cut(file.slice(), proto.GraphDef).contents))
    attack = proto.serialize(proto.GraphDef(node=[const("a", content), const("b", known)]))

    with source(tmp_path, attack, "attack.pb") as file:
        found = cut(file.slice(), proto.GraphDef)

        assert known not in found.contents
        assert len(found.contents) == 1


def test_splice_refuses_a_token_without_a_payload():
    token = Contents().add(ArrayTensor(np.zeros(3, np.uint8)))

    with pytest.raises(StructureError, match="value is not there"):
        splice(proto.GraphDef(node=[const("a", token)]), {})


def test_splice_refuses_a_token_elsewhere():
    contents = Contents()
    node = proto.NodeDef(name="a", op="Const")
    node.attr["value"].s = contents.add(ArrayTensor(np.zeros(3, np.uint8)))

    with pytest.raises(StructureError, match="where no tensor_content is"):
        splice(proto.GraphDef(node=[node]), contents)


def test_splice_refuses_a_payload_of_another_size():
    class Short:
        nbytes = 10

        def chunks(self):
            yield b"123"

        def copy_to(self, file, progress=None):
            return file.write(b"123")

    contents = Contents()
    graph = proto.GraphDef(node=[const("a", contents.add(Short()))])

    with pytest.raises(StructureError, match="10 bytes gave 3"):
        splice(graph, contents).write(io.BytesIO())
    with pytest.raises(StructureError, match="10 bytes gave 3"):
        list(splice(graph, contents))


def test_a_payload_may_be_used_twice():
    contents = Contents()
    token = contents.add(ArrayTensor(np.arange(1000, dtype=np.float32)))

    pieces = splice(proto.GraphDef(node=[const("a", token), const("b", token)]), contents)

    data = written(pieces)
    want = np.arange(1000, dtype=np.float32).tobytes()
    assert [data[place.offset : place.offset + place.length] for place in pieces.every_place] == [want, want]
    assert pieces.places == {token: (pieces.every_place[0].offset, 4000)}


def test_contents_join_what_was_read_with_what_is_new(tmp_path):
    content = b"r" * 5000
    with source(tmp_path, proto.serialize(proto.GraphDef(node=[const("a", content)]))) as file:
        found = cut(file.slice(), proto.GraphDef)
        contents = Contents(found.contents)
        found.message.node.append(const("b", contents.add(ArrayTensor(np.full(6, 7, np.uint8)))))

        graph = proto.GraphDef.FromString(written(splice(found.message, contents)))

    assert [node.attr["value"].tensor.tensor_content for node in graph.node] == [content, b"\7" * 6]
    assert len(contents) == 2
    assert contents.get(b"no token") is None


def test_empty_messages_and_payloads():
    contents = Contents()
    token = contents.add(ArrayTensor(np.zeros((0, 3), np.float32)))

    assert written(splice(proto.GraphDef(), contents)) == b""
    data = written(splice(proto.GraphDef(node=[const("a", token)]), contents))
    assert proto.GraphDef.FromString(data).node[0].attr["value"].tensor.tensor_content == b""


def test_progress_counts_every_byte():
    contents = Contents()
    token = contents.add(ArrayTensor(np.zeros(9_000_000, np.uint8)))
    pieces = splice(proto.GraphDef(node=[const("a", token)]), contents)
    counts = []

    pieces.write(io.BytesIO(), counts.append)

    assert sum(counts) == pieces.total_bytes
    assert len(counts) > 3


names = st.text("abc/_", min_size=1, max_size=4)
small_contents = st.one_of(st.binary(max_size=60), st.integers(120, 700).map(lambda size: b"\xa5" * size))


@st.composite
def graphs(draw):
    graph = proto.GraphDef()
    for name in draw(st.lists(names, max_size=4)):
        kind = draw(st.integers(0, 2))
        node = const(name, draw(small_contents)) if kind else listed(name, draw(st.lists(small_contents, max_size=3)))
        (graph.node if kind < 2 else graph.library.function.add().node_def).append(node)
    graph.versions.producer = draw(st.integers(0, 1 << 31 - 1))
    return graph


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from([0, 10, 100, 500]))
def test_splice_is_the_inverse_of_cut(tmp_path_factory, graph, threshold):
    data = proto.serialize(graph)
    with source(tmp_path_factory.mktemp("wire"), data) as file:
        found = cut(file.slice(), proto.GraphDef, threshold=threshold)

        assert all(part.length > threshold for part in found.contents.values())
        assert written(splice(found.message, found.contents)) == data


@settings(max_examples=60, deadline=None)
@given(st.data(), graphs())
def test_damage_ends_as_one_error(tmp_path_factory, data, graph):
    whole = bytearray(proto.serialize(graph))
    for _ in range(data.draw(st.integers(1, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    with source(tmp_path_factory.mktemp("wire"), bytes(whole[:end])) as file:
        try:
            found = cut(file.slice(), proto.GraphDef, threshold=50)
        except FormatError:
            with pytest.raises(Exception, match="Error parsing"):
                proto.GraphDef.FromString(bytes(whole[:end]))
        else:
            # the cut graph is what protobuf itself reads
            assert written(splice(found.message, found.contents)) == proto.serialize(
                proto.GraphDef.FromString(bytes(whole[:end]))
            )


def test_truncation_anywhere_names_the_offset(tmp_path):
    data = proto.serialize(proto.GraphDef(node=[const("a", b"x" * 5000), const("b", b"y" * 20)]))
    first_end = len(proto.serialize(proto.GraphDef(node=[const("a", b"x" * 5000)])))
    for end in (*range(1, 70), 2000, *range(first_end + 1, len(data))):
        with source(tmp_path, data[:end], f"{end}.pb") as file, pytest.raises(TruncatedError) as caught:
            cut(file.slice(), proto.GraphDef)
        assert caught.value.where.startswith("offset "), end
        assert int(caught.value.where.split()[1]) <= end


@pytest.mark.parametrize(
    ("data", "kind", "text", "offset"),
    [
        (b"\x0a\xff\xff\xff\xff\x07", TruncatedError, "passes the end", 1),  # a node of 2 GiB
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", TruncatedError, "passes the end", 1),  # of 2**64 - 1 bytes
        (b"\x0a" + b"\xff" * 12, FormatError, "more than ten bytes", 1),
        (b"\x0a\x02\x0a\x05\x22\x00", FormatError, "passes the end of its message", 3),
        (b"\x02\x00", FormatError, "no field number 0", 0),
        (b"\xff\xff\xff\xff\xff\x01\x00", FormatError, "no field number", 0),
        (b"\x0e", FormatError, "wire type 6", 1),
        (b"\x0f", FormatError, "wire type 7", 1),
        (b"\x0c", FormatError, "did not begin", 1),
        (b"\x0b\x14", FormatError, "did not begin", 1),
        (b"\x0b", TruncatedError, "ends within", 1),
        (b"\x09\x00", TruncatedError, "ends within", 1),
        (b"\x0d\x00", TruncatedError, "ends within", 1),
        (b"\x0a", TruncatedError, "ends within", 1),
        (b"\x8a", TruncatedError, "ends within", 0),
        (b"\x0a\x03\x0a\x01\xff", FormatError, "field name is no UTF-8", 2),
        (b"\x0b" * 5000, LimitError, "nest deeper", 100),
    ],
)
def test_wrong_bytes(tmp_path, data, kind, text, offset):
    with source(tmp_path, data) as file, pytest.raises(kind, match=text) as caught:
        cut(file.slice(), proto.GraphDef)
    assert type(caught.value) is kind
    assert caught.value.where == f"offset {offset}"


def nested(levels, inner):
    """A node whose attr is a function whose attr is a function..."""
    data = inner
    for _ in range(levels):
        for key in (b"\x12", b"\x12", b"\x52"):  # value in its entry, entry in the func, func in the next value
            length = len(data)
            size = bytearray()
            while length > 127:
                size.append(length & 127 | 128)
                length >>= 7
            data = key + bytes([*size, length]) + data
    return data


def test_nesting_is_bounded(tmp_path):
    with source(tmp_path, nested(3000, b"\x22" + b"\x80\x40" + b"x" * 8192)) as file, pytest.raises(LimitError):
        cut(file.slice(), proto.AttrValue)
    with source(tmp_path, nested(3, b"\x18\x01"), "few.pb") as file:
        cut(file.slice(), proto.AttrValue)
        with pytest.raises(LimitError, match="nest deeper than 4"):
            cut(file.slice(), proto.AttrValue, Limits(max_depth=4), threshold=0)


def test_the_message_itself_is_bounded(tmp_path):
    data = proto.serialize(proto.GraphDef(node=[proto.NodeDef(name="n" * 2000), const("a", b"x" * 50_000)]))

    with source(tmp_path, data) as file:
        assert len(cut(file.slice(), proto.GraphDef, Limits(max_message_bytes=3000)).contents) == 1
        with pytest.raises(LimitError, match="2000 are allowed"):
            cut(file.slice(), proto.GraphDef, Limits(max_message_bytes=2000))


def test_a_big_file_takes_little_memory(tmp_path):
    contents = Contents()
    graph = proto.GraphDef()
    for index in range(8):
        graph.node.append(const(f"c{index}", contents.add(ArrayTensor(np.full(4 << 20, index, np.uint8)))))
    path = tmp_path / "big.pb"
    with open(path, "wb") as file:
        splice(graph, contents).write(file)
    del contents

    tracemalloc.start()
    with SourceFile(path) as big, open(tmp_path / "copy.pb", "wb") as copy:
        found = cut(big.slice(), proto.GraphDef)
        splice(found.message, found.contents).write(copy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (tmp_path / "copy.pb").read_bytes() == path.read_bytes()
    assert peak < 10 << 20  # two chunks of 4 MiB, the last one and the next


def test_no_error_is_foreign(tmp_path):
    rng = np.random.default_rng(1)
    for index in range(300):
        data = rng.bytes(int(rng.integers(1, 80)))
        with source(tmp_path, data, f"{index}.pb") as file:
            for root in (proto.GraphDef, proto.MetaGraphDef, proto.SavedModel):
                with contextlib.suppress(TfthawError):
                    cut(file.slice(), root, threshold=4)


def test_only_bytes_fields_of_tensors_can_be_tokens():
    field = proto.TensorProto.DESCRIPTOR.fields_by_name["tensor_content"]
    assert field.number == 4
    assert field.type == FieldDescriptor.TYPE_BYTES
