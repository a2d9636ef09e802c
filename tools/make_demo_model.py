"""Train the demo model and write it to src/tfthaw/demo/ (`python tools/make_demo_model.py`).

A small convolutional classifier of scikit-learn's handwritten digits, in graph code as it was written for TensorFlow
1.4: placeholders, name and variable scopes, reference variables, batch normalisation with moving averages and an update
collection, dropout, Adam, a `Saver`. The MetaGraph is what such a script leaves behind: it holds the gradients, the
optimizer and the save and restore ops, and no signature. Seeded and single-threaded, so that a second run on the same
machine writes the same weights.

Source of the images: the held-out part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI
Machine Learning Repository, CC BY 4.0), as scikit-learn ships it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from sklearn.datasets import load_digits

DESTINATION = Path(__file__).parents[1] / "src" / "tfthaw" / "demo"
SEED = 2017
STEPS = 1000
BATCH_SIZE = 64
HELD_OUT = 450
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def split_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return float32[?, 8, 8, 1] images within 0..1 and int64[?] labels, shuffled once and cut in two."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = (digits.images[order, :, :, np.newaxis] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    return {
        "train": (images[HELD_OUT:], labels[HELD_OUT:]),
        "held out": (images[:HELD_OUT], labels[:HELD_OUT]),
    }


def batch_norm(x: Any, is_training: Any) -> Any:
    """Normalise over all but the channels: by the batch in training, else by the moving averages."""
    channels = int(x.shape[-1])
    with tf.variable_scope("batch_normalization"):
        gamma = tf.get_variable("gamma", [channels], initializer=tf.ones_initializer())
        beta = tf.get_variable("beta", [channels], initializer=tf.zeros_initializer())
        moving_mean = tf.get_variable("moving_mean", [channels], initializer=tf.zeros_initializer(), trainable=False)
        moving_variance = tf.get_variable(
            "moving_variance", [channels], initializer=tf.ones_initializer(), trainable=False
        )
        batch_mean, batch_variance = tf.nn.moments(x, axes=[0, 1, 2], name="moments")
        for moving, batch in ((moving_mean, batch_mean), (moving_variance, batch_variance)):
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, 0.05 * (moving - batch)))
        mean, variance = tf.cond(
            is_training,
            lambda: (batch_mean, batch_variance),
            lambda: (tf.identity(moving_mean), tf.identity(moving_variance)),
        )
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3, name="normalize")


def conv_block(x: Any, channels: int, is_training: Any, scope: str) -> Any:
    """Convolve 3x3, normalise, rectify and halve height and width."""
    with tf.variable_scope(scope):
        kernel = tf.get_variable("kernel", [3, 3, int(x.shape[-1]), channels])
        x = tf.nn.conv2d(x, kernel, strides=[1, 1, 1, 1], padding="SAME", name="conv2d")
        x = tf.nn.relu(batch_norm(x, is_training), name="relu")
        return tf.nn.max_pool(x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME", name="pool")


def dense(x: Any, units: int, scope: str) -> Any:
    with tf.variable_scope(scope):
        kernel = tf.get_variable("kernel", [int(x.shape[-1]), units])
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
        return tf.nn.bias_add(tf.matmul(x, kernel, name="matmul"), bias, name="bias_add")


def build_graph() -> dict[str, Any]:
    """Build inputs, model and training ops in the default graph; return the ones that a run needs."""
    images = tf.placeholder(tf.float32, [None, 8, 8, 1], name="images")
    labels = tf.placeholder(tf.int64, [None], name="labels")
    is_training = tf.placeholder_with_default(False, [], name="is_training")
    keep_prob = tf.placeholder_with_default(1.0, [], name="keep_prob")

    x = conv_block(images, 16, is_training, "conv1")
    x = conv_block(x, 32, is_training, "conv2")
    x = tf.reshape(x, [-1, 2 * 2 * 32], name="flatten")
    x = tf.nn.relu(dense(x, 64, "dense1"), name="features")
    x = tf.nn.dropout(x, keep_prob=keep_prob)
    logits = tf.identity(dense(x, len(LABELS), "dense2"), name="logits")
    tf.nn.softmax(logits, name="probabilities")

    with tf.name_scope("train"):
        loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
        tf.summary.scalar("loss", loss)
        global_step = tf.train.get_or_create_global_step()
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            train_op = tf.train.AdamOptimizer(1e-3).minimize(loss, global_step=global_step)
    with tf.name_scope("accuracy"):
        correct = tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.int64), name="correct")
    return {
        "images": images, "labels": labels, "is_training": is_training, "keep_prob": keep_prob,
        "global_step": global_step, "train_op": train_op, "correct": correct,
    }  # fmt: skip


def train(destination: Path) -> dict[str, Any]:
    """Train, save a checkpoint with its MetaGraph, and return the facts that TensorFlow measured."""
    data = split_digits()
    images, labels = data["train"]
    tf.set_random_seed(SEED)
    ops = build_graph()
    saver = tf.train.Saver(save_relative_paths=True)
    rng = np.random.default_rng(SEED)
    one_thread = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.Session(config=one_thread) as session:
        session.run(tf.global_variables_initializer())
        for _ in range(STEPS):
            batch = rng.choice(len(labels), BATCH_SIZE, replace=False)
            feed = {ops["images"]: images[batch], ops["labels"]: labels[batch]}
            session.run(ops["train_op"], {**feed, ops["is_training"]: True, ops["keep_prob"]: 0.5})
        held_images, held_labels = data["held out"]
        correct = int(session.run(ops["correct"], {ops["images"]: held_images, ops["labels"]: held_labels}))
        prefix = saver.save(session, str(destination / "model.ckpt"), global_step=ops["global_step"])
    np.savez_compressed(destination / "heldout.npz", images=held_images, labels=held_labels)
    return {
        "checkpoint": Path(prefix).name,
        "inputs": {"images": "images:0"},
        "outputs": {"probabilities": "probabilities:0"},
        "accuracy": correct / len(held_labels),
        "correct": correct,
        "examples": len(held_labels),
        "measured_by": f"tensorflow {tf.__version__}",
        "images_from": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
                       "UCI Machine Learning Repository, CC BY 4.0",
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--destination", type=Path, default=DESTINATION)
    destination = parser.parse_args().destination
    destination.mkdir(parents=True, exist_ok=True)
    for old in (*destination.glob("model.ckpt-*"), *destination.glob("checkpoint")):
        old.unlink()
    tf.disable_v2_behavior()
    facts = train(destination)
    if facts["accuracy"] < 0.97:
        print(f"held-out accuracy is {facts['accuracy']:.4f}, expected at least 0.97")
        return 1
    (destination / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (destination / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
