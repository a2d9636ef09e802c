"""Models of TensorFlow 2 through tfthaw, between the TensorFlows of `make compat`.

Each TensorFlow makes the models of tests/tf2_models that it can; tfthaw converts them into every format that carries a
graph; the TensorFlow that made them and the newest one read the results, and every one reads those of the newest. The
outputs must be those of the models while they lived, and the variables of SavedModels complete. Where a TensorFlow does
not run the model itself as a newer one saved it, the results are not asked for either, and that is said.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfthaw.conversion.converting import convert
from tfthaw.errors import TfthawError

MODELS = (
    "dense", "convolution", "several_signatures", "calls", "custom_gradient", "attention", "branches", "loop",
    "nested_loops", "maps", "tensor_array", "every_dtype", "half_precision", "gathers", "structures", "counter",
    "checks_and_prints", "table_of_constants", "table_of_file", "keras_dense", "keras_convolutions", "keras_lstm",
    "keras_attention", "keras_string_lookup", "tf_keras_fitted", "tf_keras_convolutions", "tf_keras_lstm",
    "tf_keras_gru_static", "tf_keras_mixed_float16", "tf_keras_shared_layers", "tf_keras_string_lookup",
    "tf_keras_text_vectorization", "tf_keras_ragged",
)  # fmt: skip

UNFREEZABLE = ("counter",)

SCRIPT = Path(__file__).with_name("compat_models.py")

Call = Callable[[list[Any]], str]


@dataclass(frozen=True)
class Environment:
    """A TensorFlow.

    Attributes:
        python: Its interpreter.
        version: What it says that it is.
    """

    python: Path
    version: str

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers that compare."""
        return tuple(int(part) for part in self.version.split(".")[:2])


@dataclass(frozen=True)
class Job:
    """One artifact to read.

    Attributes:
        name: What to call it; a model's own name for the SavedModel as it was made.
        model: The model's name.
        format: Its format.
        path: Where it is.
        answers: What its model answered.
        signature: The signature that it was made for; None for all.
        inputs: input -> its tensor, in a graph.
        outputs: output -> its tensor, in a graph.
        captured: How many variables, and trainable ones, it has when it is loaded; None where nothing says.
    """

    name: str
    model: str
    format: str
    path: str
    answers: str
    signature: str | None
    inputs: dict[str, str]
    outputs: dict[str, str]
    captured: list[int] | None


def judge_models(environments: Sequence[Environment], folder: Path, call: Call) -> Iterator[tuple[str, list[str]]]:
    """Make, convert and read; yield what was read, by whom, and the problems with it.

    Args:
        environments: The TensorFlows.
        folder: An empty folder.
        call: Runs a command and returns what it prints.
    """
    newest = max(environments, key=lambda each: each.release)
    for maker in environments:
        place = folder / maker.version
        place.mkdir()
        made = json.loads(call([maker.python, SCRIPT, "make", place, *MODELS]))
        jobs, failed = convert_all(place, made)
        for name, problem in failed.items():
            yield f"made by {maker.version}: {name}", [problem]
        (place / "jobs.json").write_text(json.dumps([asdict(job) for job in jobs]))
        for reader in environments if maker is newest else dict.fromkeys((maker, newest)):
            said = json.loads(call([reader.python, SCRIPT, "ask", place / "jobs.json"]))
            title = f"made by {maker.version}, read by {reader.version}"
            unread = [name for name in made if said[name] and reader.release < maker.release]
            if unread:
                print(f"{title}: not as TensorFlow itself saved them: {', '.join(unread)}")
            yield from ((f"{title}: {job.name}", said[job.name]) for job in jobs if job.model not in unread)


def convert_all(place: Path, models: Sequence[str]) -> tuple[list[Job], dict[str, str]]:
    """Convert models into every format; return what to read, and what could not be converted and why."""
    jobs, failed = [], {}
    for name in models:
        answers = str(place / f"{name}.json")
        said = json.loads(Path(answers).read_text())
        jobs.append(Job(name, name, "saved-model", str(place / name), answers, None, {}, {}, None))
        for target, file_name, options in targets(name, said["captured"]):
            title = f"{name} -> {file_name}"
            path = place / f"{name}-{file_name}"
            try:
                result = convert(place / name, path, to=target, verify="weights", **options)
            except TfthawError as error:
                failed[title] = f"{type(error).__name__}: {error}"
                continue
            key = options.get("signature")
            captured = said["captured"][key] if target == "saved-model" and key else None
            jobs.append(Job(title, name, target, str(path), answers, key, result.inputs, result.outputs, captured))
    return jobs, failed


def targets(name: str, captured: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the conversions of a model: format, file name, options."""
    yield "saved-model", "whole", {}
    yield "saved-model", "graph-style", {"style": "v1"}
    for key in captured:
        yield "saved-model", f"{key}-chosen", {"signature": key}
        yield "meta-graph", f"{key}.ckpt.meta", {"signature": key}
        if name not in UNFREEZABLE:
            yield "frozen-graph", f"{key}.pb", {"signature": key}
