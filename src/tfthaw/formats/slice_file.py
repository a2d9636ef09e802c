"""A range of a file as a read-only Python file object.

This is what lets `zipfile` and h5py read from a `FileSlice`: a whole file, or a member that lies uncompressed inside an
archive. It is not a buffer: each read is one system call, which is what readers that fetch a few small records need.
"""

from __future__ import annotations

import errno
import io
import os
from typing import Any

import numpy as np

from tfthaw._files import FileSlice


class SliceFile(io.RawIOBase):
    """A read-only, seekable file object over a range of a file.

    Attributes:
        slice: The range.
    """

    def __init__(self, part: FileSlice) -> None:
        self.slice = part
        self._position = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be searched."""
        return True

    def tell(self) -> int:
        """Return the position in the range."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; one past the end is allowed and reads nothing.

        Raises:
            OSError: The position is before the start, as for any file; `zipfile` relies on it.
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.slice.length}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to size bytes, never allocating more than the range still has."""
        rest = max(0, self.slice.length - self._position)
        count = rest if size is None or size < 0 else min(size, rest)
        data = self.slice.file.read(self.slice.offset + self._position, count)
        self._position += count
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill buffer from the position on and return how many bytes the range had.

        The rest of the buffer becomes zeros: h5py does not look at the count and would hand on whatever memory held.
        """
        target = np.frombuffer(memoryview(buffer).cast("B"), np.uint8)
        count = min(len(target), max(0, self.slice.length - self._position))
        if count:
            self.slice.file.read_into(target[:count], self.slice.offset + self._position)
        target[count:] = 0
        self._position += count
        return count
