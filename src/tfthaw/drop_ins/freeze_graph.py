"""What TensorFlow's script `freeze_graph` does, by its flags, with the conversion of this package.

`freeze_graph` takes the flags, finds the graph and its values, and gives one binary GraphDef whose output nodes have
the names that they had. Nothing here parses a command line or prints.

It is no port: where the script gives a graph that computes something else than the model (writes to what is a constant
now, restored values that an initialiser replaced, keys of an object-based checkpoint that it skips), this does it right
or refuses.

Source: the flags, defaults, messages and the order of checks of tensorflow/python/tools/freeze_graph.py (1.0 to 2.21);
convert_to_constants.py and graph_util_impl.py of tensorflow/python/framework for what becomes of nodes.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfthaw._files import Progress
from tfthaw.conversion.freezing import freeze_prepared
from tfthaw.conversion.options import Options
from tfthaw.conversion.prepared import Prepared, input_specs, prepare
from tfthaw.conversion.result import ConversionResult, Verified
from tfthaw.conversion.values import plan_loosely
from tfthaw.drop_ins.freeze_graph_sources import FreezeFlags, Sources, names_of, open_sources
from tfthaw.drop_ins.initializer_nodes import assigned_by
from tfthaw.errors import LimitError, NotFoundError, RestoreError, TfthawError, UnsupportedError, UsageError, naming
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.ir.attrs import Attr, AttrList
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.types import count_of
from tfthaw.ir.variables import VARIABLE_OPS, variable_name
from tfthaw.limits import DEFAULT_LIMITS
from tfthaw.passes.called_functions import called_function
from tfthaw.restore.saved_names import what_savers_say
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import Tensor
from tfthaw.verify.proofs import OutputProof, WeightProof
from tfthaw.verify.weights import EarlyComparison, graph_constants, require_same

NO_OUTPUTS = "You need to supply the name of a node to --output_node_names."
FROZEN_BEFORE = (
    "No variables were found in this model. It is likely the model was frozen previously. You cannot freeze a graph "
    "twice."
)
PARTITIONED = (
    "Models containing partition variables cannot be converted from checkpoint files. Please pass in a SavedModel "
    "using the flag --input_saved_model_dir."
)
_PART = re.compile(r"(.*)/part_\d+(/.*)?")


@dataclass(frozen=True)
class FrozenGraph:
    """What was written.

    Attributes:
        result: What was written and proved; the format is `graph-def` where variables stay.
        nodes: How many nodes the graph has.
        kept_variables: The variables that are still variables.
    """

    result: ConversionResult
    nodes: int
    kept_variables: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the result as `freeze-graph --json` prints it."""
        return {**self.result.as_dict(), "nodes": self.nodes, "kept_variables": list(self.kept_variables)}


@dataclass
class _Job:
    """One freezing under way.

    Attributes:
        flags: What was asked for.
        sources: Where graph and values come from.
        prepared: The model on its way.
        expected: The constants that were variables.
        others: All other constants of the result.
        weights: What was proved of the constants.
        outputs: What was proved of the outputs.
    """

    flags: FreezeFlags
    sources: Sources
    prepared: Prepared
    expected: Mapping[str, Tensor] = field(default_factory=dict)
    others: Mapping[str, Tensor] = field(default_factory=dict)
    weights: WeightProof = field(default_factory=WeightProof)
    outputs: OutputProof = field(default_factory=OutputProof)


def freeze_graph(flags: FreezeFlags, *, verify: str = "weights", progress: Progress | None = None) -> FrozenGraph:
    """Freeze a graph as the flags say, and prove the result.

    A file at `output_graph` is replaced, as the script replaces it.

    Args:
        flags: What was asked for.
        verify: `weights`, or `outputs` too.
        progress: Called with the number of bytes just done.

    Returns:
        What was written and what was proved.

    Raises:
        TfthawError: Any of its kinds; nothing new is left at `output_graph`.
    """
    began = time.perf_counter()
    with EarlyComparison() as early, ExitStack() as opened:
        sources = open_sources(flags, opened)
        wanted = names_of(flags.output_node_names)
        if not wanted:
            raise UsageError(NO_OUTPUTS)
        if not flags.output_graph:
            raise UsageError("--output_graph says where the frozen graph goes")
        with naming(sources.artifact.path):
            job, frozen = _frozen(flags, sources, [TensorName.parse(name).node for name in wanted], progress)

        def check(written: Path) -> None:
            job.weights = _prove_weights(job, written, early)
            job.outputs = _prove_outputs(job, written, verify)

        delivery = Delivery(True, progress, check, early.written)
        files = write_graph(frozen, flags.output_graph, delivery, as_text=False)
    kept = tuple(node.name for node in frozen.graph.nodes if node.op in VARIABLE_OPS)
    inputs, outputs = job.prepared.names()
    result = ConversionResult(
        format="graph-def" if kept else "frozen-graph", path=flags.output_graph, bytes=files[0].stat().st_size,
        variables=job.weights.compared, seconds=round(time.perf_counter() - began, 3),
        verified=Verified(job.weights, job.outputs), inputs=inputs, outputs=outputs,
        notes=tuple(dict.fromkeys([*sources.notes, *job.prepared.notes])),
    )  # fmt: skip
    return FrozenGraph(result, len(frozen.graph.nodes), kept)


def _frozen(
    flags: FreezeFlags, sources: Sources, wanted: Sequence[str], progress: Progress | None
) -> tuple[_Job, Model]:
    """Freeze the model of the sources; return the model that is to be written too."""
    model = sources.model
    index = GraphIndex(model.graph.nodes)
    if not sources.is_saved_model and not any(node.op in VARIABLE_OPS for node in model.graph.walk()):
        raise UsageError(FROZEN_BEFORE, path=sources.artifact.path)
    for name in wanted:
        if name not in index:
            near = NotFoundError.named("node", name, index.nodes)
            raise NotFoundError(
                f"{name} is not in graph", path=sources.artifact.path, where="--output_node_names", hint=near.hint
            )
    tensors, targets = _endpoints(model.graph, [index.nodes[name] for name in dict.fromkeys(wanted)])
    options = Options(
        to="frozen-graph", tags=sources.tags, outputs=tensors, targets=targets, clear_devices=flags.clear_devices,
        keep_variables=_kept_variables(flags, sources), map=_exact_names(sources), progress=progress,
    )  # fmt: skip
    prepared = prepare(model, options, path=sources.values_path, stored=sources.stored)
    prepared.objects = {**sources.keys_by_node(), **prepared.objects}
    job = _Job(flags, sources, prepared)
    initializers = names_of(flags.initializer_nodes)
    if initializers and (sources.is_saved_model or flags.input_saver):
        prepared.notes.append(
            "--initializer_nodes were not run: TensorFlow's script runs them for --input_graph and --input_meta_graph "
            "without --input_saver"
        )
    elif initializers:
        prepared.assigned = assigned_by(prepared, [TensorName.parse(name).node for name in initializers])
    try:
        frozen, constants = freeze_prepared(prepared)
    except RestoreError as error:
        raise _explained(error, sources) from error
    _say_kept(job, frozen)
    frozen = replace(frozen, graph=_with_every_output(frozen.graph, prepared, tensors))
    job.expected = constants
    job.others = {
        name: tensor
        for name, tensor in graph_constants(frozen.graph).items()
        if name.removeprefix(":") not in constants
    }
    return job, frozen


def _endpoints(graph: Graph, nodes: Sequence[Node]) -> tuple[list[str], list[str]]:
    """Return the tensors that the named nodes give, and those of them that give none.

    Of a call every tensor is named, because a call is replaced by what it calls; any other node stays with all that it
    gives.

    Raises:
        LimitError: A node gives more tensors than any graph has nodes.
    """
    definitions = Definitions(graph.functions)
    tensors: list[str] = []
    targets: list[str] = []
    for node in nodes:
        found = definitions.find(node.op)
        count = None if found is None else count_of(node, found.outputs)
        if count is not None and count > DEFAULT_LIMITS.max_nodes:
            raise LimitError(f"it says that it gives {count:,} tensors", where=f"node {node.name!r}")
        if count is not None and count < 1:
            targets.append(node.name)
        elif count is not None and called_function(node, definitions) is not None:
            tensors += [str(TensorName(node.name, output)) for output in range(count)]
        else:
            tensors.append(str(TensorName(node.name, 0)))
    return tensors, targets


def _kept_variables(flags: FreezeFlags, sources: Sources) -> frozenset[str]:
    """Return the nodes of the variables that stay variables, and note names that are no variable."""
    variables = {node.name: variable_name(node) for node in sources.model.graph.nodes if node.op in VARIABLE_OPS}
    kept: set[str] = set()
    for flag, is_list_of_constants in (("variable_names_whitelist", True), ("variable_names_denylist", False)):
        names = {name.removesuffix(":0") for name in names_of(getattr(flags, flag))}
        if not names:
            continue
        shared_names = {shared for node, shared in variables.items() if node in names or shared in names}
        named = {node for node, shared in variables.items() if shared in shared_names}  # handles of one variable
        for name in sorted(names - variables.keys() - {*variables.values()}):
            near = NotFoundError.named("variable", name, variables).hint
            sources.notes.append(f"--{flag} names {name}, which is no variable of the graph; {near}")
        kept |= variables.keys() - named if is_list_of_constants else named
    return frozenset(kept)


def _exact_names(sources: Sources) -> dict[str, str]:
    """Return checkpoint key -> variable where both have one name, for a graph whose Saver is not known.

    TensorFlow's script restores a GraphDef so, whatever its restore nodes say; a note tells of other keys.
    """
    if sources.model.saver is not None or sources.is_saved_model:
        return {}
    nodes, values = sources.model.graph.nodes, sources.model.values
    names = {node.name: node.name for node in nodes if node.op in VARIABLE_OPS and node.name in values}
    saved, is_writer = what_savers_say(GraphIndex(nodes), None, values)
    if is_writer:
        return {}
    others = [f"{name} ({saved[name][0].key})" for name in names if name in saved
              and name not in [said.key for said in saved[name]]]  # fmt: skip
    if others:
        said = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        sources.notes.append(
            f"variables took the values of their own names, though restore nodes of the graph say other keys: {said}; "
            "--input_meta_graph or --input_saver goes by the Saver"
        )
    return names


def _explained(error: RestoreError, sources: Sources) -> TfthawError:
    """Return what to say where variables have no value."""
    parts = [match[1] for name in error.missing if (match := _PART.fullmatch(name))]
    if any(name in sources.model.values for name in parts):  # the whole is there, and nothing says which part is where
        return UnsupportedError(
            PARTITIONED, problems=error.missing, path=error.path,
            hint="or give the .meta of the training run with --input_meta_graph, which says where the parts lie",
        )  # fmt: skip
    hint = "the directory variables/ of the SavedModel should hold them: copy all of it"
    if not sources.is_saved_model:
        hint = (
            "give the checkpoint that belongs to this graph; what is in none may be set to a constant by a node of the "
            "graph: --initializer_nodes"
        )
    return RestoreError(
        error.message, missing=error.missing, unused=error.unused, mismatched=error.mismatched, path=error.path,
        where=error.where, hint=hint,
    )  # fmt: skip


def _say_kept(job: _Job, frozen: Model) -> None:
    kept = [node.name for node in frozen.graph.nodes if node.op in VARIABLE_OPS]
    if kept:
        said = ", ".join(kept[:5]) + (f" and {len(kept) - 5} more" if len(kept) > 5 else "")
        job.prepared.notes.append(f"still variables, without value: {said}")


def _with_every_output(graph: Graph, prepared: Prepared, tensors: Sequence[str]) -> Graph:
    """Return a graph in which a call that was an output gives all that it gave, under its own name.

    After it was inlined, what a call gave lies in identities, one each, of which the first has the call's name.
    """
    calls: dict[str, list[TensorName]] = {}
    for name in map(TensorName.parse, tensors):
        calls.setdefault(name.node, []).append(name)
    nodes = {node.name: node for node in graph.nodes}
    for call, outputs in calls.items():
        now = [prepared.where(name) for name in outputs]
        given = [nodes.get(name.node) for name in now]
        dtypes: list[Attr] = [dtype for node in given if node is not None and (dtype := node.dtype("T")) is not None]
        first = given[0]
        if len(now) < 2 or first is None or first.name != call or first.op != "Identity" or len(dtypes) < len(now):
            continue
        inputs = [first.inputs[0], *(name.as_input() for name in now[1:]), *first.inputs[1:]]
        nodes[call] = replace(first, op="IdentityN", inputs=inputs, attrs={"T": AttrList("type", dtypes)})
        prepared.fed.update((name, name) for name in outputs)
    return graph.with_nodes(nodes.values())


def _prove_weights(job: _Job, written: Path, early: EarlyComparison) -> WeightProof:
    """Open what was written anew and compare every constant with its source.

    Raises:
        VerificationError: Something differs.
    """
    path = job.flags.output_graph
    with open_artifact(written) as result:
        graph = result.model().graph
        found = {node.name: tensor for node in graph.nodes if (tensor := node.tensor()) is not None}
        progress = job.prepared.options.progress
        proof = require_same(job.expected, found, path=path, progress=progress, early=early)
        require_same(job.others, graph_constants(graph), path=path, early=early)
    return WeightProof(proof.compared, proof.bytes, 0)


def _prove_outputs(job: _Job, written: Path, verify: str) -> OutputProof:
    """Run source and result on the same inputs and compare, where that was asked for.

    Raises:
        VerificationError: The outputs differ.
        UsageError: They cannot be compared.
    """
    if verify != "outputs":
        return OutputProof(why_not="only the weights were asked for; --verify outputs runs both graphs")
    prepared = job.prepared
    why_not = None
    if not prepared.selection.tensors:
        why_not = "the output nodes give no tensors"
    elif any(node.op in VARIABLE_OPS for node in prepared.graph.nodes if node.name in prepared.options.keep_variables):
        why_not = "variables stay, and have no value"
    elif prepared.assigned:
        why_not = "initializer nodes change what was restored"
    if why_not:
        raise UsageError(f"the outputs cannot be compared: {why_not}", path=os.fspath(job.sources.artifact.path))
    from tfthaw.verify.outputs import Endpoints, prove_outputs  # only here: it brings the runtime along

    specs = input_specs(prepared)
    outputs = [str(name) for name in prepared.selection.tensors]
    now = {name: str(prepared.where(TensorName.parse(name))) for name in (*specs, *outputs)}
    with tempfile.TemporaryDirectory(prefix="tfthaw-") as folder:
        source, tags = _runnable_source(job, outputs, folder)
        return prove_outputs(
            Endpoints(source, {name: name for name in specs}, {name: name for name in outputs}, tags),
            Endpoints(written, {name: now[name] for name in specs}, {name: now[name] for name in outputs}),
            specs, {}, required=True,
        )  # fmt: skip


def _runnable_source(job: _Job, outputs: Sequence[str], folder: str) -> tuple[str, Sequence[str] | None]:
    """Return a path that the runtime loads graph and values from, and the tags to load it with."""
    sources = job.sources
    if sources.is_saved_model:
        return sources.artifact.path, sources.tags
    from tfthaw.conversion.converting import convert  # only here: it brings every format along

    # a GraphDef and a checkpoint apart are nothing that runs; a MetaGraph with its checkpoint is
    path = os.path.join(folder, "source.meta")
    keys = {
        match.key: match.variable
        for match in plan_loosely(job.prepared).matches.values()
        if match.reason in ("map", "object", "name")
    }
    convert(
        sources.artifact.path, path, to="meta-graph", outputs=outputs, checkpoint=sources.values_path, map=keys,
        verify="weights",
    )  # fmt: skip
    return path, None
