"""Export a Keras model from its code and a checkpoint as TensorFlow's own tutorials do it.

`python -m benchmarks.keras_export WORK CHECKPOINT DESTINATION` builds the model of `benchmarks.vgg`, restores the
checkpoint, and exports; it prints the seconds of each step as one JSON object. What these steps write is not proved:
nothing in TensorFlow does that.
"""

import json
import sys
import time
from typing import Any


def export(model: Any, destination: str) -> None:
    """Write a SavedModel by `model.export`."""
    model.export(destination, verbose=False)


def freeze(model: Any, destination: str) -> None:
    """Write a frozen graph by `convert_variables_to_constants_v2`."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in model.inputs]
    call = tf.function(lambda *inputs: model(*inputs, training=False), input_signature=specs)
    frozen = convert_variables_to_constants_v2(call.get_concrete_function())
    with open(destination, "wb") as file:
        file.write(frozen.graph.as_graph_def().SerializeToString())


WORKS = {"export": export, "freeze": freeze}


def main(work: str, checkpoint: str, destination: str) -> None:
    """Export the model into a destination."""
    ends = [("start", time.perf_counter())]
    import keras  # noqa: F401 - the model's code does the same
    import tensorflow as tf

    ends.append(("import", time.perf_counter()))
    from benchmarks.vgg import build_model

    model = build_model()
    ends.append(("build", time.perf_counter()))
    tf.train.Checkpoint(model=model).read(checkpoint).assert_consumed()
    ends.append(("restore", time.perf_counter()))
    WORKS[work](model, destination)
    ends.append((work, time.perf_counter()))
    print(json.dumps({name: round(end - ends[index][1], 3) for index, (name, end) in enumerate(ends[1:])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
