"""Models of TensorFlow 2 for `tools/compat.py`, made and asked by the interpreter of each environment.

    compat_models.py make FOLDER NAME ...     save models of tests/tf2_models, each with what it answered: NAME.json
    compat_models.py ask JOBS.json            print for each job what its artifact answers otherwise; {name: [problem]}

A job is {"name", "format", "path", "answers", "signature", "inputs", "outputs", "captured"}: `answers` is the JSON that
`make` wrote; inputs and outputs say where each is in a graph; `captured` is how many variables a SavedModel shall have.
Stands alone and runs on Python 3.9. It does not know tfthaw.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", TF_ENABLE_ONEDNN_OPTS="0")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import tensorflow as tf

tf2_models: Any = importlib.import_module("tf2_models")

TOLERANCES = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-9, "complex64": 1e-4, "bfloat16": 5e-2}
"""dtype -> how far from the living model's output, relative to the largest: kernels changed between the versions."""


def encoded(values: Any) -> list[Any]:
    """Return an array as JSON can hold it: dtype, shape, contents."""
    array = np.asarray(values)
    if array.dtype == object:
        return ["object", list(array.shape), [base64.b64encode(item).decode() for item in array.reshape(-1)]]
    return [array.dtype.name, list(array.shape), base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]


def decoded(dtype: str, shape: list[int], contents: Any) -> Any:
    """Return an array from its JSON."""
    if dtype == "object":
        return np.array([base64.b64decode(item) for item in contents], object).reshape(shape)
    return np.frombuffer(base64.b64decode(contents), tf.as_dtype(dtype).as_numpy_dtype).reshape(shape)


def make(folder: Path, names: list[str]) -> None:
    """Save the models that this TensorFlow can make; print their names."""
    version = tuple(map(int, tf.__version__.split(".")[:2]))
    made = [name for name in names if tf2_models.RECIPES[name].since <= version]
    for name in made:
        saved = tf2_models.save(tf, tf2_models.RECIPES[name], folder)
        calls = [
            {"signature": call.signature, "feeds": {key: encoded(each) for key, each in call.feeds.items()},
             "expected": {key: encoded(each) for key, each in call.expected.items()}}
            for call in saved.calls
        ]  # fmt: skip
        precision = tf2_models.RECIPES[name].precision
        said = {"calls": calls, "captured": saved.captured, "precision": precision}
        (folder / f"{name}.json").write_text(json.dumps(said))
    print(json.dumps(made))


def ask(job: dict[str, Any]) -> list[str]:
    """Return what an artifact answers otherwise than its model did while it lived."""
    said = json.loads(Path(job["answers"]).read_text())
    keys = [job["signature"]] if job["signature"] else list(said["captured"])
    calls = [call for call in said["calls"] if call["signature"] in keys]
    if job["format"] == "saved-model":
        return ask_saved_model(job, calls, said["precision"])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        if job["format"] == "frozen-graph":
            message = tf.compat.v1.GraphDef.FromString(Path(job["path"]).read_bytes())
            tf.import_graph_def(message, name="")
        else:
            saver = tf.compat.v1.train.import_meta_graph(job["path"])
            if saver is not None:
                saver.restore(session, job["path"][: -len(".meta")])
        problems = []
        for call in calls:
            feeds = {job["inputs"][name]: decoded(*each) for name, each in call["feeds"].items()}
            fetches = {name: job["outputs"][name] for name in call["expected"]}
            problems += differences(call, session.run(fetches, feeds), said["precision"])
        return problems


def ask_saved_model(job: dict[str, Any], calls: list[dict[str, Any]], precision: str | None) -> list[str]:
    """Load a SavedModel as TensorFlow 2 does; compare its variables' number and its outputs."""
    loaded = tf.saved_model.load(job["path"])
    problems = []
    found = [len(getattr(loaded, name, ())) for name in ("variables", "trainable_variables")]
    if job["captured"] is not None and found != job["captured"]:
        problems.append(f"{found} variables and trainable ones, expected {job['captured']}")
    for call in calls:
        function = loaded.signatures[call["signature"]]
        specs = function.structured_input_signature[1]
        feeds = {name: tf.constant(decoded(*each), specs[name].dtype) for name, each in call["feeds"].items()}
        answered = {name: each.numpy() for name, each in function(**feeds).items()}
        problems += differences(call, answered, precision)
    return problems


def differences(call: dict[str, Any], found: dict[str, Any], precision: str | None) -> list[str]:
    """Return how outputs differ from those of the living model."""
    problems = []
    for name, each in call["expected"].items():
        expected, values = decoded(*each), np.asarray(found[name])
        where = f"{call['signature']}/{name}"
        if (values.dtype, values.shape) != (expected.dtype, expected.shape):
            problems.append(f"{where} is {values.dtype}{list(values.shape)}, expected {each[0]}{each[1]}")
            continue
        tolerance = TOLERANCES.get(expected.dtype.name)
        if tolerance is None:
            if values.tolist() != expected.tolist():
                problems.append(f"{where} is {values.tolist()}, expected {expected.tolist()}")
            continue
        tolerance = TOLERANCES[precision] if precision else tolerance
        wide = np.complex128 if expected.dtype.kind == "c" else np.float64
        expected, values = expected.astype(wide), values.astype(wide)
        scale = float(np.max(np.abs(expected), initial=0.0)) or 1.0
        furthest = float(np.max(np.abs(values - expected), initial=0.0)) / scale
        if not furthest <= tolerance:
            problems.append(f"{where} is off by {furthest:.3g} of its largest value")
    return problems


def main() -> None:
    verb, path, *names = sys.argv[1:]
    if verb == "make":
        make(Path(path), names)
        return
    said = {}
    for job in json.loads(Path(path).read_text()):
        with tf2_models.quiet(tf):
            try:
                said[job["name"]] = ask(job)
            except Exception as error:  # noqa: BLE001  whatever this TensorFlow says of the artifact is the answer
                said[job["name"]] = [f"{type(error).__name__}: {str(error)[:300]}"]
    print(json.dumps(said))


if __name__ == "__main__":
    main()
