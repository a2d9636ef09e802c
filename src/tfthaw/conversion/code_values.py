"""Which values of a checkpoint are those of the variables that code has; and code's variables as weights alone.

A checkpoint here is whatever holds values by name: of objects or names, V1 or V2, a Keras file, weights alone.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tfthaw.conversion.options import Options
from tfthaw.conversion.values import artifact_averages
from tfthaw.errors import RestoreError, UnsupportedError, UsageError
from tfthaw.ir.live_objects import LiveObjects
from tfthaw.ir.object_graph import VALUE_KEY, TrackableObjectGraph
from tfthaw.passes.add_saver import OBJECT_GRAPH_KEY
from tfthaw.restore.keras_layouts import locate_legacy
from tfthaw.restore.live_differences import differences
from tfthaw.restore.live_keras_files import match_keras_file
from tfthaw.restore.live_variables import LiveMatches, match_live
from tfthaw.restore.live_walk import StoredView
from tfthaw.serde.artifacts import Artifact
from tfthaw.tensors import Tensor

_LAST_KERAS_2 = 2


class CheckpointValues:
    """The values of a checkpoint, and what it says of the objects that have them.

    Args:
        artifact: The checkpoint.
        options: What the user asked for.

    Attributes:
        tensors: The values by key, moving averages chosen.
        stored: The object graph, where it has one.
        notes: What was chosen.
    """

    def __init__(self, artifact: Artifact, options: Options) -> None:
        if not artifact.tensors:
            raise UnsupportedError(f"{artifact.located.format} holds no values", path=artifact.path)
        self._artifact = artifact
        self._options = options
        self.stored: TrackableObjectGraph | None = None
        if artifact.checkpoint is not None:
            from tfthaw.serde.object_views import read_stored_graph  # only TensorFlow 2 has objects

            self.stored = read_stored_graph(artifact.checkpoint)
        self.tensors, self.notes = artifact_averages(artifact, artifact.tensors, options.ema)

    @property
    def path(self) -> str:
        """The checkpoint, as the user named it."""
        return self._artifact.path

    def match(self, objects: LiveObjects) -> LiveMatches:
        """Find out which key fills which variable of live objects.

        Raises:
            RestoreError: What belongs to which is not clear.
        """
        matches = self._match(objects)
        self._note_other_keras(objects, matches)
        allowed = self._options.allow_unused
        unused = [key for key in matches.unused if not any(fnmatch.fnmatchcase(key, glob) for glob in allowed)]
        if unused:
            with self.explaining(objects, replace(matches, unused=unused)):
                raise RestoreError(
                    f"the model in the checkpoint has {len(unused)} variables that the code does not have: it is of "
                    "another architecture", unused=unused, path=self.path,
                    hint="give the code that the checkpoint was trained with, or name what may stay out: "
                    f"--allow-unused '{_glob_of(unused)}'",
                )  # fmt: skip
        return matches

    def _match(self, objects: LiveObjects) -> LiveMatches:
        renames, root = self._options.map, self._options.checkpoint_root
        if self._artifact.keras is None:
            return match_live(objects, self.tensors, self.stored, path=self.path, root=root, renames=renames)
        if root is not None:
            raise UsageError("--checkpoint-root names an object of a checkpoint; a Keras file has none", path=self.path)
        from tfthaw.conversion.keras_sources import read_keras_source

        source = read_keras_source(self._artifact)
        if source.layout != "legacy":
            names = {group: name for group, texts in source.attributes.items()
                     if isinstance(name := texts.get("name"), str)}  # fmt: skip
            return match_keras_file(objects, self.tensors, None, path=self.path, renames=renames, layer_names=names)
        return match_keras_file(
            objects, self.tensors, lambda tree: locate_legacy(tree, source.listed(), source.tensors, source.generation),
            path=self.path, renames=renames,
        )  # fmt: skip

    def _note_other_keras(self, objects: LiveObjects, matches: LiveMatches) -> None:
        """Tell of a checkpoint of the other Keras: values are found in it, and layers may compute otherwise."""
        wrote = StoredView(self.stored).keras() if self.stored is not None else 0
        if self._artifact.keras is not None:
            from tfthaw.conversion.keras_sources import read_keras_source

            wrote = read_keras_source(self._artifact).generation
        if wrote and objects.keras and matches.keys and (wrote > _LAST_KERAS_2) != (objects.keras > _LAST_KERAS_2):
            matches.notes.append(
                f"the checkpoint is of Keras {wrote}, and the code ran under Keras {objects.keras}: some layers "
                "compute otherwise there, hard_sigmoid and what uses it (ConvLSTM) among them"
            )

    @contextmanager
    def explaining(self, objects: LiveObjects, matches: LiveMatches) -> Iterator[None]:
        """Say in a restore that fails how the checkpoint differs from the code."""
        try:
            yield
        except RestoreError as error:
            error.differences = tuple(differences(objects, matches, self.tensors, self.stored))
            raise


def _glob_of(keys: Sequence[str]) -> str:
    """Return a pattern that names keys, and few others."""
    names = [key.removesuffix(VALUE_KEY) for key in keys]
    common = os.path.commonpath(names)
    return f"{common}*" if len(names) == 1 or common in names else f"{common}/*" if common else keys[0]


def values_of_variables(
    names: Mapping[str, str], matches: LiveMatches, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return values under the names of variables, and those that fill none under their own keys.

    A key that is called like a variable and was not found to be its value is left out: nobody shall take it for that.

    Args:
        names: variable's node -> its name.
        matches: variable's node -> its key.
        tensors: The values by key.
    """
    given = {names[node]: tensors[key] for node, key in matches.keys.items() if node in names}
    left_out = {*matches.keys.values(), *names.values(), OBJECT_GRAPH_KEY}
    others = {key: tensor for key, tensor in tensors.items() if key not in left_out}
    return {**given, **others}
