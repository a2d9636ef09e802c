"""`convert`: open, prepare, write, prove.

It opens the source, chooses the way by the format that is asked for, writes, opens what was written anew and compares
every tensor with its source. What does not prove equal is removed again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfthaw.conversion.graphs import (
    Prepared,
    freeze_prepared,
    keeps_whole_graph,
    prepare,
    unfed_placeholders,
    with_state,
)
from tfthaw.conversion.options import GRAPH_FORMATS, Options
from tfthaw.conversion.result import ConversionResult, OutputProof, Verified, WeightProof
from tfthaw.conversion.weights import select_weights
from tfthaw.errors import UnsupportedError, VerificationError
from tfthaw.export.graphs import write_graph
from tfthaw.export.meta_graph import write_meta_graph
from tfthaw.export.saved_model import write_saved_model
from tfthaw.export.weights import write_checkpoint, write_weights_file
from tfthaw.ir.model import Model
from tfthaw.ir.variables import graph_variables
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.tensors import Tensor
from tfthaw.verify.weights import require_same


@dataclass
class _Written:
    """What was written, and what it must hold."""

    files: list[Path]
    expected: Mapping[str, Tensor]
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def convert(source: str | os.PathLike[str], destination: str | os.PathLike[str], *, to: str, **options: Any) -> ConversionResult:
    """Convert an artifact and prove the result.

    Args:
        source: The artifact, in any spelling.
        destination: The file, directory or checkpoint prefix to write.
        to: The format to write.
        **options: The fields of `Options`.

    Returns:
        What was written and what was proved.

    Raises:
        TfthawError: Any of its kinds; nothing is left at the destination.
    """
    began = time.perf_counter()
    chosen = Options(to=to, **options)
    with open_artifact(source) as artifact:
        written = _write(artifact, os.fspath(destination), chosen)
        proof = _prove(written, destination, chosen)
    return ConversionResult(
        format=to,
        path=os.fspath(destination),
        bytes=_size(written.files),
        variables=len(written.expected),
        seconds=round(time.perf_counter() - began, 3),
        inputs=written.inputs,
        outputs=written.outputs,
        verified=Verified(proof, OutputProof(why_not="only the weights were compared")),
        notes=tuple(dict.fromkeys(written.notes)),
    )


def _write(artifact: Artifact, destination: str, options: Options) -> _Written:
    """Write the destination, whole or not at all."""
    if options.to not in GRAPH_FORMATS:
        return _write_weights(artifact, destination, options)
    model = artifact.model(options.tags)
    if options.checkpoint is not None:
        values = open_artifact(options.checkpoint)
        if not values.variables:
            raise UnsupportedError(f"{values.located.format} holds no values", path=options.checkpoint)
        model = replace(model, values=values.variables)
    if keeps_whole_graph(model, options):
        return _write_whole(model, destination, options)
    prepared = prepare(model, options, path=options.checkpoint or artifact.path)
    _note_unfed(prepared)
    if options.to == "frozen-graph":
        return _write_frozen(prepared, destination)
    return _write_with_state(prepared, destination)


def _write_frozen(prepared: Prepared, destination: str) -> _Written:
    options = prepared.options
    model, constants = freeze_prepared(prepared)
    files = write_graph(model, destination, overwrite=options.overwrite, progress=options.progress)
    inputs, outputs = prepared.names()
    return _Written(files, constants, inputs, outputs, prepared.notes)


def _write_with_state(prepared: Prepared, destination: str) -> _Written:
    options = prepared.options
    inputs, outputs = prepared.names()
    if options.to == "graph-def":
        model: Model = prepared.model
        files = write_graph(model, destination, overwrite=options.overwrite, progress=options.progress)
        return _Written(files, {}, inputs, outputs, prepared.notes)
    model, tensors = with_state(prepared)
    if options.to == "saved-model":
        model.tags = model.tags or ("serve",)
        files = write_saved_model(model, tensors, destination, overwrite=options.overwrite, progress=options.progress)
    else:
        files = write_meta_graph(model, tensors, destination, overwrite=options.overwrite, progress=options.progress)
    return _Written(files, tensors, inputs, outputs, prepared.notes)


def _write_whole(model: Model, destination: str, options: Options) -> _Written:
    """Write a MetaGraph with all of its graph and its own Saver, and every value beside it."""
    variables = graph_variables(model.graph.nodes, model.declared)
    if variables and not model.values:
        raise UnsupportedError(
            f"the graph has {len(variables)} variables and no values", hint="give them with --checkpoint"
        )
    files = write_meta_graph(
        model, dict(model.values), destination, overwrite=options.overwrite, progress=options.progress
    )
    return _Written(files, dict(model.values), notes=[*model.notes, "the whole graph was kept, training nodes included"])


def _write_weights(artifact: Artifact, destination: str, options: Options) -> _Written:
    tensors, notes = select_weights(artifact, options)
    if options.to == "checkpoint":
        files = write_checkpoint(tensors, destination, overwrite=options.overwrite, progress=options.progress)
    else:
        files = write_weights_file(
            tensors, destination, to=options.to, overwrite=options.overwrite, progress=options.progress
        )
    return _Written(files, tensors, notes=notes)


def _note_unfed(prepared: Prepared) -> None:
    unfed = unfed_placeholders(prepared)
    if unfed:
        prepared.notes.append(f"the outputs also need {', '.join(unfed)}, which is no input; --set gives it a value")


def _prove(written: _Written, destination: str | os.PathLike[str], options: Options) -> WeightProof:
    """Compare what was written with its source; remove it where it differs."""
    try:
        with open_artifact(destination) as result:
            if options.to in ("frozen-graph", "graph-def"):
                nodes = result.model().graph.nodes
                found = {node.name: tensor for node in nodes if (tensor := node.tensor()) is not None}
            else:
                found = dict(result.variables)
            proof = require_same(written.expected, found, path=os.fspath(destination), progress=options.progress)
    except VerificationError:
        _remove(written.files)
        raise
    return WeightProof(proof.compared, proof.bytes, 0)


def _remove(files: list[Path]) -> None:
    for path in files:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _size(files: list[Path]) -> int:
    return sum(
        item.stat().st_size for path in files for item in (path.rglob("*") if path.is_dir() else [path]) if item.is_file()
    )
