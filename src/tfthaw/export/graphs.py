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


def write_graph(model: Model, path: str | os.PathLike[str], delivery: Delivery) -> list[Path]:
    """Write a model's graph, and nothing else of it, as one GraphDef file.

    Returns:
        The files that were written.

    Raises:
        UnsupportedError: The graph passes 2 GiB.
        OutputExistsError: The file is there and may not be replaced.
    """
    contents = Contents(model.payloads)  # type: ignore[arg-type]
    message = graph_to_proto(model.graph, contents)
    with new_file(path, overwrite=delivery.overwrite, check=delivery.check) as file:
        watched = delivery.watched(contents)
        write_graph_def(file, message, watched, delivery.progress, as_text=os.fspath(path).endswith(TEXT_SUFFIX))
    return [Path(path)]
