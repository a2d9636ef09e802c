"""Write `saved-model`: one MetaGraph with signatures, Saver, assets and init op.

Without an object graph this is what TensorFlow 1 wrote; `tf.saved_model.load` and every server read it.

    saved_model.pb
    variables/variables.index, variables.data-00000-of-00001     where there are variables
    assets/...                                                    where there are assets
    fingerprint.pb                                                where there is an object graph
    keras_metadata.pb and its like                                where the source had them

Source: builder_impl.py and loader_impl.py of TensorFlow.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfthaw import proto
from tfthaw._files import SourceFile, resolve_inside
from tfthaw._new_files import new_directory
from tfthaw.errors import NotFoundError
from tfthaw.export.delivery import Delivery
from tfthaw.export.weights import write_bundle
from tfthaw.formats.saved_model import ASSETS_COLLECTION, LAYOUT
from tfthaw.formats.saved_model import write_saved_model as write_saved_model_file
from tfthaw.formats.wire import Contents
from tfthaw.ir.model import Model
from tfthaw.serde.meta_graphs import model_to_proto
from tfthaw.tensors import Tensor

SCHEMA_VERSION = 1
FINGERPRINT_VERSION = 4  # of TensorFlow 2.21


def write_saved_model(
    model: Model,
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    delivery: Delivery,
    beside: Sequence[Path] = (),
) -> list[Path]:
    """Write a SavedModel directory.

    Args:
        model: The model; its saver reads the keys of `tensors`.
        tensors: The tensors of its checkpoint by key.
        path: The directory.
        delivery: How to go about it.
        beside: Files and directories of the source to put into the directory as they are.

    Returns:
        The directory.

    Raises:
        NotFoundError: An asset file is missing.
        OutputExistsError: The directory is there and may not be replaced.
    """
    contents = Contents(model.payloads)  # type: ignore[arg-type]
    message = proto.SavedModel(saved_model_schema_version=SCHEMA_VERSION)
    _list_assets(model, model_to_proto(model, contents, message.meta_graphs.add()))
    missing = [asset.filename for asset in model.assets if asset.source is None or not asset.source.is_file()]
    if missing:
        raise NotFoundError(
            f"asset files are missing: {', '.join(missing)}", hint="put them into assets/ of the source"
        )
    with new_directory(path, LAYOUT, overwrite=delivery.overwrite, check=delivery.check) as folder:
        with open(folder / "saved_model.pb", "wb") as file:
            write_saved_model_file(file, message, contents, delivery.progress)
        if tensors:
            (folder / "variables").mkdir()
            write_bundle(tensors, folder / "variables", "variables", delivery.progress)
        for asset in model.assets:
            _copy(Path(str(asset.source)), resolve_inside(folder / "assets", asset.filename, where="asset"))
        for extra in beside:
            for file_path in [extra] if extra.is_file() else sorted(extra.rglob("*")):
                if file_path.is_file():
                    _copy(file_path, folder / file_path.relative_to(extra.parent))
        if model.object_graph is not None:
            _write_fingerprint(folder / "fingerprint.pb", message)
    return [Path(path)]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with SourceFile(str(source)) as opened, open(target, "wb") as file:
        for chunk in opened.slice().chunks():
            file.write(chunk.data)


def _write_fingerprint(path: Path, message: Any) -> None:
    """Write a fingerprint that tells models apart by its UUID; hashes, which only TensorFlow makes, are left out."""
    fingerprint = proto.FingerprintDef(uuid=str(uuid.UUID(bytes=_digest(message)).int))
    fingerprint.version.producer = FINGERPRINT_VERSION
    path.write_bytes(proto.serialize(fingerprint))


def _digest(message: Any) -> bytes:
    return hashlib.sha256(proto.serialize(message)).digest()[:16]


def _list_assets(model: Model, meta_graph: Any) -> None:
    """List the assets in a collection too, which is where loaders of TensorFlow 1 look."""
    for asset in model.assets:
        entry = proto.AssetFileDef(filename=asset.filename)
        entry.tensor_info.name = asset.tensor
        packed = meta_graph.collection_def[ASSETS_COLLECTION].any_list.value.add()
        packed.type_url = f"type.googleapis.com/{entry.DESCRIPTOR.full_name}"
        packed.value = proto.serialize(entry)
