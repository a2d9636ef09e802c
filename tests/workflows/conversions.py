"""Conversions to test, and the processes that do them: two at a time, since each brings its own TensorFlow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workflows.table import EXAMPLES, KERAS, WORKFLOWS, Workflow, folder_of, prefix_of

TESTS = Path(__file__).resolve().parents[1]
SECONDS = 300


class Conversion(NamedTuple):
    """One conversion.

    Attributes:
        keras: Which Keras there is.
        way: `cli`, or through Python: `live` objects or `code`; `example` runs the example.
        workflow: The position of the workflow in the table.
        kind: The kind of the checkpoint.
        fault: What is wrong with the checkpoint: nothing, `damaged`, or that of a `stranger`.
    """

    keras: str
    way: str
    workflow: int
    kind: str
    fault: str = ""

    def __str__(self):
        return "-".join(word for word in (self.keras, self.way, self.table.example, self.kind, self.fault) if word)

    @property
    def table(self) -> Workflow:
        """The workflow."""
        return WORKFLOWS[self.workflow]

    @property
    def proves_outputs(self) -> bool:
        """Whether the conversion compares outputs itself; for most it is enough that the test does."""
        return self.way == "cli" or self.kind == self.table.kinds[0]


@dataclass
class Answer:
    """What came of a conversion: exit status 0 and a document, or else a message."""

    status: int
    document: dict[str, Any]
    message: str
    folder: Path


def environment(keras):
    """Return the environment of a process that has this Keras."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TF_USE_LEGACY_KERAS", "PYTHONPATH")}
    legacy = {"TF_USE_LEGACY_KERAS": "1"} if keras == "tf_keras" else {}
    return {**kept, **legacy, "PYTHONPATH": str(TESTS), "TF_CPP_MIN_LOG_LEVEL": "3"}


def python(keras, *arguments):
    """Run Python with this Keras."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(keras), capture_output=True, text=True, timeout=SECONDS, check=False
    )  # fmt: skip


class Lab:
    """A directory with trained models, and what was converted from them."""

    def __init__(self, folder: Path, workers: ThreadPoolExecutor) -> None:
        self.folder = folder
        self.workers = workers
        self._answers: dict[Conversion, Future[dict[Conversion, Answer]]] = {}

    def train(self):
        """Train every model under both Keras."""
        for done in self.workers.map(lambda keras: python(keras, "-m", "workflows.train", self.folder, keras), KERAS):
            assert done.returncode == 0, done.stderr

    def order(self, conversions):
        """Start conversions: those through Python in one process for each Keras, the others in one each."""
        for keras in KERAS:
            batch = [item for item in conversions if item.keras == keras and item.way in ("live", "code")]
            if batch:
                together = self.workers.submit(self._through_python, keras, batch)
                self._answers |= dict.fromkeys(batch, together)
        for item in conversions:
            if item.way not in ("live", "code"):
                ways = {"cli": self._through_the_command_line, "example": self._example}
                self._answers[item] = self.workers.submit(self._alone, ways[item.way], item)

    def answer(self, conversion) -> Answer:
        """Return what came of a conversion, once it is done."""
        return self._answers[conversion].result()[conversion]

    def facts(self, conversion):
        """Return feed, expected output and trained values of the checkpoint that was converted."""
        with np.load(folder_of(self.folder, conversion.keras, conversion.table, conversion.kind) / "facts.npz") as file:
            values = [file[name] for name in file.files if name.isdecimal()]
            return file["feed"], file["expected"], values

    def checkpoint(self, conversion, folder):
        """Return the checkpoint to give; a damaged one is a copy in a folder."""
        source = folder_of(self.folder, conversion.keras, conversion.table, conversion.kind)
        if conversion.fault == "stranger":
            stranger = WORKFLOWS[0 if conversion.workflow >= 4 else 4]
            kind = "names" if conversion.table.is_graph else "model"
            source = folder_of(self.folder, conversion.keras, stranger, kind)
        if conversion.fault == "damaged":
            source = Path(shutil.copytree(source, folder / "damaged"))
            flip_a_trained_bit(source, self.facts(conversion)[2][0])
        return prefix_of(source)

    def _folder(self, conversion):
        folder = self.folder / "written" / str(conversion)
        folder.mkdir(parents=True)
        return folder

    def _alone(self, way, conversion):
        return {conversion: way(conversion)}

    def _through_the_command_line(self, conversion):
        table, folder = conversion.table, self._folder(conversion)
        options = []
        for name, value in table.options.items():
            for item in value if isinstance(value, list) else [value]:
                options += [f"--{name}", item]
        checkpoint, destination = self.checkpoint(conversion, folder), table.destination(folder)
        places = [checkpoint, destination] if conversion.workflow % 2 else [destination, "--checkpoint", checkpoint]
        done = python(
            conversion.keras, "-m", "tfthaw", "convert", *places, "--to", table.to, "--code", table.spec, "--json",
            *options,
        )  # fmt: skip
        document = json.loads(done.stdout) if done.returncode == 0 else {}
        return Answer(done.returncode, document, done.stderr, folder)

    def _through_python(self, keras, batch):
        jobs, folders = [], {}
        for item in batch:
            table, folder = item.table, self._folder(item)
            folders[item] = folder
            options = {"to": table.to, "checkpoint": self.checkpoint(item, folder), **table.options}
            options |= {} if item.proves_outputs else {"verify": "weights"}
            jobs.append({
                "example": table.example, "code": table.code, "way": item.way, "options": options,
                "destination": table.destination(folder), "answer": str(folder / "answer.json"),
            })  # fmt: skip
        path = self.folder / f"{keras}.jobs.json"
        path.write_text(json.dumps(jobs))
        done = python(keras, "-m", "workflows.convert_all", path)
        assert done.returncode == 0, done.stderr
        answers = {}
        for item, folder in folders.items():
            document = json.loads((folder / "answer.json").read_text())
            answers[item] = Answer("error" in document, document, document.get("message", ""), folder)
        return answers

    def _example(self, conversion):
        folder = self._folder(conversion)
        done = python(conversion.keras, EXAMPLES / f"{conversion.table.example}.py", folder)
        return Answer(done.returncode, {"printed": done.stdout}, done.stderr, folder)


def flip_a_trained_bit(folder, value):
    """Flip one bit of a value's bytes, where they lie in the checkpoint's files."""
    for path in sorted(folder.glob("ckpt*")):
        content = bytearray(path.read_bytes())
        place = content.find(np.ascontiguousarray(value).tobytes())
        if place >= 0:
            content[place] ^= 1
            path.write_bytes(content)
            return
    raise AssertionError(f"the value is in no file of {folder}")
