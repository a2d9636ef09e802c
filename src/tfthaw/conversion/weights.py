"""Conversions into formats that carry weights alone: which tensors, under which names."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from tfthaw.conversion.options import Options
from tfthaw.conversion.values import artifact_averages
from tfthaw.dtypes import DType
from tfthaw.errors import RestoreError, UnsupportedError
from tfthaw.ir.model import Model
from tfthaw.ir.variables import optimizer_keys
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.tensors import CastTensor, Tensor

_OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def select_weights(artifact: Artifact, options: Options) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors to write by name, and what was left out or changed.

    Raises:
        UnsupportedError: The source carries no weights.
        RestoreError: A map names keys that are not there.
    """
    notes: list[str] = []
    if options.checkpoint is not None:
        artifact = open_artifact(options.checkpoint, is_checkpoint=True)
    tensors, said = artifact_averages(artifact, _source(artifact, options, notes), options.ema)
    notes += said
    if options.map:
        tensors = _renamed(tensors, options, artifact.path)
    keep_optimizer = (options.optimizer or ("keep" if options.to == "checkpoint" else "drop")) == "keep"
    if not keep_optimizer:
        state = optimizer_keys(tensors)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in state}
        if state:
            notes.append(f"{len(state)} tensors of the optimizer's state were left out; --optimizer keep keeps them")
    if options.to != "checkpoint":
        tensors = _without_bookkeeping(tensors, notes)
    return cast_floats(tensors, options, notes), notes


def cast_floats(tensors: Mapping[str, Tensor], options: Options, notes: list[str]) -> dict[str, Tensor]:
    """Return tensors, floats among them in the type that the user asked for; a note says how many."""
    if not options.dtype:
        return dict(tensors)
    target = DType[options.dtype]
    cast = {name for name, tensor in tensors.items() if tensor.dtype.is_float and tensor.dtype is not target}
    notes.append(f"{len(cast)} tensors were cast to {target.name}; the proof compares the cast values")
    return {name: CastTensor(tensor, target, name=name) if name in cast else tensor for name, tensor in tensors.items()}


def _source(artifact: Artifact, options: Options, notes: list[str]) -> dict[str, Tensor]:
    """Return every tensor that the source has."""
    tensors = dict(artifact.variables)
    if not tensors and artifact.has_graph:
        model = artifact.model(options.tags)
        if artifact.format == "frozen-graph":
            tensors = frozen_weights(model, notes)
    if not tensors:
        raise UnsupportedError(
            f"this {artifact.format} carries no weights", path=artifact.path,
            hint="give the checkpoint that belongs to it with --checkpoint" if artifact.has_graph else None,
        )  # fmt: skip
    return tensors


def frozen_weights(model: Model, notes: list[str]) -> dict[str, Tensor]:
    """Return the constants of a frozen graph that are weights: floating, with at least one dimension."""
    constants = {
        node.name: tensor for node in model.graph.nodes if node.op == "Const" and (tensor := node.tensor()) is not None
    }
    weights = {name: tensor for name, tensor in constants.items() if tensor.dtype.is_float and tensor.shape}
    left = len(constants) - len(weights)
    if left:
        notes.append(f"{left} constants that are scalars or no floating numbers were taken for structure and left out")
    return weights


def _renamed(tensors: Mapping[str, Tensor], options: Options, path: str) -> dict[str, Tensor]:
    """Return the tensors of a map under their new names; keys that the map leaves out must be allowed to."""
    missing = [key for key in options.map if key not in tensors]
    unused = [
        key
        for key in tensors
        if key not in options.map and not any(fnmatch.fnmatchcase(key, glob) for glob in options.allow_unused)
    ]
    if missing or unused:
        raise RestoreError(
            "the map does not cover the checkpoint", missing=missing, unused=unused, path=path,
            hint="complete the map, or name what may stay out with --allow-unused",
        )  # fmt: skip
    return {name: tensors[key] for key, name in options.map.items()}


def _without_bookkeeping(tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Leave out what is no weight: the object graph, save counters' strings, and tensors that are no arrays."""
    left = [name for name, tensor in tensors.items() if name == _OBJECT_GRAPH_KEY or _is_no_array(tensor)]
    if left:
        notes.append(f"left out, because they are no arrays of numbers: {', '.join(left)}")
    return {name: tensor for name, tensor in tensors.items() if name not in left}


def _is_no_array(tensor: Tensor) -> bool:
    return tensor.dtype in (DType.string, DType.variant, DType.resource)
