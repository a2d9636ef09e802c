"""Every spelling of every artifact."""

import os
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw import proto
from tfthaw.errors import FormatError, NotFoundError, TfthawError, TruncatedError, UnknownFormatError
from tfthaw.formats.checkpoint_state import checkpoint_state_bytes
from tfthaw.formats.detect import Located, locate
from tfthaw.formats.table import TableWriter
from tfthaw.proto.text import to_text

ODD_NAMES = ["m-1", "acc_[200].ckpt", "two words", "größe", ".hidden", "*", "a?b", "x.meta.y", ""]


def write_table(path, value):
    with open(path, "wb") as file:
        table = TableWriter(file)
        table.add(b"", value)
        table.add(b"w", b"\x08\x01")
        table.finish()


def checkpoint(folder, name, shards=1, *, missing=()):
    folder.mkdir(exist_ok=True)
    write_table(folder / f"{name}.index", proto.serialize(proto.BundleHeaderProto(num_shards=shards)))
    for index in range(shards):
        if index not in missing:
            (folder / f"{name}.data-{index:05}-of-{shards:05}").write_bytes(b"1234")
    return os.path.join(folder, name)


def checkpoint_v1(path):
    slices = proto.SavedTensorSlices()
    slices.meta.tensor.add(name="w")
    write_table(path, proto.serialize(slices))
    return str(path)


def graph_def():
    graph = proto.GraphDef(node=[proto.NodeDef(name="a", op="NoOp"), proto.NodeDef(name="b", op="MyOp")])
    graph.node[1].attr["T"].type = 1
    graph.versions.producer = 27
    return graph


def meta_graph():
    message = proto.MetaGraphDef(graph_def=graph_def())
    message.meta_info_def.tensorflow_version = "1.15.0"
    message.meta_info_def.stripped_op_list.op.add(name="NoOp")
    message.meta_info_def.tags.append("serve")
    return message


def saved_model():
    return proto.SavedModel(saved_model_schema_version=1, meta_graphs=[meta_graph()])


MESSAGES = {"graph-def": graph_def, "meta-graph": meta_graph, "saved-model": saved_model}


def small(kind):
    """The least that each message can be."""
    library = proto.GraphDef()
    library.library.function.add().signature.name = "f"
    return {
        "versions alone": ("graph-def", proto.GraphDef(versions=proto.VersionDef(producer=27))),
        "a function alone": ("graph-def", library),
        "a graph alone": ("meta-graph", proto.MetaGraphDef(graph_def=graph_def())),
        "a graph of functions": ("meta-graph", proto.MetaGraphDef(graph_def=library)),
        "no graph": ("meta-graph", proto.MetaGraphDef(meta_info_def=meta_graph().meta_info_def)),
        "an empty graph": ("meta-graph", proto.MetaGraphDef(graph_def=proto.GraphDef(),
                                                            meta_info_def=meta_graph().meta_info_def)),
        "no version": ("saved-model", proto.SavedModel(meta_graphs=[meta_graph()])),
        "no MetaGraph": ("saved-model", proto.SavedModel(saved_model_schema_version=1)),
    }[kind]  # fmt: skip


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_spelling_of_a_checkpoint(tmp_path, name):
    prefix = checkpoint(tmp_path / "run [1]", name, shards=2)
    folder = tmp_path / "run [1]"
    (folder / f"{name}.meta").write_bytes(proto.serialize(meta_graph()))
    (folder / "other.txt").write_text("x")

    want = Located(
        "checkpoint", prefix,
        (f"{prefix}.index", f"{prefix}.data-00000-of-00002", f"{prefix}.data-00001-of-00002"),
        meta_graph=f"{prefix}.meta",
    )  # fmt: skip
    assert locate(f"{prefix}.index") == want
    assert locate(f"{prefix}.data-00001-of-00002") == want
    assert locate(prefix) == want
    assert locate(folder / "").files == want.files
    found = locate(f"{prefix}.meta")
    assert (found.format, found.path, found.checkpoint) == ("meta-graph", f"{prefix}.meta", prefix)


def test_an_empty_name_in_the_working_directory(tmp_path, monkeypatch):
    checkpoint(tmp_path, "")
    (tmp_path / ".meta").write_bytes(proto.serialize(meta_graph()))
    monkeypatch.chdir(tmp_path)

    assert locate(".index").path == "./"
    assert locate(".meta").checkpoint == "./"
    assert os.path.isfile(f"{locate('.meta').checkpoint}.index")


def test_the_latest_checkpoint_of_a_directory(tmp_path):
    for name in ("m-1", "m-2", "m-3"):
        checkpoint(tmp_path / "run", name)
    (tmp_path / "run" / "checkpoint").write_bytes(checkpoint_state_bytes("/somewhere/else/m-2", ["m-1", "m-2"]))

    for spelling in ("run", "run/", "run/checkpoint"):
        assert locate(tmp_path / spelling).path == str(tmp_path / "run" / "m-2")
    # under any name, and where a checkpoint is named like the file
    (tmp_path / "run" / "checkpoint").rename(tmp_path / "run" / "state")
    assert locate(tmp_path / "run" / "state").path == str(tmp_path / "run" / "m-2")
    checkpoint(tmp_path / "run", "state")
    assert locate(tmp_path / "run" / "state").path == str(tmp_path / "run" / "state")


def test_a_latest_checkpoint_that_is_gone_is_named(tmp_path):
    checkpoint(tmp_path, "m-2")
    (tmp_path / "checkpoint").write_bytes(checkpoint_state_bytes("m-3", ["m-2", "m-3"]))

    with pytest.raises(NotFoundError, match=r"'m-3' is not in the directory; name one that is there: m-2"):
        locate(tmp_path)
    (tmp_path / "m-2.index").unlink()
    with pytest.raises(NotFoundError, match="no other one is there"):
        locate(tmp_path)


def test_a_state_file_that_names_itself_ends(tmp_path):
    (tmp_path / "checkpoint").write_bytes(checkpoint_state_bytes("checkpoint"))

    with pytest.raises(NotFoundError):
        locate(tmp_path)


def test_a_latest_checkpoint_that_is_none(tmp_path):
    (tmp_path / "checkpoint").write_bytes(checkpoint_state_bytes("m"))
    (tmp_path / "m").write_bytes(b"cut")

    with pytest.raises(FormatError, match="does not end like one"):
        locate(tmp_path)


def test_what_is_missing_is_said(tmp_path):
    prefix = checkpoint(tmp_path, "m", shards=3, missing=[1])
    assert locate(prefix).missing == ("m.data-00001-of-00003",)
    assert locate(checkpoint(tmp_path, "bare", shards=1, missing=[0])).missing == ("bare.data-?????-of-?????",)

    with pytest.raises(NotFoundError, match="shard 1 of 3 is not there, though its index is"):
        locate(f"{prefix}.data-00001-of-00003")
    os.unlink(f"{prefix}.index")
    for spelling in (prefix, f"{prefix}.index"):
        with pytest.raises(NotFoundError, match=r"the index m.index is not there, though its shards are"):
            locate(spelling)
    with pytest.raises(NotFoundError, match=r"the index m.index is not beside this shard"):
        locate(f"{prefix}.data-00000-of-00003")


def test_a_shard_count_is_only_a_claim(tmp_path):
    prefix = checkpoint(tmp_path, "m", missing=[0])
    (tmp_path / "m.data-00000-of-99999").touch()

    assert len(locate(prefix).missing) == 100


def test_a_damaged_index_is_said_to_be_one(tmp_path):
    prefix = checkpoint(tmp_path, "m")
    data = (tmp_path / "m.index").read_bytes()

    (tmp_path / "m.index").write_bytes(data[:-9])
    with pytest.raises(TruncatedError, match="named like the index"):
        locate(prefix + ".index")
    (tmp_path / "m.index").write_bytes(data[:3] + b"\xff" + data[4:])
    with pytest.raises(FormatError):
        locate(prefix + ".index")
    (tmp_path / "m.index").write_bytes(data)
    (tmp_path / "m.index").rename(tmp_path / "m")
    with pytest.raises(FormatError, match="under another name"):
        locate(tmp_path / "m")


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if name])
def test_every_spelling_of_a_v1_checkpoint(tmp_path, name):
    single = checkpoint_v1(tmp_path / name)
    (tmp_path / f"{name}.meta").write_bytes(proto.serialize(meta_graph()))
    want = Located("checkpoint-v1", single, (single,), meta_graph=f"{single}.meta")
    assert locate(single) == want
    assert locate(f"{single}.meta").checkpoint == single

    os.unlink(single)
    shards = tuple(checkpoint_v1(f"{single}-{index:05}-of-00002") for index in range(2))
    want = Located("checkpoint-v1", single, shards, meta_graph=f"{single}.meta")
    assert locate(single) == locate(shards[0]) == locate(shards[1]) == locate(f"{single}-?????-of-00002") == want
    assert locate(f"{single}.meta").checkpoint == single
    os.unlink(shards[1])
    assert locate(single).missing == (f"{name}-00001-of-00002",)


def test_a_v1_checkpoint_as_the_latest(tmp_path):
    single = checkpoint_v1(tmp_path / "m.ckpt")
    (tmp_path / "checkpoint").write_bytes(checkpoint_state_bytes("../saved/m.ckpt"))
    assert locate(tmp_path) == Located("checkpoint-v1", single, (single,))

    os.rename(single, f"{single}-00000-of-00001")
    for written in ("m.ckpt", "/x/m.ckpt-00000-of-00001", "m.ckpt-?????-of-00001"):
        (tmp_path / "checkpoint").write_bytes(checkpoint_state_bytes(written))
        assert locate(tmp_path) == Located("checkpoint-v1", single, (f"{single}-00000-of-00001",))


def test_a_v2_checkpoint_comes_before_a_v1_file_of_its_name(tmp_path):
    prefix = checkpoint(tmp_path, "m")
    checkpoint_v1(prefix)

    assert locate(prefix).format == "checkpoint"


def test_a_checkpoint_named_like_a_directory(tmp_path):
    prefix = checkpoint(tmp_path, "m")
    (tmp_path / "m").mkdir()
    assert locate(prefix).format == "checkpoint"

    (tmp_path / "m" / "saved_model.pb").write_bytes(proto.serialize(saved_model()))
    assert locate(prefix).format == "saved-model"


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("name", ["a.pb", "a.meta", "a.pbtxt", "saved_model.pb", "a.index.txt", "noname", "a.h5"])
@pytest.mark.parametrize("as_text", [False, True])
def test_messages_are_told_apart_by_content(tmp_path, kind, name, as_text):
    message = MESSAGES[kind]()
    (tmp_path / name).write_bytes(to_text(message).encode() if as_text else proto.serialize(message))

    found = locate(tmp_path / name)

    assert (found.format, found.files) == (kind, (str(tmp_path / name),))
    whole = kind == "saved-model" and name == "saved_model.pb"
    assert found.path == str(tmp_path if whole else tmp_path / name)


@pytest.mark.parametrize(
    "kind",
    ["versions alone", "a function alone", "a graph alone", "a graph of functions", "no graph", "an empty graph",
     "no version", "no MetaGraph"],
)  # fmt: skip
def test_the_least_messages(tmp_path, kind):
    format_name, message = small(kind)
    (tmp_path / "x").write_bytes(proto.serialize(message))

    assert locate(tmp_path / "x").format == format_name


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_newer_tensorflow_may_add_fields(tmp_path, kind):
    new_field = b"\xfa\x7d\x03new"
    graph = proto.GraphDef.FromString(proto.serialize(graph_def()) + new_field)
    graph.node[0].MergeFromString(new_field)
    message = {"graph-def": graph}.get(kind) or MESSAGES[kind]()
    if kind == "meta-graph":
        message.graph_def.CopyFrom(graph)
    elif kind == "saved-model":
        message.meta_graphs[0].graph_def.CopyFrom(graph)
    (tmp_path / "x").write_bytes(proto.serialize(message) + new_field)

    assert locate(tmp_path / "x").format == kind


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_that_was_cut_is_known_or_refused(tmp_path, kind):
    data = proto.serialize(MESSAGES[kind]())
    formats = []
    for end in range(1, len(data)):
        (tmp_path / "x").write_bytes(data[:end])
        try:
            formats.append(locate(tmp_path / "x").format)
        except UnknownFormatError:
            formats.append(None)

    assert set(formats) <= {kind, None}
    assert formats[-1] == kind


def test_the_checkpoint_of_a_meta_graph(tmp_path):
    checkpoint(tmp_path, "m")
    for name, beside in [("m.meta", "m"), ("m.pb", "m"), ("m.pbtxt", "m"), ("n.meta", None), ("m", None)]:
        (tmp_path / name).write_bytes(proto.serialize(meta_graph()))
        assert locate(tmp_path / name).checkpoint == (beside and str(tmp_path / beside))
        (tmp_path / name).unlink()
    # a frozen graph beside a checkpoint is not its graph, unless its name says so
    for name, beside in [("m.meta", "m"), ("m.pb", None)]:
        (tmp_path / name).write_bytes(proto.serialize(graph_def()))
        assert locate(tmp_path / name).checkpoint == (beside and str(tmp_path / beside))
    (tmp_path / "other").write_bytes(b"no table")
    (tmp_path / "other.meta").write_bytes(proto.serialize(meta_graph()))
    assert locate(tmp_path / "other.meta").checkpoint is None


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_a_saved_model_directory(tmp_path, name, monkeypatch):
    root = tmp_path / "m"
    checkpoint(root, "x")
    checkpoint(root / "variables", "variables")
    data = to_text(saved_model()).encode() if name.endswith("txt") else proto.serialize(saved_model())
    (root / name).write_bytes(data)
    (root / "checkpoint").write_bytes(checkpoint_state_bytes("x"))

    want = Located("saved-model", str(root), (str(root / name),), checkpoint=str(root / "variables" / "variables"))
    assert locate(root) == locate(root / name) == want
    monkeypatch.chdir(root)
    assert locate(name).path == "."
    assert locate(".").format == "saved-model"


def test_a_saved_model_message_alone(tmp_path):
    (tmp_path / "anything.pb").write_bytes(proto.serialize(saved_model()))

    found = locate(tmp_path / "anything.pb")

    assert (found.format, found.path) == ("saved-model", str(tmp_path / "anything.pb"))


def test_a_mislabelled_saved_model(tmp_path):
    (tmp_path / "saved_model.pbtxt").write_text(to_text(graph_def()))

    assert locate(tmp_path).format == locate(tmp_path / "saved_model.pbtxt").format == "graph-def"


# ---------------------------------------------------------------- other files


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for name in members:
            archive.writestr(name, b"x")


def test_other_formats_are_known_by_content(tmp_path):
    path = tmp_path / "x.pb"
    for offset in (0, 512, 2048):
        path.write_bytes(b"\0" * offset + b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
        assert locate(path).format == "keras-h5"
    np.savez(tmp_path / "x.npz", w=np.zeros(3))
    os.rename(tmp_path / "x.npz", path)
    assert locate(path).format == "npz"
    zip_of(path, "metadata.json", "config.json", "model.weights.h5")
    assert locate(path).format == "keras-zip"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert locate(path) == Located("safetensors", str(path), (str(path),))


@pytest.mark.parametrize(
    ("data", "evidence"),
    [
        (b"\r\n", "nothing but white space"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x20\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x80\x04\x95", "pickle"),
        (b"\xff\xfen\0o\0", "UTF-16"),
        (b"\x93NUMPY\x01\0", "numpy"),
        (b"model { ssd { } }", "field 'model'"),
        (b"plain words", "70 6c 61 69"),
        (b"\x0a\xef\xbf\xbd\x48\x12\xef\xbf\xbd\x48\x0a\x3a\x0a\x03Add\x12\x06" * 5, "lost when it was copied as text"),
        (b"\x00" * 50, "no artifact"),
    ],
)
def test_unknown_files_end_with_evidence(tmp_path, data, evidence):
    (tmp_path / "model.pb").write_bytes(data)

    with pytest.raises(UnknownFormatError, match=evidence) as caught:
        locate(tmp_path / "model.pb")
    assert caught.value.evidence
    assert caught.value.path == str(tmp_path / "model.pb")


@pytest.mark.parametrize(
    ("members", "text"),
    [(["a/data.pkl"], "PyTorch"), (["m/saved_model.pb"], "unpack it"), (["a", "b"], "members a, b")],
)
def test_other_archives_are_refused(tmp_path, members, text):
    zip_of(tmp_path / "a.zip", *members)

    with pytest.raises(UnknownFormatError, match=text):
        locate(tmp_path / "a.zip")


def test_empty_files_are_refused(tmp_path):
    for name in ("saved_model.pb", "m.index", "m.h5", "m"):
        (tmp_path / name).touch()
        with pytest.raises(FormatError, match="the file is empty"):
            locate(tmp_path / name)


def test_paths_that_are_none(tmp_path):
    for name in ("m-100.index", "m-100.data-00000-of-00001", "m-200.meta"):
        (tmp_path / name).touch()
    with pytest.raises(NotFoundError, match=r"no file or checkpoint 'm-10'; near names: m-100"):
        locate(tmp_path / "m-10")
    with pytest.raises(NotFoundError, match=r"though its MetaGraph is; the graph alone is in m-200.meta"):
        locate(tmp_path / "m-200")
    with pytest.raises(NotFoundError, match="no such directory"):
        locate(tmp_path / "none" / "m")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(NotFoundError, match="symbolic link"):
        locate(tmp_path / "link")
    for path in ("", "a\0b", "x" * 5000, b"\xff-none"):
        with pytest.raises(NotFoundError):
            locate(path)


def test_special_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(FormatError, match="a pipe or a device"):
        locate(tmp_path / "pipe")


def test_directories_that_hold_no_artifact(tmp_path):
    with pytest.raises(UnknownFormatError, match="it is empty"):
        locate(tmp_path)
    checkpoint(tmp_path, "a")
    checkpoint(tmp_path, "b")
    with pytest.raises(UnknownFormatError, match=r"it has a.index, b.index.*several checkpoints"):
        locate(tmp_path)
    (tmp_path / "models" / "1").mkdir(parents=True)
    (tmp_path / "models" / "1" / "saved_model.pb").touch()
    with pytest.raises(UnknownFormatError, match=r"there are SavedModels inside: .*models/1"):
        locate(tmp_path / "models")


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text("node{}:\"' #\n", max_size=60).map(str.encode)),
       st.sampled_from(["x.pb", "x.index", "saved_model.pb", "checkpoint", "x-00000-of-00001"]))  # fmt: skip
def test_any_bytes_end_in_an_answer_or_one_error(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("any")
    (folder / name).write_bytes(data)
    for path in (folder, folder / name):
        try:
            assert isinstance(locate(path), Located)
        except TfthawError as error:
            assert str(error)  # noqa: PT017


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(list(MESSAGES)))
def test_damage_never_makes_another_message(tmp_path_factory, data, kind):
    whole = bytearray(proto.serialize(MESSAGES[kind]()))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_bytes(whole)
    try:
        found = locate(path).format
    except FormatError:
        return
    others = [other for other in MESSAGES if other != kind]
    assert found not in others or _reads_as(found, bytes(whole))


def _reads_as(kind, data):
    """Whether the damage made a message of another kind that protobuf, too, takes for one."""
    message = type(MESSAGES[kind]()).FromString(data)
    return message.ByteSize() == len(data)


@pytest.mark.tf
def test_what_tensorflow_writes(tmp_path):
    import tensorflow as tf

    v1 = tf.compat.v1
    (tmp_path / "v1").mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", [3])
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver().save(session, str(tmp_path / "v2" / "m"), global_step=7)
        v1.train.Saver(write_version=v1.train.SaverDef.V1).save(session, str(tmp_path / "v1" / "m"))
        tf.io.write_graph(session.graph, str(tmp_path), "graph.pbtxt")
        v1.saved_model.simple_save(session, str(tmp_path / "saved"), {"w": w}, {"w": w})

    assert locate(tmp_path / "v2") == locate(f"{prefix}.index")
    assert locate(f"{prefix}.meta").checkpoint == prefix
    assert locate(tmp_path / "v1").format == locate(tmp_path / "v1" / "m").format == "checkpoint-v1"
    assert locate(tmp_path / "v1" / "m.meta").checkpoint == str(tmp_path / "v1" / "m")
    assert locate(tmp_path / "graph.pbtxt").format == "graph-def"
    assert locate(tmp_path / "saved").format == "saved-model"
