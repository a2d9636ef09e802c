"""A Keras Sequential and its checkpoint become a MetaGraph that TensorFlow 1 code imports, restores and trains on.

python sequential_to_meta_graph.py [DIRECTORY]
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
            tf.keras.Input(shape=(16,)),
            tf.keras.layers.Dense(8, activation="relu", name="hidden"),
            tf.keras.layers.BatchNormalization(name="norm"),
            tf.keras.layers.Dense(4, name="logits"),
        ]
    )


def main(directory):
    """Train, save, convert, and use what was written."""
    model = build_model()
    x = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    model.compile(optimizer="adam", loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, x[:, :4].argmax(axis=1), epochs=3, verbose=0)
    checkpoint = tf.train.Checkpoint(model=model).save(f"{directory}/ckpt")

    # The call of this example: the live model itself, which keeps the values that it has.
    result = tfthaw.convert(
        model, f"{directory}/model.ckpt.meta", checkpoint=checkpoint, to="meta-graph", overwrite=True
    )

    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{directory}/model.ckpt.meta")
        saver.restore(session, f"{directory}/model.ckpt")
        (fed,), (fetched,) = result.inputs.values(), result.outputs.values()
        logits = session.run(fetched, {fed: x})
        names = [variable.name for variable in tf.compat.v1.global_variables()]
    difference = np.abs(logits - model(x, training=False)).max()
    assert difference < 1e-5, difference
    print(f"{result.path}: {len(graph.get_operations())} nodes, variables {', '.join(names)}")
    print(f"{result.verified.weights.compared} tensors, {result.verified.weights.different} unlike the checkpoint")
    print(f"largest difference of its logits from those of the trained model: {difference:.1g}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
