"""Screens: tables, sizes, JSON, and progress bars where somebody is watching."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfthaw._files import Progress, human_bytes
from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape

__all__ = ["human_bytes", "print_json", "print_notes", "print_table", "progress_bar", "shape_text", "tensor_text"]

_BAR_BYTES = 64 << 20  # work on less than this is over before a bar could be read


def print_json(document: Any) -> None:
    """Print one JSON document on stdout, indented for a terminal; numbers that JSON lacks become null."""
    indent = 2 if sys.stdout.isatty() else None  # without indent the encoder is the fast one
    try:
        print(json.dumps(document, ensure_ascii=False, indent=indent, allow_nan=False))
    except ValueError:  # only then is there a NaN or an infinity to look for
        print(json.dumps(_plain(document), ensure_ascii=False, indent=indent, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), most: int = 40
) -> None:
    """Print rows under headings, the first `most` of them; columns of `right` are aligned right."""
    every = [list(map(str, row)) for row in rows]
    shown = every if len(every) <= most else every[:most]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *shown, strict=True)]
    for number, row in enumerate([list(columns), *shown]):
        cells = [
            cell.rjust(width) if position in right else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  " + "  ".join(cells).rstrip()
        print(_bold(line) if number == 0 else line)
    if len(every) > most:
        print(f"  ... and {len(every) - most} more (--json lists all)")


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{_bold(text)}")


def print_notes(notes: Iterable[str]) -> None:
    """Print what a user should know, one line each."""
    for note in notes:
        print(f"  {_coloured('note', '33')}  {note}")


def good(text: str) -> str:
    """Return text in green where a terminal shows it."""
    return _coloured(text, "32")


def bad(text: str) -> str:
    """Return text in red where a terminal shows it."""
    return _coloured(text, "31")


def shape_text(shape: Shape | Sequence[int | None] | None) -> str:
    """Return a shape for people: `[?, 28, 28]`, `[]` for a scalar, `?` for unknown rank."""
    dims = shape.dims if isinstance(shape, Shape) else shape
    if dims is None:
        return "?"
    return f"[{', '.join('?' if size is None else str(size) for size in dims)}]"


def tensor_text(dtype: DType, shape: Shape | Sequence[int | None] | None) -> str:
    """Return a type and shape for people: `float32[?, 10]`."""
    text = shape_text(shape)
    return f"{dtype.name} of unknown rank" if text == "?" else f"{dtype.name}{text}"


def _bold(text: str) -> str:
    return _coloured(text, "1")


def _coloured(text: str, code: str) -> str:
    import os

    watched = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return f"\033[{code}m{text}\033[0m" if watched else text


@contextlib.contextmanager
def progress_bar(title: str, total_bytes: int) -> Iterator[Progress | None]:
    """Show a progress bar on stderr while the block runs, where stderr is a terminal and the work is long.

    Args:
        title: What is being done.
        total_bytes: How many bytes will be reported.

    Yields:
        What to call with the bytes just done, or None where nobody watches.
    """
    if not sys.stderr.isatty() or total_bytes < _BAR_BYTES:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total_bytes)
        yield lambda count: bar.advance(task, count)
