"""Keras models and weights in HDF5: `.h5`, `.hdf5`, `.weights.h5`.

Three layouts, told apart by what is there:

    | layout           | kind            | where the weights are                | what else                          |
    | ---------------- | --------------- | ------------------------------------ | ---------------------------------- |
    | model            | `keras-h5`      | `model_weights/<layer>/<weight>`,    | `model_config`, `training_config`  |
    |                  |                 | `optimizer_weights/...`              | as JSON, `keras_version`, `backend` |
    | weights, legacy  | `keras-h5`      | `<layer>/<weight>`                   | `layer_names`, `weight_names`      |
    | weights, Keras 3 | `keras-weights` | `layers/<layer>/vars/<n>` or         | nothing; also inside `.keras`      |
    |                  |                 | `_layer_checkpoint_dependencies/...` |                                    |

An HDF5 file with none of these is `keras-weights` too: datasets and nothing else. A tensor's name is the path of its
dataset. The file hardly has checksums, so that a flipped bit in the weights cannot be seen (see `hdf5`).

The configuration is parsed as JSON and no more: the Python bytecode of a Lambda layer is named, never unmarshalled, and
no class is looked up.

Source: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py of Keras 3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from tfthaw._files import FileSlice, SourceFile
from tfthaw.errors import FormatError, LimitError
from tfthaw.formats.hdf5 import open_hdf5, read_datasets, read_texts
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Tensor

_OPTIMIZER_GROUPS = ("optimizer_weights/", "optimizer/", "_optimizer/")


@dataclass(frozen=True)
class KerasH5:
    """What a Keras HDF5 file says.

    Attributes:
        path: The file.
        kind: The layout, as a format name.
        tensors: Every dataset by its path in the file, optimizer state too; read when asked for.
        config: The model's configuration; None where there are only weights.
        training_config: Loss, metrics and optimizer of `compile`.
        keras_version: The writer's version, as written.
        backend: The backend that Keras ran on, such as `tensorflow` or `theano`.
        optimizer_keys: The tensors that belong to the optimizer.
        layer_weights: For the legacy layouts: each layer's datasets in the order in which Keras assigns them.
        lambdas: Names of the layers with Python code in their configuration.
        part: The range that is the HDF5 file.
    """

    path: str
    kind: Literal["keras-h5", "keras-weights"]
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] | None
    training_config: Mapping[str, Any] | None
    keras_version: str | None
    backend: str | None
    optimizer_keys: tuple[str, ...]
    layer_weights: Mapping[str, tuple[str, ...]]
    lambdas: tuple[str, ...]
    part: FileSlice


def read_keras_h5(path: str, limits: Limits = DEFAULT_LIMITS) -> KerasH5:
    """Read the structure of a Keras HDF5 file; the tensors stay where they are.

    Args:
        path: The file.
        limits: What to accept.

    Raises:
        MissingDependencyError: h5py is not installed.
        FormatError: It is no HDF5 file, it is damaged, or its configuration is no JSON.
        UnsafePathError: A link or a dataset leads out of the file.
        LimitError: Something claims more bytes than the file can make.
    """
    return read_keras_h5_slice(SourceFile(path).slice(), limits)


def read_keras_h5_slice(part: FileSlice, limits: Limits = DEFAULT_LIMITS) -> KerasH5:
    """Read the structure of a Keras HDF5 file that is a range of another file; see `read_keras_h5`."""
    with open_hdf5(part) as file:
        tensors = read_datasets(file, part, limits)
        config = _json_attribute(file, "model_config", part, limits)
        training_config = _json_attribute(file, "training_config", part, limits)
        is_weights = read_texts(file, "layer_names", part) is not None
        root = "model_weights/" if config is not None and "model_weights" in file else ""
        layer_weights = _layer_weights(file, root, tensors, part)
        version, backend = (
            _first_text([file, file.get("model_weights", file)], name, part) for name in ("keras_version", "backend")
        )
    return KerasH5(
        path=part.file.path,
        kind="keras-h5" if config is not None or is_weights else "keras-weights",
        tensors=MappingProxyType(tensors),
        config=config,
        training_config=training_config,
        keras_version=version,
        backend=backend,
        optimizer_keys=tuple(name for name in tensors if name.startswith(_OPTIMIZER_GROUPS)),
        layer_weights=MappingProxyType(layer_weights),
        lambdas=lambda_layers(config),
        part=part,
    )


def lambda_layers(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names of the layers whose configuration holds Python code, which Keras would run on loading.

    Keras 2 keeps the bytecode of a Lambda layer's function under a type `lambda`, Keras 3 in an object of the class
    `__lambda__`. A function that is only named is no code.

    Args:
        config: The model's configuration.
    """
    found: dict[str, None] = {}
    pending: list[tuple[str, Any]] = [("model", config)]
    while pending:  # no recursion: the depth is the file's choice
        owner, value = pending.pop()
        if isinstance(value, Mapping):
            settings = value.get("config")
            if "class_name" in value and isinstance(settings, Mapping):
                owner = str(settings.get("name", owner))
            has_bytecode = any(str(key).endswith("_type") and kind == "lambda" for key, kind in value.items())
            if has_bytecode or value.get("class_name") == "__lambda__":
                found[owner] = None
            pending += [(owner, item) for item in reversed(list(value.values()))]
        elif isinstance(value, list):
            pending += [(owner, item) for item in reversed(value)]
    return tuple(found)


def parse_config(text: str, where: str, path: str, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """Parse a configuration as a JSON object, and as nothing else.

    Args:
        text: The JSON.
        where: Its place in the file.
        path: The file.
        limits: What to accept.

    Raises:
        FormatError: It is no JSON object.
        LimitError: It is too long.
    """
    if len(text) > limits.max_block_bytes:
        raise LimitError(f"{len(text)} characters, at most {limits.max_block_bytes} are allowed", path=path,
                         where=where)  # fmt: skip
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is not valid JSON: {error}", path=path, where=where) from error
    if not isinstance(value, dict):
        raise FormatError(f"expected a JSON object, found {type(value).__name__}", path=path, where=where)
    return value


def _json_attribute(node: Any, name: str, part: FileSlice, limits: Limits) -> dict[str, Any] | None:
    texts = read_texts(node, name, part)
    return None if texts is None else parse_config("".join(texts), f"attribute {name!r}", part.file.path, limits)


def _first_text(nodes: list[Any], name: str, part: FileSlice) -> str | None:
    """Return a short text attribute of the first node that has it; Keras 1 and 2 put them at different places."""
    for node in nodes:
        texts = read_texts(node, name, part)
        if texts:
            return texts[0]
    return None


def _layer_weights(file: Any, root: str, tensors: Mapping[str, Tensor], part: FileSlice) -> dict[str, tuple[str, ...]]:
    """Return each layer's datasets in the order that `layer_names` and `weight_names` give."""
    group = file[root] if root else file
    result = {}
    for layer in read_texts(group, "layer_names", part) or []:
        if layer not in group:
            raise FormatError("layer_names names a layer that is not there", path=part.file.path, where=root + layer)
        weights = read_texts(group[layer], "weight_names", part) or []
        names = tuple(f"{root}{layer}/{weight}" for weight in weights)
        missing = [name for name in names if name not in tensors]
        if missing:
            raise FormatError(f"weight_names names {missing[0]!r}, which is not there", path=part.file.path,
                              where=root + layer)  # fmt: skip
        result[layer] = names
    return result
