"""`tfthaw demo`: a real model through the whole tool, on data that ships with it.

What is shown is done: each part runs the library's own functions and checks what they promise. TensorFlow is imported
for the last part alone, and only where it is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfthaw import demo
from tfthaw.cli.rendering import bad, good, heading, human_bytes, print_json, print_notes, print_table
from tfthaw.conversion.converting import convert
from tfthaw.conversion.result import ConversionResult
from tfthaw.errors import MissingDependencyError, OutputExistsError, StructureError, TfthawError, VerificationError
from tfthaw.inspection import Report, inspect
from tfthaw.ir.variables import optimizer_keys
from tfthaw.runtime import tensorflow_runner
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import Array, FileTensor
from tfthaw.verify.diff import Difference, diff

EXAMPLES = """\
examples:
  tfthaw demo
  tfthaw demo --output demo-out --json
"""

_FILES = {"frozen-graph": "digits.pb", "saved-model": "digits_saved_model", "safetensors": "digits.safetensors"}
_TOLERANCE = 1e-6
"""The largest difference of probabilities that counts as none: another order of float32 sums makes about 1e-7."""
_WIDTH = 100


@dataclass
class _Outcome:
    """What the demo did, for the JSON document; and what was not as promised."""

    document: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def require(self, kept: bool, promise: str) -> None:
        if not kept:
            self.broken.append(promise)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this subcommand."""
    parser.add_argument("--output", metavar="DIR", help="keep what is written, in this directory")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status."""
    began = time.perf_counter()
    outcome = _Outcome()
    with tempfile.TemporaryDirectory(prefix="tfthaw-demo-") as temporary:
        directory = Path(temporary if options.output is None else options.output)
        try:
            _all_parts(outcome, directory, Path(temporary), options)
        except OutputExistsError:
            raise
        except TfthawError as error:
            raise VerificationError(f"the demo is not as promised: {error}") from error
    seconds = round(time.perf_counter() - began, 3)
    if options.json:
        document = {"as_promised": not outcome.broken, "broken": outcome.broken, **outcome.document}
        print_json({**document, "directory": options.output, "seconds": seconds})
    else:
        for promise in outcome.broken:
            print(f"\n{bad('broken')}  {promise}")
        verdict = bad("Not everything is as promised.") if outcome.broken else good("Everything is as promised.")
        kept = f" What was written is in {options.output}." if options.output else ""
        heading(f"{verdict}  {seconds:.1f} s.{kept}")
    return 1 if outcome.broken else 0


def _all_parts(outcome: _Outcome, directory: Path, temporary: Path, options: argparse.Namespace) -> None:
    """Do each part, then show it."""
    facts = json.loads(demo.FACTS.read_text(encoding="utf-8"))
    talks = not options.json
    report = _inspect(outcome)
    if talks:
        _show_inspected(report)
    results = _convert(outcome, directory, facts, overwrite=options.overwrite)
    if talks:
        _show_converted(results)
    difference = _compare(outcome, results["safetensors"].path)
    if talks:
        _show_compared(difference)
    damage = _damage(outcome, temporary / "damaged", facts)
    if talks:
        _show_damage(damage)
    runs = _run_models(outcome, results, facts)
    if talks:
        _show_runs(runs, facts)


def _inspect(outcome: _Outcome) -> Report:
    with open_artifact(demo.META_GRAPH) as artifact:
        report = inspect(artifact)
    outcome.document["inspected"] = report.as_dict()
    outcome.require(report.graph is not None and not report.graph.unregistered_ops, "every op of the graph is known")
    return report


def _show_inspected(report: Report) -> None:
    heading(f"1. What is it?   tfthaw inspect {demo.META_GRAPH.name}")
    state = optimizer_keys(item["name"] for item in report.variables)
    nodes = report.graph.nodes if report.graph else 0
    _print_wrapped(
        "A classifier of 8x8 handwritten digits, as a training script in the style of TensorFlow 1 leaves it (run "
        f"with {report.producer['tensorflow']}): {nodes} nodes, those for training among them; {len(report.variables)} "
        f"variables, {len(state)} of them the optimizer's; {len(report.signatures) or 'no'} signature."
    )
    _print_wrapped(f"It can become: {', '.join(report.can_become)}.")


def _convert(
    outcome: _Outcome, directory: Path, facts: dict[str, Any], *, overwrite: bool
) -> dict[str, ConversionResult]:
    results = {}
    for to, name in _FILES.items():
        # weights formats keep the optimizer's state here, so that the comparison has everything before it
        chosen: dict[str, Any] = {"optimizer": "keep"}
        if to != "safetensors":
            chosen = {"inputs": list(facts["inputs"].values()), "outputs": list(facts["outputs"].values())}
        result = convert(demo.META_GRAPH, directory / name, to=to, verify="weights", overwrite=overwrite, **chosen)
        weights = result.verified.weights
        outcome.require(weights.compared > 0 and weights.different == 0, f"{to}: every tensor is proved")
        results[to] = result
    outcome.document["converted"] = [result.as_dict() for result in results.values()]
    return results


def _show_converted(results: dict[str, ConversionResult]) -> None:
    heading("2. Convert it, and prove every tensor against its source")
    rows = []
    for result in results.values():
        weights = result.verified.weights
        proof = f"{weights.compared} tensors, {human_bytes(weights.bytes)}, bit for bit"
        name = Path(result.path).name
        rows.append((result.format, name, human_bytes(result.bytes), proof, f"{result.seconds:.2f} s"))
    print_table(("to", "file", "size", "proved", "time"), rows, right=(2, 4))
    print_notes(dict.fromkeys(note for result in results.values() for note in result.notes))


def _compare(outcome: _Outcome, path: str) -> Difference:
    with open_artifact(demo.META_GRAPH.with_suffix("")) as a, open_artifact(path) as b:
        difference = diff(a, b)
    outcome.document["compared"] = difference.as_dict()
    outcome.require(difference.same, "the safetensors file holds what the checkpoint holds")
    return difference


def _show_compared(difference: Difference) -> None:
    a, b = (Path(path).name for path in difference.paths)
    heading(f"3. Compare two formats   tfthaw diff {a} {b}")
    tensors = difference.tensors
    if difference.same and tensors is not None:
        size = human_bytes(tensors.equal_bytes)
        _print_wrapped(f"{good('The same')}: {len(tensors.equal)} tensors, {size}, bit for bit.")
    else:
        _print_wrapped(bad("They differ."))


def _damage(outcome: _Outcome, directory: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Flip one bit of one weight in a copy of the checkpoint, and try to convert that."""
    directory.mkdir()
    with open_artifact(demo.META_GRAPH) as artifact:
        for path in artifact.files:
            shutil.copy(path, directory)
        state = optimizer_keys(artifact.variables)
        stored = {name: tensor for name, tensor in artifact.variables.items() if isinstance(tensor, FileTensor)}
        name = max(stored.keys() - state, key=lambda each: stored[each].nbytes)
        part = stored[name].slice
    offset = part.offset + part.length // 2
    damaged = directory / Path(part.file.path).name
    with open(damaged, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    error = _refusal(directory / demo.META_GRAPH.name, directory / "refused.pb", facts)
    result = {"file": damaged.name, "offset": offset, "tensor": name, "refused": error is not None,
              "error": None if error is None else str(error).replace(f"{directory}/", "")}  # fmt: skip
    outcome.document["damaged"] = result
    named = error is not None and name in str(error)
    outcome.require(named, "a checkpoint with one wrong bit is refused, by an error that names the tensor")
    outcome.require(not (directory / "refused.pb").exists(), "a refused conversion leaves nothing")
    return result


def _refusal(source: Path, destination: Path, facts: dict[str, Any]) -> TfthawError | None:
    try:
        convert(source, destination, to="frozen-graph", verify="weights", outputs=list(facts["outputs"].values()))
    except TfthawError as error:
        return error
    return None


def _show_damage(damage: dict[str, Any]) -> None:
    heading("4. Flip one bit of one weight in a copy of the checkpoint, and convert that")
    if damage["refused"]:
        _print_wrapped(f"{good('Refused')}, and nothing was written:")
        _print_wrapped(damage["error"])
    else:
        _print_wrapped(f"{bad('It was converted')}: the damage to {damage['tensor']} went unnoticed.")


def _print_wrapped(text: str) -> None:
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
        print(f"  {line}")


def _run_models(outcome: _Outcome, results: dict[str, ConversionResult], facts: dict[str, Any]) -> dict[str, Any]:
    """Run the original and what was made of it on the held-out examples, where TensorFlow can be imported."""
    result: dict[str, Any] = {"done": False, "why_not": None, "runtime": None, "models": [], "tolerance": _TOLERANCE}
    outcome.document["outputs"] = result
    try:
        if not tensorflow_runner.is_installed():
            raise MissingDependencyError("TensorFlow is not installed", hint='pip install "tfthaw[tf]"')
        result["runtime"] = tensorflow_runner.runtime_name()
    except MissingDependencyError as error:
        result["why_not"] = str(error)
        return result
    with open_artifact(demo.HELD_OUT) as held_out:
        images, labels = (held_out.variables[name].numpy() for name in ("images", "labels"))
    (fed,), (fetched,) = facts["inputs"].values(), facts["outputs"].values()
    before = _probabilities(demo.META_GRAPH, fed, fetched, images)
    result["models"].append(_score("checkpoint", before, labels, before))
    for to in ("frozen-graph", "saved-model"):
        made = results[to]
        (fed_now,), (fetched_now,) = made.inputs.values(), made.outputs.values()
        after = _probabilities(made.path, fed_now, fetched_now, images)
        result["models"].append(_score(to, after, labels, before))
    result["done"] = True
    for model in result["models"]:
        outcome.require(model["correct"] == facts["correct"], f"{model['format']}: as accurate as right after training")
        outcome.require(model["max_abs"] <= _TOLERANCE, f"{model['format']}: the outputs are those of the checkpoint")
    return result


def _probabilities(path: Path | str, fed: str, fetched: str, images: Array) -> Array:
    return tensorflow_runner.run_graph(path, {fed: images}, [fetched])[fetched]


def _score(name: str, probabilities: Array, labels: Array, before: Array) -> dict[str, Any]:
    if probabilities.shape != before.shape:
        raise StructureError(f"{name} gives {list(probabilities.shape)}, the checkpoint {list(before.shape)}")
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    difference = np.abs(probabilities.astype(np.float64) - before)
    return {"format": name, "correct": correct, "examples": len(labels), "accuracy": correct / len(labels),
            "max_abs": float(difference.max())}  # fmt: skip


def _show_runs(runs: dict[str, Any], facts: dict[str, Any]) -> None:
    heading(f"5. Run it on {facts['examples']} examples that it never saw, before and after")
    if not runs["done"]:
        _print_wrapped(f"Not done: {runs['why_not']}")
        return
    rows: list[Sequence[str]] = [("right after training", *_accuracy(facts), "")]
    before, *after = runs["models"]
    rows.append((f"before: {before['format']}", *_accuracy(before), ""))
    rows += [(f"after: {model['format']}", *_accuracy(model), f"{model['max_abs']:.2g}") for model in after]
    print_table((runs["runtime"], "correct", "accuracy", "largest difference"), rows, right=(1, 2, 3))


def _accuracy(score: dict[str, Any]) -> tuple[str, str]:
    return f"{score['correct']} of {score['examples']}", f"{score['accuracy']:.2%}"
