"""Files that are one MetaGraphDef: the `.meta` of a v1 Saver.

This module reads and writes the message. Its variables' values are in a checkpoint beside it, which `detect` finds.

Source: tensorflow/core/protobuf/meta_graph.proto; `tf.compat.v1.train.export_meta_graph` for the two forms.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from tfthaw import proto
from tfthaw._files import Progress
from tfthaw.formats.message_file import MessageFile, read_message, write_message
from tfthaw.formats.wire import Payload, Pieces
from tfthaw.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class MetaGraphFile(MessageFile):
    """A MetaGraphDef that was read from a file; its attributes are those of `MessageFile`."""


def read_meta_graph(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> MetaGraphFile:
    """Read a MetaGraphDef, binary or text; big constants stay in the file.

    Raises:
        NotFoundError: There is no such file.
        FormatError: The file is empty, or is no MetaGraphDef.
    """
    return read_message(MetaGraphFile, os.fspath(path), proto.MetaGraphDef, limits)


def write_meta_graph(file: BinaryIO, message: Any, contents: Mapping[bytes, Payload] | None = None,
                     progress: Progress | None = None, *, as_text: bool = False) -> Pieces:
    """Write a MetaGraphDef; big constants are streamed.

    Args:
        file: Where to write.
        message: The MetaGraphDef; a token stands for each big content.
        contents: What the tokens stand for.
        progress: Called with the bytes of each piece.
        as_text: Write the text form.

    Returns:
        What was written, with the places of the payloads.

    Raises:
        UnsupportedError: The message passes 2 GiB, which no reader opens; nothing was written.
    """
    return write_message(file, message, contents or {}, progress, as_text=as_text,
                         hint="`convert --to saved-model` keeps the weights outside the graph")
