"""A model trained eagerly and served from a graph with a placeholder: a SavedModel as `SavedModelBuilder` makes it.

python graph_mode_to_saved_model.py [DIRECTORY]
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
            tf.keras.Input(shape=(4,)),
            tf.keras.layers.Dense(8, activation="tanh", name="hidden"),
            tf.keras.layers.Dense(1, name="value"),
        ]
    )


def build_serving_graph():
    """Build the graph to serve; no session, no initializer, no `disable_eager_execution`."""
    features = tf.compat.v1.placeholder(tf.float32, [None, 4], name="features")
    value = build_model()(features)
    return {"features": features}, {"value": value}


def main(directory):
    """Train, save, convert, and use what was written."""
    model = build_model()
    features = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model.compile(optimizer="adam", loss="mse")
    model.fit(features, features.sum(axis=1, keepdims=True), epochs=5, verbose=0)
    checkpoint = tf.train.Checkpoint(model=model).save(f"{directory}/ckpt")

    # The call of this example: with `code=` the graph is built in a process of its own.
    result = tfthaw.convert(
        checkpoint, f"{directory}/served", to="saved-model", style="v1", code=f"{__file__}:build_serving_graph",
        overwrite=True,
    )  # fmt: skip

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], f"{directory}/served")
        signature = loaded.signature_def["serving_default"]
        value = session.run(signature.outputs["value"].name, {signature.inputs["features"].name: features[:5]})
    difference = np.abs(value - model(features[:5])).max()
    assert difference < 1e-6, difference
    print(f"{result.path}: {result.variables} variables, {result.verified.weights.different} unlike the checkpoint")
    print(f"largest difference of its values from those of the trained model: {difference:.1g}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
