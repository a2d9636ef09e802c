"""A SavedModel of TensorFlow 2 that is written again as a whole: objects, functions, signatures, assets and all.

Nothing of it changes but, where a checkpoint is given, the values: those are taken by their keys, and each must be of
the type and shape that the model has.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path

from tfthaw.conversion.options import Options
from tfthaw.conversion.selection import public_signatures
from tfthaw.errors import RestoreError, UsageError
from tfthaw.formats.saved_model import find_saved_model
from tfthaw.ir.model import Model
from tfthaw.ir.variables import graph_variables
from tfthaw.passes.add_saver import OBJECT_GRAPH_KEY
from tfthaw.tensors import Tensor


def keeps_whole_saved_model(model: Model, options: Options) -> bool:
    """Whether a SavedModel of TensorFlow 2 is written with all that it has: the user chose nothing of it.

    One whose own values are gone cannot be: what its signatures need can get its values from elsewhere, the rest not.
    """
    if not model.values and graph_variables(model.graph.nodes):
        return False
    chosen = options.signature or options.outputs or options.set
    changed = options.ema != "keep" or options.batch_norm != "keep" or options.unfreeze
    wanted = options.to == "saved-model" and options.style == "v2"
    return wanted and model.object_graph is not None and not chosen and not changed


def whole_values(own: Mapping[str, Tensor], given: Mapping[str, Tensor] | None, options: Options,
                 notes: list[str]) -> dict[str, Tensor]:
    """Return the tensors of the checkpoint that is written, the object graph first.

    Args:
        own: The model's own values by key.
        given: Those of the checkpoint that the user named, or None.
        options: What the user asked for.
        notes: Takes what was not used.

    Raises:
        RestoreError: The checkpoint lacks values, or has them in another type or shape; with all of them.
        UsageError: The options rename keys, and no checkpoint has them.
    """
    if given is None:
        if options.map:
            raise UsageError("a map names the keys of a checkpoint", hint="give the checkpoint with --checkpoint")
        return dict(own)
    renames = {variable: key for key, variable in options.map.items()}
    values: dict[str, Tensor] = {}
    missing: list[str] = []
    mismatched: list[str] = []
    kept: list[str] = []
    used: set[str] = set()
    for key, tensor in own.items():
        source = renames.get(key, key)
        if key == OBJECT_GRAPH_KEY:
            values[key] = tensor
        elif source not in given:
            allowed = any(fnmatch.fnmatchcase(key, glob) for glob in options.allow_missing)
            (kept if allowed else missing).append(key)
            values[key] = tensor
        else:
            value = values[key] = given[source]
            used.add(source)
            if value.dtype is not tensor.dtype or value.shape != tensor.shape:
                mismatched.append(
                    f"{key} is {tensor.dtype.name}{list(tensor.shape)}, "
                    f"the checkpoint has {value.dtype.name}{list(value.shape)}"
                )
    unused = [key for key in given if key not in used and key != OBJECT_GRAPH_KEY]
    if missing or mismatched:
        raise RestoreError(
            f"{len(missing) + len(mismatched)} of {len(own) - (OBJECT_GRAPH_KEY in own)} variables find no value that "
            "fits in the checkpoint", missing=missing, unused=unused, mismatched=mismatched, path=options.checkpoint,
            hint="say which key fills which with --map, or choose what is needed with --signature",
        )  # fmt: skip
    if kept:
        notes.append(f"not in the checkpoint, and kept as allowed: {', '.join(kept)}")
    if unused:
        notes.append(f"{len(unused)} values of the checkpoint are not in the model: {', '.join(unused[:3])}")
    return values


def files_beside(path: str) -> list[Path]:
    """Return what lies beside a SavedModel's message and belongs to it: metadata of Keras, extra assets."""
    directory = find_saved_model(path)
    return [item for item in (directory.keras_metadata, directory.assets_extra) if item is not None]


def signature_tensors(model: Model) -> tuple[dict[str, str], dict[str, str]]:
    """Return what users call the inputs and outputs of all signatures -> their tensors."""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for signature in public_signatures(model).values():
        for part, found in ((signature.inputs, inputs), (signature.outputs, outputs)):
            for name, entry in part.items():
                found.setdefault(name, entry.tensor)
    return inputs, outputs
