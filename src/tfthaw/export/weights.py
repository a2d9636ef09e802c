"""Write weights alone: `checkpoint`, `safetensors` and `npz`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tfthaw._files import Progress
from tfthaw._new_files import new_file, new_file_set
from tfthaw.export.delivery import Delivery
from tfthaw.formats.tensor_bundle import BundleWriter, written_names
from tfthaw.tensors import Tensor


def write_checkpoint(tensors: Mapping[str, Tensor], prefix: str | os.PathLike[str], delivery: Delivery) -> list[Path]:
    """Write a V2 checkpoint: `prefix.data-00000-of-00001` and `prefix.index`.

    Returns:
        The files that were written.

    Raises:
        OutputExistsError: One of the files is there and may not be replaced.
    """
    target = Path(prefix)
    names = written_names(target.name)
    with new_file_set(target.parent, names, overwrite=delivery.overwrite, check=delivery.check) as folder:
        write_bundle(tensors, folder, target.name, delivery.progress)
    return [target.with_name(name) for name in names]


def write_bundle(tensors: Mapping[str, Tensor], folder: Path, basename: str, progress: Progress | None) -> None:
    """Write the files of a checkpoint into a directory that is being made."""
    with BundleWriter(folder, basename) as writer:
        for key, tensor in tensors.items():
            writer.add(key, tensor)
            if progress is not None:
                progress(tensor.nbytes)


def write_weights_file(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str], delivery: Delivery, *, to: str,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:  # fmt: skip
    """Write one file of weights.

    Args:
        tensors: The tensors by name.
        path: The file.
        to: `safetensors` or `npz`.
        delivery: How to go about it.
        metadata: Text to keep beside the tensors, where the format can.

    Returns:
        The files that were written.

    Raises:
        UnsupportedError: The format cannot hold some of the tensors; with all of them.
        OutputExistsError: The file is there and may not be replaced.
    """
    with new_file(path, overwrite=delivery.overwrite, check=delivery.check) as file:
        if to == "safetensors":
            from tfthaw.formats.safetensors import write_safetensors

            write_safetensors(file, tensors, metadata, delivery.progress)
        else:
            from tfthaw.formats.npz import write_npz

            write_npz(file, tensors, progress=delivery.progress)
    return [Path(path)]
