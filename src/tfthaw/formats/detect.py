"""From a path, in any spelling, to an artifact: its format and its files.

    a SavedModel's directory, or the message in it         -> saved-model
    a checkpoint's prefix, .index, .data-?????-of-?????    -> checkpoint
    a directory with a `checkpoint` file, or that file     -> the latest checkpoint
    a V1 checkpoint, one of its shards, or their prefix    -> checkpoint-v1 (m-?????-of-00002 too, as Savers spell it)
    any other file                                         -> what its content says

A name is never a pattern: directories are listed and names compared, so `[200]`, blanks and leading dots are plain
characters. A prefix may have an empty last part: `model/` is the checkpoint whose index is `model/.index`; so prefixes
are strings, to which suffixes are appended.

Whether a graph is frozen is decided later, by who knows what a graph means.

Source: checkpoint_management.py and saver.py of TensorFlow for the names around a checkpoint; loader_impl.py for those
of a SavedModel; `sniff` for the contents.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from tfthaw._files import SourceFile
from tfthaw.errors import FormatError, NotFoundError, TfthawError, TruncatedError, UnknownFormatError, listing
from tfthaw.formats.checkpoint_state import prefix_of_shards, read_checkpoint_state
from tfthaw.formats.saved_model import MESSAGE_NAMES, find_saved_model
from tfthaw.formats.sniff import Content, is_table, sniff
from tfthaw.limits import DEFAULT_LIMITS, Limits

STATE_NAME = "checkpoint"
"""The file that names the checkpoints of its directory."""

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})", re.DOTALL)
_DATA = ".data"  # a V2 shard is named prefix.data-00000-of-00001, a V1 shard prefix-00000-of-00001
_GRAPH_SUFFIXES = (".meta", ".meta.pbtxt", ".meta.txt", ".pbtxt", ".pb")


@dataclass(frozen=True)
class Located:
    """An artifact that was found; it has not been read.

    Attributes:
        format: The name of its format.
        path: What the reader of the format opens: the directory of a SavedModel (the message where it stands alone),
            the prefix of a checkpoint, the file or the prefix of a V1 checkpoint, else the file.
        files: Its files: the message; the index and the shards of a checkpoint; the shards of a V1 checkpoint.
        checkpoint: For a MetaGraph, the prefix of the checkpoint beside it; for a SavedModel, that of its variables.
        meta_graph: For a checkpoint, the MetaGraph beside it.
        missing: Names of files that belong to it and are not there.
    """

    format: str
    path: str
    files: tuple[str, ...]
    checkpoint: str | None = None
    meta_graph: str | None = None
    missing: tuple[str, ...] = ()


def locate(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, *, is_checkpoint: bool = False
) -> Located:
    """Find the artifact that a path means.

    Args:
        path: Any spelling of it.
        limits: Bounds for what must be read to tell.
        is_checkpoint: Whether it is meant as a checkpoint: its prefix wins over a file or directory of that very name
            then, as it does in TensorFlow.

    Raises:
        NotFoundError: There is nothing of that name; near names are in the hint.
        UnknownFormatError: What is there is nothing that tfthaw knows.
        FormatError: It is damaged beyond telling.
    """
    given = os.fsdecode(path)
    if not given or "\0" in given:
        raise NotFoundError(f"{given!r} is no path")
    if is_checkpoint and os.path.isfile(f"{given}.index"):
        return _checkpoint(given)
    if os.path.isdir(given):
        try:
            return _in_directory(given, limits)
        except UnknownFormatError:
            # a checkpoint may be named like a directory beside it
            if os.path.basename(given) and os.path.isfile(f"{given}.index"):
                return _checkpoint(given)
            raise
    if os.path.exists(given):
        return _at_file(given, limits)
    return _at_prefix(given)


def _at_file(path: str, limits: Limits) -> Located:
    shard = _SHARD.fullmatch(path)
    if shard and shard[1].endswith(_DATA):
        prefix = shard[1].removesuffix(_DATA)
        if not os.path.isfile(f"{prefix}.index"):
            raise NotFoundError(f"the index {os.path.basename(prefix)}.index is not beside this shard", path=path,
                                hint="a shard is bytes alone; the index says which tensor they are")
        return _checkpoint(prefix)
    try:
        with SourceFile(path) as source:
            content = sniff(source, limits)
    except UnknownFormatError as error:
        if os.path.isfile(f"{path}.index"):
            return _checkpoint(path)
        if path.endswith(".index"):
            raise TruncatedError(
                "it is named like the index of a checkpoint, but does not end like one", path=path,
                where=error.evidence, hint="the file was cut or damaged while it was copied",
            ) from error  # fmt: skip
        raise
    return _of_content(path, content, limits)


def _of_content(path: str, content: Content, limits: Limits) -> Located:
    if content is Content.checkpoint_index:
        if not path.endswith(".index"):
            raise FormatError("it is the index of a checkpoint under another name", path=path,
                              hint="name it PREFIX.index, with its shards PREFIX.data-... beside it")
        return _checkpoint(_prefix(path, ".index"))
    if content in (Content.checkpoint_state, Content.checkpoint_v1) and os.path.isfile(f"{path}.index"):
        return _checkpoint(path)
    if content is Content.checkpoint_state:
        return _latest(path, limits)
    if content is Content.checkpoint_v1:
        shard = _SHARD.fullmatch(path)
        return _checkpoint_v1(shard[1] if shard else path)
    if content is Content.saved_model:
        parts = find_saved_model(path)
        root = (os.path.dirname(path) or ".") if parts.message.name in MESSAGE_NAMES else path
        return Located(content.value, root, (path,), checkpoint=str(parts.variables) if parts.variables else None)
    beside = None
    if content is Content.meta_graph or (content is Content.graph_def and path.endswith(".meta")):
        beside = _checkpoint_beside(path)
    return Located(content.value, path, (path,), checkpoint=beside)


def _in_directory(path: str, limits: Limits) -> Located:
    folder = os.path.join(path, "")
    names = _names(path)
    for name in (*MESSAGE_NAMES, STATE_NAME):
        if name in names and os.path.isfile(folder + name):
            return _at_file(folder + name, limits)
    indexes = [name for name in names if name.endswith(".index") and os.path.isfile(folder + name)]
    if len(indexes) == 1:
        return _at_file(folder + indexes[0], limits)
    hint = None
    if indexes:
        hint = f"it has several checkpoints and no {STATE_NAME} file that says which is the latest: name one"
    else:
        inner = [folder + name for name in names[:1000] if _has_message(folder + name)]
        if inner:
            hint = f"there are SavedModels inside: {listing(inner)}"
        elif names:
            hint = "name a file in it"
    evidence = f"it has {listing(indexes or names)}" if names else "it is empty"
    raise UnknownFormatError(
        f"the directory has neither {MESSAGE_NAMES[0]} nor a {STATE_NAME} file nor one .index", path=path,
        where=evidence, evidence=evidence, hint=hint,
    )  # fmt: skip


def _has_message(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in MESSAGE_NAMES)


def _latest(path: str, limits: Limits) -> Located:
    """Find the latest checkpoint that a `checkpoint` file names."""
    state = read_checkpoint_state(path, limits)
    prefix = state.resolve(state.latest) if state.latest else None
    if prefix is None:
        folder = os.path.dirname(path)
        there = {name.removesuffix(".index") for name in _names(folder or ".") if name.endswith(".index")}
        there |= {os.path.relpath(found, folder or ".") for name in state.all if (found := state.resolve(name))}
        raise NotFoundError(
            f"the latest checkpoint {state.latest!r} is not in the directory", path=path,
            hint=f"name one that is there: {listing(sorted(there))}" if there else "no other one is there either",
        )  # fmt: skip
    if os.path.isfile(f"{prefix}.index"):
        return _checkpoint(prefix)
    shard = _SHARD.fullmatch(prefix)
    if os.path.isfile(prefix):
        with SourceFile(prefix) as source:
            if not is_table(source):
                raise FormatError(f"{path} calls it the latest checkpoint, but it does not end like one", path=prefix)
    return _checkpoint_v1(shard[1] if shard else prefix)


def _checkpoint(prefix: str) -> Located:
    shards, missing = _shards(prefix + _DATA)
    meta_graph = f"{prefix}.meta"
    return Located(
        "checkpoint", prefix, (f"{prefix}.index", *shards),
        meta_graph=meta_graph if os.path.isfile(meta_graph) else None, missing=missing,
    )  # fmt: skip


def _checkpoint_v1(prefix: str) -> Located:
    """Locate a V1 checkpoint by its file, or by the prefix of its shards."""
    shards, missing = ((prefix,), ()) if os.path.isfile(prefix) else _shards(prefix)
    meta_graph = f"{prefix}.meta"
    return Located("checkpoint-v1", prefix, shards, missing=missing,
                   meta_graph=meta_graph if os.path.isfile(meta_graph) else None)


def _checkpoint_beside(path: str) -> str | None:
    """Return the checkpoint whose MetaGraph a file is, by its name."""
    suffix = next((each for each in _GRAPH_SUFFIXES if path.endswith(each)), "")
    if not suffix:
        return None
    prefix = _prefix(path, suffix)
    if os.path.isfile(f"{prefix}.index"):
        return prefix
    if os.path.isfile(prefix):
        with SourceFile(prefix) as source:
            return prefix if is_table(source) else None
    return prefix if os.path.basename(prefix) and _shards(prefix)[0] else None


def _shards(stem: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the shards `stem-?????-of-?????` that are there, and the names of those that are not."""
    folder, base = os.path.split(stem)
    counts: dict[str, set[int]] = {}
    found = []
    for name in _names(folder or ".") if os.path.isdir(folder or ".") else []:
        shard = _SHARD.fullmatch(name)
        if shard and shard[1] == base:
            counts.setdefault(shard[3], set()).add(int(shard[2]))
            found.append(os.path.join(folder, name))
    if any(len(numbers) == int(count) for count, numbers in counts.items()):
        return tuple(found), ()
    if not counts:
        return (), (f"{base}-?????-of-?????",)
    count, numbers = max(counts.items(), key=lambda item: len(item[1]))
    # a name can claim 99999 shards
    missing = [number for number in range(int(count)) if number not in numbers]
    return tuple(found), tuple(f"{base}-{number:05}-of-{count}" for number in missing[:100])


def _at_prefix(path: str) -> Located:
    """Locate a path at which no file is: a prefix, or a mistake."""
    if os.path.isfile(f"{path}.index"):
        return _checkpoint(path)
    if os.path.islink(path):
        raise NotFoundError("it is a symbolic link to something that is not there", path=path)
    prefix = prefix_of_shards(path)
    shards, _ = _shards(prefix)
    if shards and not path.endswith(_DATA):
        return _checkpoint_v1(prefix)
    folder, base = os.path.split(path)
    named = _SHARD.fullmatch(path)
    prefix = path.removesuffix(".index")
    if named and os.path.isfile(f"{named[1].removesuffix(_DATA)}.index"):
        raise NotFoundError(f"shard {int(named[2])} of {int(named[3])} is not there, though its index is", path=path)
    if _shards(prefix + _DATA)[0]:
        raise NotFoundError(
            f"the index {os.path.basename(prefix)}.index is not there, though its shards are", path=path,
            hint="a shard is bytes alone; the index says which tensor they are",
        )  # fmt: skip
    if os.path.isfile(f"{path}.meta"):
        raise NotFoundError("the checkpoint is not there, though its MetaGraph is", path=path,
                            hint=f"the graph alone is in {base}.meta")
    if folder and not os.path.isdir(folder):
        raise NotFoundError("there is no such directory", path=folder)
    names = {part for name in _names(folder or ".") for part in (name, name.removesuffix(".index"))}
    raise NotFoundError.named("file or checkpoint", base, sorted(names - {""}), path=folder or None)


def _prefix(path: str, suffix: str) -> str:
    """Take a suffix off; where nothing is left, `./` stands for the empty name in the working directory."""
    return path[: -len(suffix)] or os.path.join(".", "")


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except OSError as error:
        raise TfthawError(f"cannot list it: {error.strerror}", path=folder) from error
