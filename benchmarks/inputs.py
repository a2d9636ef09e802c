"""What the benchmarks read: made once by TensorFlow, kept in bench-out/inputs.

`prepare` runs this module as a process of its own for each input that is missing, so that the measuring process never
loads TensorFlow.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, MeasurementError

INPUTS = ROOT / "bench-out" / "inputs"
PREFIX = "model.ckpt"
OUTPUT_NODE = "out"

GIB_VARIABLES = 64
GIB_SHAPE = [2048, 2048]  # 16 MiB of float32
FUNCTIONS = 500
FUNCTION_STEPS = 12  # three nodes each, and a handful around them: 40 nodes a function


def prefix(name: str) -> Path:
    """Return the checkpoint prefix of an input; `.meta` lies beside it where the input is a model."""
    return INPUTS / name / PREFIX


def prepare(name: str) -> None:
    """Make an input unless it is there.

    Raises:
        MeasurementError: TensorFlow could not make it.
    """
    if (INPUTS / name).is_dir():
        return
    partial = INPUTS / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    print(f"making {name} ...", file=sys.stderr)
    made = subprocess.run([sys.executable, "-m", "benchmarks.inputs", name, str(partial / PREFIX)], cwd=ROOT,
                          stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    if made.returncode != 0:
        raise MeasurementError(f"input {name}: {(made.stderr.strip().splitlines() or ['no message'])[-1]}")
    partial.rename(INPUTS / name)


def write_checkpoint(path: str, variables: int, channels: int) -> None:
    """Write a checkpoint of small kernels and biases with their Adam slots, named as a deep network names them."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    tensors = {}
    for index in range(variables // 6):
        layer = f"model/stage_{index // 64}/block_{index // 8 % 8}/conv_{index % 8}"
        for name, shape in (("kernel", (3, 3, channels, channels)), ("bias", (channels,))):
            for slot in ("", "/Adam", "/Adam_1"):
                tensors[f"{layer}/{name}{slot}"] = rng.standard_normal(shape, np.float32)
    for index in range(variables - len(tensors)):
        tensors[f"step_{index}"] = np.int64(index)
    tf.raw_ops.SaveV2(prefix=path, tensor_names=list(tensors), shape_and_slices=[""] * len(tensors),
                      tensors=list(tensors.values()))  # fmt: skip


def write_gib_model(path: str) -> None:
    """Write a v1 model of 1 GiB: 64 variables of 16 MiB that one output reaches."""
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    total = tf.placeholder(tf.float32, [None, 1], name="x")
    for index in range(GIB_VARIABLES):
        with tf.variable_scope(f"layer_{index:02d}"):
            weights = tf.get_variable("weights", GIB_SHAPE, initializer=tf.random_uniform_initializer(-1, 1, index))
            total = total + weights[index : index + 1, :1]
    tf.identity(total, name=OUTPUT_NODE)
    _save(tf, path)


def write_large_graph(path: str) -> None:
    """Write a v1 model of about 20,000 nodes and 400 variables, most of them needed for the output."""
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    x = tf.placeholder(tf.float32, [None, 16], name="x")
    for index in range(200):
        with tf.variable_scope(f"layer_{index:03d}"):
            kernel = tf.get_variable("kernel", [16, 16])
            bias = tf.get_variable("bias", [16], initializer=tf.zeros_initializer())
            x = tf.nn.bias_add(tf.matmul(x, kernel), bias)
            for _ in range(40):
                x = tf.tanh(x * 0.5)
    tf.identity(x, name=OUTPUT_NODE)
    missing = 20_000 - len(tf.get_default_graph().get_operations())
    for _ in range(missing // 2):  # what training leaves behind: nodes that the output does not need
        x = tf.add(x, 1.0, name="unused")
    _save(tf, path)


def write_gib_saved_model(path: str) -> None:
    """Write a TensorFlow 2 SavedModel of 1 GiB: the same 64 variables, which one function captures."""
    import tensorflow as tf

    module = tf.Module()
    module.layers = [
        tf.Variable(tf.random.stateless_uniform(GIB_SHAPE, [index, 0], -1, 1), name=f"layer_{index:02d}/weights")
        for index in range(GIB_VARIABLES)
    ]

    def serve(x: Any) -> dict[str, Any]:
        for index, weights in enumerate(module.layers):
            x = x + weights[index : index + 1, :1]
        return {OUTPUT_NODE: x}

    signature = tf.function(serve, input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    tf.saved_model.save(module, path, signatures=signature)


def write_functions(path: str) -> None:
    """Write a TensorFlow 2 SavedModel of 20,000 nodes in 500 functions, each with a variable, called in turn."""
    import tensorflow as tf

    module = tf.Module()
    module.kernels = [tf.Variable(tf.eye(8), name=f"layer_{index:03d}/kernel") for index in range(FUNCTIONS)]

    def layer(kernel: Any) -> Any:
        def call(x: Any) -> Any:
            x = tf.matmul(x, kernel)
            for _ in range(FUNCTION_STEPS):
                x = tf.tanh(x * 0.5)
            return x

        return tf.function(call, input_signature=[tf.TensorSpec([None, 8], tf.float32)])

    layers = [layer(kernel) for kernel in module.kernels]

    def serve(x: Any) -> dict[str, Any]:
        for call in layers:
            x = call(x)
        return {OUTPUT_NODE: x}

    signature = tf.function(serve, input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
    tf.saved_model.save(module, path, signatures=signature)


def write_vgg(path: str) -> None:
    """Write the object-based checkpoint of a Keras model of 528 MiB, as `Checkpoint.write` leaves it after training."""
    import tensorflow as tf

    from benchmarks.vgg import build_model

    tf.keras.utils.set_random_seed(0)
    tf.train.Checkpoint(model=build_model()).write(path)


def _save(tf: Any, path: str) -> None:
    saver = tf.train.Saver(save_relative_paths=True)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        saver.save(session, path)


WRITERS: dict[str, Callable[[str], None]] = {
    "variables-2000": lambda path: write_checkpoint(path, 2_000, 16),
    "variables-10000": lambda path: write_checkpoint(path, 10_000, 2),
    "model-1gib": write_gib_model,
    "nodes-20000": write_large_graph,
    "saved-model-1gib": write_gib_saved_model,
    "functions-500": write_functions,
    "vgg": write_vgg,
}


if __name__ == "__main__":
    WRITERS[sys.argv[1]](sys.argv[2])
