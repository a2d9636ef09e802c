"""Values of a Keras file (`.keras`, `.h5`, `.weights.h5`) for live objects.

The code says how the model is built, the file only what its values are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfthaw.conversion.keras_sources import read_keras_source
from tfthaw.ir.live_objects import LiveObjects
from tfthaw.restore.keras_layouts import Located
from tfthaw.restore.keras_tree import KerasLayer
from tfthaw.restore.live_keras_files import match_keras_file
from tfthaw.restore.live_variables import LiveMatches
from tfthaw.serde.artifacts import Artifact


def match_file(objects: LiveObjects, values: Artifact, renames: Mapping[str, str] | None = None) -> LiveMatches:
    """Find out which dataset of a Keras file fills which variable of live objects.

    Args:
        objects: The live objects.
        values: The file.
        renames: dataset -> a variable's node or any of its names.

    Raises:
        RestoreError: What belongs to which is not clear.
    """
    source = read_keras_source(values)

    def locate(tree: KerasLayer) -> Located:
        return source.locate(replace(source, config=objects.config, generation=objects.keras))

    return match_keras_file(
        objects, source.tensors, locate if source.layout == "legacy" else None, path=values.path, renames=renames
    )
