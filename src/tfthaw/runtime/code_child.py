"""The process that runs the user's code: it loads the code, traces it, and runs what was traced; see `code_process`.

What the user's code prints goes to stderr, also what C++ prints, so that the parent's stdout stays clean; what it
reads from stdin is empty. The process ends when its parent does, even in the middle of the user's code: a thread waits
for the parent's end of the pipe to close.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfthaw._files import SourceFile
from tfthaw.errors import RuntimeFailure, TfthawError, UsageError
from tfthaw.runtime.builders import OtherWay, Way
from tfthaw.runtime.code_messages import error_json, request_from_json, tensor_at, traced_json
from tfthaw.runtime.explain import LEGACY_KERAS as LEGACY_KERAS_VARIABLE
from tfthaw.runtime.explain import explain, legacy_keras_is_on, needs_graph_mode, needs_legacy_keras, with_causes
from tfthaw.runtime.isolated import carry_out, packed, unpacked
from tfthaw.runtime.live_model import LiveModel
from tfthaw.runtime.no_training import refusing_to_train
from tfthaw.runtime.tensorflow_runner import import_tensorflow
from tfthaw.runtime.user_code import load_code
from tfthaw.tensors import Array

EAGER_OFF = "eager off"
LEGACY_KERAS = "legacy keras"
"""What an answer can say the code needs, besides a way to call its builder, so that it is run again in another process.
"""


def main() -> None:
    """Answer requests until the parent closes the pipe that they come through."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    requests, answers = _private_pipes()
    waiting = _requests(requests)
    child = _Child()
    while True:
        answer = child.answer(waiting.get())
        with contextlib.suppress(AttributeError, ValueError, OSError):  # the code may have closed it or taken it away
            sys.stdout.flush()
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _private_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Take stdin and stdout for requests and answers, and leave nothing and stderr in their places."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    return requests, answers


def _requests(pipe: IO[bytes]) -> queue.SimpleQueue[dict[str, Any]]:
    """Return the requests as they come; the process ends when there will be no more, whatever it is doing then."""
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        try:
            for line in pipe:
                waiting.put(json.loads(line))
        finally:
            os._exit(0)  # TensorFlow takes a while to put its things in order, and nobody needs it

    threading.Thread(target=read, daemon=True).start()
    return waiting


class _Child:
    """What the process holds between requests: the traced model."""

    def __init__(self) -> None:
        self._model: LiveModel | None = None
        self._files: dict[str, SourceFile] = {}
        self._kept = contextlib.ExitStack()  # scopes that last as long as the process

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out a request."""
        work = {"trace": self._trace, "run": self._run, "run artifacts": self._run_artifacts}[request["do"]]
        try:
            return work(request)
        except OtherWay as other:
            error = None if other.error is None else error_json(other.error, traceback.format_exc())
            return {"error": error, "needs": other.way.value}
        except BaseException as error:  # noqa: BLE001  # the user's code raises what it likes
            try:
                explained = _explained(error, request.get("code"))
                needs = _needs(error, request)
            except Exception:  # noqa: BLE001  # so may the exceptions that it raises
                explained = RuntimeFailure(f"the code raises {type(error).__name__}", path=request.get("code"))
                needs = None
            return {"error": error_json(explained, _traceback()), "needs": needs}

    def _trace(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Load the code and trace it."""
        tf = _start_tensorflow()
        from tfthaw.runtime.initial_values import other_initial_values
        from tfthaw.runtime.scalar_conditions import scalar_conditions
        from tfthaw.runtime.trace import Circumstances, trace

        sys.path += [folder for folder in request["paths"] if folder not in sys.path]
        if request["eager_off"]:
            tf.compat.v1.disable_eager_execution()
        way = None if request["way"] is None else Way(request["way"])
        how = Circumstances(way, request["settled"], is_own_process=True, is_second=request["second"])
        if how.is_second:
            self._kept.enter_context(other_initial_values(tf))
        with refusing_to_train(), scalar_conditions(), how.readings.watched(tf), how.drawn.watched():
            code = load_code(request["code"])
            self._kept.enter_context(code.running())  # the code may import more whenever it is called
            signatures = request["request"]["signatures"].values()
            functions = {what: load_code(what).target for what in signatures if ":" in what}
        if _asks_for_legacy_keras():
            error = UsageError(
                f"the code sets {LEGACY_KERAS_VARIABLE}, which chooses Keras 2", path=request["code"],
                hint=f"install Keras 2 with: pip install tf_keras; and set {LEGACY_KERAS_VARIABLE}=1 before",
            )  # fmt: skip
            return {"error": error_json(error), "needs": LEGACY_KERAS}
        asked = request_from_json(request["request"], functions)
        self._model = trace(code.target, asked, Path(request["folder"]), how)
        return {"traced": traced_json(self._model.traced)}

    def _run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run what was traced."""
        if self._model is None:
            raise UsageError("nothing was traced that could be run")
        with np.load(request["arrays"]) as arrays:
            inputs = {tensor: unpacked(arrays, name) for tensor, name in request["inputs"].items()}
            values = {node: tensor_at(place, arrays, self._files) for node, place in request["values"].items()}
        found = self._model.run(inputs, request["outputs"], values)
        names = {tensor: str(position) for position, tensor in enumerate(found)}
        outputs: dict[str, Array] = {}
        for tensor, name in names.items():
            outputs |= packed(name, np.asarray(found[tensor]))
        np.savez(request["to"], **outputs)  # type: ignore[arg-type]
        return {"outputs": names}

    def _run_artifacts(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run artifacts, as a process of their own would; what the code has registered with TensorFlow is there."""
        carry_out(request["folder"])
        return {"done": True}


def _start_tensorflow() -> Any:
    """Import TensorFlow and keep its chatter off the screen."""
    gc.disable()  # importing makes a million objects that all stay: looking through them again and again costs 0.4 s
    tf = import_tensorflow("run the model's code")
    gc.freeze()
    gc.enable()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf.get_logger().setLevel("ERROR")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    _give_flags_their_defaults()
    _clear_graphs_where_needed(tf)
    return tf


def _clear_graphs_where_needed(tf: Any) -> None:
    """Let `reset_default_graph`, with which many builders begin, pass in the new graph that a builder is given."""
    reset = tf.compat.v1.reset_default_graph

    def reset_default_graph() -> None:
        if tf.executing_eagerly() or tf.compat.v1.get_default_graph().get_operations():
            reset()

    for module in [tf.compat.v1, *sys.modules.values()]:  # TensorFlow has it under several names
        if getattr(module, "__name__", "").startswith("tensorflow") and "reset_default_graph" in vars(module):
            setattr(module, "reset_default_graph", reset_default_graph)  # noqa: B010  # wrapped modules keep two of it


def _give_flags_their_defaults() -> None:
    """Let absl's flags have their defaults: the code's own command line is not ours."""
    flags = sys.modules.get("absl.flags")
    if flags is not None:
        flags.FLAGS.mark_as_parsed()


def _asks_for_legacy_keras() -> bool:
    """Whether the code has set the variable that chooses Keras 2: too late, for TensorFlow was there already."""
    return os.environ.get(LEGACY_KERAS_VARIABLE, "").lower() in ("1", "true") and not legacy_keras_is_on()


def _explained(error: BaseException, code: str | None) -> TfthawError:
    if isinstance(error, TfthawError):
        return error
    if isinstance(error, KeyboardInterrupt):  # the code's own: Ctrl-C does not reach this process
        return RuntimeFailure("the code raises KeyboardInterrupt", path=code)
    return explain(error, code, "trace the model")


def _traceback() -> str:
    """Return the traceback of the exception that is handled, where it can be said."""
    try:
        return traceback.format_exc()
    except Exception:  # noqa: BLE001  # the exception's own words
        return ""


def _needs(error: BaseException, request: Mapping[str, Any]) -> str | None:
    """Return what the code needs in another process, where an exception says so."""
    if _asks_for_legacy_keras():
        return LEGACY_KERAS
    for seen in with_causes(error):
        if needs_legacy_keras(seen):
            return LEGACY_KERAS
        if needs_graph_mode(seen) and not request.get("eager_off"):
            return EAGER_OFF
    return None
