"""Files that tfthaw writes: whole, flushed to disk, and checked, or not at all.

`new_file`, `new_directory` and `new_file_set` write beside the destination and rename. In between, a check may look at
what was written; the disk takes it in the meantime. Symbolic links are followed: what they point to is written.

Replacing never takes more than what is written again: directories are replaced only where they hold nothing else,
devices and pipes never. Nothing here knows a format.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tfthaw._files import os_error
from tfthaw.errors import OutputExistsError, TfthawError, UsageError, listing

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
    with _writing(path):
        target = target_of(path)
        refuse_existing([path], overwrite)
        with _beside(target) as temporary, _Syncing(temporary) as syncing:
            with open(temporary, "xb") as file:
                yield file
            syncing.finish(check)
            refuse_existing([path], overwrite)
            os.replace(temporary, target)
            _sync_directory(target.parent)


@contextlib.contextmanager
def new_directory(
    path: str | os.PathLike[str], layout: Collection[str], *, overwrite: bool = False, check: Check | None = None
) -> Iterator[Path]:
    """Write a directory, whole or not at all.

    A mount point, the working directory, and a directory in a place where nothing can be written are filled; others
    are replaced as a whole.

    Args:
        path: Where the directory shall be; an empty directory that is there is used.
        layout: The names that such a directory may hold.
        overwrite: Whether such a directory that is there may be replaced.
        check: Called with the written directory while the disk takes it.

    Yields:
        A temporary directory beside the destination, or in it, to be filled.

    Raises:
        OutputExistsError: Something is there and `overwrite` is false.
        UsageError: What is there is no directory, or one that holds other things too.
        TfthawError: It cannot be written.
    """
    with _writing(path):
        target = target_of(path)
        refuse_existing_directory(path, layout, overwrite)
        with _beside(target, inside=_must_stay(target)) as temporary, _Syncing(temporary) as syncing:
            temporary.mkdir()
            yield temporary
            syncing.finish(check)
            refuse_existing_directory(path, {*layout, temporary.name}, overwrite)
            if temporary.parent == target:
                _fill(target, temporary)
            elif target.is_dir():
                old = target.with_name(f".{target.name[:80]}.tfthaw-old-{os.urandom(4).hex()}")
                os.rename(target, old)
                try:
                    os.rename(temporary, target)
                except OSError:
                    os.rename(old, target)
                    raise
                _remove_tree(old)
            else:
                os.rename(temporary, target)
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
    with _writing(directory):
        folder = Path(os.path.realpath(directory))
        targets = [folder / name for name in names]
        shown = [Path(directory, name) for name in names]  # as the user names them
        refuse_existing(shown, overwrite)
        with _beside(targets[-1]) as temporary, _Syncing(temporary) as syncing:
            temporary.mkdir()
            yield temporary
            syncing.finish(check)
            refuse_existing(shown, overwrite)
            for target in targets:
                os.replace(temporary / target.name, os.path.realpath(target))
            _sync_directory(folder)


def refuse_existing(targets: Sequence[str | os.PathLike[str]], overwrite: bool) -> None:
    """Refuse to write files where something is already, unless that is files that may be replaced.

    Raises:
        OutputExistsError: Something is there.
        UsageError: Something is there that is no file.
    """
    for target in targets:
        if not os.path.lexists(target):
            continue
        if os.path.exists(target) and not os.path.isfile(target):
            kind = "a directory" if os.path.isdir(target) else "a pipe or a device"
            raise UsageError(f"a file is to be written, and {kind} is there", path=os.fspath(target),
                             hint="give the name of a file")  # fmt: skip
        if not overwrite:
            raise OutputExistsError("it is there already", path=os.fspath(target),
                                    hint="pass --overwrite to replace it")  # fmt: skip


def refuse_existing_directory(path: str | os.PathLike[str], layout: Collection[str], overwrite: bool) -> None:
    """Refuse to write a directory where something is already, unless that is one of its kind and may be replaced.

    Args:
        path: Where the directory shall be.
        layout: The names that it may hold to be of its kind.
        overwrite: Whether it may be replaced.

    Raises:
        OutputExistsError: Something is there that might be replaced.
        UsageError: What is there is no directory, or one that holds other things too.
    """
    shown = os.fspath(path)
    if not os.path.lexists(path):
        return
    if os.path.exists(path) and not os.path.isdir(path):
        raise UsageError("a directory is to be written, and a file is there", path=shown,
                         hint="give the name of a directory")  # fmt: skip
    held = sorted(os.listdir(path)) if os.path.isdir(path) else []
    foreign = [name for name in held if name not in layout]
    if held and not overwrite:
        hint = "give another directory" if foreign else "pass --overwrite to replace it, or give another directory"
        raise OutputExistsError(f"the directory holds {listing(held)}", path=shown, hint=hint)
    if foreign:
        raise UsageError(f"the directory is not replaced: it holds what would be lost: {listing(foreign)}", path=shown,
                         hint="give another directory")  # fmt: skip


def refuse_replacing(targets: Sequence[str | os.PathLike[str]], sources: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse to write over what is being read.

    Args:
        targets: The files and directories to be written.
        sources: The files and directories that they are made of.

    Raises:
        UsageError: A source is one of the targets, or in one.
    """
    for target in targets:
        place = Path(os.path.realpath(target))
        for source in sources:
            found = Path(os.path.realpath(source))
            if place == found or place in found.parents:
                what = "it is" if place == found else "in it is"
                raise UsageError(f"it is not replaced: {what} what the result is made of ({os.fspath(source)})",
                                 path=os.fspath(target), hint="give another destination")  # fmt: skip


def target_of(path: str | os.PathLike[str]) -> Path:
    """Return where to write, links followed.

    Raises:
        UsageError: It is no path, or the root of all.
        TfthawError: There can be no such path.
    """
    given = os.fspath(path)
    if not given or "\0" in given:
        raise UsageError(f"{given!r} is no path to write to")
    target = Path(os.path.realpath(given))
    with _writing(path), contextlib.suppress(FileNotFoundError):
        os.lstat(target)
    if not target.name:
        raise UsageError("the root directory cannot be replaced", path=given, hint="give a directory in it")
    return target


def _must_stay(target: Path) -> bool:
    """Whether a directory has to be filled because it cannot be replaced, or is where the caller stands."""
    if not target.is_dir():
        return False
    return os.path.ismount(target) or target == Path(os.path.realpath(".")) or not os.access(target.parent, os.W_OK)


def _fill(target: Path, temporary: Path) -> None:
    """Put what was written in the place of what a directory holds."""
    for entry in target.iterdir():
        if entry == temporary:
            continue
        if entry.is_dir() and not entry.is_symlink():
            _remove_tree(entry)
        else:
            entry.unlink()
    for entry in sorted(temporary.iterdir(), key=lambda entry: entry.is_file()):  # what names the others comes last
        os.rename(entry, target / entry.name)


@contextlib.contextmanager
def _writing(target: str | os.PathLike[str]) -> Iterator[None]:
    """Turn operating system errors into one TfthawError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, TfthawError):
            raise
        raise os_error(error, os.fspath(target), "write") from error


@contextlib.contextmanager
def _beside(target: Path, *, inside: bool = False) -> Iterator[Path]:
    """Name a hidden sibling of target, or something hidden in it, and remove whatever is left of it afterwards.

    Directories are made where they are missing, and taken away again when the block raises.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.name[:80]}.tfthaw-{os.getpid()}-{os.urandom(4).hex()}"
    temporary = target / name if inside else target.with_name(name)
    is_done = False
    try:
        yield temporary
        is_done = True
    finally:
        if temporary.is_dir():
            _remove_tree(temporary)
        else:
            temporary.unlink(missing_ok=True)
        for folder in [] if is_done else made:
            with contextlib.suppress(OSError):  # somebody else put something there
                folder.rmdir()


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
