"""A checkpoint of `tf.train.Checkpoint` becomes a SavedModel, optimizer or not, with eager execution left alone.

python checkpoint_to_saved_model.py [DIRECTORY]
"""

import sys
import tempfile

import numpy as np
import tensorflow as tf

import tfthaw


def build_model():
    """Return the model as the training code builds it."""
    return tf.keras.Sequential(
        [
            tf.keras.Input(shape=(4,), name="features"),
            tf.keras.layers.Dense(8, activation="relu", name="hidden"),
            tf.keras.layers.Dropout(0.2),
            tf.keras.layers.Dense(3, activation="softmax", name="scores"),
        ]
    )


def train(model, optimizer, steps=50):
    """Teach the model which of the first three features is the largest."""
    features = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    labels = features[:, :3].argmax(axis=1)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            scores = model(features, training=True)
            loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(labels, scores))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def main(directory):
    """Train, save, convert, and use what was written."""
    model, optimizer = build_model(), tf.keras.optimizers.Adam(0.01)
    train(model, optimizer)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer).save(f"{directory}/ckpt")

    # The call of this example: the code that builds the model, and the checkpoint that has its values.
    result = tfthaw.convert(build_model, f"{directory}/served", checkpoint=checkpoint, to="saved-model", overwrite=True)

    serve = tf.saved_model.load(f"{directory}/served").signatures["serving_default"]
    features = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    (scores,) = serve(tf.constant(features)).values()
    difference = np.abs(scores - model(features, training=False)).max()
    assert difference < 1e-6, difference
    print(f"{result.path}: {result.variables} variables, {result.verified.weights.different} unlike the checkpoint")
    print(f"largest difference of its scores from those of the trained model: {difference:.1g}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
