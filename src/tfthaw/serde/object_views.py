"""Views of object graphs with what lies beside them: checkpoint keys, Keras metadata, and tensors by readable path.

Source: saved_metadata.proto of tf.keras; `_CHECKPOINTABLE_OBJECT_GRAPH` of tensorflow/python/checkpoint/checkpoint.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, NotFoundError, TfthawError
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY, CheckpointReader
from tfthaw.formats.saved_model import read_keras_metadata
from tfthaw.ir.keras_layers import KerasLayer, keras_layer
from tfthaw.ir.object_graph import VALUE_KEY, ObjectGraph, TrackableObjectGraph, UserObject
from tfthaw.ir.object_tree import ObjectTree
from tfthaw.ir.object_variables import ObjectVariable, checkpoint_variables, object_variables
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.serde.object_parts import count_parts
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_from_proto
from tfthaw.tensors import Tensor

_KERAS_PREFIX = "_tf_keras_"


@dataclass(frozen=True)
class Objects:
    """The objects of an artifact.

    Attributes:
        graph: The object graph of the SavedModel, or None for a checkpoint.
        stored: The object graph of the checkpoint, or None where there is none.
        tree: The readable paths of the objects, by their numbers in `graph` (of a checkpoint: in `stored`).
        variables: The variables.
        layers: What Keras says of its objects, by object.
        notes: What could not be read, one sentence each.
    """

    graph: ObjectGraph | None
    stored: TrackableObjectGraph | None
    tree: ObjectTree
    variables: list[ObjectVariable]
    layers: dict[int, KerasLayer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def paths_by_key(self) -> dict[str, str]:
        """Return the readable path of each variable that has a checkpoint key."""
        return {item.key: item.path for item in self.variables if item.key is not None and item.path is not None}


def read_stored_graph(checkpoint: CheckpointReader) -> TrackableObjectGraph | None:
    """Return the object graph of a checkpoint, or None where it is name-based.

    Raises:
        FormatError: It does not decode.
    """
    if not checkpoint.is_object_based:
        return None
    tensor = checkpoint.tensors[OBJECT_GRAPH_KEY]
    if tensor.dtype is not DType.string or tensor.size != 1:
        raise FormatError(
            f"the object graph is {tensor.dtype.name}{list(tensor.shape)}, expected one string",
            path=checkpoint.path, where=OBJECT_GRAPH_KEY,
        )  # fmt: skip
    data = tensor.numpy().reshape(-1)[0]
    message = proto.parse(proto.TrackableObjectGraph, data, path=checkpoint.path, where=OBJECT_GRAPH_KEY)
    return trackable_object_graph_from_proto(message)


def view_objects(graph: ObjectGraph | None, checkpoint: CheckpointReader | None, keras_metadata: Path | None = None,
                 limits: Limits = DEFAULT_LIMITS) -> Objects | None:
    """Look at the objects of a SavedModel, or of a checkpoint.

    What is damaged beside the object graph is left out and noted.

    Args:
        graph: The object graph of a SavedModel, or None.
        checkpoint: The checkpoint, or the one that belongs to the SavedModel, or None.
        keras_metadata: `keras_metadata.pb`, where the SavedModel has one.
        limits: Bounds against hostile files.

    Returns:
        The objects, or None where there is no object graph.
    """
    notes: list[str] = []
    stored = None
    if checkpoint is not None:
        try:
            stored = read_stored_graph(checkpoint)
        except TfthawError as error:
            notes.append(f"the object graph of the checkpoint cannot be read: {error}")
    for each, what in ((graph, "the object graph"), (stored, "the object graph of the checkpoint")):
        if each is not None and (count := count_parts(each.nodes)) > limits.max_objects:
            notes.append(f"{what} has {count} objects and edges, {limits.max_objects} are looked at: it is left out")
            return Objects(None, None, ObjectTree([], {}), [], {}, notes)
    if graph is not None:
        layers = _read_layers(graph, keras_metadata, notes, limits)
        names = {node: layer.name for node, layer in layers.items() if layer.name}
        tree, variables = object_variables(graph, stored, names)
        return Objects(graph, stored, tree, variables, layers, notes)
    if stored is not None:
        tree, variables = checkpoint_variables(stored)
        return Objects(None, stored, tree, variables, {}, notes)
    return Objects(None, None, ObjectTree([], {}), [], {}, notes) if notes else None


def _read_layers(graph: ObjectGraph, keras_metadata: Path | None, notes: list[str],
                 limits: Limits) -> dict[int, KerasLayer]:
    """Return what Keras says of its objects: in the file beside the model, before TensorFlow 2.5 in the objects."""
    texts: dict[int, tuple[str, str]] = {}
    for node, item in enumerate(graph.nodes):
        kind = item.kind
        if isinstance(kind, UserObject) and kind.metadata and kind.identifier.startswith(_KERAS_PREFIX):
            texts[node] = (kind.identifier, kind.metadata)
    if keras_metadata is not None:
        try:
            message = read_keras_metadata(keras_metadata, limits)
            texts |= {entry.node_id: (entry.identifier, entry.metadata) for entry in message.nodes}
        except TfthawError as error:
            notes.append(f"the metadata of Keras cannot be read: {error}")
    layers, unread = {}, []
    for node, (identifier, text) in texts.items():
        metadata = _json(text)
        if metadata is None:
            unread.append(str(node))
        elif 0 <= node < len(graph.nodes):
            layers[node] = keras_layer(node, identifier, metadata)
    if unread:
        notes.append(f"the Keras metadata of {len(unread)} objects are no JSON objects: {', '.join(unread[:3])}")
    return layers


def _json(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # so deep that no layer has it
        return None
    return value if isinstance(value, dict) else None


class NamedTensors(Mapping[str, Tensor]):
    """The tensors of a checkpoint: named by their keys, found by readable paths as well.

    Args:
        tensors: The tensors by key.
        paths: Gives the readable path of each key; asked when a name is no key.
        source: The artifact, for errors.
    """

    def __init__(self, tensors: Mapping[str, Tensor], paths: Callable[[], Mapping[str, str]], source: str) -> None:
        self._tensors = tensors
        self._paths = paths
        self._source = source
        self._keys: dict[str, str] | None = None

    def key(self, name: str) -> str:
        """Return the checkpoint key that a key, a readable path, or a key without its ending means.

        Raises:
            NotFoundError: It is none of these.
        """
        found = self._find(name)
        if found is None:
            raise NotFoundError.named("tensor", name, [*self._tensors, *(self._keys or {})], path=self._source)
        return found

    def _find(self, name: str) -> str | None:
        if name in self._tensors:
            return name
        if self._keys is None:
            self._keys = {path: key for key, path in self._paths().items() if key in self._tensors}
        if name in self._keys:
            return self._keys[name]
        return f"{name}{VALUE_KEY}" if f"{name}{VALUE_KEY}" in self._tensors else None

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self.key(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
