"""SavedModels of TensorFlow 1 with lookup tables and local state, through every format that can be run."""

import shutil
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.errors import RestoreError, UnsupportedError
from v1_sessions import FrozenSession, plain_config, v1_control_flow

pytestmark = pytest.mark.tf

WORDS = {"words:0": np.array([b"b", b"nobody", b"a", b"c"], object)}
NUMBERS = {"numbers:0": np.array([7, 0, 1, 5], np.int64)}


@dataclass
class Source:
    """A SavedModel of TensorFlow 1, and what it answers.

    Attributes:
        path: Its directory.
        feeds: What it was asked, by tensor.
        answers: What it answered, by the signature's output.
    """

    path: Any
    feeds: dict[str, Any]
    answers: dict[str, Any] = field(default_factory=dict)


def make(tf, folder, build, feeds, *, init="saved_model_main_op"):
    """Write a SavedModel of TensorFlow 1.

    Args:
        tf: TensorFlow.
        folder: Where to.
        build: Called with TensorFlow and a folder for vocabularies; returns the outputs by their names.
        feeds: What to ask it.
        init: The collection that names the init op.
    """
    source = Source(folder / "source", feeds)
    files = folder / "files"
    files.mkdir()
    with tf.Graph().as_default() as graph, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.seed = 11
        outputs = build(tf, files)
        begin = tf.group(tf.compat.v1.local_variables_initializer(), tf.compat.v1.tables_initializer(), name="begin")
        with tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
            session.run([tf.compat.v1.global_variables_initializer(), begin])
            inputs = {name.removesuffix(":0"): graph.get_tensor_by_name(name) for name in feeds}
            signature = tf.compat.v1.saved_model.predict_signature_def(inputs, outputs)
            given = {"main_op": begin} if init == "saved_model_main_op" else {"legacy_init_op": begin}
            builder = tf.compat.v1.saved_model.Builder(str(source.path))
            builder.add_meta_graph_and_variables(
                session, ["serve"], {"serving_default": signature},
                assets_collection=graph.get_collection("asset_filepaths"), **given,
            )  # fmt: skip
            builder.save()
            source.answers = session.run(outputs, feeds)
    for file in files.iterdir():
        file.unlink()  # from here on only the assets have it
    return source


def answers_of(tf, path, kind, result, feeds):
    """Return what a written model answers, as each kind of program would ask it, twice in a row."""
    if kind == "tf2":
        function = tf.saved_model.load(str(path)).signatures["serving_default"]
        given = {name.removesuffix(":0"): tf.constant(value) for name, value in feeds.items()}
        function(**given)
        return {name: tensor.numpy() for name, tensor in function(**given).items()}
    if kind == "frozen":
        with FrozenSession(tf, path) as frozen:
            fed = {result.inputs[name]: feeds[f"{name}:0"] for name in result.inputs}
            return twice(frozen.session, result.outputs, fed)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        if kind == "meta":
            saver = tf.compat.v1.train.import_meta_graph(str(path))
            if saver is not None:
                saver.restore(session, str(path).removesuffix(".meta"))
            fed = {result.inputs[name]: feeds[f"{name}:0"] for name in result.inputs}
            return twice(session, result.outputs, fed)
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        fed = {entry.name: feeds[f"{name}:0"] for name, entry in signature.inputs.items()}
        return twice(session, {name: entry.name for name, entry in signature.outputs.items()}, fed)


def twice(session, outputs, feeds):
    session.run(outputs, feeds)
    return session.run(outputs, feeds)


WAYS = {
    "frozen-graph": [("frozen", {})],
    "meta-graph": [("meta", {"signature": "serving_default"})],
    "saved-model, graph style": [("v1", {"style": "v1"}), ("tf2", {"style": "v1"})],
    "saved-model": [("v1", {"style": "v2"}), ("tf2", {"style": "v2"})],
}
every_way = pytest.mark.parametrize("way", WAYS)


def assert_travels(tf, folder, source, way, **more):
    """Convert a source one way and check that every kind of program gets the same answers; return the result."""
    name = "new.meta" if way == "meta-graph" else "new"
    result = None
    for kind, options in WAYS[way]:
        if result is None:
            result = convert(source.path, folder / name, to=way.partition(",")[0], verify="weights", **options, **more)
        found = answers_of(tf, folder / name, kind, result, source.feeds)
        assert found.keys() == source.answers.keys()
        for output, expected in source.answers.items():
            value = found[output]
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape), output
            assert value.tolist() == expected.tolist(), f"{output} for {kind}"
    return result


def words(tf):
    return tf.compat.v1.placeholder("string", [None], name="words")


def numbers(tf):
    return tf.compat.v1.placeholder("int64", [None], name="numbers")


def vocabulary(folder, *lines):
    path = folder / "vocabulary.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def from_file(tf, path, key, value, **options):
    """Return an initialiser from columns of a file: each is a dtype and the column."""
    return tf.lookup.TextFileInitializer(path, key[0], key[1], value[0], value[1], **options)


@every_way
@pytest.mark.parametrize("init", ["saved_model_main_op", "legacy_init_op"])
def test_constants_from_strings_to_numbers(tf, tmp_path, way, init):
    def build(tf, folder):
        content = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([5, 7], "int64"))
        return {"ids": tf.lookup.StaticHashTable(content, -1).lookup(words(tf))}

    source = make(tf, tmp_path, build, WORDS, init=init)

    assert source.answers["ids"].tolist() == [7, -1, 5, -1]
    assert_travels(tf, tmp_path, source, way)


@every_way
def test_constants_from_numbers_to_strings(tf, tmp_path, way):
    def build(tf, folder):
        content = tf.lookup.KeyValueTensorInitializer(tf.constant([5, 7], "int64"), ["five", "seven"])
        return {"names": tf.lookup.StaticHashTable(content, "none").lookup(numbers(tf))}

    source = make(tf, tmp_path, build, NUMBERS)

    assert source.answers["names"].tolist() == [b"seven", b"none", b"none", b"five"]
    assert_travels(tf, tmp_path, source, way)


@every_way
def test_a_vocabulary_with_buckets_for_what_is_not_in_it(tf, tmp_path, way):
    def build(tf, folder):
        path = vocabulary(folder, "a", "b", "c")
        content = from_file(tf, path, (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
                            (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER))  # fmt: skip
        return {"ids": tf.lookup.StaticVocabularyTable(content, 4).lookup(words(tf))}

    source = make(tf, tmp_path, build, WORDS)

    assert source.answers["ids"].tolist()[::2] == [1, 0]
    assert_travels(tf, tmp_path, source, way)
    if way.startswith("saved-model"):
        assert (tmp_path / "new/assets/vocabulary.txt").read_text() == "a\nb\nc\n"


@every_way
def test_one_file_for_both_directions(tf, tmp_path, way):
    def build(tf, folder):
        path = vocabulary(folder, "a", "b", "c")
        line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        there = tf.lookup.StaticHashTable(from_file(tf, path, (tf.string, line), (tf.int64, number)), -1)
        back = tf.lookup.StaticHashTable(from_file(tf, path, (tf.int64, number), (tf.string, line)), "none")
        ids = there.lookup(words(tf))
        return {"ids": ids, "again": back.lookup(ids)}

    source = make(tf, tmp_path, build, WORDS)

    assert source.answers["again"].tolist() == [b"b", b"none", b"a", b"c"]
    assert_travels(tf, tmp_path, source, way)


@every_way
@pytest.mark.parametrize("kind", ["string to number", "number to string", "string to float"])
def test_columns_of_a_file(tf, tmp_path, way, kind):
    def build(tf, folder):
        path = vocabulary(folder, "a,5,0.5", "b,7,2.25", "c,1,-1")
        columns = {
            "string to number": ((tf.string, 0), (tf.int64, 1)),
            "number to string": ((tf.int64, 1), (tf.string, 0)),
            "string to float": ((tf.string, 0), (tf.float32, 2)),
        }[kind]
        default = {"string to number": -1, "number to string": "none", "string to float": 0.0}[kind]
        table = tf.lookup.StaticHashTable(from_file(tf, path, *columns, delimiter=","), default)
        return {"found": table.lookup(numbers(tf) if kind == "number to string" else words(tf))}

    expected = {"string to number": [7, -1, 5, 1], "number to string": [b"b", b"none", b"c", b"a"],
                "string to float": [2.25, 0.0, 0.5, -1.0]}[kind]  # fmt: skip
    source = make(tf, tmp_path, build, NUMBERS if kind == "number to string" else WORDS)

    assert source.answers["found"].tolist() == expected
    assert_travels(tf, tmp_path, source, way)


@every_way
def test_tables_that_are_references(tf, tmp_path, way):
    """What TensorFlow wrote before 1.5."""

    def build(tf, folder):
        table = tf.raw_ops.HashTable(key_dtype=tf.string, value_dtype=tf.int64, shared_name="old", name="old")
        fill = tf.raw_ops.InitializeTable(table_handle=table, keys=["a", "b"], values=tf.constant([5, 7], "int64"))
        tf.compat.v1.add_to_collection("table_initializer", fill)
        default = tf.constant(-1, "int64")
        return {"ids": tf.raw_ops.LookupTableFind(table_handle=table, keys=words(tf), default_value=default)}

    assert_travels(tf, tmp_path, make(tf, tmp_path, build, WORDS), way)


@every_way
@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
def test_tables_variables_and_local_state(tf, tmp_path, way, use_resource):
    """An embedding behind a vocabulary, scaled by what only the init op sets."""

    def build(tf, folder):
        get = tf.compat.v1.get_variable
        random = tf.compat.v1.random_normal_initializer()
        rows = get("rows", [7, 3], initializer=random, use_resource=use_resource)
        scale = tf.compat.v1.get_local_variable("scale", initializer=tf.constant(2.5), use_resource=use_resource)
        offset = tf.compat.v1.get_local_variable(
            "offset", [3], initializer=tf.compat.v1.ones_initializer(), use_resource=use_resource
        )
        content = from_file(tf, vocabulary(folder, "a", "b", "c"), (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
                            (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER))  # fmt: skip
        ids = tf.lookup.StaticVocabularyTable(content, 4).lookup(words(tf))
        return {"out": tf.nn.embedding_lookup(rows, ids) * scale + offset}

    source = make(tf, tmp_path, build, WORDS)
    result = assert_travels(tf, tmp_path, source, way)

    assert any("scale is in no checkpoint" in note for note in result.notes)


@every_way
def test_init_ops_that_wait_for_each_other(tf, tmp_path, way):
    def build(tf, folder):
        content = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([5, 7], "int64"))
        table = tf.lookup.StaticHashTable(content, -1)
        with tf.control_dependencies([tf.compat.v1.tables_initializer()]):
            ready = tf.no_op("ready")
        with tf.control_dependencies([ready]):
            tf.compat.v1.add_to_collection("table_initializer", tf.group(tf.no_op("nothing"), name="chained"))
        return {"ids": table.lookup(words(tf))}

    assert_travels(tf, tmp_path, make(tf, tmp_path, build, WORDS), way)


@every_way
def test_only_what_an_output_needs_is_filled(tf, tmp_path, way):
    def build(tf, folder):
        content = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([5, 7], "int64"))
        lost = from_file(tf, vocabulary(folder, "x"), (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
                         (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER))  # fmt: skip
        tf.lookup.StaticHashTable(lost, -1)
        return {"ids": tf.lookup.StaticHashTable(content, -1).lookup(words(tf))}

    assert_travels(tf, tmp_path, make(tf, tmp_path, build, WORDS), way)


@every_way
def test_tables_that_change_are_refused(tf, tmp_path, way):
    def build(tf, folder):
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        tf.compat.v1.add_to_collection("table_initializer", table.insert(["a"], tf.constant([5], "int64")))
        return {"ids": table.lookup(words(tf))}

    source = make(tf, tmp_path, build, WORDS)
    with pytest.raises(UnsupportedError, match=r"change.? while the model runs"):
        assert_travels(tf, tmp_path, source, way)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("saved-model")])
@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
def test_local_state_counts_on(tf, tmp_path, way, use_resource):
    """What loading sets to zero goes on from there with every call."""

    def build(tf, folder):
        total = tf.compat.v1.get_local_variable(
            "total", [], "int64", initializer=tf.compat.v1.zeros_initializer(), use_resource=use_resource
        )
        added = tf.compat.v1.assign_add(total, tf.reduce_sum(numbers(tf)))
        return {"total": tf.identity(added, name="out")}

    source = make(tf, tmp_path, build, NUMBERS)
    source.answers["total"] *= 2  # every program asks twice
    assert_travels(tf, tmp_path, source, way)


@every_way
def test_local_state_that_loading_does_not_only_set_is_refused(tf, tmp_path, way):
    """Without running the graph nobody knows what it begins with."""

    def build(tf, folder):
        scale = tf.compat.v1.get_local_variable("scale", initializer=tf.constant(2.5), use_resource=False)
        with tf.control_dependencies([scale.initializer]):
            tf.compat.v1.add_to_collection("table_initializer", tf.compat.v1.assign_add(scale, 1.0).op)
        return {"out": tf.cast(numbers(tf), "float32") * scale}

    source = make(tf, tmp_path, build, NUMBERS)

    assert source.answers["out"].tolist() == [24.5, 0.0, 3.5, 17.5]
    with pytest.raises(RestoreError) as caught:
        assert_travels(tf, tmp_path, source, way)
    assert caught.value.missing == ("scale",)


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("saved-model")])
def test_tables_in_control_flow(tf, tmp_path, way):
    def build(tf, folder):
        content = from_file(tf, vocabulary(folder, "a", "b", "c"), (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
                            (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER))  # fmt: skip
        table, asked = tf.lookup.StaticHashTable(content, -1), words(tf)
        flag = tf.compat.v1.placeholder_with_default(True, [], name="flag")
        body = lambda i, y: (i + 1, y + table.lookup(asked))  # noqa: E731
        with v1_control_flow(tf):
            looped = tf.compat.v1.while_loop(lambda i, y: i < 3, body, [0, tf.zeros_like(asked, "int64")])[1]
            chosen = tf.compat.v1.cond(flag, lambda: table.lookup(asked), lambda: tf.constant([0], "int64"))
        return {"looped": looped, "chosen": chosen, "size": tf.identity(table.size())}

    source = make(tf, tmp_path, build, WORDS)

    assert source.answers["looped"].tolist() == [3, -3, 0, 6]
    assert_travels(tf, tmp_path, source, way)


def test_what_tensorflow_2_loads_it_saves_again(tf, tmp_path):
    def build(tf, folder):
        content = from_file(tf, vocabulary(folder, "a", "b", "c"), (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
                            (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER))  # fmt: skip
        rows = tf.compat.v1.get_variable("rows", [7, 3], use_resource=False)
        return {"out": tf.gather(rows, tf.lookup.StaticVocabularyTable(content, 4).lookup(words(tf)))}

    source = make(tf, tmp_path, build, WORDS)
    convert(source.path, tmp_path / "new", to="saved-model", style="v2", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    tf.saved_model.save(loaded, str(tmp_path / "again"), signatures=loaded.signatures["serving_default"])
    shutil.rmtree(tmp_path / "new")

    found = answers_of(tf, tmp_path / "again", "tf2", None, source.feeds)
    assert found["out"].tolist() == source.answers["out"].tolist()
    assert (tmp_path / "again/assets/vocabulary.txt").read_text() == "a\nb\nc\n"


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("saved-model")])
def test_loading_that_reaches_further_is_kept_only_where_it_can_be(tf, tmp_path, way):
    def build(tf, folder):
        content = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([5, 7], "int64"))
        queue = tf.queue.FIFOQueue(4, ["int64"], shapes=[[]], name="queue")
        tf.compat.v1.add_to_collection("table_initializer", queue.enqueue(tf.constant(3, "int64")))
        return {"ids": tf.lookup.StaticHashTable(content, -1).lookup(words(tf))}

    source = make(tf, tmp_path, build, WORDS)
    if way == "saved-model, graph style":
        assert_travels(tf, tmp_path, source, way)
        return
    with pytest.raises(UnsupportedError, match="QueueEnqueueV2") as caught:
        assert_travels(tf, tmp_path, source, way)
    assert "--style v1" in caught.value.hint
