"""Files as tfthaw reads and writes them.

Reading: `SourceFile` maps a regular file and hands out `FileSlice`s, which cost nothing until they are read.
Writing: `new_file`, `new_directory` and `new_file_set` write beside the destination, flush to disk and rename, so
that an output appears whole or not at all. Nothing here knows a format.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from tfthaw._optional import lazy_module
from tfthaw.errors import FormatError, NotFoundError, OutputExistsError, TfthawError, TruncatedError, UnsafePathError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy_module("numpy")

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Progress = Callable[[int], None]
"""Called with the number of bytes just done."""

Check = Callable[[Path], None]
"""Called with what was written, before it appears at its destination; what it raises keeps it from appearing."""

CHUNK_BYTES = 256 << 10
"""One step of streaming. It stays in the processor's own cache, so that checking and writing what was read costs half
as much as with steps of several MiB; system calls do not show yet."""

_KERNEL_COPY_BYTES = 1 << 20  # below that, flushing the file object costs more than the copy saves

EARLY_SYNC_BYTES = 64 << 20
"""Once so much is written, the disk begins to take it while the rest is being written."""


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
            raise _os_error(error, self.path, "read") from error
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
                raise _os_error(error, self.path, "read") from error
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
                raise _os_error(error, self.path, "read") from error
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
                step = min(self.length - done, EARLY_SYNC_BYTES)
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


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str], *, overwrite: bool = False, check: Check | None = None
) -> Iterator[BinaryIO]:
    """Write one file, whole or not at all.

    The bytes go to a hidden file beside the destination, are flushed to disk and renamed when the block ends; when it
    raises, nothing is left.

    Args:
        path: Where the file shall be; missing directories are made.
        overwrite: Whether a file that is there may be replaced.
        check: Called with the written file while the disk takes it.

    Yields:
        The open binary file.

    Raises:
        OutputExistsError: The file is there and `overwrite` is false.
        TfthawError: It cannot be written.
    """
    target = Path(path)
    _refuse_existing([target], overwrite)
    with _writing(target), _beside(target) as temporary, _Syncing(temporary) as syncing:
        with open(temporary, "xb") as file:
            yield file
        syncing.finish(check)
        _refuse_existing([target], overwrite)
        os.replace(temporary, target)
        _sync_directory(target.parent)


@contextlib.contextmanager
def new_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False, check: Check | None = None
) -> Iterator[Path]:
    """Write a directory, whole or not at all.

    Args:
        path: Where the directory shall be; an empty directory that is there is used.
        overwrite: Whether a directory that is there may be replaced.
        check: Called with the written directory while the disk takes it.

    Yields:
        A temporary directory beside the destination, to be filled.

    Raises:
        OutputExistsError: Something is there and `overwrite` is false.
        TfthawError: It cannot be written.
    """
    target = Path(path)
    free = target.is_dir() and not any(target.iterdir())
    _refuse_existing([target], overwrite or free)
    with _writing(target), _beside(target) as temporary, _Syncing(temporary) as syncing:
        temporary.mkdir()
        yield temporary
        syncing.finish(check)
        if target.is_dir() and not target.is_symlink():
            old = target.with_name(f".{target.name}.tfthaw-old-{os.urandom(4).hex()}")
            os.rename(target, old)
            os.rename(temporary, target)
            _remove_tree(old)
        else:
            os.replace(temporary, target)
        _sync_directory(target.parent)


@contextlib.contextmanager
def new_file_set(
    directory: str | os.PathLike[str], names: Sequence[str], *, overwrite: bool = False, check: Check | None = None
) -> Iterator[Path]:
    """Write several files that belong together, such as the shards and the index of a checkpoint.

    Args:
        directory: Where the files shall be; made if missing.
        names: The files, in the order in which they appear; the last one makes the set readable.
        overwrite: Whether files that are there may be replaced.
        check: Called with the directory of the written files while the disk takes them.

    Yields:
        A temporary directory, in which each of the names must be written.

    Raises:
        OutputExistsError: One of the files is there and `overwrite` is false.
        TfthawError: They cannot be written.
    """
    folder = Path(directory)
    targets = [folder / name for name in names]
    _refuse_existing(targets, overwrite)
    with _writing(folder), _beside(targets[-1]) as temporary, _Syncing(temporary) as syncing:
        temporary.mkdir()
        yield temporary
        syncing.finish(check)
        _refuse_existing(targets, overwrite)
        for target in targets:
            os.replace(temporary / target.name, target)
        _sync_directory(folder)


def _refuse_existing(targets: Sequence[Path], overwrite: bool) -> None:
    if overwrite:
        return
    for target in targets:
        if target.exists() or target.is_symlink():
            raise OutputExistsError("it is there already", path=target, hint="pass --overwrite to replace it")


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn operating system errors into one TfthawError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, TfthawError):
            raise
        raise _os_error(error, str(target), "write") from error


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Name a hidden sibling of target and remove whatever is left of it afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:80]}.tfthaw-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            _remove_tree(temporary)
        else:
            temporary.unlink(missing_ok=True)


class _Syncing:
    """Flushes what is being written to disk, in a thread of its own, so that writing and checking need not wait.

    Errors of the disk are kept until `finish`, which raises them.
    """

    def __init__(self, written: Path) -> None:
        self._written = written
        self._done = threading.Event()
        self._is_wanted = True
        self._errors: list[OSError] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Syncing:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._is_wanted = kind is None  # what failed is about to be removed
        self._done.set()
        self._thread.join()

    def finish(self, check: Check | None) -> None:
        """Flush the rest, and check what was written in the meantime."""
        self._done.set()
        if check is not None:
            check(self._written)
        self._thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self) -> None:
        flushed = 0
        while not self._done.wait(0.05):
            size = _tree_bytes(self._written)
            if size - flushed >= EARLY_SYNC_BYTES:
                self._flush()
                flushed = size
        if self._is_wanted:
            self._flush()

    def _flush(self) -> None:
        try:
            _sync_tree(self._written)
        except OSError as error:
            self._errors.append(error)


def _tree_bytes(root: Path) -> int:
    """Return the size of a file or of all files below a directory; 0 where there is none yet."""
    with contextlib.suppress(OSError):
        if root.is_dir():
            return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        return root.stat().st_size
    return 0


def _remove_tree(path: Path) -> None:
    import shutil  # only here: it brings three compression libraries along, which costs a tenth of a start

    shutil.rmtree(path, ignore_errors=True)


def _sync_tree(root: Path) -> None:
    """Flush a file, or a directory with all that is in it."""
    if not root.is_dir():
        _sync(root)
        return
    for folder, _, names in os.walk(root):
        for name in names:
            _sync(Path(folder, name))
        _sync_directory(Path(folder))


def _sync_directory(path: Path) -> None:
    """Flush a directory's entries; file systems that cannot are left alone."""
    with contextlib.suppress(OSError):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_error(error: OSError, path: str, verb: str) -> TfthawError:
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
