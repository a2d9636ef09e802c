"""Write Keras files: HDF5 with or without the model's configuration, and `.keras` archives."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfthaw._files import CHUNK_BYTES, FileSlice, Progress, SourceFile
from tfthaw._new_files import new_file
from tfthaw._optional import require
from tfthaw.dtypes import DType
from tfthaw.export.delivery import Delivery
from tfthaw.formats.hdf5_writer import HDF5Contents, Text, require_writable, write_hdf5
from tfthaw.formats.keras_zip import CONFIG_MEMBER, METADATA_MEMBER, WEIGHTS_MEMBER
from tfthaw.tensors import Tensor

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same archive


@dataclass(frozen=True)
class KerasContents:
    """What a Keras file shall hold.

    Attributes:
        tensors: The datasets by their paths.
        attributes: Path of a group -> its attributes.
        config: Of a `.keras` archive: the model's configuration.
        metadata: Of a `.keras` archive: who wrote the model.
        assets: Of a `.keras` archive: path in it -> content.
    """

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Mapping[str, Text]] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    assets: Mapping[str, bytes] = field(default_factory=dict)


def write_keras(contents: KerasContents, path: str | os.PathLike[str], delivery: Delivery) -> list[Path]:
    """Write a Keras file: an archive where there is a configuration for one, else HDF5.

    Returns:
        The files that were written.

    Raises:
        MissingDependencyError: h5py is not installed.
        UnsupportedError: The format cannot hold some of the tensors; with all of them.
        OutputExistsError: The file is there and may not be replaced.
    """
    require("h5py", extra="keras", purpose="write HDF5 files")
    require_writable(contents.tensors, contents.attributes)
    with new_file(path, overwrite=delivery.overwrite, check=delivery.check) as file:
        if contents.config is None:
            write_hdf5(file.name, _hdf5(contents), delivery.progress)
        else:
            _write_archive(contents, file.name, delivery.progress)
    return [Path(path)]


def _hdf5(contents: KerasContents) -> HDF5Contents:
    """Return the HDF5 file; Keras finds bfloat16, which HDF5 does not know, by an attribute."""
    attributes = {path: dict(values) for path, values in contents.attributes.items() if path not in contents.tensors}
    for name, tensor in contents.tensors.items():
        if tensor.dtype is DType.bfloat16:
            attributes[name] = {"dtype": "bfloat16"}
    return HDF5Contents(contents.tensors, attributes)


def _write_archive(contents: KerasContents, path: str, progress: Progress | None) -> None:
    """Write the archive; the weights lie beside it for a moment, since HDF5 cannot be written as a stream."""
    with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=f"{Path(path).name}-") as folder:
        weights = Path(folder, WEIGHTS_MEMBER)
        write_hdf5(weights, _hdf5(contents), progress)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, document in ((METADATA_MEMBER, contents.metadata), (CONFIG_MEMBER, contents.config)):
                archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), json.dumps(document))
            for name, content in contents.assets.items():
                archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)
            _copy_member(archive, WEIGHTS_MEMBER, SourceFile(str(weights)).slice())


def _copy_member(archive: zipfile.ZipFile, name: str, part: FileSlice) -> None:
    info = zipfile.ZipInfo(name, _ZIP_EPOCH)
    info.file_size = part.length  # so that a large one gets the wide fields that it needs
    with archive.open(info, "w") as member:
        for chunk in part.chunks(CHUNK_BYTES):
            member.write(chunk.data)
