"""Files as tfthaw reads them; `_new_files` writes them.

`SourceFile` maps a regular file and hands out `FileSlice`s, which cost nothing until they are read. Nothing here knows
a format.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from tfthaw._optional import lazy_module
from tfthaw.errors import FormatError, NotFoundError, TfthawError, TruncatedError, UnsafePathError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy_module("numpy")

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Progress = Callable[[int], None]
"""Called with the number of bytes just done."""

CHUNK_BYTES = 256 << 10
"""One step of streaming. It stays in the processor's own cache, so that checking and writing what was read costs half
as much as with steps of several MiB; system calls do not show yet."""

_KERNEL_STEP_BYTES = 64 << 20  # so that progress is told now and then
_KERNEL_COPY_BYTES = 1 << 20  # below that, flushing the file object costs more than the copy saves


class SourceFile:
    """A regular file opened for reading.

    Nothing is read at construction but its size. `view` is a read-only window on the page cache; `read_into` copies
    without mapping, so that streaming a file of any size leaves the process small.

    Attributes:
        path: The path as given.
        size: Bytes in the file when it was opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file.

        Raises:
            NotFoundError: There is no such file.
            FormatError: It is a directory, a pipe or a device.
            TfthawError: It cannot be read.
        """
        self.path = os.fspath(path)
        self._fd = -1
        self._map: mmap.mmap | None = None
        try:
            # without O_NONBLOCK, opening a pipe waits for its writer for ever
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise os_error(error, self.path, "read") from error
        except ValueError as error:
            raise NotFoundError(f"{self.path!r} is no path: it has a NUL") from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise FormatError(f"expected a regular file, found {kind}", path=self.path)
        self.size = status.st_size

    @property
    def descriptor(self) -> int:
        """The open file's descriptor."""
        return self._fd

    def view(self, offset: int = 0, length: int | None = None) -> Bytes:
        """Return a read-only view of a range, mapped and not copied (uint8[length]).

        Raises:
            TruncatedError: The range passes the end of the file.
        """
        length = self.size - offset if length is None else length
        self._check(offset, length)
        if length == 0:
            return np.empty(0, np.uint8)
        if self._map is None:
            self._map = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, np.uint8, length, offset)

    def read(self, offset: int, length: int) -> bytes:
        """Return a copy of a range.

        Raises:
            TruncatedError: The range passes the end of the file.
        """
        self._check(offset, length)
        parts = []
        while length:
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as error:
                raise os_error(error, self.path, "read") from error
            if not part:
                raise self._ended(offset, length)
            parts.append(part)
            length, offset = length - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, buffer: Bytes, offset: int) -> None:
        """Fill buffer from offset on, without mapping the file.

        Raises:
            TruncatedError: The file ended before the buffer was full.
        """
        view = buffer.data
        while view:
            try:
                count = os.preadv(self._fd, [view], offset)
            except OSError as error:
                raise os_error(error, self.path, "read") from error
            if count == 0:
                raise self._ended(offset, len(view))
            view, offset = view[count:], offset + count

    def _ended(self, offset: int, missing: int) -> TruncatedError:
        return TruncatedError(
            f"the file ends at {offset}, {missing} bytes too early", path=self.path, where=f"offset {offset}"
        )

    def slice(self, offset: int = 0, length: int | None = None) -> FileSlice:
        """Return a range of the file without reading it.

        Raises:
            TruncatedError: The range passes the end of the file.
        """
        length = self.size - offset if length is None else length
        self._check(offset, length)
        return FileSlice(self, offset, length)

    def close(self) -> None:
        """Close the file; views that are still held keep their pages."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._map = None

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise TruncatedError(
                f"bytes {offset} to {offset + length} are needed, the file has {self.size}",
                path=self.path,
                where=f"offset {offset}",
                hint="the file was cut while it was written or copied",
            )

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


@dataclass(frozen=True)
class FileSlice:
    """A range of a file that has not been read.

    Attributes:
        file: The file.
        offset: First byte of the range.
        length: Bytes in the range.
    """

    file: SourceFile
    offset: int
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes in the range, under the name that tensors have for it."""
        return self.length

    def view(self) -> Bytes:
        """Return the range as a read-only mapped view (uint8[length])."""
        return self.file.view(self.offset, self.length)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Bytes]:
        """Read the range piece by piece; each piece is valid until the next one is asked for.

        Yields:
            uint8[<= chunk_bytes], a part of one buffer that is used again.
        """
        buffer = np.empty(min(chunk_bytes, self.length), np.uint8)
        done = 0
        while done < self.length:
            part = buffer[: min(chunk_bytes, self.length - done)]
            self.file.read_into(part, self.offset + done)
            yield part
            done += len(part)

    def copy_to(self, file: BinaryIO, progress: Progress | None = None) -> int:
        """Append the range to a file, inside the kernel where it can do that.

        Nothing looks at the bytes on their way: whoever promises that they are the same reads them back.

        Args:
            file: The file, whose position is its end.
            progress: Called with the number of bytes just written.

        Returns:
            How many bytes were written.
        """
        done = self._copy_in_kernel(file, progress)
        if done < self.length:
            for chunk in FileSlice(self.file, self.offset + done, self.length - done).chunks():
                file.write(chunk.data)
                if progress is not None:
                    progress(len(chunk))
        return self.length

    def _copy_in_kernel(self, file: BinaryIO, progress: Progress | None) -> int:
        """Copy as much as the kernel will, and return how much that was."""
        done = 0
        if self.length < _KERNEL_COPY_BYTES or not hasattr(os, "copy_file_range"):
            return done
        # whatever it refuses (another file system, a file without descriptor), reading and writing does as well
        with contextlib.suppress(OSError):
            descriptor = file.fileno()
            file.flush()
            while done < self.length:
                step = min(self.length - done, _KERNEL_STEP_BYTES)
                count = os.copy_file_range(self.file.descriptor, descriptor, step, self.offset + done)
                if count == 0:
                    break
                done += count
                if progress is not None:
                    progress(count)
        if done:
            file.seek(0, os.SEEK_END)  # the file object does not know that its descriptor moved
        return done


def resolve_inside(root: str | os.PathLike[str], relative: str, *, where: str | None = None) -> Path:
    """Join a path that an artifact names to the artifact's own directory.

    Args:
        root: The directory that the path must stay in.
        relative: The path as the artifact has it, with `/` between its parts.
        where: What named it, for the error.

    Returns:
        The joined path; the file need not exist.

    Raises:
        UnsafePathError: The path is absolute, climbs out with `..`, or leaves through a symbolic link.
    """
    pure = PurePosixPath(relative)
    joined = Path(root, *pure.parts)
    unsafe = pure.is_absolute() or ".." in pure.parts or "\0" in relative or "\\" in relative
    if unsafe or not joined.resolve().is_relative_to(Path(root).resolve()):
        raise UnsafePathError(
            f"the path {relative!r} leads out of the artifact", path=root, where=where,
            hint="it was not followed; the artifact is damaged or made to attack its reader",
        )  # fmt: skip
    return joined


def os_error(error: OSError, path: str, verb: str) -> TfthawError:
    """Return the error of ours for one of the operating system, met when a path was to be read or written."""
    text = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError("there is no such file or directory", path=path)
    hint = "free space on the disk, or write elsewhere" if error.errno == errno.ENOSPC else None
    return TfthawError(f"cannot {verb} it: {text}", path=path, hint=hint)


def human_bytes(count: int) -> str:
    """Return a size for people: `999 B`, `1.2 KiB`, `3.4 GiB`."""
    value: Any = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")
