"""Write graphs: `graph-def` and `frozen-graph`, binary or text.

Text is written where the destination's name ends in `.pbtxt`.
"""

from __future__ import annotations

import os
from pathlib import Path

from tfthaw._new_files import new_file
from tfthaw.export.delivery import Delivery
from tfthaw.formats.graph_def import write_graph_def
from tfthaw.formats.wire import Contents
from tfthaw.ir.model import Model
from tfthaw.serde.graphs import graph_to_proto

TEXT_SUFFIX = ".pbtxt"


def write_graph(
    model: Model, path: str | os.PathLike[str], delivery: Delivery, *, as_text: bool | None = None
) -> list[Path]:
    """Write a model's graph, and nothing else of it, as one GraphDef file.

    Args:
        model: The model.
        path: The file.
        delivery: How it is carried out.
        as_text: Whether to write text; None does as the file's name says.

    Returns:
        The files that were written.

    Raises:
        UnsupportedError: The graph passes 2 GiB.
        OutputExistsError: The file is there and may not be replaced.
    """
    contents = Contents(model.payloads)  # type: ignore[arg-type]
    message = graph_to_proto(model.graph, contents)
    is_text = os.fspath(path).endswith(TEXT_SUFFIX) if as_text is None else as_text
    with new_file(path, overwrite=delivery.overwrite, check=delivery.check) as file:
        watched = delivery.watched(contents)
        write_graph_def(file, message, watched, delivery.progress, as_text=is_text)
    return [Path(path)]
