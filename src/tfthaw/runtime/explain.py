"""Say what an exception of the user's code means: on which of the user's lines, what is wrong, and the cure.

Building and tracing a model runs three people's code: the user's, TensorFlow's and Keras's. Whatever it raises becomes
one TfthawError here. What the messages of others mean stands in `tfthaw.runtime.known_failures`; which line of the
user's it was, in `tfthaw.runtime.user_lines`. An unknown exception keeps its type and its words.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from tfthaw.errors import RuntimeFailure, TfthawError, UsageError
from tfthaw.runtime.failed_imports import missing_module, near_attributes, syntax_error
from tfthaw.runtime.known_failures import FAILURES, Cure, KnownFailure
from tfthaw.runtime.user_lines import said_of, user_line, words_of

LEGACY_KERAS = "TF_USE_LEGACY_KERAS"
"""The environment variable that makes `tf.keras` Keras 2; TensorFlow reads it when `tf.keras` is first used."""

_MESSAGE_LENGTH = 400
_TYPES = re.compile(r"(?:^|\n\s*)([A-Z]\w*(?:Error|Exception|Interrupt|Exit)): ")
_MOST_CAUSES = 20
_MOST_LETTERS = 20_000  # what is longer is cut in its middle: causes are told at the beginning or in the end

def explain(error: BaseException, code: str | os.PathLike[str] | None, doing: str) -> TfthawError:
    """Turn an exception into the error that says what it means.

    Args:
        error: What the user's code raised, or TensorFlow or Keras while they ran it.
        code: The file of the user's code, or what else to name as the error's path.
        doing: What was being done, such as `import the module` or `trace serving_default`.

    Returns:
        The error to raise from it; a TfthawError as it is.

    Raises:
        KeyboardInterrupt: It was the user who ended it.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    file = _file_of(code)
    line = user_line(error, file)
    where = None if line is None else line.where(file)
    if isinstance(error, TfthawError):
        error.path = error.path or (None if code is None else os.fspath(code))
        error.where = error.where or where
        if error.path and error.message.startswith((f"{error.path}: ", f"{error.path} ")):
            error.message = _without(error.path, error.message)
        return error
    text = message_of(error)
    if isinstance(error, SystemExit):
        return UsageError(
            f"the code ends the process ({_exit_text(error)}) when asked to {doing}", path=code, where=where,
            hint='put what only a script does under `if __name__ == "__main__":`',
        )  # fmt: skip
    if isinstance(error, SyntaxError):
        return syntax_error(error, code, where)
    if isinstance(error, AttributeError) and (near := near_attributes(error)):
        return RuntimeFailure(f"cannot {doing}: {_named(error, text)}", path=code, where=where,
                              hint=f"near names: {', '.join(near)}")  # fmt: skip
    known, found = _known(text)
    if known is not None and found is not None:
        kind = UsageError if known.is_of_the_code else RuntimeFailure
        meaning = _meaning(known, found, text) if known.meaning else f"cannot {doing}: {_named(error, text)}"
        return kind(meaning, path=code, where=where, hint=_hint(known, found))
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing_module(error.name, code, where)
    if isinstance(error, MemoryError):
        return RuntimeFailure(f"no memory was left to {doing}", path=code, where=where)
    return RuntimeFailure(f"cannot {doing}: {_named(error, text)}", path=code, where=where)


def checked_result(result: Any, code: str | os.PathLike[str] | None) -> Any:
    """Return what a builder gave, unless it is plainly nothing that could be exported.

    Args:
        result: What the builder gave.
        code: What to name as the error's path.

    Raises:
        UsageError: It is a number, a generator, a list of models or the like; the error says what it is.
    """
    said = _unfit(result)
    if said is None:
        return result
    what, hint = said
    raise UsageError(f"the code gives {what}, which cannot be exported", path=code, hint=hint)


def needs_graph_mode(error: BaseException) -> bool:
    """Whether an exception says that the code builds a graph of TensorFlow 1 and needs eager execution off."""
    return _cure(error) is Cure.GRAPH_MODE


def needs_legacy_keras(error: BaseException) -> bool:
    """Whether an exception says that the code is for Keras 2 and Keras 3 is what it met."""
    return _cure(error) is Cure.LEGACY_KERAS and not legacy_keras_is_on()


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, what caused it, and so on; causes may go in circles."""
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def legacy_keras_is_on() -> bool:
    """Whether `tf.keras` is Keras 2 in this process, or would be when it is imported."""
    try:
        keras = getattr(sys.modules.get("tensorflow"), "keras", None)
        version = getattr(keras, "__version__", None)
    except ImportError:  # it is chosen, and not installed
        version = None
    if version is None:
        return os.environ.get(LEGACY_KERAS, "").lower() in ("1", "true")
    return str(version).startswith("2.")


def message_of(error: BaseException) -> str:
    """Return an exception's message without what AutoGraph, Keras and terminals put around it."""
    metadata = getattr(error, "ag_error_metadata", None)
    text = str(getattr(metadata, "cause_message", "") or said_of(error) or _words(error))
    text = text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS // 2]}\n{text[-_MOST_LETTERS // 2 :]}"
    if metadata is not None or "in user code:" in text:  # AutoGraph repeats the type; in functions in functions, often
        text = _TYPES.split(text)[-1]
    if text[:1] in "'\"" and "\\n" in text:  # the text of a KeyError is quoted, once more for each that it went through
        with contextlib.suppress(ValueError, SyntaxError):
            text = str(ast.literal_eval(text))
    text = re.sub(r"\x1b\[\d*m", "", text)
    around = re.match(r"\s*Exception encountered when calling [^\n]*\n\n(.*?)(\n\n(Call a|A)rguments received by .*)?$",
                      text, re.DOTALL)  # fmt: skip
    return (around[1] if around else text).strip()


def _without(path: str, message: str) -> str:
    """Return a message that begins with its own path as one that does not, for the path is shown before it."""
    rest = message[len(path) :]
    return rest[2:] if rest.startswith(": ") else f"the code{rest}"


def _file_of(code: str | os.PathLike[str] | None) -> str | None:
    """Return the file of code that is named by its file or as `FILE:CALLABLE`."""
    if code is None:
        return None
    text = os.fspath(code)
    file = text.rpartition(":")[0]
    return file if file.endswith(".py") else text


def _words(error: BaseException) -> str:
    """Return what an exception says; a KeyError would quote it."""
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        words = error.args[0]
        return words if " " in words else repr(words)
    return words_of(error)


_EXPORTABLE = (
    "return a Keras model, a tf.Module, a tf.function, a dict of functions, or the inputs and outputs of a graph of "
    "TensorFlow 1"
)


def _unfit(result: Any) -> tuple[str, str] | None:
    """Say what a builder gave where that is nothing to export, and the cure."""
    kind = type(result)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        return "a generator", "it has a `yield`; give the model with `return`"
    if inspect.iscoroutine(result):
        return "a coroutine", "it is an `async def`; a builder is a plain function"
    if kind.__name__ == "History" and "keras" in kind.__module__:
        return "the History of a training", "return the model itself, untrained: its values come from the checkpoint"
    if isinstance(result, (list, tuple, set)):
        kinds = [type(item).__name__ for item in result]
        listed = ", ".join(kinds[:4]) + (" ..." if len(kinds) > 4 else "")
        hint = "return the one model to export, or a dict of functions: {'encode': encoder.call, ...}"
        return f"a {kind.__name__} of {len(kinds)} things ({listed or 'none'})", hint if kinds else _EXPORTABLE
    if kind.__name__ == "Checkpoint" and "tensorflow" in kind.__module__:
        return "a tf.train.Checkpoint", "return the model that it holds"
    if inspect.isclass(result) or inspect.ismodule(result):
        return f"the {'class' if inspect.isclass(result) else 'module'} {result.__name__}", _EXPORTABLE
    is_value = isinstance(result, (int, float, complex, str, bytes)) or kind.__module__.partition(".")[0] == "numpy"
    if result is None or is_value:
        shown = repr(result)
        shown = shown if len(shown) <= 40 else f"{shown[:40]} ..."
        return ("nothing" if result is None else f"{_a(kind.__name__)} ({shown})"), _EXPORTABLE
    if "Dataset" in kind.__name__ or "Optimizer" in [base.__name__ for base in kind.__mro__]:
        return _a(kind.__name__), _EXPORTABLE
    return None


def _a(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def _cure(error: BaseException) -> Cure:
    if isinstance(error, AttributeError) and near_attributes(error):
        return Cure.NOTHING
    known, _ = _known(message_of(error))
    return Cure.NOTHING if known is None else known.cure


def _known(text: str) -> tuple[KnownFailure | None, re.Match[str] | None]:
    for known in FAILURES:
        found = known.found_in(text)
        if found is not None:
            return known, found
    return None, None


def _meaning(known: KnownFailure, found: re.Match[str], text: str) -> str:
    groups = [found[0], *(group or "" for group in found.groups())]
    meaning = known.meaning.format(*groups)
    if known.cure is not Cure.NOTHING and known.cites:
        meaning += f": {_first_sentence(text)}"
    return " ".join(meaning.split())


def _hint(known: KnownFailure, found: re.Match[str]) -> str | None:
    if known.cure is Cure.LEGACY_KERAS and not legacy_keras_is_on():
        return _legacy_hint()
    groups = [found[0], *(group or "" for group in found.groups())]
    return known.hint.format(*groups) if known.hint else None


def _legacy_hint() -> str:
    """Return how to run code for Keras 2."""
    if importlib.util.find_spec("tf_keras") is not None:
        return f"set {LEGACY_KERAS}=1 before TensorFlow is imported, and import Keras as `from tensorflow import keras`"
    version = getattr(sys.modules.get("tensorflow"), "__version__", "")
    pin = "~=" + ".".join(version.split(".")[:2]) + ".0" if version else ""
    return f'install Keras 2 with: pip install "tf_keras{pin}", and set {LEGACY_KERAS}=1'


def _exit_text(error: SystemExit) -> str:
    return f"sys.exit({error.code!r})" if error.code is not None else "sys.exit()"


def _named(error: BaseException, text: str) -> str:
    name = type(error).__name__
    if name == "MultilineMessageKeyError":  # AutoGraph's stand-in for KeyError
        name = "KeyError"
    if name == "StagingError" and (types := _TYPES.findall(words_of(error)[-_MOST_LETTERS:])):
        name = types[-1]  # AutoGraph's stand-in for what it cannot make anew
    return f"{name}: {_shortened(text)}" if text else name


def _first_sentence(text: str) -> str:
    sentence = re.split(r"(?<=[a-z0-9`'\")}\]])\.\s", _shortened(text))[0]
    return sentence.rstrip(".")


def _shortened(text: str) -> str:
    """Return a message on one line, without the node definitions and stacks that TensorFlow appends."""
    text = re.sub(r" for '\{\{.*?\}\}'(?= with|\.|$)", "", text)
    text = re.sub(r"\n\s*\n(Stack trace|Original stack|Detected at node).*", "", text, flags=re.DOTALL)
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]} ..."
