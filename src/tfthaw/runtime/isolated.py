"""Run artifacts in a process of their own: a graph is a program, and one that crashes or hangs must not take us along.

`run_isolated` hands the runs to `main` of this module in another process, which leaves the outputs in a directory. What
passes between the two is JSON and plain arrays, never pickles: the child has run a graph that nobody vouches for.

    DIRECTORY/request.json     attempts, each a list of runs: path, tags, inputs (tensor -> array's name), outputs
    (tensors) DIRECTORY/inputs.npz       the arrays to feed DIRECTORY/answer.json      for each run of one attempt:
    outputs (tensor -> array's name), or the error; the runtime's name DIRECTORY/outputs.npz      what came out

Strings are two arrays: `NAME.lengths` and `NAME.bytes`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfthaw.errors import MissingDependencyError, RuntimeFailure, TfthawError
from tfthaw.runtime.child_processes import end, start
from tfthaw.tensors import Array

SECONDS = 120.0
"""How long all runs together may take, the runtime's own start included."""

_ANSWER = "answer.json"


@dataclass(frozen=True)
class Run:
    """One run of an artifact.

    Attributes:
        path: The artifact.
        inputs: tensor -> the values to feed.
        outputs: The tensors to compute.
        tags: The tag set to load from a SavedModel that has several.
    """

    path: str | os.PathLike[str]
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    tags: Sequence[str] | None = None


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        runtime: What ran it, such as `tensorflow 2.21.0`.
        outputs: For each run of the attempt that was carried out, tensor -> values; or the sentence why it failed.
    """

    runtime: str
    outputs: list[dict[str, Array] | str]


def run_isolated(attempts: Sequence[Sequence[Run]], *, seconds: float = SECONDS) -> Answer:
    """Run artifacts with TensorFlow in a process of its own.

    Args:
        attempts: Runs that belong together; the first attempt whose first run succeeds counts, or else the last one.
        seconds: How long they may take together.

    Raises:
        MissingDependencyError: TensorFlow cannot be imported.
        RuntimeFailure: The process crashed or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="tfthaw-run-") as name:
        folder = Path(name)
        path = attempts[0][0].path
        write_request(folder, attempts)
        with start(__name__, name, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                _, printed = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                raise RuntimeFailure(f"it was still running after {seconds:.0f} s and was ended", path=path) from error
            finally:
                end(process)
        if not (folder / _ANSWER).is_file():
            said = printed.decode(errors="replace").strip().splitlines()
            how = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
            raise RuntimeFailure(
                f"the process that ran it ended with {how}{': ' + said[-1][:300] if said else ''}", path=path
            )
        return read_answer(folder)


def write_request(folder: Path, attempts: Sequence[Sequence[Run]]) -> None:
    """Write down what is to be run, for `carry_out`."""
    arrays: dict[str, Array] = {}
    request: list[list[dict[str, Any]]] = []
    for attempt in attempts:
        request.append([])
        for run in attempt:
            place = f"{len(request)}.{len(request[-1])}"
            names = {tensor: f"{place}.{position}" for position, tensor in enumerate(run.inputs)}
            for tensor, name in names.items():
                arrays |= packed(name, np.asarray(run.inputs[tensor]))
            tags = None if run.tags is None else list(run.tags)
            path = os.path.abspath(run.path)
            request[-1].append({"path": path, "tags": tags, "inputs": names, "outputs": list(run.outputs)})
    np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]
    (folder / "request.json").write_text(json.dumps(request))


def read_answer(folder: Path) -> Answer:
    """Return what `carry_out` left in a directory.

    Raises:
        MissingDependencyError: TensorFlow could not be imported.
    """
    document = json.loads((folder / _ANSWER).read_text())
    if document.get("missing"):
        raise MissingDependencyError(document["missing"], hint=document.get("hint"))
    results: list[dict[str, Array] | str] = []
    with np.load(folder / "outputs.npz") as arrays:
        for answer in document["runs"]:
            if "error" in answer:
                results.append(str(answer["error"]))
            else:
                results.append({tensor: unpacked(arrays, name) for tensor, name in answer["outputs"].items()})
    return Answer(document["runtime"], results)


def packed(name: str, values: Array) -> dict[str, Array]:
    """Return an array as arrays that need no pickle; types that numpy lacks are their bits, with the type's name."""
    if values.dtype == object:
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in values.reshape(-1)]
        lengths = np.array([len(item) for item in flat], np.int64).reshape(values.shape)
        return {f"{name}.lengths": lengths, f"{name}.bytes": np.frombuffer(b"".join(flat), np.uint8)}
    if values.dtype.type.__module__ != "numpy":
        bits = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
        return {f"{name}.bits": bits.reshape(values.shape), f"{name}.type": np.array(values.dtype.name)}
    return {name: values}


def unpacked(arrays: Any, name: str) -> Array:
    """Return the array that `packed` took apart."""
    if f"{name}.lengths" in arrays:
        lengths, flat = arrays[f"{name}.lengths"], arrays[f"{name}.bytes"].tobytes()
        ends = np.cumsum(lengths.reshape(-1)).tolist()
        strings: Array = np.empty(lengths.size, object)
        strings[:] = [flat[end - size : end] for end, size in zip(ends, lengths.reshape(-1).tolist(), strict=True)]
        return np.reshape(strings, lengths.shape)
    if f"{name}.bits" in arrays:
        import ml_dtypes

        bits: Array = arrays[f"{name}.bits"]
        return np.asarray(bits.view(getattr(ml_dtypes, str(arrays[f"{name}.type"]))))
    plain: Array = arrays[name]
    return plain


def main(directory: str) -> None:
    """Be the process that carries out the runs of a directory."""
    carry_out(directory)


def carry_out(directory: str | os.PathLike[str]) -> None:
    """Carry out the runs that a directory asks for, in this process, and leave the answer there."""
    from tfthaw.runtime.tensorflow_runner import run_graph, runtime_name

    folder = Path(directory)
    arrays: dict[str, Array] = {}
    document: dict[str, Any] = {}
    try:
        document["runtime"] = runtime_name()
        with np.load(folder / "inputs.npz") as inputs:
            for attempt in json.loads((folder / "request.json").read_text()):
                document["runs"], arrays = [], {}
                for number, run in enumerate(attempt):
                    feeds = {tensor: unpacked(inputs, name) for tensor, name in run["inputs"].items()}
                    try:
                        found = run_graph(run["path"], feeds, run["outputs"], tags=run["tags"])
                    except TfthawError as error:
                        document["runs"].append({"error": error.message})
                        if number == 0:
                            break
                        continue
                    names = {tensor: f"{number}.{position}" for position, tensor in enumerate(found)}
                    for tensor, name in names.items():
                        arrays |= packed(name, np.asarray(found[tensor]))
                    document["runs"].append({"outputs": names})
                if "outputs" in document["runs"][0]:
                    break
    except MissingDependencyError as error:
        document = {"missing": error.message, "hint": error.hint}
    np.savez(folder / "outputs.npz", **arrays)  # type: ignore[arg-type]
    (folder / _ANSWER).write_text(json.dumps(document))
