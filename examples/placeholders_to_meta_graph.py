"""TensorFlow 1 code (placeholders, name scopes, `tf.layers`) and its checkpoint become a MetaGraph for inference.

python placeholders_to_meta_graph.py [DIRECTORY]
"""

import importlib.util
import os
import sys
import tempfile

import numpy as np
import tensorflow as tf

import tfthaw


def build_graph():
    """Build the graph as the training code does; it returns inputs and outputs."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 16], name="x")
    with tf.name_scope("encoder"):
        hidden = tf.compat.v1.layers.dense(x, 8, activation=tf.nn.relu, name="hidden")
    with tf.name_scope("head"):
        logits = tf.compat.v1.layers.dense(hidden, 4, name="logits")
    return x, {"logits": logits, "probabilities": tf.nn.softmax(logits, name="probabilities")}


def train(x, prefix):
    """Train in a session and save with a `Saver`; return the trained graph's probabilities."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        placeholder, outputs = build_graph()
        loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(x[:, :4].argmax(axis=1), outputs["logits"])
        step = tf.compat.v1.train.AdamOptimizer(0.01).minimize(loss)
        session.run(tf.compat.v1.global_variables_initializer())
        for _ in range(50):
            session.run(step, {placeholder: x})
        tf.compat.v1.train.Saver().save(session, prefix)
        return session.run(outputs["probabilities"], {placeholder: x})


def main(directory):
    """Train, save, convert, and use what was written."""
    if importlib.util.find_spec("tf_keras"):  # with which TensorFlow trains `tf.layers` since 2.16; tfthaw knows
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    x = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    expected, code = train(x, f"{directory}/ckpt"), f"{__file__}:build_graph"
    result = tfthaw.convert(f"{directory}/ckpt", f"{directory}/model.meta", to="meta-graph", code=code, overwrite=True)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(f"{directory}/model.meta").restore(session, f"{directory}/model")
        found = session.run("probabilities:0", {"x:0": x})
        tf.compat.v1.summary.FileWriter(f"{directory}/tensorboard", graph).close()
    difference = np.abs(found - expected).max()
    assert difference < 1e-6, difference
    print(f"{result.path}: {result.verified.weights.compared} tensors; tensorboard --logdir {directory}/tensorboard")
    print(f"largest difference of its probabilities from those of the trained graph: {difference:.1g}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
