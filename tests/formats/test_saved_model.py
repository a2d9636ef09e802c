"""SavedModel directories, their message, tag sets and assets."""

import pytest

from tfthaw import proto
from tfthaw.errors import FormatError, NotFoundError, StructureError, UnsafePathError
from tfthaw.formats.saved_model import (
    asset_paths,
    choose_meta_graph,
    find_saved_model,
    read_fingerprint,
    read_keras_metadata,
    read_saved_model,
    write_saved_model,
)


def saved_model(*tag_sets):
    message = proto.SavedModel(saved_model_schema_version=1)
    for tags in tag_sets:
        message.meta_graphs.add().meta_info_def.tags.extend(tags)
    return message


def on_disk(root, message, name="saved_model.pb"):
    root.mkdir(exist_ok=True)
    with open(root / name, "wb") as file:
        write_saved_model(file, message, as_text=name.endswith("txt"))
    return root


def test_the_directory_and_its_parts(tmp_path):
    root = on_disk(tmp_path / "m", saved_model(["serve"]))
    bare = find_saved_model(root)
    assert (bare.root, bare.message) == (root, root / "saved_model.pb")
    assert {bare.variables, bare.assets, bare.assets_extra, bare.fingerprint, bare.keras_metadata} == {None}

    for name in ("variables", "assets", "assets.extra"):
        (root / name).mkdir()
    (root / "variables" / "variables.index").touch()
    (root / "fingerprint.pb").write_bytes(proto.serialize(proto.FingerprintDef(saved_model_checksum=7)))
    (root / "keras_metadata.pb").write_bytes(b"")
    full = find_saved_model(root / "saved_model.pb")

    assert full.variables == root / "variables" / "variables"
    assert (full.assets, full.assets_extra) == (root / "assets", root / "assets.extra")
    assert read_fingerprint(full.fingerprint).saved_model_checksum == 7
    assert len(read_keras_metadata(full.keras_metadata).nodes) == 0


def test_the_binary_message_comes_first(tmp_path):
    on_disk(tmp_path / "m", saved_model(["serve"]), "saved_model.pbtxt")
    assert find_saved_model(tmp_path / "m").message.name == "saved_model.pbtxt"
    on_disk(tmp_path / "m", saved_model(["serve"]))
    assert find_saved_model(tmp_path / "m").message.name == "saved_model.pb"


def test_nothing_is_found_where_nothing_is(tmp_path):
    with pytest.raises(NotFoundError, match=r"neither saved_model.pb nor saved_model.pbtxt"):
        find_saved_model(tmp_path)
    with pytest.raises(NotFoundError):
        find_saved_model(tmp_path / "none")


def test_a_part_that_leads_out_is_refused(tmp_path):
    root = on_disk(tmp_path / "m", saved_model(["serve"]))
    (root / "assets").symlink_to("/etc")

    with pytest.raises(UnsafePathError):
        find_saved_model(root)


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_read_is_the_inverse_of_write(tmp_path, name):
    message = saved_model(["serve"], ["train", "gpu"])
    message.meta_graphs[0].graph_def.node.add(name="c").attr["value"].tensor.tensor_content = b"7" * 5000
    root = on_disk(tmp_path / "m", message, name)

    found = read_saved_model(root / name)

    with open(tmp_path / "again", "wb") as file:
        write_saved_model(file, found.message, found.contents)
    assert (tmp_path / "again").read_bytes() == proto.serialize(message)


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\x0a\x01a", b"\x12\x05\x12"])
def test_damaged_messages_are_refused(tmp_path, data):
    (tmp_path / "saved_model.pb").write_bytes(data)

    with pytest.raises(FormatError):
        read_saved_model(tmp_path / "saved_model.pb")


@pytest.mark.parametrize(
    ("tag_sets", "tags", "index"),
    [
        ([["serve"]], None, 0),
        ([["train", "gpu"]], None, 0),
        ([[]], None, 0),
        ([["train"], ["serve", "gpu"], ["serve"]], None, 2),
        ([["train"], ["serve", "gpu"], ["serve"]], ["gpu", "serve"], 1),
        ([["serve"], []], [], 1),
        ([["serve", "serve"], ["train"]], ["serve"], 0),
        ([["a"], ["a"], ["serve"]], None, 2),
    ],
)
def test_choose_meta_graph(tag_sets, tags, index):
    assert choose_meta_graph(saved_model(*tag_sets), tags) == index


@pytest.mark.parametrize(
    ("tag_sets", "tags", "kind", "text"),
    [
        ([["train"], ["serve", "gpu"]], None, NotFoundError, r"several MetaGraphs.*--tags.*\{train\}, \{gpu, serve\}"),
        ([["train"]], ["serve"], NotFoundError, r"no MetaGraph has the tags \{serve\}; tag sets: \{train\}"),
        ([["serve"], ["serve"]], None, StructureError, r"2 MetaGraphs have the same tags \{serve\}"),
        ([["a", "b"], ["b", "a"]], ["a", "b"], StructureError, "same tags"),
        ([], None, StructureError, "no MetaGraph"),
        ([], ["serve"], StructureError, "no MetaGraph"),
    ],
)
def test_a_choice_that_is_none_is_refused(tag_sets, tags, kind, text):
    with pytest.raises(kind, match=text) as caught:
        choose_meta_graph(saved_model(*tag_sets), tags, path="model")
    assert str(caught.value).startswith("model: ")


def test_meta_graphs_of_the_same_tags_are_told_apart():
    message = saved_model(["serve"], ["train"], ["serve"], ["serve"])
    message.meta_graphs[2].meta_info_def.tensorflow_version = "1.15.0"
    message.meta_graphs[2].graph_def.node.add(name="x")
    message.meta_graphs[2].signature_def["predict"].method_name = "m"
    with pytest.raises(StructureError) as caught:
        choose_meta_graph(message)
    assert caught.value.problems == (
        "number 0: 0 nodes, 0 functions, signatures none, by TensorFlow of no version",
        "number 2: 1 nodes, 0 functions, signatures predict, by TensorFlow 1.15.0",
        "number 3 is equal to number 0",
    )


def asset(name, tensor="t:0"):
    return proto.AssetFileDef(filename=name, tensor_info=proto.TensorInfo(name=tensor))


def test_assets_of_the_list_and_of_the_old_collection(tmp_path):
    root = on_disk(tmp_path / "m", saved_model(["serve"]))
    (root / "assets").mkdir()
    directory = find_saved_model(root)
    new, old = proto.MetaGraphDef(), proto.MetaGraphDef()
    new.asset_file_def.append(asset("vocab [1].txt"))
    packed = old.collection_def["saved_model_assets"].any_list.value.add()
    packed.value = proto.serialize(asset("sub/vocab.txt", "u:0"))

    assert asset_paths(new, directory) == {"t:0": root / "assets" / "vocab [1].txt"}
    assert asset_paths(old, directory) == {"u:0": root / "assets" / "sub" / "vocab.txt"}
    assert asset_paths(proto.MetaGraphDef(), directory) == {}
    packed.value = b"\xff"
    with pytest.raises(FormatError, match="no AssetFileDef"):
        asset_paths(old, directory)


@pytest.mark.parametrize("name", ["../saved_model.pb", "/etc/passwd", "a/../../x", "link/passwd", "a\\..\\b"])
def test_an_asset_that_leads_out_is_refused(tmp_path, name):
    root = on_disk(tmp_path / "m", saved_model(["serve"]))
    (root / "assets").mkdir()
    (root / "assets" / "link").symlink_to("/etc")
    meta_graph = proto.MetaGraphDef(asset_file_def=[asset(name)])

    with pytest.raises(UnsafePathError, match="asset of tensor 't:0'"):
        asset_paths(meta_graph, find_saved_model(root))


@pytest.mark.tf
def test_a_saved_model_of_tensorflow(tmp_path):
    import tensorflow as tf

    (tmp_path / "vocab.txt").write_text("a\n")
    module = tf.Module()
    module.w = tf.Variable([1.0, 2.0])
    module.vocab = tf.saved_model.Asset(str(tmp_path / "vocab.txt"))
    module.f = tf.function(lambda x: x * module.w, input_signature=[tf.TensorSpec([2])])
    tf.saved_model.save(module, str(tmp_path / "m"))

    directory = find_saved_model(tmp_path / "m")
    found = read_saved_model(directory.message)
    meta_graph = found.message.meta_graphs[choose_meta_graph(found.message)]

    assert directory.variables == tmp_path / "m" / "variables" / "variables"
    assert read_fingerprint(directory.fingerprint).graph_def_program_hash != 0
    assert [path.read_text() for path in asset_paths(meta_graph, directory).values()] == ["a\n"]
    with open(directory.message, "wb") as file:
        write_saved_model(file, found.message, found.contents)
    assert tf.saved_model.load(str(tmp_path / "m")).f(tf.constant([3.0, 4.0])).numpy().tolist() == [3.0, 8.0]
