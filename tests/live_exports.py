"""Export live models in this process, and compute with what was written as a user would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tfthaw

KINDS = ["frozen-graph", "saved-model", "saved-model of graphs", "meta-graph"]


def scrambled(model: Any, *, seed: int = 0) -> Any:
    """Give every floating variable of a model values of its own, and return the model."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" in str(variable.dtype):
            variable.assign(generator.uniform(0.1, 1.0, tuple(variable.shape)))
    return model


def export(source: Any, folder: Path, kind: str, **options: Any) -> Any:
    """Convert to a format, with the weights proved alone: what is computed is what these tests compare."""
    names = {"frozen-graph": "frozen.pb", "meta-graph": "graph.meta"}
    style = {"style": "v1"} if kind == KINDS[2] else {}
    destination = folder / names.get(kind, kind.replace(" ", "-"))
    return tfthaw.convert(
        source, destination, to=kind.partition(" ")[0], **{"verify": "weights", "overwrite": True, **style, **options}
    )


def compute(tf: Any, result: Any, kind: str, feeds: dict[str, Any], *, key: str = "serving_default") -> dict[str, Any]:
    """Load what was written, feed inputs by name, and return the outputs by name."""
    if kind == "saved-model":
        function = tf.saved_model.load(result.path).signatures[key]
        specs = function.structured_input_signature[1]
        found = function(**{name: tf.constant(value, specs[name].dtype) for name, value in feeds.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        inputs, outputs = result.inputs, result.outputs
        if kind == "frozen-graph":
            message = v1.GraphDef.FromString(Path(result.path).read_bytes())
            assert not [node.name for node in message.node if "Var" in node.op]
            tf.graph_util.import_graph_def(message, name="")
        elif kind == "meta-graph":
            saver = v1.train.import_meta_graph(result.path)
            if saver is not None:
                saver.restore(session, result.path.removesuffix(".meta"))
        else:
            signature = v1.saved_model.load(session, ["serve"], result.path).signature_def[key]
            inputs = {name: info.name for name, info in signature.inputs.items()}
            outputs = {name: info.name for name, info in signature.outputs.items()}
        assert graph.get_operations()
        return session.run(dict(outputs), {inputs[name]: value for name, value in feeds.items()})


def assert_close(found: Any, expected: Any) -> None:
    """Compare what was computed, of any type."""
    expected = np.asarray(expected)
    if expected.dtype == object:
        assert np.asarray(found).tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(np.asarray(found, expected.dtype), expected, rtol=1e-5, atol=1e-5)
