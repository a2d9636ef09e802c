"""Lookup tables in frozen graphs fill themselves, with TensorFlow as the oracle."""

import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.errors import UnsupportedError
from v1_sessions import FrozenSession, Original

pytestmark = pytest.mark.tf


def table(tf, keys=("a", "b"), values=(5, 7)):
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values, "int64"))
    return tf.lookup.StaticHashTable(initializer, -1)


def words(tf):
    return tf.compat.v1.placeholder("string", [None], name="words")


ASKED = {"words:0": np.array([b"b", b"x", b"a"], object)}


def test_a_table_fills_itself_whenever_the_graph_runs(tf, tmp_path):
    def build(tf):
        tf.identity(table(tf).lookup(words(tf)), name="out")

    result = Original(tf, tmp_path, build).assert_freezes(["out:0"], ASKED, ASKED)

    assert any("fills itself now" in note for note in result.notes)


def test_tables_beside_variables(tf, tmp_path):
    def build(tf):
        w = tf.compat.v1.get_variable(
            "w", [10, 2], initializer=tf.compat.v1.random_normal_initializer(), use_resource=True
        )
        first, second = table(tf), table(tf, ("5", "7"), (1, 2))
        ids = first.lookup(words(tf))
        tf.gather(w, tf.maximum(second.lookup(tf.strings.as_string(ids)), 0), name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"], ASKED, ASKED)


@pytest.mark.parametrize("where", ["loop", "cond"])
def test_tables_inside_control_flow(tf, tmp_path, where):
    def build(tf):
        found, asked = table(tf), words(tf)
        if where == "loop":
            body = lambda i, y: (i + 1, y + found.lookup(asked))  # noqa: E731
            y = tf.compat.v1.while_loop(lambda i, y: i < 3, body, [0, tf.zeros_like(found.lookup(asked))])[1]
        else:
            flag = tf.compat.v1.placeholder_with_default(True, [], name="flag")
            y = tf.compat.v1.cond(flag, lambda: found.lookup(asked), lambda: tf.constant([0], "int64"))
        tf.identity(y, name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"], ASKED, ASKED)


def test_old_tables_that_are_references(tf, tmp_path):
    def build(tf):
        made = tf.raw_ops.HashTable(key_dtype=tf.string, value_dtype=tf.int64, name="table")
        fill = tf.raw_ops.InitializeTable(table_handle=made, keys=["a", "b"], values=tf.constant([5, 7], "int64"))
        tf.compat.v1.add_to_collection("table_initializer", fill)
        default = tf.constant(-1, "int64")
        tf.raw_ops.LookupTableFind(table_handle=made, keys=words(tf), default_value=default, name="out")

    Original(tf, tmp_path, build).assert_freezes(["out:0"], ASKED, ASKED)


def test_tables_that_are_filled_by_import(tf, tmp_path):
    def build(tf):
        made = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, name="table")
        keys, values = tf.constant(["a", "b"]), tf.constant([5, 7], "int64")
        fill = tf.raw_ops.LookupTableImportV2(table_handle=made, keys=keys, values=values)
        tf.compat.v1.add_to_collection("table_initializer", fill)
        tf.raw_ops.LookupTableFindV2(
            table_handle=made, keys=words(tf), default_value=tf.constant(-1, "int64"), name="out"
        )

    Original(tf, tmp_path, build).assert_freezes(["out:0"], ASKED, ASKED)


def test_tables_from_files_are_refused_with_the_cure(tf, tmp_path):
    (tmp_path / "vocabulary.txt").write_text("a\nb\n")

    def build(tf):
        initializer = tf.lookup.TextFileInitializer(
            str(tmp_path / "vocabulary.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )  # fmt: skip
        tf.identity(tf.lookup.StaticHashTable(initializer, -1).lookup(words(tf)), name="out")

    with pytest.raises(UnsupportedError, match="convert to saved-model") as caught:
        Original(tf, tmp_path, build).frozen(["out:0"])
    assert "InitializeTableFromTextFileV2" in caught.value.problems[0]
    assert not (tmp_path / "frozen.pb").exists()


@pytest.mark.parametrize("to", ["frozen-graph", "saved-model", "meta-graph"])
def test_tables_that_change_are_refused(tf, tmp_path, to):
    """What such a table holds is in the checkpoint, and would be lost."""

    def build(tf):
        made = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        w = tf.compat.v1.get_variable("w", [], "int64", initializer=tf.compat.v1.zeros_initializer())
        tf.add(made.lookup(words(tf)), w, name="out")

    original = Original(tf, tmp_path, build)
    with pytest.raises(UnsupportedError, match=r"change.? while the model runs"):
        convert(original.prefix + ".meta", tmp_path / "new", to=to, outputs=["out"])
    assert not (tmp_path / "new").exists()


def test_a_frozen_graph_keeps_tables_that_nothing_fills(tf, tmp_path):
    with tf.Graph().as_default() as graph:
        made = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="t", name="table")
        tf.raw_ops.LookupTableFindV2(
            table_handle=made, keys=words(tf), default_value=tf.constant(-1, "int64"), name="out"
        )
    (tmp_path / "source.pb").write_bytes(graph.as_graph_def().SerializeToString())

    result = convert(tmp_path / "source.pb", tmp_path / "frozen.pb", to="frozen-graph", outputs=["out"])

    assert "nothing in the graph fills its lookup tables, as in the source" in result.notes
    with FrozenSession(tf, tmp_path / "frozen.pb") as frozen:
        assert "HashTableV2" in frozen.ops()
