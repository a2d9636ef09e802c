"""The `checkpoint` text file of a training directory: which checkpoints there are, and which is the latest.

This module reads and writes the file and finds the checkpoints that it names, also when the directory has moved since.
It opens no checkpoint, and follows no name out of the directory.

Source: tensorflow/python/training/checkpoint_state.proto; checkpoint_management.py for the paths, which are absolute or
relative to the directory of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfthaw import proto
from tfthaw._files import SourceFile
from tfthaw.errors import FormatError, LimitError, TfthawError
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.proto.text import parse_text, to_text

_ANY_SHARD = re.compile(r"-\?{5}-of-\d{5}$")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class CheckpointStateFile:
    """The content of a `checkpoint` file.

    Attributes:
        path: The file.
        latest: The latest checkpoint as it is written there; empty where none is.
        all: All checkpoints as they are written there, the oldest first.
        timestamps: When each of `all` was written, in seconds since 1970; empty where the file does not say.
    """

    path: str
    latest: str
    all: tuple[str, ...]
    timestamps: tuple[float, ...]

    def resolve(self, written: str) -> str | None:
        """Find a checkpoint that the file names, within the directory of the file.

        The path is tried as it is, then its last parts, more of them first.

        Args:
            written: One of `latest` and `all`.

        Returns:
            The prefix of the checkpoint, or None where it is not there.
        """
        directory, own_name = os.path.split(self.path)
        folder = os.path.abspath(directory)
        whole = os.path.normpath(os.path.join(folder, written))
        tried = [os.path.relpath(whole, folder)] if whole.startswith(os.path.join(folder, "")) else []
        parts = re.split(r"[/\\]", written)  # it may have been written on Windows
        for first in range(len(parts)):
            tail = parts[first:]
            if not {"", "..", "."} & set(tail[:-1]) and tail[-1] != "..":
                tried.append("/".join(tail))
        for name in tried:
            prefix = os.path.join(directory, prefix_of_shards(name))
            # a file that names itself is no checkpoint
            if os.path.isfile(f"{prefix}.index") or (name != own_name and is_checkpoint(prefix)):
                return prefix
        return None


def read_checkpoint_state(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> CheckpointStateFile:
    """Read a `checkpoint` file.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is empty, or no CheckpointState.
    """
    with SourceFile(path) as source:
        if source.size > limits.max_block_bytes:
            raise LimitError(
                f"the text has {source.size} bytes, {limits.max_block_bytes} are allowed", path=source.path
            )
        text = source.read(0, source.size)
    state = parse_text(proto.CheckpointState, text, source.path)
    if not state.ListFields():
        raise FormatError("the file names no checkpoint", path=source.path)
    return CheckpointStateFile(
        source.path,
        state.model_checkpoint_path,
        tuple(state.all_model_checkpoint_paths),
        tuple(state.all_model_checkpoint_timestamps),
    )


def checkpoint_state_bytes(latest: str, names: Sequence[str] = (), timestamps: Sequence[float] = ()) -> bytes:
    """Return the bytes of a `checkpoint` file.

    Args:
        latest: The latest checkpoint, relative to the directory of the file.
        names: All checkpoints, the oldest first; `latest` alone where empty.
        timestamps: When each was written, in seconds since 1970.
    """
    state = proto.CheckpointState(
        model_checkpoint_path=latest,
        all_model_checkpoint_paths=list(names) or [latest],
        all_model_checkpoint_timestamps=timestamps,
    )
    return to_text(state).encode()


def prefix_of_shards(name: str) -> str:
    """Return the prefix of a sharded V1 checkpoint that is spelled as its Saver spells it, `m-?????-of-00002`."""
    return _ANY_SHARD.sub("", name)


def is_checkpoint(prefix: str) -> bool:
    """Whether a checkpoint of that prefix is there: an index, one file, or the shards of V1."""
    if os.path.isfile(f"{prefix}.index") or (os.path.basename(prefix) and os.path.isfile(prefix)):
        return True
    directory, base = os.path.split(prefix)
    try:
        with os.scandir(directory or ".") as entries:
            return bool(base) and any(
                entry.name.startswith(base) and _SHARD.fullmatch(entry.name, len(base)) for entry in entries
            )
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise TfthawError(f"cannot read it: {error.strerror}", path=directory) from error
