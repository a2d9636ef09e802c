"""Which line of the user's own code an exception comes from.

A traceback out of TensorFlow or Keras is mostly theirs: dozens of frames, decorators, and frames of files that
AutoGraph generated. What helps the user is the innermost line that the user wrote. This module finds it; what the
exception means is said by `tfthaw.runtime.explain`.

Source: `ErrorMetadataBase` in tensorflow/python/autograph/pyct/error_utils.py (the stack with AutoGraph's frames mapped
back, innermost first, that TensorFlow attaches to an exception).
"""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LINE_LENGTH = 80
_MOST_CAUSES = 20
_FRAME = re.compile(r'^\s*File "([^"\n]+)", line (\d+), in (\w+)', re.MULTILINE)
_GENERATED = "__autograph_generated_file"
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class UserLine:
    """A line of the user's code.

    Attributes:
        file: The file.
        line: Its number, from 1.
        function: What it belongs to; empty at the level of the module.
    """

    file: str
    line: int
    function: str = ""

    def text(self) -> str:
        """Return the source of the line, shortened; empty where the file cannot be read."""
        source = " ".join(linecache.getline(self.file, self.line).split())
        return source if len(source) <= _LINE_LENGTH else f"{source[:_LINE_LENGTH]} ..."

    def where(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return it as an error's `where`: with its file, unless that is `path`."""
        is_known = path is not None and os.path.realpath(path) == os.path.realpath(self.file)
        place = f"line {self.line}" if is_known else f"{_shown(self.file)}:{self.line}"
        inside = f" in {self.function}" if self.function else ""
        source = self.text()
        return f"{place}{inside}" + (f" (`{source}`)" if source else "")


def user_line(error: BaseException, path: str | os.PathLike[str] | None = None) -> UserLine | None:
    """Return the innermost line of the user's code that an exception passed through.

    Args:
        error: The exception.
        path: The file of the user's code; it counts as the user's wherever it lies, also among installed packages.

    Returns:
        The line, or None where no code of the user was running.
    """
    own = None if path is None else os.path.realpath(path)
    lines = [line for line in _lines(error) if _is_source(line.file)]
    for line in lines:
        if os.path.realpath(line.file) == own or not is_installed(line.file):
            return line
    return None


def _lines(error: BaseException, depth: int = 0) -> Iterator[UserLine]:
    """Yield the lines that an exception passed through, innermost first; those that AutoGraph mapped back lead."""
    if isinstance(error, SyntaxError) and error.filename:
        yield UserLine(error.filename, error.lineno or 1)
    text = words_of(error)
    if "in user code:" in text:  # AutoGraph in AutoGraph: only the message has the inner frames, mapped back
        yield from reversed([UserLine(file, int(line), _function(name)) for file, line, name in _FRAME.findall(text)])
    metadata = getattr(error, "ag_error_metadata", None)
    for frame in getattr(metadata, "translated_stack", ()):
        yield UserLine(str(frame.filename), int(frame.lineno), _function(frame.function_name))
    found = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        found.append(UserLine(code.co_filename, traceback.tb_lineno, _function(code.co_name)))
        traceback = traceback.tb_next
    yield from reversed(found)
    if error.__cause__ is not None and metadata is None and depth < _MOST_CAUSES:  # which may go in circles
        yield from _lines(error.__cause__, depth + 1)


def _function(name: str | None) -> str:
    return "" if name in (None, "None", "<module>", "<lambda>") else str(name)


def _is_source(file: str) -> bool:
    """Whether a frame's file is one that somebody wrote: not `<frozen ...>`, not a file that AutoGraph generated."""
    return (file.endswith((".py", ".ipynb")) and _GENERATED not in file) or _is_cell(file)


def _is_cell(file: str) -> bool:
    """Whether a frame's file is the input of a notebook or of an interactive session."""
    return file.startswith(("<ipython-input", "<stdin>")) or "ipykernel_" in file


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python, to tfthaw or to an installed package."""
    if _is_cell(file):
        return False
    parts = Path(file).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    real = os.path.realpath(file)
    return any(real.startswith(folder) for folder in _foreign_folders())


@cache
def _foreign_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths["stdlib"], paths["platstdlib"], str(_PACKAGE)]
    return tuple(os.path.realpath(folder) + os.sep for folder in folders)


def _shown(file: str) -> str:
    """Return a file as the user would name it: relative to the current directory where it lies below that."""
    try:
        relative = os.path.relpath(file)
        is_elsewhere = relative.startswith(os.pardir) or os.getcwd() == os.sep  # where the code may have gone
    except (ValueError, OSError):  # another drive; a current directory that is gone
        return file
    return file if is_elsewhere or _is_cell(file) else relative


def words_of(error: BaseException) -> str:
    """Return what an exception says; nothing where its class says itself in words that raise."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # the user's own code, which may raise what it likes, or end the process
        return ""


def said_of(error: BaseException) -> str:
    """Return the `message` that exceptions of TensorFlow have; nothing where it is none, or raises."""
    try:
        message = getattr(error, "message", "")
        return message if isinstance(message, str) else ""
    except BaseException:  # noqa: BLE001  # as in `words_of`
        return ""
