"""What one TensorFlow says of an artifact: run by `tools/compat.py` with the interpreter of each environment.

    compat_judge.py make names|objects PREFIX       write a checkpoint to convert, with every dtype of this TensorFlow
    compat_judge.py read FORMAT PATH [INPUTS.npz]   print {"tensors": {key: [dtype, shape, sha256]}, "outputs": {...}}

Stands alone and runs on Python 3.9, since TensorFlow 2.12 may be on an old one. It does not know tfthaw.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", TF_ENABLE_ONEDNN_OPTS="0")

import numpy as np
import tensorflow as tf

EXAMPLES = 32
"""How many of the inputs are run; enough to see a difference, few enough to print."""

OUTPUT = "probabilities"

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE_KEY = "/.ATTRIBUTES/VARIABLE_VALUE"

Facts = list[Any]
"""Of a tensor: dtype, shape, digest."""

Said = dict[str, dict[str, Any]]
"""What is printed: tensors and outputs."""

Feeds = dict[str, Any]

DTYPES = (
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "complex64", "complex128", "string", "qint8", "quint8", "qint16", "quint16", "qint32",
    "float8_e5m2", "float8_e4m3fn", "int4", "uint4",
)  # fmt: skip


def every_dtype() -> dict[str, Any]:
    """Return a name and a tensor for each dtype that this TensorFlow has, and for shapes at the edges."""
    values = {"scalar": tf.constant(3.5), "empty": tf.zeros([0, 4]), "a b/[200]/ü": tf.range(7)}
    counts = np.arange(6).reshape(2, 3) % 2
    for name in DTYPES:
        try:
            dtype = tf.dtypes.as_dtype(name)
        except TypeError:  # newer than this TensorFlow
            continue
        if dtype == tf.string:
            values[name] = tf.constant([[b"", b"a"], [b"\xff\x00", b"long " * 100]])
        elif dtype.is_quantized:
            values[name] = tf.bitcast(tf.constant(counts, dtype.name[1:]), dtype)
        else:
            values[name] = tf.cast(tf.constant(counts, tf.float32 if dtype.is_floating else tf.int32), dtype)
    return values


def make(kind: str, prefix: str) -> None:
    """Write a checkpoint: tensors by name, or an object graph with an optimizer-like tree."""
    if kind == "names":
        values = every_dtype()
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values),
                          tensors=list(values.values()))  # fmt: skip
        return
    model = tf.Module()
    model.layers = [tf.Variable(tf.random.stateless_normal([3, 4], seed=[index, 1])) for index in range(3)]
    model.step = tf.Variable(7, dtype=tf.int64)
    tf.train.Checkpoint(model=model).write(prefix)


def tensors(prefix: str) -> dict[str, Facts]:
    """Return dtype, shape and digest of every tensor of a checkpoint."""
    reader = tf.train.load_checkpoint(prefix)
    dtypes = reader.get_variable_to_dtype_map()
    return {key: [dtype.name, *facts(reader.get_tensor(key))] for key, dtype in dtypes.items()}


def facts(value: Any) -> Facts:
    """Return shape and digest."""
    array = np.asarray(value)
    if array.dtype == object:
        encoded = b"".join(b"%d:%s" % (len(item), item) for item in array.reshape(-1))
    else:
        encoded = np.ascontiguousarray(array).tobytes()
    return [list(array.shape), hashlib.sha256(encoded).hexdigest()]


def read_frozen_graph(path: str, feeds: Feeds) -> Said:
    graph_def = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        graph_def.ParseFromString(file.read())
    left = [node.name for node in graph_def.node if node.op in ("Variable", "VariableV2", "VarHandleOp")]
    if left:
        raise ValueError(f"variables are left: {left[:3]}")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return {"tensors": {}, "outputs": run(session, feeds)}


def read_meta_graph(path: str, feeds: Feeds) -> Said:
    prefix = path[: -len(".meta")]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(path).restore(session, prefix)
        return {"tensors": tensors(prefix), "outputs": run(session, feeds)}


def run(session: Any, feeds: Feeds) -> dict[str, Any]:
    result = session.run(OUTPUT + ":0", {name + ":0": value for name, value in feeds.items()})
    return {OUTPUT: result.tolist()}


def read_saved_model(path: str, feeds: Feeds) -> Said:
    """Take the variables from the checkpoint: of a graph with reference variables, loading gives none.

    In an object graph a variable's key is its path, here that of its name, and an attribute.
    """
    model = tf.saved_model.load(path)
    outputs = model.signatures["serving_default"](**{name: tf.constant(value) for name, value in feeds.items()})
    named = {name: value.numpy().tolist() for name, value in outputs.items()}
    found = tensors(path + "/variables/variables")
    found.pop(OBJECT_GRAPH_KEY, None)
    return {"tensors": {key.replace(VALUE_KEY, ""): each for key, each in found.items()}, "outputs": named}


def main() -> None:
    verb, kind, path, *rest = sys.argv[1:]
    if verb == "make":
        make(kind, path)
        return
    feeds = {}
    if rest:
        with np.load(rest[0]) as examples:
            feeds = {"images": examples["images"][:EXAMPLES]}
    if kind == "checkpoint":
        said = {"tensors": tensors(path), "outputs": {}}
    else:
        readers = {"frozen-graph": read_frozen_graph, "meta-graph": read_meta_graph, "saved-model": read_saved_model}
        said = readers[kind](path, feeds)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
