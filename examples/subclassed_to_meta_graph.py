"""A subclassed Keras model, not yet built, and its checkpoint become a MetaGraph with all of the forward ops.

python subclassed_to_meta_graph.py [DIRECTORY]
"""

import sys
import tempfile

import numpy as np
import tensorflow as tf

import tfthaw


class Classifier(tf.keras.Model):
    """Two layers, whose sizes only a call tells."""

    def __init__(self):
        super().__init__()
        self.hidden = tf.keras.layers.Dense(8, activation="relu")
        self.drop = tf.keras.layers.Dropout(0.5)
        self.logits = tf.keras.layers.Dense(3)

    def call(self, x, training=False):
        """Return float32[batch, 3]."""
        return self.logits(self.drop(self.hidden(x), training=training))


def main(directory):
    """Train, save, convert, and use what was written."""
    model = Classifier()
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model.compile(optimizer="adam", loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, x[:, :3].argmax(axis=1), epochs=3, verbose=0)
    checkpoint = tf.train.Checkpoint(model=model).save(f"{directory}/ckpt")

    # The call of this example: `input` says what a model that was never called cannot know.
    result = tfthaw.convert(
        checkpoint, f"{directory}/model.ckpt.meta", to="meta-graph", code=f"{__file__}:Classifier",
        input=["x:float32[?,4]"], overwrite=True,
    )  # fmt: skip

    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{directory}/model.ckpt.meta")
        saver.restore(session, f"{directory}/model.ckpt")
        (fetched,) = result.outputs.values()
        logits = session.run(fetched, {result.inputs["x"]: x})
    difference = np.abs(logits - model(x)).max()
    assert difference < 1e-6, difference
    print(f"{result.path}: {len(graph.get_operations())} nodes, {result.variables} variables")
    print(f"{result.verified.weights.compared} tensors, {result.verified.weights.different} unlike the checkpoint")
    print(f"largest difference of its logits from those of the trained model: {difference:.1g}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
