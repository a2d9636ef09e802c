"""Layers, models and metrics of Keras, as the metadata in a SavedModel describe them.

Source: keras/src/saving/legacy/saved_model/ of tf.keras 2.4 to 2.15.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class KerasLayer:
    """What Keras says of one of its objects.

    Attributes:
        node: The object in the object graph.
        identifier: What kind of object, such as `_tf_keras_layer`, `_tf_keras_sequential`, `_tf_keras_metric`.
        class_name: Its class, or None where the metadata do not say.
        name: Its name, or None.
        config: What its class makes it from, or None where the metadata have none.
        metadata: All that the metadata say.
    """

    node: int
    identifier: str
    class_name: str | None
    name: str | None
    config: Mapping[str, Any] | None
    metadata: Mapping[str, Any]


def keras_layer(node: int, identifier: str, metadata: Mapping[str, Any]) -> KerasLayer:
    """Return the layer that metadata describe; what is not of the type that it should be is left out."""
    config = metadata.get("config")
    class_name, name = metadata.get("class_name"), metadata.get("name")
    if not isinstance(name, str) and isinstance(config, Mapping):
        name = config.get("name")
    return KerasLayer(
        node,
        identifier,
        class_name if isinstance(class_name, str) else None,
        name if isinstance(name, str) else None,
        config if isinstance(config, Mapping) else None,
        metadata,
    )
