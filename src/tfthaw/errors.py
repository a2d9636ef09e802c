"""Every error that tfthaw raises.

This module is the whole error tree; it does no work and knows no format.

    TfthawError                                     .path .where .hint; one sentence
    ├ FormatError(ValueError)                       the bytes are not what the format says
    │  ├ UnknownFormatError .evidence               no known format begins like this
    │  ├ TruncatedError                             the file ends before its structure does
    │  ├ ChecksumError                              stored and computed checksums differ
    │  ├ LimitError                                 a count or size beyond `tfthaw.limits.Limits`
    │  └ UnsafePathError                            a path in an artifact that leaves it
    ├ StructureError(ValueError) .problems          decoded, but inconsistent: every problem, with its place
    ├ NotFoundError(KeyError)                       no such file, tensor, signature, tag set or node: lists near names
    ├ OutputExistsError(FileExistsError)            the destination is there already
    ├ UnsupportedError(NotImplementedError)         what tfthaw cannot convert, all of it at once
    ├ UsageError(ValueError)                        options that contradict each other or the artifact
    ├ RestoreError .missing .unused .mismatched     all of them, not the first
    ├ VerificationError .report                     what was written is not what was read
    ├ RuntimeFailure                                a backend's exception, chained
    └ MissingDependencyError(ImportError)           with the pip line

Every message reads `path: where: what was expected and found; hint`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence


class TfthawError(Exception):
    """Base of everything that tfthaw raises.

    Attributes:
        message: What was expected and what was found, one sentence.
        path: The file or directory that was read or written, where there is one.
        where: The place in it: an offset, a tensor's name, a node's name.
        hint: What the user can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.path, self.where) if part)
        text = f"{head}: {self.message}" if head else self.message
        return f"{text}; {self.hint}" if self.hint else text


class FormatError(TfthawError, ValueError):
    """The bytes are not what their format says."""


class UnknownFormatError(FormatError):
    """No known format begins like this file.

    Attributes:
        evidence: What was seen instead, such as the first bytes or the files of a directory.
    """

    def __init__(self, message: str, *, evidence: str = "", path: str | os.PathLike[str] | None = None,
                 where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, path=path, where=where, hint=hint)
        self.evidence = evidence


class TruncatedError(FormatError):
    """The file ends before its structure does."""


class ChecksumError(FormatError):
    """The stored and the computed checksum differ."""


class LimitError(FormatError):
    """A count or a size is beyond what `tfthaw.limits.Limits` allows."""


class UnsafePathError(FormatError):
    """A path inside an artifact leads out of it."""


class StructureError(TfthawError, ValueError):
    """The artifact decodes, but it contradicts itself.

    Attributes:
        problems: Every problem, one sentence each, with its place.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = (), path: str | os.PathLike[str] | None = None,
                 where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, path=path, where=where, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return _with_list(super().__str__(), self.problems)


class NotFoundError(TfthawError, KeyError):
    """A file, tensor, signature, tag set or node that is not there."""

    __str__ = TfthawError.__str__  # KeyError would show the repr of the message

    @classmethod
    def named(cls, kind: str, name: str, known: Iterable[str], *, path: str | os.PathLike[str] | None = None,
              where: str | None = None) -> NotFoundError:
        """Make the error for a missing name, with the nearest known names as its hint.

        Args:
            kind: What was looked for, such as `node`.
            name: The name that is not there.
            known: The names that are.
            path: The artifact.
            where: The place in it.
        """
        names = list(known)
        near = near_names(name, names) or names[:3]
        hint = f"near names: {', '.join(near)}" if near else f"it has no {kind} at all"
        return cls(f"no {kind} {name!r}", path=path, where=where, hint=hint)


class OutputExistsError(TfthawError, FileExistsError):
    """The destination is there already; nothing was overwritten."""

    __str__ = TfthawError.__str__


class UnsupportedError(TfthawError, NotImplementedError):
    """Something that tfthaw cannot convert.

    Attributes:
        problems: Each thing that stands in the way, with its nodes and counts.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = (), path: str | os.PathLike[str] | None = None,
                 where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, path=path, where=where, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return _with_list(super().__str__(), self.problems)


class UsageError(TfthawError, ValueError):
    """Options that contradict each other or the artifact."""


class RestoreError(TfthawError):
    """Values for variables are missing, left over, or of another shape.

    Attributes:
        missing: Variables for which the checkpoint has no value.
        unused: Checkpoint keys that fill no variable.
        mismatched: Variables whose value has another dtype or shape, as sentences.
        differences: How the checkpoint differs from the model, for people; then told instead of the three lists.
    """

    differences: tuple[str, ...] = ()

    def __init__(self, message: str, *, missing: Sequence[str] = (), unused: Sequence[str] = (),
                 mismatched: Sequence[str] = (), path: str | os.PathLike[str] | None = None,
                 where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, path=path, where=where, hint=hint)
        self.missing = tuple(missing)
        self.unused = tuple(unused)
        self.mismatched = tuple(mismatched)

    def __str__(self) -> str:
        if self.differences:
            return _with_list(super().__str__(), self.differences, most=len(self.differences))
        lines = [f"missing: {name}" for name in self.missing]
        lines += [f"unused: {name}" for name in self.unused]
        return _with_list(super().__str__(), [*lines, *self.mismatched])


class VerificationError(TfthawError):
    """What was written is not what was read.

    Attributes:
        report: One sentence for each difference.
    """

    def __init__(self, message: str, *, report: Sequence[str] = (), path: str | os.PathLike[str] | None = None,
                 where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, path=path, where=where, hint=hint)
        self.report = tuple(report)

    def __str__(self) -> str:
        return _with_list(super().__str__(), self.report)


class RuntimeFailure(TfthawError):  # noqa: N818  # the name of the public face
    """A backend (TensorFlow, ONNX Runtime) raised; its exception is the cause."""


class MissingDependencyError(TfthawError, ImportError):
    """A package is needed that is not installed; the hint is the pip line."""

    __str__ = TfthawError.__str__


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], where: str | None = None) -> Iterator[None]:
    """Say in an error that passes which file it is about, where the error does not.

    Args:
        path: The file or directory.
        where: The place in it.
    """
    try:
        yield
    except TfthawError as error:
        error.path = os.fspath(path) if error.path is None else error.path
        error.where = error.where or where
        raise


def near_names(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the names that are spelled almost like a name, the nearest first."""
    import difflib  # only here: an error may take its time

    return difflib.get_close_matches(name, list(known)[:20000], n=most, cutoff=0.6)


def listing(names: Iterable[str], most: int = 8) -> str:
    """Return names for people, cut after `most` with the count of the rest."""
    known = list(names)
    shown = ", ".join(known[:most]) or "none"
    return shown if len(known) <= most else f"{shown} and {len(known) - most} more"


def _with_list(text: str, items: Sequence[str], most: int = 20) -> str:
    """Append items to text, one a line, cut after `most` with the count of the rest."""
    lines = [f"\n  {item}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"\n  ... and {len(items) - most} more")
    return text + "".join(lines)
