"""Files that are one GraphDef: frozen graphs, `graph.pbtxt`, what `tf.io.write_graph` writes.

This module reads and writes the message. Whether a graph is frozen, or sound, is not decided here.

Source: tensorflow/core/framework/graph.proto; `tf.io.write_graph` for the two forms.
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
class GraphDefFile(MessageFile):
    """A GraphDef that was read from a file; its attributes are those of `MessageFile`."""


def read_graph_def(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> GraphDefFile:
    """Read a GraphDef, binary or text; big constants stay in the file.

    Raises:
        NotFoundError: There is no such file.
        FormatError: The file is empty, or is no GraphDef.
    """
    return read_message(GraphDefFile, os.fspath(path), proto.GraphDef, limits)


def write_graph_def(file: BinaryIO, message: Any, contents: Mapping[bytes, Payload] | None = None,
                    progress: Progress | None = None, *, as_text: bool = False) -> Pieces:
    """Write a GraphDef; big constants are streamed.

    Args:
        file: Where to write.
        message: The GraphDef; a token stands for each big content.
        contents: What the tokens stand for.
        progress: Called with the bytes of each piece.
        as_text: Write the text form.

    Returns:
        What was written, with the places of the payloads.

    Raises:
        UnsupportedError: The graph passes 2 GiB, which no reader opens; nothing was written.
    """
    return write_message(file, message, contents or {}, progress, as_text=as_text,
                         hint="`convert --to saved-model` keeps the weights outside the graph")
