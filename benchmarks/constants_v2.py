"""Freeze a SavedModel as TensorFlow 2 does it: load, `convert_variables_to_constants_v2`, write."""

import sys


def main(source: str, destination: str) -> None:
    """Freeze the default signature of a SavedModel into a file."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(source)  # must be kept: its variables are gone with it
    frozen = convert_variables_to_constants_v2(loaded.signatures["serving_default"])
    with open(destination, "wb") as file:
        file.write(frozen.graph.as_graph_def().SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])
