"""Files that tfthaw writes: whole, flushed to disk, and checked, or not at all.

`new_file`, `new_directory` and `new_file_set` write beside the destination and rename. In between, a check may look at
what was written; the disk takes it in the meantime. Nothing here knows a format.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tfthaw._files import os_error
from tfthaw.errors import OutputExistsError, TfthawError

Check = Callable[[Path], None]
"""Called with what was written, before it appears at its destination; what it raises keeps it from appearing."""

EARLY_SYNC_BYTES = 64 << 20
"""Once so much is written, the disk begins to take it while the rest is being written."""


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
    refuse_existing([target], overwrite)
    with _writing(target), _beside(target) as temporary, _Syncing(temporary) as syncing:
        with open(temporary, "xb") as file:
            yield file
        syncing.finish(check)
        refuse_existing([target], overwrite)
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
    refuse_existing([target], overwrite or free)
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
    refuse_existing(targets, overwrite)
    with _writing(folder), _beside(targets[-1]) as temporary, _Syncing(temporary) as syncing:
        temporary.mkdir()
        yield temporary
        syncing.finish(check)
        refuse_existing(targets, overwrite)
        for target in targets:
            os.replace(temporary / target.name, target)
        _sync_directory(folder)


def refuse_existing(targets: Sequence[Path], overwrite: bool) -> None:
    """Refuse to write where something is already, unless that may be replaced.

    Raises:
        OutputExistsError: Something is there.
    """
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
        raise os_error(error, str(target), "write") from error


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
