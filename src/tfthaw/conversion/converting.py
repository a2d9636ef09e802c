"""`convert`: open, prepare, write, prove.

It opens the source, chooses the way by the format that is asked for, writes, opens what was written anew and compares
every tensor with its source. What does not prove equal never appears at the destination.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfthaw.conversion.bridging import bridge
from tfthaw.conversion.destination import bytes_of, prefix_of, require_free, spare_sources, written_files
from tfthaw.conversion.freezing import freeze_prepared
from tfthaw.conversion.options import Options
from tfthaw.conversion.prepared import Prepared, input_specs, prepare
from tfthaw.conversion.result import ConversionResult, Verified
from tfthaw.conversion.unfed import refuse_unfed
from tfthaw.conversion.weights import select_weights
from tfthaw.conversion.whole_saved_model import (
    files_beside,
    keeps_whole_saved_model,
    signature_tensors,
    whole_values,
)
from tfthaw.conversion.with_saver import keeps_whole_graph, with_current_saver, with_state
from tfthaw.errors import UnsupportedError, UsageError, naming
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.export.meta_graph import meta_name, write_meta_graph
from tfthaw.export.saved_model import write_saved_model
from tfthaw.export.weights import write_checkpoint, write_weights_file
from tfthaw.formats.names import GRAPH_FORMATS, KERAS_FORMATS
from tfthaw.ir.graph import TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.object_graph_validation import require_consistent_objects
from tfthaw.ir.signatures import Signature
from tfthaw.ir.validation import require_consistent
from tfthaw.ir.variables import graph_variables
from tfthaw.passes.add_saver import OBJECT_GRAPH_KEY
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.tensors import Tensor
from tfthaw.verify.proofs import OutputProof, WeightProof, joined
from tfthaw.verify.risks import reaching_ops
from tfthaw.verify.weights import EarlyComparison, graph_constants, require_same

if TYPE_CHECKING:
    from tfthaw.conversion.from_code import CodeSource


@dataclass
class _Job:
    """One conversion under way.

    Attributes:
        artifact: The source.
        destination: Where to write.
        options: What the user asked for.
        early: Compares values while others are being written.
        opened: What is open besides the source.
        code: The Python that the source was traced from, where it was.
        files: What was written.
        proof: What was proved of its tensors.
        output_proof: What was proved of its outputs.
        prepared: The model on its way, for formats that carry a graph.
        inputs: What the user calls each input -> its tensor in what was written.
        outputs: The same for outputs.
        notes: What was guessed, skipped or defaulted.
        signatures: The signatures of what is written, where each is a function of its own.
        constants: The constants of its graph and functions, where they are proved besides the variables.
    """

    artifact: Artifact
    destination: str
    options: Options
    early: EarlyComparison
    opened: ExitStack
    code: CodeSource | None = None
    files: list[Path] = field(default_factory=list)
    proof: WeightProof = field(default_factory=WeightProof)
    output_proof: OutputProof = field(default_factory=OutputProof)
    prepared: Prepared | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    def open_checkpoint(self, path: str) -> Artifact:
        """Open the artifact that the values come from, for as long as the conversion takes."""
        artifact = self.opened.enter_context(open_artifact(path, is_checkpoint=True))
        spare_sources(artifact, self.destination, written_files(self.options, self.destination))
        self.note_latest(artifact)
        return artifact

    def note_latest(self, artifact: Artifact) -> None:
        """Note which checkpoint was taken where a directory was given."""
        if artifact.is_latest:
            self.notes.append(f"of {artifact.path} the latest checkpoint was taken: {artifact.located.path}")

    def delivery(self, expected: Mapping[str, Tensor], name: str = "") -> Delivery:
        """Return how to write, with the proof that what was written is the same model.

        Args:
            expected: The tensors by the names under which they are written.
            name: The artifact in the directory of written files, for formats of several files.
        """

        def check(written: Path) -> None:
            place = written / name if name else written
            self.proof = _prove_weights(self, expected, place)
            self.output_proof = _prove_outputs(self, place)

        return Delivery(self.options.overwrite, self.options.progress, check, self.early.written)


def convert(
    source: Any, destination: str | os.PathLike[str], *, to: str, **options: Any
) -> ConversionResult:
    """Convert an artifact and prove the result.

    Args:
        source: The artifact, in any spelling. Or a live object: a Keras model, a `tf.Module`, a `tf.function`, a
            function that builds one of these or a graph; then `checkpoint` gives the values. With `code`, the
            checkpoint (or None, and `checkpoint` is given).
        destination: The file, directory or checkpoint prefix to write.
        to: The format to write.
        **options: The fields of `Options`.

    Returns:
        What was written and what was proved.

    Raises:
        TfthawError: Any of its kinds; nothing is left at the destination.
    """
    began = time.perf_counter()
    chosen = _with_source(Options(to=to, **options), source)
    destination = prefix_of(destination) if to == "checkpoint" else os.fspath(destination)
    require_free(chosen, destination)
    with EarlyComparison() as early, ExitStack() as opened:
        code = None
        if chosen.code is not None or _is_live(source):
            from tfthaw.conversion.from_code import open_code

            code = opened.enter_context(open_code(source, chosen))
            artifact = code.artifact
            opened.enter_context(naming(code.name))
        else:
            opened.enter_context(naming(os.fspath(source)))
            artifact = opened.enter_context(open_artifact(source))
            spare_sources(artifact, destination, written_files(chosen, destination), in_place=True)
        job = _Job(artifact, destination, chosen, early, opened, code)
        job.note_latest(artifact)
        if to in GRAPH_FORMATS:
            _write_graph_format(job)
        else:
            _write_weights(job)
    return ConversionResult(
        format=to,
        path=job.destination,
        bytes=bytes_of(job.files),
        variables=job.proof.compared,
        seconds=round(time.perf_counter() - began, 3),
        inputs=job.inputs,
        outputs=job.outputs,
        verified=Verified(job.proof, job.output_proof),
        notes=tuple(dict.fromkeys(job.notes)),
    )


def _is_live(source: Any) -> bool:
    """Whether a source is a live object and not the path of an artifact."""
    return source is not None and not isinstance(source, (str, os.PathLike))


def _with_source(options: Options, source: Any) -> Options:
    """Return the options with the checkpoint that stands in the place of the source.

    Raises:
        UsageError: There is no source, or two checkpoints.
    """
    if options.code is None:
        if source is None:
            raise UsageError("nothing says what to convert", hint="give an artifact, a live model, or code")
        if options.input and not _is_live(source):
            raise UsageError("--input declares what code takes; an artifact says that itself")
        if options.checkpoint_root is not None and not _is_live(source):
            raise UsageError("--checkpoint-root says where in a checkpoint the model of --code is; there is no code")
        return options
    if _is_live(source):
        raise UsageError("a live object and code: give one of them")
    if source is None:
        return options
    if options.checkpoint is not None:
        raise UsageError(
            f"two checkpoints could give the values: {os.fspath(source)} and {options.checkpoint}",
            hint="with code, give the checkpoint as source or with --checkpoint",
        )
    return replace(options, checkpoint=os.fspath(source))


def _write_graph_format(job: _Job) -> None:
    """Write a format that carries a graph."""
    if job.code is not None:
        _write_traced(job, job.code)
        return
    options = job.options
    model = job.artifact.model(options.tags)
    values = job.artifact
    if options.checkpoint is not None:
        values = job.open_checkpoint(options.checkpoint)
        if not values.tensors:
            raise UnsupportedError(f"{values.located.format} holds no values", path=options.checkpoint)
        model = replace(model, values=values.tensors)
    if keeps_whole_graph(model, options):
        _write_whole(job, model)
        return
    if keeps_whole_saved_model(own := job.artifact.model(options.tags), options):
        _write_whole_saved_model(job, own)
        return
    stored = None
    if model.object_graph is not None and values.checkpoint is not None:
        from tfthaw.serde.object_views import read_stored_graph  # only TensorFlow 2 has objects

        stored = read_stored_graph(values.checkpoint)
    prepared = prepare(model, options, path=options.checkpoint or job.artifact.path, stored=stored)
    if options.to == "saved-model" and options.style == "v2":
        require_consistent_objects(model, path=job.artifact.path)
    _write_prepared(job, prepared)


def _write_traced(job: _Job, code: CodeSource) -> None:
    """Write the traced graph of code, with the values of a checkpoint."""
    from tfthaw.conversion.code_values import CheckpointValues
    from tfthaw.conversion.from_code import code_model, drop_idle_state, graph_options, with_values

    options = job.options
    values = None
    if options.checkpoint is not None:
        values = CheckpointValues(job.open_checkpoint(options.checkpoint), options)
    model = with_values(code, code_model(code), values)
    explaining: AbstractContextManager[None] = nullcontext()
    if values is not None and code.matches is not None:
        explaining = values.explaining(code.live.traced.objects, code.matches)
    with explaining:
        prepared = prepare(model, graph_options(code, options), path=options.checkpoint or code.name)
        drop_idle_state(prepared)
        _write_prepared(job, prepared)
    job.notes += code.notes


def _write_prepared(job: _Job, prepared: Prepared) -> None:
    """Write a model whose inputs and outputs are chosen."""
    options, model = prepared.options, prepared.model
    job.prepared = prepared
    refuse_unfed(prepared)
    if options.to == "frozen-graph":
        model, constants = freeze_prepared(prepared)
        model = _bridged(job, model)
        others = graph_constants(model.graph).items()
        job.constants = {name: tensor for name, tensor in others if name.removeprefix(":") not in constants}
        job.files = write_graph(model, job.destination, job.delivery(constants))
    elif options.to == "graph-def":
        model = _bridged(job, prepared.model)
        job.constants = graph_constants(model.graph)
        job.files = write_graph(model, job.destination, job.delivery({}))
    elif options.to == "saved-model" and options.style == "v2":
        from tfthaw.conversion.tf2_saved_model import to_tf2

        written = to_tf2(prepared, job.artifact.objects(options.tags) if job.code is None else None)
        job.signatures = written.model.signatures
        tensors = {**written.variables, OBJECT_GRAPH_KEY: written.object_graph}
        model = _bridged(job, written.model)
        job.constants = graph_constants(model.graph)
        job.files = write_saved_model(model, tensors, job.destination, job.delivery(written.variables))
    elif options.to == "saved-model":
        model, tensors = with_state(prepared)
        model.tags = model.tags or ("serve",)
        model = _bridged(job, model)
        job.constants = graph_constants(model.graph)
        job.files = write_saved_model(model, tensors, job.destination, job.delivery(tensors))
    else:
        model, tensors = with_state(prepared)
        model = _bridged(job, model)
        job.constants = graph_constants(model.graph)
        job.files = write_meta_graph(model, tensors, job.destination, job.delivery(tensors, meta_name(job.destination)))
    job.inputs, job.outputs = prepared.names()
    job.notes += prepared.notes


def _bridged(job: _Job, model: Model) -> Model:
    """Return a model as the TensorFlow that it is for reads it."""
    prepared = job.prepared
    fetched = [prepared.where(name) for name in prepared.selection.tensors] if prepared is not None else []
    bridged, notes = bridge(model, job.options, fetched)
    job.notes += notes
    return bridged


def _write_whole(job: _Job, model: Model) -> None:
    """Write a MetaGraph with all of its graph and its own Saver, and every value beside it."""
    options = job.options
    ignored = [name for name in ("map", "allow_missing", "allow_unused") if getattr(options, name)]
    ignored += ["ema"] if options.ema != "keep" else []
    ignored += ["optimizer"] if options.optimizer == "drop" else []
    ignored += ["batch_norm"] if options.batch_norm != "keep" else []
    if ignored:
        raise UsageError(
            f"a whole graph keeps its own variables, so {', '.join(ignored)} would change nothing",
            hint="choose what the graph is to compute with --outputs or --signature",
        )
    variables = graph_variables(model.graph.nodes, model.declared)
    if variables and not model.values:
        raise UnsupportedError(
            f"the graph has {len(variables)} variables and no values", hint="give them with --checkpoint"
        )
    require_consistent(model.graph)
    model, notes = with_current_saver(model, path=job.options.checkpoint or job.artifact.path)
    tensors = dict(model.values)
    model = _bridged(job, model)
    job.constants = graph_constants(model.graph)
    job.files = write_meta_graph(model, tensors, job.destination, job.delivery(tensors, meta_name(job.destination)))
    job.notes += [*model.notes, *notes, "the whole graph was kept, training nodes included"]


def _write_whole_saved_model(job: _Job, model: Model) -> None:
    """Write a SavedModel of TensorFlow 2 with all that it has, and other values where a checkpoint is given."""
    options = job.options
    require_consistent_objects(model, path=job.artifact.path)
    given = job.open_checkpoint(options.checkpoint).tensors if options.checkpoint is not None else None
    tensors = whole_values(model.values, given, options, job.notes)
    expected = {key: tensor for key, tensor in tensors.items() if key != OBJECT_GRAPH_KEY}
    model = _bridged(job, model)
    job.constants = graph_constants(model.graph)
    beside = files_beside(job.artifact.located.path)
    job.files = write_saved_model(model, tensors, job.destination, job.delivery(expected), beside)
    job.inputs, job.outputs = signature_tensors(model)
    job.notes += [*model.notes, "everything was kept: objects, functions and signatures"]


def _write_weights(job: _Job) -> None:
    """Write a format that carries weights alone."""
    from tfthaw.conversion.code_values import CheckpointValues
    from tfthaw.conversion.code_weights import code_weights, named_by_objects
    from tfthaw.conversion.keras import checkpoint_tensors, keras_contents, keras_structure

    if job.code is not None:
        if job.options.checkpoint is None:
            raise UsageError("no checkpoint gives the values", hint="give it with --checkpoint")
        checkpoint = CheckpointValues(job.open_checkpoint(job.options.checkpoint), job.options)
        job.notes += job.code.notes
        _write_tensors(job, code_weights(job.code, checkpoint, job.options, job.notes), {})
        return
    if job.options.to in KERAS_FORMATS:
        from tfthaw.export.keras import write_keras

        contents = keras_contents(job.artifact, job.destination, job.options, job.notes)
        job.files = write_keras(contents, job.destination, job.delivery(contents.tensors))
        return
    if job.options.keys == "objects":
        tensors = checkpoint_tensors(job.artifact, job.options, job.notes)
    else:
        tensors, notes = select_weights(job.artifact, job.options)
        job.notes += notes
        if job.options.keys == "names":
            tensors = named_by_objects(job.artifact, tensors)
    structure = {} if job.options.to == "checkpoint" else keras_structure(job.artifact, job.options)
    _write_tensors(job, tensors, structure)


def _write_tensors(job: _Job, tensors: Mapping[str, Tensor], structure: Mapping[str, str]) -> None:
    """Write tensors by name into a checkpoint or a file of weights."""
    if job.options.to == "checkpoint":
        job.files = write_checkpoint(tensors, job.destination, job.delivery(tensors, Path(job.destination).name))
        return
    job.files = write_weights_file(
        tensors, job.destination, job.delivery(tensors), to=job.options.to, metadata=structure
    )


def _prove_weights(job: _Job, expected: Mapping[str, Tensor], written: Path) -> WeightProof:
    """Open what was written anew and compare it with its source.

    Raises:
        VerificationError: Something differs.
    """
    with open_artifact(written) as result:
        if job.options.to in ("frozen-graph", "graph-def"):
            nodes = result.model().graph.nodes
            found: Mapping[str, Tensor] = {node.name: tensor for node in nodes if (tensor := node.tensor()) is not None}
        else:
            found = result.variables
        proof = require_same(expected, found, path=job.destination, progress=job.options.progress, early=job.early)
        if job.constants:
            require_same(job.constants, graph_constants(result.model().graph), path=job.destination, early=job.early)
    return WeightProof(proof.compared, proof.bytes, 0)


def _prove_outputs(job: _Job, written: Path) -> OutputProof:
    """Run source and result on the same inputs and compare, where that can be done.

    Raises:
        VerificationError: The outputs differ.
        UsageError: The comparison was asked for and cannot be done.
    """
    options = job.options
    if options.verify == "weights":
        return OutputProof(why_not="only the weights were asked for")
    reason = _no_outputs(job)
    if reason is not None or job.prepared is None:
        if options.verify == "outputs":
            raise UsageError(f"the outputs cannot be compared: {reason}", path=job.artifact.path)
        return OutputProof(why_not=reason)
    from tfthaw.verify.outputs import Endpoints, prove_live_outputs, prove_outputs  # only here: they bring the runtime

    prepared, specs, proofs = job.prepared, input_specs(job.prepared), []
    for inputs, outputs in _comparisons(job, prepared, list(specs)):
        source = Endpoints(
            job.artifact.path, {name: name for name in inputs}, {name: name for name in outputs}, options.tags
        )
        result, wanted = Endpoints(written, inputs, outputs), {name: specs[name] for name in inputs}
        if job.code is not None:
            run = partial(job.code.live.run, outputs=list(outputs), values=prepared.taken)
            proof = prove_live_outputs(
                run, source, result, wanted, prepared.settings, required=options.verify == "outputs",
                run_written=job.code.live.run_artifacts,
            )
        else:
            proof = prove_outputs(source, result, wanted, prepared.settings, required=options.verify == "outputs")
        if not proof.done:
            return proof
        proofs.append(proof)
    return joined(proofs)


def _comparisons(job: _Job, prepared: Prepared, inputs: list[str]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield what is run at once: source's tensor -> that of the result, for inputs and outputs.

    Signatures that are functions of their own run apart from those with other inputs: what one of them feeds may be
    what another one computes.
    """
    if not job.signatures:
        outputs = [str(name) for name in prepared.selection.tensors]
        now = {name: str(prepared.where(TensorName.parse(name))) for name in (*inputs, *outputs)}
        yield {name: now[name] for name in inputs}, {name: now[name] for name in outputs}
        return
    groups: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
    for key, signature in prepared.selection.signatures.items():
        made = job.signatures[key]
        fed = {entry.tensor: made.inputs[name].tensor for name, entry in signature.inputs.items()}
        group = groups.setdefault(frozenset((old, new) for old, new in fed.items() if old in inputs), {})
        for name, entry in signature.outputs.items():
            group.setdefault(entry.tensor, made.outputs[name].tensor)
    for pairs, found in groups.items():
        yield dict(pairs), found


def _no_outputs(job: _Job) -> str | None:
    """Return why source and result cannot be compared by their outputs, or None where they can."""
    options = job.options
    if options.to not in GRAPH_FORMATS:
        return "weights alone cannot be run"
    if job.prepared is None:
        return "the whole graph was kept, and nothing says what to run"
    if options.to == "graph-def":
        return "a graph without values cannot be run"
    if job.code is not None and job.prepared.plan is not None and job.prepared.plan.missing:
        return f"variables were left without value, as allowed: {', '.join(job.prepared.plan.missing)}"
    reaching = reaching_ops(job.prepared.whole)
    if reaching and options.verify != "outputs":
        return f"the source reaches outside ({', '.join(reaching)}); --verify outputs runs it all the same"
    changed = []
    if job.code is None:
        changed += [name for name in ("checkpoint", "map") if getattr(options, name)]
        changed += ["ema"] if options.ema == "use" else []
    changed += ["batch_norm"] if options.batch_norm == "inference" else []
    if changed:
        return f"the result is meant to differ from the source ({', '.join(changed)})"
    return None
