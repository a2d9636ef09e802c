r"""Vocabulary files: text, one entry a line, as lookup tables are filled from them.

Source: InputBuffer::ReadLine of inputbuffer.cc of TensorFlow: lines end in `\n`, and every `\r` is dropped.
"""

from __future__ import annotations

import os

from tfthaw._files import SourceFile, human_bytes
from tfthaw.errors import LimitError
from tfthaw.limits import DEFAULT_LIMITS, Limits


def read_lines(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> list[bytes]:
    """Return the lines of a file, without what ends them.

    Raises:
        NotFoundError: There is no such file.
        LimitError: It is larger than `max_index_bytes`.
    """
    with SourceFile(path) as source:
        if source.size > limits.max_index_bytes:
            raise LimitError(f"a vocabulary of {human_bytes(source.size)} is too large to be held", path=path)
        text = source.read(0, source.size)
    lines = text.replace(b"\r", b"").split(b"\n")
    return lines if lines[-1] else lines[:-1]
