"""How an export is carried out, the same for every format."""

from __future__ import annotations

from dataclasses import dataclass

from tfthaw._files import Check, Progress


@dataclass(frozen=True)
class Delivery:
    """How an export is carried out.

    Attributes:
        overwrite: Whether what is at the destination may be replaced.
        progress: Called with the number of bytes just written.
        check: Called with what was written before it appears at the destination; what it raises keeps it from
            appearing. It gets the file, the directory of a SavedModel, or the directory that holds the files of a
            checkpoint.
    """

    overwrite: bool = False
    progress: Progress | None = None
    check: Check | None = None
