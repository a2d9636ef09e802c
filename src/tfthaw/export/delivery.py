"""How an export is carried out, the same for every format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from tfthaw._files import Progress
from tfthaw._new_files import Check
from tfthaw.formats.wire import Payload

Written = Callable[[Payload, str, int], None]
"""Called with a value that is in a file now, the file's path, and the offset of its first byte there."""


@dataclass(frozen=True)
class Delivery:
    """How an export is carried out.

    Attributes:
        overwrite: Whether what is at the destination may be replaced.
        progress: Called with the number of bytes just written.
        check: Called with what was written before it appears at the destination; what it raises keeps it from
            appearing. It gets the file, the directory of a SavedModel, or the directory that holds the files of a
            checkpoint.
        written: Called with each large value of a graph as soon as it is in the file.
    """

    overwrite: bool = False
    progress: Progress | None = None
    check: Check | None = None
    written: Written | None = None

    def watched(self, contents: Mapping[bytes, Payload]) -> Mapping[bytes, Payload]:
        """Return contents that tell `written` of themselves when they are written."""
        if self.written is None:
            return contents
        return {token: _Watched(payload, self.written) for token, payload in contents.items()}


@dataclass(frozen=True)
class _Watched:
    """A payload that tells when it is written."""

    payload: Payload
    written: Written

    @property
    def nbytes(self) -> int:
        return self.payload.nbytes

    def chunks(self) -> Iterator[Any]:
        return self.payload.chunks()

    def copy_to(self, file: BinaryIO, progress: Progress | None = None) -> int:
        offset = file.tell()
        count = self.payload.copy_to(file, progress)
        file.flush()
        self.written(self.payload, file.name, offset)
        return count
