"""Load what was written with TensorFlow, as its users do, and run it."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Used:
    """What a user sees of an artifact.

    Attributes:
        outputs: The outputs by name.
        values: The values of its variables or constants.
        nodes: The names of the nodes of its graph, where it is one.
    """

    outputs: dict[str, Any]
    values: list[Any]
    nodes: list[str]


def use(tf, document, feed, *, style="v2"):
    """Load an artifact by the result of its conversion, and feed its only input."""
    if document["format"] == "saved-model":
        return _saved_model(tf, document, feed) if style == "v2" else _saved_model_in_a_session(tf, document, feed)
    return {"frozen-graph": _frozen_graph, "meta-graph": _meta_graph}[document["format"]](tf, document, feed)


def _saved_model(tf, document, feed):
    loaded = tf.saved_model.load(document["path"])
    (name,) = document["inputs"]
    outputs = loaded.signatures["serving_default"](**{name: tf.constant(feed)})
    assert set(outputs) == set(document["outputs"])
    values = [variable.numpy() for variable in loaded.variables]
    return Used({name: output.numpy() for name, output in outputs.items()}, values, [])


def _saved_model_in_a_session(tf, document, feed):
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], document["path"])
        signature = loaded.signature_def["serving_default"]
        (fed,) = signature.inputs.values()
        outputs = {name: info.name for name, info in signature.outputs.items()}
        values = session.run(tf.compat.v1.global_variables())
        return Used(session.run(outputs, {fed.name: feed}), values, _names(graph))


def _frozen_graph(tf, document, feed):
    graph_def = tf.compat.v1.GraphDef()
    with open(document["path"], "rb") as file:
        graph_def.ParseFromString(file.read())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        (fed,) = document["inputs"].values()
        values = [tf.make_ndarray(node.attr["value"].tensor) for node in graph_def.node if node.op == "Const"]
        return Used(session.run(document["outputs"], {fed: feed}), values, _names(graph))


def _meta_graph(tf, document, feed):
    prefix = document["path"].removesuffix(".meta")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, prefix)
        (fed,) = document["inputs"].values()
        values = session.run(tf.compat.v1.global_variables())
        return Used(session.run(document["outputs"], {fed: feed}), values, _names(graph))


def _names(graph):
    return [node.name for node in graph.get_operations()]


def counted(values):
    """Return floating arrays so that two lists of them compare whatever their order."""
    return sorted((str(value.dtype), value.shape, value.tobytes()) for value in map(np.asarray, values))
