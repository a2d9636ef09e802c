"""Run the user's code in a process of its own: what it switches, prints or breaks stays there.

`CodeProcess` starts the child at once, so that it imports TensorFlow while the parent opens the checkpoint; it traces
when `traced` is first asked for. Code that turns out to be for Keras 2, or to be called in another way, is started anew
in a process that is set up for it; code whose constants could be chance runs once more in another process. The child
(`tfthaw.runtime.code_child`) never outlives the parent.

What passes between the two is described in `tfthaw.runtime.code_messages`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfthaw.errors import RuntimeFailure, TfthawError
from tfthaw.runtime import child_processes
from tfthaw.runtime.builders import Way
from tfthaw.runtime.chance import refuse_changed
from tfthaw.runtime.code_child import EAGER_OFF, LEGACY_KERAS
from tfthaw.runtime.code_messages import error_from_json, place_json, request_json, traced_from_json
from tfthaw.runtime.endpoints import Request
from tfthaw.runtime.explain import LEGACY_KERAS as LEGACY_KERAS_VARIABLE
from tfthaw.runtime.isolated import Answer, Run, packed, read_answer, unpacked, write_request
from tfthaw.runtime.live_model import Traced
from tfthaw.runtime.user_code import check_spec
from tfthaw.tensors import Array, Tensor

RUN_SECONDS = 120.0
"""How long one run of the live model may take; tracing has no limit: it is the user's own code."""

_CLOSING_SECONDS = 2.0
_LOOK_SECONDS = 0.2


class CodeProcess:
    """The user's code in a process of its own: a `LiveModel`, and a context manager that ends the process.

    Args:
        code: `MODULE:CALLABLE` or `FILE:CALLABLE`.
        request: What the user asked for besides; its `functions` are loaded by the child.
        run_seconds: How long one run may take.

    Raises:
        UsageError: The code is not named in that form.
        NotFoundError: Its file is not there.
    """

    def __init__(self, code: str, request: Request, *, run_seconds: float = RUN_SECONDS) -> None:
        check_spec(code)  # before a process is started for nothing
        self._code = code
        self._request = request
        self._run_seconds = run_seconds
        self._folder = tempfile.TemporaryDirectory(prefix="tfthaw-code-")
        self._temporary = tempfile.mkdtemp(dir=self._folder.name)  # AutoGraph leaves files, and so may the user's code
        self._traced: Traced | None = None
        self._runs = 0
        self._setting = _Setting()
        self._child = self._started(self._setting)

    def __enter__(self) -> CodeProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def traced(self) -> Traced:
        """What was traced; the first access waits for it.

        Raises:
            TfthawError: What the child raised, of the same class.
            RuntimeFailure: The child crashed.
        """
        if self._traced is None:
            self._traced = self._trace()
        return self._traced

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], values: Mapping[str, Tensor]
    ) -> dict[str, Array]:
        """Run what was traced; see `LiveModel.run`.

        Raises:
            RuntimeFailure: TensorFlow raised, the child crashed, or it took too long.
        """
        self._runs += 1
        folder = Path(self._folder.name)
        sent, back = folder / f"inputs-{self._runs}.npz", folder / f"outputs-{self._runs}.npz"
        arrays: dict[str, Array] = {}
        names = {tensor: f"input.{position}" for position, tensor in enumerate(inputs)}
        for tensor, name in names.items():
            arrays |= packed(name, np.asarray(inputs[tensor]))
        places = {
            node: place_json(f"value.{position}", tensor, arrays)
            for position, (node, tensor) in enumerate(values.items())
        }
        np.savez(sent, **arrays)  # type: ignore[arg-type]
        answer = self._child.ask(
            {"do": "run", "arrays": str(sent), "inputs": names, "outputs": list(outputs), "values": places,
             "to": str(back)},
            seconds=self._run_seconds,
        )  # fmt: skip
        if "error" in answer:
            raise error_from_json(answer["error"])
        with np.load(back) as found:
            results = {tensor: unpacked(found, name) for tensor, name in answer["outputs"].items()}
        for path in (sent, back):
            path.unlink()
        return results

    def run_artifacts(self, attempts: Sequence[Sequence[Run]]) -> Answer:
        """Run artifacts in the child, where TensorFlow is imported already; see `run_isolated`.

        Raises:
            RuntimeFailure: The child crashed or took too long.
        """
        with tempfile.TemporaryDirectory(prefix="run-", dir=self._folder.name) as name:
            write_request(Path(name), attempts)
            answer = self._child.ask({"do": "run artifacts", "folder": name}, seconds=self._run_seconds)
            if "error" in answer:
                raise error_from_json(answer["error"])
            return read_answer(Path(name))

    def close(self) -> None:
        """End the child and remove what it wrote."""
        self._child.end()
        self._folder.cleanup()

    def _started(self, setting: _Setting, *, is_second: bool = False) -> _Child:
        """Start a child and ask it to trace."""
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TMPDIR": self._temporary, **setting.variables}
        child = _Child(self._code, environment)
        child.send({
            "do": "trace", "code": self._code, "request": request_json(self._request), "second": is_second,
            "folder": tempfile.mkdtemp(prefix="traced-", dir=self._folder.name), "eager_off": setting.eager_off,
            "way": None if setting.way is None else setting.way.value, "settled": setting.is_settled,
            "paths": [os.path.abspath(folder) for folder in sys.path if folder],
        })  # fmt: skip
        return child

    def _trace(self) -> Traced:
        """Wait for what is traced; start anew what needs Keras 2, or another way to be called."""
        setting = self._setting
        answer = self._child.answer()
        while "traced" not in answer:
            error = None if answer["error"] is None else error_from_json(answer["error"])
            setting.adjust(answer["needs"], error)
            self._child.end()
            self._child = self._started(setting)
            answer = self._child.answer()
        traced = traced_from_json(answer["traced"])
        traced.notes[:0] = setting.notes
        if traced.constants:
            self._refuse_chance(traced)
        return traced

    def _refuse_chance(self, traced: Traced) -> None:
        """Run the code once more, in a process of its own with other initial values, and refuse constants that changed.

        Raises:
            UnsupportedError: With each of them.
        """
        second = self._started(replace(self._setting, is_settled=True), is_second=True)
        try:
            answer = second.answer()
        finally:
            second.end(at_once=True)
        if "traced" in answer:
            refuse_changed(traced.constants, traced_from_json(answer["traced"]).constants, self._request.code)
            return
        said = "it needs to be run in another way" if answer["error"] is None else answer["error"]["message"]
        traced.notes.append(
            "the code cannot be run twice, so that nothing says whether its constants are the same each time: " + said
        )


@dataclass
class _Setting:
    """How the code is run, as far as that was found out.

    Attributes:
        variables: Environment variables.
        way: How its builder is called; None where its source says it.
        is_settled: Whether the other way is known to be wrong.
        eager_off: Whether eager execution is off while it is imported.
        notes: What to tell of it.
        first: What it raised under Keras 3, where it is run under Keras 2 now.
        failed: What its builder raised when it was called in the other way.
    """

    variables: dict[str, str] = field(default_factory=dict)
    way: Way | None = None
    is_settled: bool = False
    eager_off: bool = False
    notes: list[str] = field(default_factory=list)
    first: TfthawError | None = None
    failed: TfthawError | None = None

    def adjust(self, needs: str | None, error: TfthawError | None) -> None:
        """Take what the code needs.

        Args:
            needs: What a child said that it needs.
            error: What it raised; None where what a builder gave shows what is needed.

        Raises:
            TfthawError: Nothing helps.
        """
        if needs == LEGACY_KERAS and not self.variables and _can_use_legacy_keras():
            self.variables = {LEGACY_KERAS_VARIABLE: "1"}
            self.notes = [f"the code is for Keras 2, and ran with {LEGACY_KERAS_VARIABLE}=1 (tf_keras)"]
            self.way, self.is_settled, self.first, self.failed = None, False, error, None
        elif needs == EAGER_OFF and not self.eager_off:
            self.eager_off = True
        elif needs == Way.EAGERLY.value and self.way is None:
            self.way, self.failed = Way.EAGERLY, error
        elif needs == Way.IN_A_GRAPH.value and not self.is_settled:
            if self.failed is not None:
                raise _both(self.first, self.failed)
            self.way, self.is_settled = Way.IN_A_GRAPH, True
        else:
            raise _both(self.first, error if error is not None else RuntimeFailure("the code cannot be run"))


class _Child:
    """A child process, and the pipes to it."""

    def __init__(self, code: str, environment: Mapping[str, str]) -> None:
        self._code = code
        self._process = child_processes.start(
            "tfthaw.runtime.code_child", environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True)
        self._reader.start()

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; a child that is gone is noticed when its answer is waited for."""
        pipe = self._process.stdin
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.write(json.dumps(request).encode() + b"\n")
                pipe.flush()

    def ask(self, request: Mapping[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.send(request)
        return self.answer(seconds=seconds)

    def answer(self, *, seconds: float | None = None) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            RuntimeFailure: The child ended without one, or took too long and was ended.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            try:
                line = self._answers.get(timeout=min(left, _LOOK_SECONDS))
            except queue.Empty:
                if self._has_ended():
                    raise self._crash() from None
                if not left:
                    self.end(at_once=True)
                    raise RuntimeFailure(
                        f"the live model was still running after {seconds:.0f} s and was ended", path=self._code
                    ) from None
                continue
            if not line:
                raise self._crash()
            try:
                document: dict[str, Any] = json.loads(line)
            except ValueError:  # what Python's own start prints, such as a `sitecustomize` of the user's
                sys.stderr.buffer.write(line)
                continue
            return document

    def end(self, *, at_once: bool = False) -> None:
        """End the child, which ends by itself when its pipe is closed, and what it started."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        child_processes.end(self._process, after_seconds=0.0 if at_once else _CLOSING_SECONDS)
        self._reader.join(_CLOSING_SECONDS)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _has_ended(self) -> bool:
        """Whether the child is gone and has left no answer; processes that it started may still hold its pipe."""
        if self._process.poll() is None:
            return False
        self._reader.join(_LOOK_SECONDS)
        return self._answers.empty()

    def _crash(self) -> RuntimeFailure:
        """Return the error that says how the child ended."""
        child_processes.end(self._process, after_seconds=_CLOSING_SECONDS)
        status = self._process.returncode
        if status >= 0:
            return RuntimeFailure(
                f"the code ended its process (status {status}), as os._exit() does", path=self._code,
                hint='put what only a script does under `if __name__ == "__main__":`',
            )  # fmt: skip
        name = _signal_name(-status)
        hint = "a system that is out of memory ends processes so" if name == "SIGKILL" else None
        return RuntimeFailure(f"the process that ran the code crashed ({name})", path=self._code, hint=hint)


def _read(pipe: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Put the lines of a pipe into a queue, and an empty one at its end."""
    for line in pipe:
        answers.put(line)
    answers.put(b"")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _can_use_legacy_keras() -> bool:
    """Whether Keras 2 is installed beside Keras 3, and the user has not said which one it shall be."""
    return importlib.util.find_spec("tf_keras") is not None and LEGACY_KERAS_VARIABLE not in os.environ


def _both(first: TfthawError | None, error: TfthawError) -> TfthawError:
    """Return the error of code that failed under Keras 3 and then, for another reason, under Keras 2."""
    if first is None:
        return error
    if error.message == first.message:
        first.hint = "`import keras` is Keras 3 in any case; for Keras 2, write `from tensorflow import keras`"
    else:
        place = "" if error.where in (None, first.where) else f"{error.where}: "
        first.hint = f"under Keras 2 (tf_keras) it fails as well: {place}{error.message}"
    return first
