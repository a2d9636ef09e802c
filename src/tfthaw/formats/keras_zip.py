"""Keras 3 models: `.keras` archives.

    | member              | what                                                                 |
    | ------------------- | -------------------------------------------------------------------- |
    | `metadata.json`     | `keras_version` and `date_saved`                                     |
    | `config.json`       | the model's configuration: classes and arguments, no weights         |
    | `model.weights.h5`  | the weights as HDF5, stored uncompressed by Keras (see `keras_h5`)   |
    | `model.weights.npz` | instead of it, where h5py was not installed when the model was saved |
    | `assets/...`        | vocabularies and the like of preprocessing layers                    |

Weights that are stored uncompressed are read where they lie in the archive; compressed ones are inflated once into an
anonymous temporary file. Either way the CRC-32 of the archive is compared in one pass before any tensor is given, which
takes a second for two gigabytes: HDF5 has no checksum of its own that would show a flipped bit later.

The configuration is JSON and no more: no class is looked up, no bytecode unmarshalled. Nothing is unpacked to a path
that the archive names.

Source: keras/src/saving/saving_lib.py of Keras 3.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tfthaw._files import FileSlice, SourceFile
from tfthaw.errors import FormatError, LimitError, UnsupportedError
from tfthaw.formats.keras_h5 import lambda_layers, parse_config, read_keras_h5_slice
from tfthaw.formats.zip_archive import ZipArchive, ZipMember
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.tensors import Tensor

CONFIG_MEMBER = "config.json"
METADATA_MEMBER = "metadata.json"
WEIGHTS_MEMBER = "model.weights.h5"
_NPZ_WEIGHTS_MEMBER = "model.weights.npz"
_ASSETS = "assets/"


@dataclass(frozen=True)
class KerasZip:
    """What a `.keras` archive says.

    Attributes:
        path: The archive.
        tensors: Every dataset of the weights by its path in them, optimizer state too; read when asked for.
        config: The model's configuration.
        metadata: The content of `metadata.json`.
        keras_version: The writer's version.
        optimizer_keys: The tensors that belong to the optimizer.
        assets: Paths of the asset files in the archive.
        lambdas: Names of the layers with Python code in their configuration.
        archive: The archive, for reading the assets.
        part: The range that is the HDF5 file of the weights.
    """

    path: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    keras_version: str | None
    optimizer_keys: tuple[str, ...]
    assets: tuple[str, ...]
    lambdas: tuple[str, ...]
    archive: ZipArchive
    part: FileSlice


def read_keras_zip(path: str, limits: Limits = DEFAULT_LIMITS) -> KerasZip:
    """Read a `.keras` archive; the tensors stay where they are.

    Costs one pass over the weights, to compare their CRC-32.

    Args:
        path: The archive.
        limits: What to accept.

    Raises:
        MissingDependencyError: h5py is not installed.
        FormatError: It is no such archive, or it is damaged.
        ChecksumError: A member's CRC-32 differs.
        UnsafePathError: A path, a link or a dataset leads out of the archive.
        LimitError: Something claims more bytes than the file can make.
        UnsupportedError: The archive is encrypted, or its weights are a pickled npz.
    """
    source = SourceFile(path)
    archive = ZipArchive(source, limits)
    config = _json_member(archive, CONFIG_MEMBER, limits)
    metadata = _json_member(archive, METADATA_MEMBER, limits)
    weights = read_keras_h5_slice(_weights(archive, limits), limits)
    version = metadata.get("keras_version")
    return KerasZip(
        path=source.path,
        tensors=weights.tensors,
        config=MappingProxyType(config),
        metadata=MappingProxyType(metadata),
        keras_version=version if isinstance(version, str) else None,
        optimizer_keys=weights.optimizer_keys,
        assets=tuple(name for name in archive.members if name.startswith(_ASSETS)),
        lambdas=lambda_layers(config),
        archive=archive,
        part=weights.part,
    )


def _json_member(archive: ZipArchive, name: str, limits: Limits) -> dict[str, Any]:
    member = _member(archive, name)
    try:
        text = archive.read(member, limits.max_block_bytes).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"it is not UTF-8: {error}", path=archive.source.path, where=f"member {name!r}") from error
    return parse_config(text, f"member {name!r}", archive.source.path, limits)


def _member(archive: ZipArchive, name: str) -> ZipMember:
    if name not in archive.members:
        raise FormatError(
            f"a .keras archive has a member {name!r}, this one has {sorted(archive.members)[:5]}",
            path=archive.source.path, hint="this is another kind of zip archive",
        )  # fmt: skip
    return archive.members[name]


def _weights(archive: ZipArchive, limits: Limits) -> FileSlice:
    """Return the checked range that holds the HDF5 file."""
    if WEIGHTS_MEMBER not in archive.members and _NPZ_WEIGHTS_MEMBER in archive.members:
        raise UnsupportedError(
            f"its weights are in {_NPZ_WEIGHTS_MEMBER}, where Keras keeps them as pickled Python objects",
            path=archive.source.path, hint="save the model again with h5py installed",
        )  # fmt: skip
    member = _member(archive, WEIGHTS_MEMBER)
    if not member.deflated:
        archive.check(member)
        return archive.slice(member)
    if member.nbytes > limits.max_tensor_bytes:
        raise LimitError(f"{member.nbytes} bytes, at most {limits.max_tensor_bytes} are allowed",
                         path=archive.source.path, where=f"member {member.name!r}")  # fmt: skip
    with tempfile.NamedTemporaryFile(prefix="tfthaw-") as temporary:
        for chunk in archive.chunks(member):
            temporary.write(chunk.data)
        temporary.flush()
        inflated = SourceFile(temporary.name)  # keeps the file after its name is gone
    inflated.path = f"{archive.source.path}/{WEIGHTS_MEMBER}"  # what errors shall say
    return inflated.slice()
