"""Plain `tf.Module` models with lookup tables and vocabularies."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tf2_models import Live, recipe
from tf2_models.layers import live, signature, weight

WORDS = ["apple", "pear", "plum", "fig"]


def words(*each: str) -> Any:
    """Return strings as TensorFlow gives them."""
    return np.array([word.encode() for word in each], object)


_FOLDER = tempfile.TemporaryDirectory(prefix="tf2-models-")  # lives as long as this module


def vocabulary_file() -> str:
    """Return a file of words, one a line."""
    path = Path(_FOLDER.name) / "fruit.txt"
    path.write_text("".join(f"{word}\n" for word in WORDS))
    return str(path)


@recipe(trains=False)
def table_of_constants(tf: Any) -> Live:
    """Tables from strings to numbers and back, filled from constants; one of them keeps unknown words apart."""
    root = tf.Module()
    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), tf.range(4, dtype=tf.int64))
    back = tf.lookup.KeyValueTensorInitializer(tf.range(4, dtype=tf.int64), tf.constant(WORDS))
    root.to_id, root.to_word = tf.lookup.StaticHashTable(pairs, -1), tf.lookup.StaticHashTable(back, "unknown")
    root.buckets = tf.lookup.StaticVocabularyTable(pairs, 3)
    root.embedding = weight(tf, 7, 3, seed=1)

    @signature(tf, words=([None], tf.string))
    def call(words):
        ids = root.to_id.lookup(words)
        rows = tf.gather(root.embedding, root.buckets.lookup(words))
        return {"ids": ids, "words": root.to_word.lookup(ids), "rows": rows, "size": root.to_id.size()}

    return live(tf, root, call, {"words": words("fig", "apple", "kiwi")}, {"words": words("plum")})


@recipe(trains=False)
def table_of_file(tf: Any) -> Live:
    """Tables from words to line numbers and back, filled from one file that becomes an asset."""
    root = tf.Module()
    lines, whole = tf.lookup.TextFileIndex.LINE_NUMBER, tf.lookup.TextFileIndex.WHOLE_LINE
    file = vocabulary_file()
    root.to_id = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(file, tf.string, whole, tf.int64, lines), -1
    )
    root.to_word = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(file, tf.int64, lines, tf.string, whole), "unknown"
    )
    root.shift = tf.Variable(tf.constant(1, tf.int64), trainable=False)

    @signature(tf, words=([None, None], tf.string))
    def call(words):
        ids = root.to_id.lookup(words)
        return {"ids": ids, "next": root.to_word.lookup(ids + root.shift)}

    one, other = words("fig", "apple", "kiwi").reshape(1, 3), words("plum", "pear").reshape(2, 1)
    return live(tf, root, call, {"words": one}, {"words": other})


@recipe(trains=False)
def table_in_a_branch(tf: Any) -> Live:
    """A table that a branch and a loop look up, in a function that is called."""
    root = tf.Module()
    pairs = tf.lookup.KeyValueTensorInitializer(tf.range(4, dtype=tf.int64), tf.constant([3, 0, 1, 2], tf.int64))
    root.successor = tf.lookup.StaticHashTable(pairs, -1)
    root.values = weight(tf, 4, seed=1)

    @tf.function
    def follow(ids):
        step = tf.constant(0)
        while step < 2:
            ids = root.successor.lookup(ids)
            step += 1
        return ids

    @signature(tf, ids=([None], tf.int64))
    def call(ids):
        ids = tf.cond(tf.size(ids) > 1, lambda: follow(ids), lambda: root.successor.lookup(ids))
        return {"ids": ids, "values": tf.gather(root.values, ids)}

    return live(tf, root, call, {"ids": np.array([0, 3])}, {"ids": np.array([2])})


@recipe(frozen=False, moves=False, trains=False)
def mutable_table(tf: Any) -> Live:
    """A table that was filled by hand: its contents are in the checkpoint."""
    root = tf.Module()
    root.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    root.table.insert(tf.constant(WORDS), tf.range(4, dtype=tf.int64))
    call = signature(tf, words=([None], tf.string))(lambda words: {"ids": root.table.lookup(words)})
    return live(tf, root, call, {"words": words("fig", "apple", "kiwi")}, {"words": words("plum")})
