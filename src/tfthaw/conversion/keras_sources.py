"""What an artifact says of a Keras model: its configuration, its values, and how these are laid out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, UnsupportedError
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY
from tfthaw.formats.hdf5_writer import Text
from tfthaw.formats.keras_h5 import KerasH5, parse_config
from tfthaw.formats.keras_zip import CONFIG_MEMBER, METADATA_MEMBER, KerasZip
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.limits import DEFAULT_LIMITS
from tfthaw.restore.keras_layouts import (
    Located,
    locate_legacy,
    locate_objects,
    locate_saved,
    object_optimizer,
    saved_optimizer,
)
from tfthaw.restore.keras_tree import KerasLayer, keras_tree
from tfthaw.serde.artifacts import Artifact
from tfthaw.tensors import Tensor

STRUCTURE_KEY = "tfthaw.keras"
"""Under which safetensors keep what a Keras file has besides its datasets."""

_OPTIMIZER_GROUP = "optimizer_weights"


@dataclass
class KerasSource:
    """A Keras model, or values of one.

    Attributes:
        path: The artifact, for errors.
        layout: `saved`, `legacy` or `objects` (see `tfthaw.restore.keras_layouts`), or `names` for values whose names
            are none of these.
        generation: 3 for Keras 3, 2 for Keras 2 and tf_keras, 1 for Keras 1.
        tensors: The values by name; arrays of numbers only.
        config: The model's configuration, or None.
        attributes: The attributes of the groups of an HDF5 file.
        metadata: Of a `.keras` archive: who wrote it.
        assets: Of a `.keras` archive: path in it -> content.
        objects: The object graph of a checkpoint.
    """

    path: str
    layout: str
    generation: int
    tensors: dict[str, Tensor]
    config: Mapping[str, Any] | None = None
    attributes: dict[str, dict[str, Text]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    assets: dict[str, bytes] = field(default_factory=dict)
    objects: TrackableObjectGraph | None = None

    @property
    def root(self) -> str:
        """The group of the model's weights in a legacy file, with a slash at the end where it is not the root."""
        return "model_weights/" if "layer_names" not in _joined(self.attributes.get("", {})) else ""

    def tree(self, generation: int | None = None) -> KerasLayer:
        """Return the model's layers.

        Raises:
            UnsupportedError: There is no configuration, or it is one of Keras 1.
            StructureError: The configuration contradicts itself.
        """
        if self.config is None:
            raise UnsupportedError(
                "the model's configuration, which tells the order and the classes of its layers, is not in it",
                path=self.path, hint="give the model's .keras or .h5 as source, and the values with --checkpoint",
            )  # fmt: skip
        if self.generation < 2:
            raise UnsupportedError(
                "Keras 1 made other variables of the same layers; its models can only keep their layout",
                path=self.path, hint="load it in Keras 2 once, and save it again",
            )  # fmt: skip
        return keras_tree(self.config, generation or self.generation)

    def locate(self, config: KerasSource) -> Located:
        """Find the variables of a model among the values.

        Args:
            config: Who has the model's configuration.

        Raises:
            UnsupportedError: The names of the values are those of no layout.
        """
        every = [self._locate(config.tree(generation), generation) for generation in self._generations()]
        return max(every, key=lambda item: (item.count, -len(item.rest)))

    def _generations(self) -> tuple[int, ...]:
        return (3, 2) if self.generation >= 3 else (2, 3)

    def _locate(self, tree: KerasLayer, generation: int) -> Located:
        if self.layout == "saved":
            return locate_saved(tree, self.tensors)
        if self.layout == "legacy":
            return locate_legacy(tree, self.listed(), self.tensors, generation)
        if self.layout == "objects" and self.objects is not None:
            return locate_objects(tree, self.objects, self.tensors)
        raise UnsupportedError(
            "its names are neither those of a Keras file nor paths of objects, so that nothing tells which value is "
            "which variable", path=self.path, hint='a map says it: "name of the value" = "name of the variable"',
        )  # fmt: skip

    def listed(self) -> dict[str, list[str]]:
        """Return the datasets of each layer of a legacy file, in order."""
        names = _joined(self.attributes.get(self.root.rstrip("/"), {})).get("layer_names", [])
        result = {}
        for layer in names:
            listed = _joined(self.attributes.get(f"{self.root}{layer}", {})).get("weight_names", [])
            result[layer] = [f"{self.root}{layer}/{name}" for name in listed]
        return result

    def optimizer(self) -> list[str]:
        """Return the names of the optimizer's variables in its own order, where the layout tells that.

        In legacy files, optimizers of Keras before 2.11 keep their variables in an order that nothing else has.
        """
        if self.layout == "saved":
            return saved_optimizer(self.tensors)
        if self.layout == "objects":
            return object_optimizer(self.objects) if self.objects is not None else []
        names = _joined(self.attributes.get(_OPTIMIZER_GROUP, {})).get("weight_names", [])
        is_new = self.generation >= 3 or (names and names[0].rpartition("/")[2] == "iteration:0")
        listed = [f"{_OPTIMIZER_GROUP}/{name}" for name in names]
        return listed if is_new and all(name in self.tensors for name in listed) else []

    def structure(self) -> str:
        """Return what besides the datasets is in a Keras file, as text."""
        document: dict[str, Any] = {"layout": self.layout, "attributes": self.attributes}
        if self.metadata:
            document |= {METADATA_MEMBER: dict(self.metadata), CONFIG_MEMBER: dict(self.config or {})}
        return json.dumps(document)


def read_keras_source(artifact: Artifact) -> KerasSource:
    """Read what an artifact says of a Keras model.

    Raises:
        UnsupportedError: It holds no values.
    """
    every = dict(artifact.variables)
    tensors = {name: tensor for name, tensor in every.items()
               if tensor.dtype not in (DType.string, DType.variant, DType.resource)}  # fmt: skip
    if not tensors:
        raise UnsupportedError(f"this {artifact.format} carries no weights", path=artifact.path)
    keras = artifact.keras
    if isinstance(keras, KerasZip):
        return _from_archive(artifact.path, keras, tensors)
    if keras is not None:
        return _from_hdf5(artifact.path, keras, tensors)
    if OBJECT_GRAPH_KEY in every:
        return _from_objects(artifact, tensors)
    if artifact.format == "safetensors":
        from tfthaw.formats.safetensors import read_safetensors

        text = read_safetensors(artifact.located.path).metadata.get(STRUCTURE_KEY)
        if text is not None:
            return _from_structure(artifact.path, text, tensors)
    return KerasSource(artifact.path, layout_of(tensors), 3, tensors)


def layout_of(names: Iterable[str]) -> str:
    """Return the layout of values of which nothing but their names is known."""
    return "saved" if all(name.rpartition("/")[0].endswith("vars") for name in names) else "names"


def _from_hdf5(path: str, keras: KerasH5, tensors: dict[str, Tensor]) -> KerasSource:
    from tfthaw.formats.hdf5 import read_text_attributes

    attributes: dict[str, dict[str, Text]] = {
        group: dict(texts) for group, texts in read_text_attributes(keras.part).items() if group not in tensors
    }
    is_legacy = keras.kind == "keras-h5"
    generation = _generation(keras.keras_version) if is_legacy else _saved_generation(attributes)
    return KerasSource(path, "legacy" if is_legacy else "saved", generation, tensors, keras.config, attributes)


def _from_archive(path: str, keras: KerasZip, tensors: dict[str, Tensor]) -> KerasSource:
    from tfthaw.formats.hdf5 import read_text_attributes

    attributes: dict[str, dict[str, Text]] = {
        group: dict(texts) for group, texts in read_text_attributes(keras.part).items() if group not in tensors
    }
    archive = keras.archive
    assets = {name: archive.read(archive.members[name], DEFAULT_LIMITS.max_block_bytes) for name in keras.assets}
    return KerasSource(path, "saved", _generation(keras.keras_version, "3"), tensors, dict(keras.config), attributes,
                       dict(keras.metadata), assets)  # fmt: skip


def _from_objects(artifact: Artifact, tensors: dict[str, Tensor]) -> KerasSource:
    objects = artifact.objects()
    stored = objects.stored if objects is not None else None
    config = None
    if objects is not None and 0 in objects.layers and objects.layers[0].config is not None:
        layer = objects.layers[0]
        config = {"class_name": layer.class_name, "config": layer.config}
    is_new = any("_operations/" in name or name.startswith("_functional/") for name in tensors)
    return KerasSource(artifact.path, "objects", 3 if is_new and config is None else 2, tensors, config, objects=stored)


def _from_structure(path: str, text: str, tensors: dict[str, Tensor]) -> KerasSource:
    """Read the structure that another conversion put into safetensors."""
    document = parse_config(text, f"metadata {STRUCTURE_KEY!r}", path)
    layout, attributes = document.get("layout"), document.get("attributes")
    is_sound = layout in ("saved", "legacy") and isinstance(attributes, dict) and all(
        isinstance(texts, dict) and all(_is_text(value) for value in texts.values()) for texts in attributes.values()
    )  # fmt: skip
    config, metadata = document.get(CONFIG_MEMBER), document.get(METADATA_MEMBER, {})
    if not is_sound or not isinstance(metadata, dict) or not isinstance(config, dict | None):
        raise FormatError("it is no structure of a Keras file", path=path, where=f"metadata {STRUCTURE_KEY!r}")
    assert isinstance(attributes, dict)
    root = attributes.get("", {})
    if config is None and isinstance(root.get("model_config"), str):
        config = parse_config(root["model_config"], "model_config", path)
    version = metadata.get("keras_version") or _version(attributes)
    generation = _saved_generation(attributes) if layout == "saved" and config is None else _generation(version)
    return KerasSource(path, str(layout), generation, tensors, config, attributes, metadata)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _version(attributes: Mapping[str, Mapping[str, Text]]) -> str | None:
    for group in ("", "model_weights"):
        version = attributes.get(group, {}).get("keras_version")
        if isinstance(version, str):
            return version
    return None


def _generation(version: str | None, default: str = "1") -> int:
    """Return which Keras wrote a file; the first one did not say so."""
    head = (version or default).partition(".")[0]
    return min(3, int(head)) if head.isdecimal() else 1


def _saved_generation(attributes: Mapping[str, Mapping[str, Text]]) -> int:
    """Return which Keras wrote a file without version: the third one keeps the names of layers."""
    return 3 if any("name" in texts for group, texts in attributes.items() if group.endswith("vars")) else 2


def _joined(attributes: Mapping[str, Text]) -> dict[str, list[str]]:
    """Return the lists among the attributes of a group; long ones are split over `name0`, `name1` and so on."""
    result = {name: list(value) for name, value in attributes.items() if not isinstance(value, str)}
    for name in ("layer_names", "weight_names"):
        pieces: list[str] = []
        number = 0
        while f"{name}{number}" in result and name not in attributes:
            pieces += result[f"{name}{number}"]
            number += 1
        if number:
            result[name] = pieces
    return result


def optimizer_names(source: KerasSource) -> set[str]:
    """Return the names of the optimizer's variables, whatever their order."""
    if source.layout == "saved":
        return set(saved_optimizer(source.tensors))
    return {name for name in source.tensors if name.startswith(f"{_OPTIMIZER_GROUP}/")}
