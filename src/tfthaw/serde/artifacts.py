"""Artifacts: files on disk as models and named tensors, read as far as they are asked.

`open_artifact` finds out what a path is; the reader of a format is imported when that format comes. What it holds
comes in two views: `variables` (named tensors: a checkpoint's, a weights file's, or those that lie beside a graph)
and `model` (the graph with all around it). Both are made on demand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfthaw.errors import TfthawError, UnsupportedError, UsageError, naming
from tfthaw.formats import detect
from tfthaw.formats.checkpoint_reader import CheckpointReader
from tfthaw.formats.names import CHECKPOINT_FORMATS, GRAPH_FORMATS
from tfthaw.formats.saved_model import (
    SavedModelDirectory,
    asset_defs,
    asset_paths,
    choose_meta_graph,
    find_saved_model,
    read_saved_model,
)
from tfthaw.formats.tensor_bundle import BundleReader
from tfthaw.ir.model import Asset, Model, Producer
from tfthaw.ir.signatures import Signature
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Tensor

if TYPE_CHECKING:
    from tfthaw.formats.keras_h5 import KerasH5
    from tfthaw.formats.keras_zip import KerasZip
    from tfthaw.serde.object_views import Objects



class Artifact:
    """An artifact, opened for reading; use it as a context manager, or `close` it.

    Attributes:
        located: What was found at the path, and where.
        path: The path as given.
    """

    def __init__(self, located: detect.Located, path: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.located = located
        self.path = path
        self._limits = limits

    @cached_property
    def format(self) -> str:
        """The format's name; a GraphDef without variables is a `frozen-graph`."""
        if self.located.format == "graph-def":
            return "graph-def" if any(node.op in VARIABLE_OPS for node in self.model().graph.walk()) else "frozen-graph"
        if self.located.format == "keras-h5":
            return str(getattr(self.keras, "kind", "keras-h5"))
        return self.located.format

    @property
    def has_graph(self) -> bool:
        """Whether it carries a graph itself, or has one beside it (the `.meta` of a checkpoint)."""
        return self.located.format in GRAPH_FORMATS or self.located.meta_graph is not None

    @property
    def is_latest(self) -> bool:
        """Whether the path is a directory, or a `checkpoint` file, of which the latest checkpoint was taken."""
        is_checkpoint = self.located.format in CHECKPOINT_FORMATS and self.located.path != self.path
        return is_checkpoint and (os.path.isdir(self.path) or os.path.basename(self.path) == "checkpoint")

    @cached_property
    def files(self) -> list[Path]:
        """The files that it is made of."""
        if self.located.format == "saved-model" and self._directory is not None:
            return sorted(path for path in self._directory.root.rglob("*") if path.is_file())
        files = [] if self.located.format in CHECKPOINT_FORMATS else [Path(self.located.path)]
        if self.located.format in (*CHECKPOINT_FORMATS, "meta-graph") and self.checkpoint is not None:
            files += self.checkpoint.files()
        return files

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(path.stat().st_size for path in self.files if path.is_file())

    @cached_property
    def checkpoint(self) -> CheckpointReader | None:
        """The checkpoint that it is, or that lies beside it; None where there is none."""
        located = self.located
        if located.format in CHECKPOINT_FORMATS:
            return _open_checkpoint(located, self._limits)
        if located.checkpoint is not None:
            return _open_checkpoint(detect.locate(located.checkpoint, self._limits), self._limits)
        return None

    @cached_property
    def keras(self) -> KerasH5 | KerasZip | None:
        """What a Keras file says besides its tensors, or None for other formats."""
        if self.located.format in ("keras-h5", "keras-weights"):
            from tfthaw.formats.keras_h5 import read_keras_h5

            return read_keras_h5(self.located.path, self._limits)
        if self.located.format == "keras-zip":
            from tfthaw.formats.keras_zip import read_keras_zip

            return read_keras_zip(self.located.path, self._limits)
        return None

    @cached_property
    def variables(self) -> Mapping[str, Tensor]:
        """Every tensor by its key; empty for a graph that has no checkpoint.

        Where there is an object graph, variables are found by their readable paths as well (`dense/kernel` for
        `layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE`); `objects` lists both.
        """
        if self.checkpoint is None or not (self.checkpoint.is_object_based or self.located.format == "saved-model"):
            return self.tensors
        from tfthaw.serde.object_views import NamedTensors

        return NamedTensors(self.tensors, self._paths_by_key, self.path)

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by its key, and by no other name; empty for a graph that has no checkpoint."""
        if self.checkpoint is not None:
            return self.checkpoint.tensors
        if self.keras is not None:
            return self.keras.tensors
        if self.located.format == "safetensors":
            from tfthaw.formats.safetensors import read_safetensors

            return read_safetensors(self.located.path, self._limits).tensors
        if self.located.format == "npz":
            from tfthaw.formats.npz import read_npz

            return read_npz(self.located.path, self._limits).tensors
        return {}

    def objects(self, tags: Sequence[str] | None = None) -> Objects | None:
        """Return the objects of a TensorFlow 2 SavedModel or object-based checkpoint; None where there are none.

        Args:
            tags: The tag set of the MetaGraph to look at, where a SavedModel has several.

        Raises:
            NotFoundError: No MetaGraph has these tags.
            FormatError: The file is damaged.
        """
        graph = self.model(tags).object_graph if self.located.format == "saved-model" else None
        if id(graph) not in self._objects:
            view = None
            checkpoint = self.checkpoint
            if graph is not None or (checkpoint is not None and checkpoint.is_object_based):
                from tfthaw.serde.object_views import view_objects  # only TensorFlow 2 has objects

                metadata = self._directory.keras_metadata if self._directory is not None else None
                view = view_objects(graph, checkpoint, metadata, self._limits)
            self._objects[id(graph)] = view  # the models are kept, so that the number stays the graph's own
        return self._objects[id(graph)]

    @cached_property
    def tag_sets(self) -> list[list[str]]:
        """The tag sets of a SavedModel; empty for other formats."""
        if self.located.format != "saved-model":
            return []
        return [list(meta.meta_info_def.tags) for meta in self._file.message.meta_graphs]

    @property
    def signatures(self) -> dict[str, Signature]:
        """The signatures of the graph, or of the MetaGraph that is taken where no tags are given."""
        return self.model().signatures if self.has_graph else {}

    @property
    def producer(self) -> Producer:
        """Who wrote it, as far as it says."""
        return self.model().producer if self.has_graph else Producer()

    def model(self, tags: Sequence[str] | None = None) -> Model:
        """Return the graph with all that surrounds it.

        Args:
            tags: The tag set of the MetaGraph to take from a SavedModel.

        Raises:
            UnsupportedError: The format carries no graph.
            NotFoundError: No MetaGraph has these tags.
            FormatError: The file is damaged.
        """
        with naming(self.path):
            if self.located.format == "saved-model":
                position = choose_meta_graph(self._file.message, tags, path=self.located.path)
                if position not in self._models:
                    self._models[position] = self._saved_model(position)
                return self._models[position]
            if tags:
                raise UsageError(f"tags choose a MetaGraph of a SavedModel, this is {self.located.format}")
            return self._only_model

    def close(self) -> None:
        """Close the files; tensors that were not read yet can no longer be."""
        if "checkpoint" in self.__dict__ and self.checkpoint is not None:
            self.checkpoint.close()

    def __enter__(self) -> Artifact:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Artifact({self.path!r}, {self.located.format!r})"

    def _paths_by_key(self) -> Mapping[str, str]:
        """Return the readable path of each checkpoint key; nothing where several MetaGraphs leave it open."""
        try:
            view = self.objects()
        except TfthawError:  # keys can be read all the same
            return {}
        return {} if view is None else view.paths_by_key()

    @cached_property
    def _objects(self) -> dict[int, Objects | None]:
        return {}

    @cached_property
    def _models(self) -> dict[int, Model]:
        return {}

    @cached_property
    def _directory(self) -> SavedModelDirectory | None:
        return find_saved_model(self.located.path) if self.located.format == "saved-model" else None

    @cached_property
    def _file(self) -> Any:
        """The message file of a graph format."""
        path = self.located.path
        from tfthaw.formats.graph_def import read_graph_def
        from tfthaw.formats.meta_graph import read_meta_graph

        if self.located.meta_graph is not None:
            return read_meta_graph(self.located.meta_graph, self._limits)
        if self.located.format == "saved-model" and self._directory is not None:
            return read_saved_model(self._directory.message, self._limits)
        if self.located.format == "meta-graph":
            return read_meta_graph(path, self._limits)
        if self.located.format == "graph-def":
            return read_graph_def(path, self._limits)
        raise UnsupportedError(
            f"{self.located.format} carries no graph", path=path,
            hint="give the graph too: its .meta or GraphDef as source, with --checkpoint; or the model's Python, with "
            "--code",
        )  # fmt: skip

    @cached_property
    def _only_model(self) -> Model:
        from tfthaw.serde.meta_graphs import model_from_graph_def, model_from_proto

        file = self._file
        if self.located.format == "graph-def":
            model = model_from_graph_def(file.message, file.contents)
        else:
            model = model_from_proto(file.message, file.contents)
            model.values = self.tensors
        model.notes += file.notes
        return model

    def _saved_model(self, position: int) -> Model:
        from tfthaw.serde.meta_graphs import model_from_proto

        message = self._file.message.meta_graphs[position]
        model = model_from_proto(message, self._file.contents)
        model.values = self.tensors
        model.notes += self._file.notes
        if self._directory is not None:
            sources = asset_paths(message, self._directory)
            if not model.assets:
                listed = asset_defs(message, self.located.path)
                model.assets = [Asset(item.tensor_info.name, item.filename) for item in listed]
            for asset in model.assets:
                asset.source = sources.get(asset.tensor)
        return model


def open_artifact(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, *, is_checkpoint: bool = False
) -> Artifact:
    """Open any artifact by any of its spellings; nothing but what tells its format is read.

    Args:
        path: A SavedModel directory or its `saved_model.pb`; a checkpoint's prefix, directory or any of its files; a
            `.meta`, `.pb` or `.pbtxt`; a Keras file; `.safetensors`; `.npz`.
        limits: Bounds against hostile files.
        is_checkpoint: Whether the path is meant as a checkpoint; see `detect.locate`.

    Raises:
        NotFoundError: There is nothing.
        UnknownFormatError: It is none of the formats.
        FormatError: It is damaged.
    """
    return Artifact(detect.locate(path, limits, is_checkpoint=is_checkpoint), os.fspath(path), limits)


def _open_checkpoint(located: detect.Located, limits: Limits) -> CheckpointReader:
    if located.format == "checkpoint-v1":
        from tfthaw.formats.tensor_slices import TensorSlicesReader

        return TensorSlicesReader(located.path, limits)
    return BundleReader(located.path, limits)
