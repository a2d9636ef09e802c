"""Where a conversion writes: what may be replaced there, and what must not be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from tfthaw._new_files import refuse_existing, refuse_existing_directory, refuse_replacing, target_of
from tfthaw.conversion.options import Options
from tfthaw.export.meta_graph import meta_name
from tfthaw.formats.saved_model import LAYOUT
from tfthaw.formats.tensor_bundle import written_names
from tfthaw.serde.artifacts import Artifact


def prefix_of(destination: str | os.PathLike[str]) -> str:
    """Return the prefix of the checkpoint to write, which may be given by its index, too."""
    text = os.fspath(destination)
    return text.removesuffix(".index") if os.path.basename(text) != ".index" else text


def require_free(options: Options, destination: str | os.PathLike[str]) -> None:
    """Refuse a destination that may not be replaced, before anything is read or run.

    Raises:
        OutputExistsError: Something is there that may be replaced on request.
        UsageError: Something is there that is not, such as the code, or a directory that holds other things.
    """
    target_of(destination)
    if options.to == "saved-model":
        refuse_existing_directory(destination, LAYOUT, options.overwrite)
    else:
        refuse_existing(written_files(options, destination)[:1], options.overwrite)
    functions = [spec.partition("=")[2] for spec in options.signatures]
    specs = [spec for spec in [options.code, *functions] if spec and ":" in spec]
    if specs:
        from tfthaw.runtime.user_code import code_file

        refuse_replacing(written_files(options, destination), [path for spec in specs if (path := code_file(spec))])


def spare_sources(
    artifact: Artifact, destination: str | os.PathLike[str], targets: Sequence[str | os.PathLike[str]],
    *, in_place: bool = False,
) -> None:  # fmt: skip
    """Refuse to write over files of an artifact that is being read.

    Args:
        artifact: What is being read.
        destination: Where the user wants the result.
        targets: The files and directories that are written for it.
        in_place: Whether the destination may be the artifact itself, all of which is replaced then.

    Raises:
        UsageError: Some of its files would be replaced.
    """
    own = {os.path.realpath(artifact.path), os.path.realpath(artifact.located.path)}
    if not in_place or os.path.realpath(destination) not in own:
        refuse_replacing(targets, _files(artifact))


def bytes_of(files: Iterable[Path]) -> int:
    """Return how large files and directories are, with all that is in them."""
    return sum(
        item.stat().st_size
        for path in files
        for item in (path.rglob("*") if path.is_dir() else [path])
        if item.is_file()
    )


def _files(artifact: Artifact) -> list[str]:
    """Return the files that an artifact is made of, and the graph that lies beside it."""
    located = artifact.located
    files = [*located.files, *([located.meta_graph] if located.meta_graph else [])]
    if located.checkpoint:
        files += [os.fspath(path) for path in artifact.files]
    return files


def written_files(options: Options, destination: str | os.PathLike[str]) -> list[Path]:
    """Return what is there when something was written to a destination; what tells first that it was comes first."""
    target = Path(destination)
    if options.to == "checkpoint":
        return [target.with_name(name) for name in written_names(target.name)[::-1]] if target.name else [target]
    if options.to == "meta-graph":
        meta = meta_name(destination)
        names = [meta, *written_names(meta.removesuffix(".meta"))]
        return [target.parent / name for name in names]
    return [target]
