"""Export models from their code under one TensorFlow; run by tools/compat.py in its environment.

    compat_code.py DIRECTORY

Each model is built, its variables get values of their own, a checkpoint is written, and tfthaw converts the code with
that checkpoint. This TensorFlow loads what was written and must compute what the model computed. What Keras and
TensorFlow call things inside differs between their versions, and tracing looks at it.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tfthaw.conversion.converting import convert  # noqa: E402

FORMATS = (("frozen-graph", "frozen.pb", "v2"), ("saved-model", "saved", "v2"), ("saved-model", "graphs", "v1"),
           ("meta-graph", "copy.meta", "v2"))  # fmt: skip

X = np.linspace(-1.0, 2.0, 8, dtype=np.float32).reshape(2, 4)


def sequential(keras: Any) -> Any:
    """Layers with statistics, and one that does nothing at inference."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input((4,)), layers.Dense(6, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.5),
        layers.Reshape((3, 2)), layers.Bidirectional(layers.LSTM(3)), layers.Dense(2),
    ])  # fmt: skip


def functional(keras: Any) -> Any:
    """A layer that is called twice."""
    layers, inputs = keras.layers, keras.Input((4,), name="image")
    shared = layers.Dense(4)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Add()([shared(inputs), shared(shared(inputs))])))


def normalized(keras: Any) -> Any:
    """A layer that keeps what it computed of its variables."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Normalization()(inputs)))


def subclassed(keras: Any) -> Any:
    """A model that is built when it is called."""

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = keras.layers.Dense(3), keras.layers.Dense(2)

        def call(self, x: Any, training: Any = None) -> Any:
            return self.head(self.body(x))

    return Net()


def module(keras: Any) -> Any:
    """Loops, a table and variables whose names are not their own."""

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.one, self.other = tf.Variable(tf.ones((4, 4)), name="w"), [tf.Variable(tf.ones((4, 4)), name="w")]
            entries = tf.lookup.KeyValueTensorInitializer([0, 1], [0.5, 2.0], tf.int64, tf.float32)
            self.table = tf.lookup.StaticHashTable(entries, 7.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            for _ in tf.range(2):
                x = x @ self.one if tf.reduce_sum(x) > 0 else x - self.other[0][0]
            return x * self.table.lookup(tf.constant(1, tf.int64))

    return Module()


MODELS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "sequential": (sequential, {}), "functional": (functional, {}), "normalized": (normalized, {}),
    "subclassed": (subclassed, {"input": ["x:float32[?,4]"]}), "module": (module, {}),
}  # fmt: skip


def computed(result: Any, style: str) -> Any:
    """Load what was written and return what it computes of `X`."""
    v1 = tf.compat.v1
    (fed,), (wanted,) = result.inputs.values(), result.outputs.values()
    if result.format == "saved-model" and style == "v2":
        (name,) = result.inputs
        (found,) = tf.saved_model.load(result.path).signatures["serving_default"](**{name: tf.constant(X)}).values()
        return found.numpy()
    with tf.Graph().as_default(), v1.Session() as session:
        if result.format == "frozen-graph":
            message = v1.GraphDef.FromString(Path(result.path).read_bytes())
            tf.graph_util.import_graph_def(message, name="")
        elif result.format == "meta-graph":
            v1.train.import_meta_graph(result.path).restore(session, result.path[: -len(".meta")])
        else:
            v1.saved_model.load(session, ["serve"], result.path)
        return session.run(wanted, {fed: X})


def judge(name: str, directory: Path) -> Iterator[str]:
    """Yield what is wrong with a model's exports."""
    make, options = MODELS[name]
    model = make(tf.keras)
    model(X)
    generator = np.random.default_rng(4)
    for variable in model.variables:
        if "float" in str(variable.dtype):
            variable.assign(generator.uniform(0.1, 1.0, tuple(variable.shape)).astype("f"))
    if name == "normalized":
        model.layers[1].finalize_state()
    expected = model(X).numpy()
    checkpoint = tf.train.Checkpoint(model=model).write(str(directory / f"{name}.ckpt"))
    for source in (lambda: make(tf.keras), model):
        for to, file, style in FORMATS:
            result = convert(source, directory / name / file, to=to, style=style, checkpoint=checkpoint,
                             verify="weights", overwrite=True, **options)  # fmt: skip
            if not np.allclose(computed(result, style), expected, rtol=1e-4, atol=1e-5):
                yield f"{name} as {to} ({style}) computes something else"


def main() -> None:
    directory = Path(sys.argv[1])
    problems: list[str] = []
    for name in MODELS:
        (directory / name).mkdir()
        problems += judge(name, directory)
    said = {"exports": 2 * len(MODELS) * len(FORMATS), "problems": problems}
    sys.stdout.write("\n" + json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
