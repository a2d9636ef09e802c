"""SavedModels: the directory, its SavedModel message, and which of its MetaGraphs is meant.

    saved_model.pb (or .pbtxt)   the SavedModel message
    variables/variables.*        a checkpoint
    assets/                      files that the graph reads
    assets.extra/                files that the graph knows nothing of
    fingerprint.pb               hashes and a UUID, from TensorFlow 2.12 on
    keras_metadata.pb            the Keras layers, TensorFlow 2.5 to 2.15

This module finds these, and reads and writes the messages. It reads no variable and does not know what a graph means.

Source: tensorflow/python/saved_model/builder_impl.py, loader_impl.py and path_helpers.py; saved_model.proto.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError

from tfthaw import proto
from tfthaw._files import Progress, SourceFile, resolve_inside
from tfthaw.errors import FormatError, LimitError, NotFoundError, StructureError
from tfthaw.formats.message_file import MessageFile, read_message, write_message
from tfthaw.formats.wire import Payload, Pieces
from tfthaw.limits import DEFAULT_LIMITS, Limits

MESSAGE_NAMES = ("saved_model.pb", "saved_model.pbtxt")
"""The names of the SavedModel message in its directory; TensorFlow, too, prefers the binary one."""

LAYOUT = (
    *MESSAGE_NAMES, "saved_model.cpb", "variables", "assets", "assets.extra", "fingerprint.pb", "keras_metadata.pb",
    "tfhub_module.pb", "debug",
)  # fmt: skip
"""What a SavedModel's directory may hold."""

SERVE = "serve"
"""The tag of MetaGraphs that are made to be served."""

ASSETS_COLLECTION = "saved_model_assets"  # where v1 builders list assets


@dataclass(frozen=True)
class SavedModelFile(MessageFile):
    """A SavedModel message that was read from a file; its attributes are those of `MessageFile`."""


@dataclass(frozen=True)
class SavedModelDirectory:
    """The files of a SavedModel; nothing of them has been read.

    Attributes:
        root: The directory.
        message: The SavedModel message in it.
        variables: The prefix of the checkpoint, or None where the model has no variables.
        assets: The directory of the assets, or None.
        assets_extra: The directory of files that came along, or None.
        fingerprint: `fingerprint.pb`, or None.
        keras_metadata: `keras_metadata.pb`, or None.
    """

    root: Path
    message: Path
    variables: Path | None
    assets: Path | None
    assets_extra: Path | None
    fingerprint: Path | None
    keras_metadata: Path | None


def find_saved_model(path: str | os.PathLike[str]) -> SavedModelDirectory:
    """Find the files of a SavedModel.

    Args:
        path: The directory, or the SavedModel message in it under any name.

    Raises:
        NotFoundError: There is no such directory, or no SavedModel message in it.
        UnsafePathError: A part of it is a symbolic link that leads out.
    """
    given = Path(path)
    root = given if given.is_dir() else given.parent
    message = given
    if given.is_dir():
        found = [root / name for name in MESSAGE_NAMES if (root / name).is_file()]
        if not found:
            raise NotFoundError(f"the directory has neither {' nor '.join(MESSAGE_NAMES)}", path=path)
        message = found[0]
    elif not given.is_file():
        raise NotFoundError("there is no such file or directory", path=path)
    variables = resolve_inside(root, "variables/variables")
    has_variables = Path(f"{variables}.index").is_file() or variables.is_file()
    return SavedModelDirectory(
        root,
        message,
        variables if has_variables else None,
        _part(root, "assets", directory=True),
        _part(root, "assets.extra", directory=True),
        _part(root, "fingerprint.pb"),
        _part(root, "keras_metadata.pb"),
    )


def read_saved_model(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> SavedModelFile:
    """Read a SavedModel message, binary or text; big constants stay in the file.

    Args:
        path: The message's file, not the directory; see `find_saved_model`.
        limits: Bounds for size and nesting.

    Raises:
        NotFoundError: There is no such file.
        FormatError: The file is empty, or is no SavedModel.
    """
    return read_message(SavedModelFile, os.fspath(path), proto.SavedModel, limits)


def write_saved_model(file: BinaryIO, message: Any, contents: Mapping[bytes, Payload] | None = None,
                      progress: Progress | None = None, *, as_text: bool = False) -> Pieces:
    """Write a SavedModel message; big constants are streamed.

    Args:
        file: Where to write.
        message: The SavedModel; a token stands for each big content.
        contents: What the tokens stand for.
        progress: Called with the bytes of each piece.
        as_text: Write the text form.

    Returns:
        What was written, with the places of the payloads.

    Raises:
        UnsupportedError: The message passes 2 GiB, which no reader opens; nothing was written.
    """
    return write_message(file, message, contents or {}, progress, as_text=as_text,
                         hint="its constants are too large: keep them as variables, which lie outside the message")


def choose_meta_graph(message: Any, tags: Iterable[str] | None = None, *, path: str | None = None) -> int:
    """Choose one MetaGraph of a SavedModel by its tag set.

    Args:
        message: The SavedModel.
        tags: The tag set that is meant; None takes the only one there is, else the one tagged `serve` alone.
        path: The SavedModel, for the error.

    Returns:
        The index in `message.meta_graphs`.

    Raises:
        NotFoundError: There is no MetaGraph with these tags, or several and no tags say which.
        StructureError: There is no MetaGraph at all, or two have the same tags.
    """
    tag_sets = [frozenset(meta_graph.meta_info_def.tags) for meta_graph in message.meta_graphs]
    if not tag_sets:
        raise StructureError("the SavedModel has no MetaGraph", path=path)
    listed = "tag sets: " + ", ".join(_show(each) for each in tag_sets)
    if tags is None and len(tag_sets) == 1:
        return 0
    wanted = frozenset([SERVE]) if tags is None else frozenset(tags)
    found = [index for index, each in enumerate(tag_sets) if each == wanted]
    if len(found) > 1:
        raise StructureError(
            f"{len(found)} MetaGraphs have the same tags {_show(wanted)}, so none of them is meant", path=path,
            problems=_differences(message, found), hint="TensorFlow takes the first; a tool may have added the others",
        )  # fmt: skip
    if not found and tags is None:
        raise NotFoundError("it has several MetaGraphs, none tagged serve alone", path=path,
                            hint=f"choose one with --tags; {listed}")
    if not found:
        raise NotFoundError(f"no MetaGraph has the tags {_show(wanted)}", path=path, hint=listed)
    return found[0]


def _differences(message: Any, places: Sequence[int]) -> list[str]:
    """Return what each of several MetaGraphs is, one sentence each."""
    result = []
    first = proto.serialize(message.meta_graphs[places[0]])
    for place in places:
        found = message.meta_graphs[place]
        if place != places[0] and proto.serialize(found) == first:
            result.append(f"number {place} is equal to number {places[0]}")
            continue
        graph, keys = found.graph_def, sorted(found.signature_def)
        shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        result.append(
            f"number {place}: {len(graph.node)} nodes, {len(graph.library.function)} functions, "
            f"signatures {shown or 'none'}, by TensorFlow {found.meta_info_def.tensorflow_version or 'of no version'}"
        )
    return result


def asset_paths(meta_graph: Any, directory: SavedModelDirectory) -> dict[str, Path]:
    """Return the assets of a MetaGraph.

    Returns:
        The name of the tensor that is fed with the file's path -> the file, which need not exist.

    Raises:
        UnsafePathError: An asset's name leads out of the directory.
        FormatError: The list of assets does not decode.
    """
    found = {}
    for asset in asset_defs(meta_graph, str(directory.message)):
        where = f"asset of tensor {asset.tensor_info.name!r}"
        inside = resolve_inside(directory.root / "assets", asset.filename, where=where)
        resolve_inside(directory.root, os.path.join("assets", asset.filename), where=where)
        found[asset.tensor_info.name] = inside
    return found


def read_fingerprint(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> Any:
    """Read `fingerprint.pb` and return its FingerprintDef.

    Raises:
        FormatError: It is none.
    """
    return _read_small(path, proto.FingerprintDef, limits)


def read_keras_metadata(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> Any:
    """Read `keras_metadata.pb` and return its SavedMetadata.

    Raises:
        FormatError: It is none.
    """
    cls = proto.message_class("third_party.tensorflow.python.keras.protobuf.SavedMetadata")
    return _read_small(path, cls, limits)


def _read_small(path: str | os.PathLike[str], cls: Any, limits: Limits) -> Any:
    with SourceFile(path) as source:
        if source.size > limits.max_index_bytes:
            raise LimitError(f"it has {source.size} bytes, {limits.max_index_bytes} are allowed", path=source.path)
        return proto.parse(cls, source.read(0, source.size), path=source.path)


def _part(root: Path, name: str, *, directory: bool = False) -> Path | None:
    path = resolve_inside(root, name)
    return path if (path.is_dir() if directory else path.is_file()) else None


def asset_defs(meta_graph: Any, path: str) -> Sequence[Any]:
    """Return the AssetFileDefs of a MetaGraph, from its own field or from the collection that v1 builders write.

    Raises:
        FormatError: The collection does not decode.
    """
    if meta_graph.asset_file_def:
        return list(meta_graph.asset_file_def)
    if ASSETS_COLLECTION not in meta_graph.collection_def:
        return []
    packed = meta_graph.collection_def[ASSETS_COLLECTION].any_list.value
    try:
        return [proto.AssetFileDef.FromString(each.value) for each in packed]
    except DecodeError as error:
        raise FormatError(f"an entry is no AssetFileDef: {error}", path=path,
                          where=f"collection {ASSETS_COLLECTION}") from error


def _show(tags: Iterable[str]) -> str:
    return "{" + ", ".join(sorted(tags)) + "}"
