"""A model of plain variables and its checkpoint become one frozen `.pb`, which any program can load.

python module_to_frozen_graph.py [DIRECTORY]
"""

import sys
import tempfile

import numpy as np
import tensorflow as tf

import tfthaw


class Linear(tf.Module):
    """A line through points."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.zeros([2, 1]), name="w")
        self.b = tf.Variable(0.0, name="b")

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def __call__(self, x):
        """Return float32[batch, 1]."""
        return tf.matmul(x, self.w) + self.b


def main(directory):
    """Train, save, convert, and use what was written."""
    model = Linear()
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    for _ in range(100):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - (x @ [[2.0], [-3.0]] + 1.0)) ** 2)
        slope_w, slope_b = tape.gradient(loss, [model.w, model.b])
        model.w.assign_sub(0.1 * slope_w)
        model.b.assign_sub(0.1 * slope_b)
    checkpoint = tf.train.Checkpoint(model=model).save(f"{directory}/ckpt")

    # The call of this example: a class stands for its instance, and its `__call__` is what gets exported.
    result = tfthaw.convert(Linear, f"{directory}/linear.pb", checkpoint=checkpoint, to="frozen-graph", overwrite=True)

    graph_def = tf.compat.v1.GraphDef()
    with open(f"{directory}/linear.pb", "rb") as file:
        graph_def.ParseFromString(file.read())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        (fed,), (fetched,) = result.inputs.values(), result.outputs.values()
        y = session.run(fetched, {fed: x})
    difference = np.abs(y - model(x)).max()
    assert difference < 1e-6, difference
    assert not [node for node in graph.get_operations() if "Variable" in node.type or "VarHandle" in node.type]
    print(f"{result.path}: {result.variables} constants, {result.verified.weights.different} unlike the checkpoint")
    print(f"largest difference of its outputs from those of the trained model: {difference:.1g}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
