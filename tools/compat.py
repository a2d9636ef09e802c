"""Let the oldest, a middle and the newest supported TensorFlow read what tfthaw writes (`make compat`).

For each TensorFlow: it writes checkpoints with every dtype that it knows, tfthaw converts them and the demo model, and
it reads source and copy. Keys, dtypes, shapes and bytes must be equal, outputs within rounding, since a frozen graph is
folded otherwise than one with variables. Models from their code are exported under each of them
(`tools/compat_code.py`). Then models of TensorFlow 2 go between them (`tools/compat_matrix.py`). tfthaw runs under the
present interpreter, each TensorFlow in an environment of its own in .venv-compat, or under the interpreters that
`--python` names; to trace code it runs there as well.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compat_matrix import Environment, judge_models

from tfthaw import demo

JUDGE = Path(__file__).with_name("compat_judge.py")
CODE = Path(__file__).with_name("compat_code.py")
NEEDED = ("cramjam", "google-crc32c", "ml-dtypes", "rich")
"""What tfthaw needs besides TensorFlow's own requirements."""
ENVIRONMENTS = Path(__file__).parents[1] / ".venv-compat"

VERSIONS = {
    "2.12": ("3.11", "3.10", "3.9"),
    "2.15": ("3.11", "3.10", "3.9"),
    "2.21": ("3.13", "3.12", "3.11", "3.10"),
}
"""TensorFlow -> the Pythons that it was built for."""

KERAS_3_SINCE = "2.16"
"""From this TensorFlow on, Keras 2 is a package of its own."""

TOLERANCE = 1e-5
"""For probabilities: float32 has 6e-8 near 1, and a sum of some hundred products may be grouped otherwise."""

VARIABLE_FORMATS = ("meta-graph", "saved-model")


class CompatError(Exception):
    """Something could not be made or read, or differs."""


@dataclass(frozen=True)
class Case:
    """One conversion.

    Attributes:
        name: What to call it.
        source_format: What the judge reads the source as.
        target: The format to write.
        file_name: Of what is written.
        made: The kind of checkpoint that the judge makes as source; None for the demo model.
        flags: Further flags for `tfthaw convert`.
    """

    name: str
    source_format: str
    target: str
    file_name: str
    made: str | None = None
    flags: list[str] = field(default_factory=list)


MODEL_FLAGS = ["--inputs", "images", "--outputs", "probabilities"]
CASES = [
    Case("checkpoint, every dtype", "checkpoint", "checkpoint", "copy.ckpt", made="names"),
    Case("checkpoint, object graph", "checkpoint", "checkpoint", "copy.ckpt", made="objects"),
    Case("checkpoint of the demo model", "meta-graph", "checkpoint", "copy.ckpt"),
    Case("frozen graph", "meta-graph", "frozen-graph", "frozen.pb", flags=MODEL_FLAGS),
    Case("MetaGraph and checkpoint", "meta-graph", "meta-graph", "copy.ckpt.meta", flags=MODEL_FLAGS),
    Case("SavedModel", "meta-graph", "saved-model", "saved", flags=MODEL_FLAGS),
    Case("SavedModel of graph style", "meta-graph", "saved-model", "saved", flags=[*MODEL_FLAGS, "--style", "v1"]),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Read what tfthaw writes with the oldest and the newest TensorFlow.")
    parser.add_argument("--python", type=Path, action="append", help="an interpreter with a TensorFlow; repeatable")
    options = parser.parse_args()
    failed = models = 0
    try:
        pythons = options.python or [environment(version) for version in VERSIONS]
        environments = [Environment(python, version_of(python)) for python in pythons]
        for each in environments:
            failed += judge_all(each.python, each.version) + judge_code(each.python, each.version)
        with tempfile.TemporaryDirectory(prefix="compat-") as directory:
            for title, problems in judge_models(environments, Path(directory), call):
                models += 1
                failed += bool(problems)
                if problems:
                    print(f"{title}: FAILED: {'; '.join(problems[:3])}", flush=True)
    except CompatError as error:
        print(error, file=sys.stderr)
        return 2
    held = f"{len(CASES)} cases and {models} readings of models hold under {len(pythons)} TensorFlows"
    print(f"{failed} failed" if failed else held)
    return 1 if failed else 0


def version_of(python: Path) -> str:
    """Return the TensorFlow that an interpreter has."""
    return call([python, "-c", "import tensorflow; print(tensorflow.__version__)"]).strip()


def judge_all(python: Path, version: str) -> int:
    """Run every case under one TensorFlow; return how many fail."""
    failed = 0
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="compat-") as directory:
            try:
                result = judge(case, python, Path(directory))
            except CompatError as error:
                failed += 1
                result = f"FAILED: {error}"
        print(f"TensorFlow {version}  {case.name}: {result}", flush=True)
    return failed


def judge_code(python: Path, version: str) -> int:
    """Export models from their code under one TensorFlow; return how many exports are wrong."""
    with tempfile.TemporaryDirectory(prefix="compat-") as directory:
        try:
            said = json.loads(call([python, CODE, directory]).strip().splitlines()[-1])
            problems = said["problems"]
        except CompatError as error:
            said, problems = {}, [str(error)]
    result = f"FAILED: {'; '.join(problems[:3])}" if problems else f"{said['exports']} exports compute the same"
    print(f"TensorFlow {version}  models from code: {result}", flush=True)
    return len(problems)


def judge(case: Case, python: Path, directory: Path) -> str:
    """Convert, read source and copy, compare; return what was compared.

    Raises:
        CompatError: They differ, or something could not be done.
    """
    source, examples = demo.META_GRAPH, [demo.HELD_OUT]
    if case.made is not None:
        source, examples = directory / "source.ckpt", []
        call([python, JUDGE, "make", case.made, source])
    copy = directory / case.file_name
    optimizer = ["--optimizer", "keep"] if case.target == "checkpoint" else []
    call([sys.executable, "-m", "tfthaw", "convert", source, copy, "--to", case.target, "--verify", "weights",
          *case.flags, *optimizer])  # fmt: skip
    said = json.loads(call([python, JUDGE, "read", case.source_format, source, *examples]))
    fed = examples if case.target != "checkpoint" else []
    found = json.loads(call([python, JUDGE, "read", case.target, copy, *fed]))
    problems = list(differences(case, said, found))
    if problems:
        raise CompatError("; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else ""))
    return f"{len(found['tensors'])} tensors and {len(found['outputs'])} outputs are equal"


def differences(case: Case, said: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Yield what the copy has otherwise than the source; of a pruned model, fewer variables are right."""
    if case.target == "checkpoint":
        for key in said["tensors"].keys() - found["tensors"].keys():
            yield f"{key} is missing"
    elif case.target in VARIABLE_FORMATS and not found["tensors"]:
        yield "no variable is left"
    for key, facts in found["tensors"].items():
        if facts != said["tensors"].get(key):
            yield f"{key} is {facts}, expected {said['tensors'].get(key)}"
    if case.target == "checkpoint":
        return
    for name, values in said["outputs"].items():
        if name not in found["outputs"]:
            yield f"output {name} is missing"
            continue
        furthest = distance(values, found["outputs"][name])
        if furthest > TOLERANCE:
            yield f"output {name} is off by {furthest:.3g}"


def distance(expected: Any, found: Any) -> float:
    """Return the largest difference between nested lists; infinite where shapes differ or there is no number."""
    if not isinstance(expected, list) or not isinstance(found, list):
        difference = float(abs(expected - found))
        return float("inf") if math.isnan(difference) else difference
    if len(expected) != len(found):
        return float("inf")
    return max((distance(one, other) for one, other in zip(expected, found, strict=True)), default=0.0)


def environment(version: str) -> Path:
    """Return the interpreter of the environment for a TensorFlow, making it where it is not there.

    Raises:
        CompatError: No Python that this TensorFlow was built for is on the path, or pip fails.
    """
    directory = ENVIRONMENTS / f"tensorflow-{version}"
    python, stamp = directory / "bin" / "python", directory / ".installed"
    if not stamp.exists():
        shutil.rmtree(directory, ignore_errors=True)
        call([interpreter(version), "-m", "venv", directory])
        keras_2 = [] if version < KERAS_3_SINCE else [f"tf-keras=={version}.*"]
        call([python, "-m", "pip", "install", "--quiet", f"tensorflow-cpu=={version}.*", *keras_2, *NEEDED])
        stamp.touch()
    return python


def interpreter(version: str) -> str:
    """Return a Python that a TensorFlow was built for: this one where it fits, else the newest that is found."""
    fitting = VERSIONS[version]
    if f"{sys.version_info.major}.{sys.version_info.minor}" in fitting:
        return sys.executable
    for python in fitting:
        found = shutil.which(f"python{python}")
        if found is not None and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    raise CompatError(
        f"TensorFlow {version} needs a Python {fitting[-1]} to {fitting[0]} on the path; or name interpreters that "
        "have a TensorFlow with --python"
    )


def call(argv: list[Any]) -> str:
    """Run a command and return what it prints.

    Raises:
        CompatError: It failed.
    """
    words = [os.fspath(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise CompatError(f"{' '.join(words[:5])} ...: exit {done.returncode}: {last}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
