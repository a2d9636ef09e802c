"""An image model with its preprocessing, served as `export_inference_graph.py` does it, with the trained weights.

python inference_graph_to_saved_model.py [DIRECTORY]
"""

import sys
import tempfile

import numpy as np
import tensorflow as tf

import tfthaw


def build_model():
    """Return the classifier as the training code builds it."""
    images = tf.keras.Input(shape=(8, 8, 3))
    features = tf.keras.layers.Conv2D(4, 3, activation="relu", name="conv")(images)
    features = tf.keras.layers.BatchNormalization(name="norm")(features)
    features = tf.keras.layers.GlobalAveragePooling2D()(features)
    return tf.keras.Model(images, tf.keras.layers.Dense(2, activation="softmax", name="classes")(features))


def build_inference_graph():
    """Build the graph from raw pixels to scores; inputs and outputs have the names that `simple_save` would take."""
    image_tensor = tf.compat.v1.placeholder(tf.uint8, [None, 8, 8, 3], name="image_tensor")
    with tf.name_scope("Preprocessor"):
        images = tf.cast(image_tensor, tf.float32) / 127.5 - 1.0
    scores = build_model()(images, training=False)
    return {"inputs": image_tensor}, {"scores": tf.identity(scores, name="detection_scores")}


def main(directory):
    """Train, save, convert, and use what was written."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)
    images = pixels / np.float32(127.5) - 1
    model = build_model()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(images, images.mean(axis=(1, 2, 3)) > 0, epochs=3, verbose=0)
    checkpoint = tf.train.Checkpoint(model=model).save(f"{directory}/ckpt")

    # The call of this example: on the command line, `tfthaw convert CKPT served --to saved-model --code FILE:FUNCTION`.
    result = tfthaw.convert(
        checkpoint, f"{directory}/saved_model", to="saved-model", code=f"{__file__}:build_inference_graph",
        overwrite=True,
    )  # fmt: skip

    serve = tf.saved_model.load(f"{directory}/saved_model").signatures["serving_default"]
    scores = serve(inputs=tf.constant(pixels))["scores"]
    difference = np.abs(scores - model(images, training=False)).max()
    assert difference < 1e-6, difference
    print(f"{result.path}: {result.variables} variables, {result.verified.weights.different} unlike the checkpoint")
    print(f"largest difference of its scores from those of the trained model: {difference:.1g}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
