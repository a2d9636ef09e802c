"""Write and prove what an export for inference in the layout of TensorFlow 1 consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from tfthaw.conversion.code_values import CheckpointValues
from tfthaw.conversion.freezing import freeze_prepared, refuse_training_defaults, settle_batch_norm
from tfthaw.conversion.from_code import CodeSource
from tfthaw.conversion.options import Options
from tfthaw.conversion.prepared import Prepared, needed_variables, node_list, prepare
from tfthaw.conversion.unfed import refuse_unfed
from tfthaw.conversion.values import plan_loosely
from tfthaw.conversion.with_saver import with_state
from tfthaw.drop_ins.inference_directory import (
    CHECKPOINT_NAME,
    CONFIG_FILE,
    FROZEN_FILE,
    SAVED_MODEL,
    TEXT_FILE,
)
from tfthaw.drop_ins.inference_input import Fed
from tfthaw.drop_ins.inference_options import ENCODED, EXAMPLE, InferenceOptions
from tfthaw.drop_ins.inference_outputs import OUTPUT_COLLECTION, InferenceOutputs
from tfthaw.drop_ins.inference_proof import Side, prove_inference, prove_live_inference
from tfthaw.drop_ins.inference_values import refuse_averages, refuse_missing_averages
from tfthaw.dtypes import DType
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.export.meta_graph import META_SUFFIX, write_meta_graph
from tfthaw.export.saved_model import write_saved_model
from tfthaw.ir.attrs import Attr, Shape
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Collection, Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.signatures import DEFAULT_SIGNATURE, Signature, SignatureTensor
from tfthaw.ir.types import output_dtype
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.passes.function_uses import FunctionUses
from tfthaw.passes.input_boundary import known_shape
from tfthaw.passes.prune import free_name, without_lost_colocations
from tfthaw.passes.training_traces import random_nodes
from tfthaw.passes.writes import drop_writes
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import Array, Tensor
from tfthaw.verify.proofs import OutputProof, WeightProof
from tfthaw.verify.risks import reaching_ops
from tfthaw.verify.weights import EarlyComparison, graph_constants, require_same

INPUT_KEY = "inputs"
_GLOBAL_STEP = "global_step"
_META_FILE = CHECKPOINT_NAME + META_SUFFIX


@dataclass(frozen=True)
class InferenceModel:
    """A model that is to be exported for inference.

    Attributes:
        source: The graph as it came.
        path: Where the graph can be run with the values of the checkpoint; None where it cannot.
        checkpoint: Where the values come from, for errors.
        outputs: What comes out.
        fed: What goes in, and the graph with that input.
        code: The live model, where the graph was traced.
        values: The checkpoint as code took it.
        moving_averages: Where variables take their moving averages: the checkpoint's own tensors by key.
        notes: What was guessed, cut or defaulted so far.
    """

    source: Model
    path: str | None
    checkpoint: str
    outputs: InferenceOutputs
    fed: Fed
    code: CodeSource | None = None
    values: CheckpointValues | None = None
    moving_averages: Mapping[str, Tensor] | None = None
    notes: list[str] = field(default_factory=list)


class Writing:
    """One export under way.

    Attributes:
        notes: What was guessed, cut or defaulted.
        proof: What was proved of the tensors.
        inputs: signature argument -> its tensor in the frozen graph.
        outputs: The same for results.

    Args:
        inference: The model.
        options: What the user asked for.
    """

    def __init__(self, inference: InferenceModel, options: InferenceOptions) -> None:
        self.notes = list(inference.notes)
        self.proof = WeightProof()
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self._inference = inference
        self._options = options
        self._results = {**inference.outputs.named, **_additional(inference.outputs)}
        self._sides: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        self._switched = False
        self._settings: dict[str, Array] = {}
        self._values: dict[str, Tensor] = {}

    def write(self, folder: Path, config: str) -> None:
        """Write everything into a directory, each artifact proved when it is written.

        Args:
            folder: The directory.
            config: The text of the config.

        Raises:
            TfthawError: Any of its kinds.
        """
        with self._explained():
            self._write_with_variables(folder)
            self._write_frozen(folder)
        (folder / CONFIG_FILE).write_text(config, encoding="utf-8")

    def _explained(self) -> AbstractContextManager[None]:
        """Say in a restore that fails how the checkpoint differs from code."""
        code, values = self._inference.code, self._inference.values
        if code is None or values is None or code.matches is None:
            return nullcontext()
        return values.explaining(code.live.traced.objects, code.matches)

    def _prepared(self, to: str) -> Prepared:
        """Prune the graph to its outputs."""
        options = Options(
            to=to, set=self._options.set, batch_norm=self._options.batch_norm, allow_missing=self._options.allow_missing
        )
        model = replace(self._inference.fed.model, signatures={DEFAULT_SIGNATURE: self._signature()})
        prepared = prepare(model, options, path=self._inference.checkpoint)
        refuse_unfed(prepared)
        return prepared

    def _write_with_variables(self, folder: Path) -> None:
        """Write the MetaGraph, its checkpoint, and the graph as text."""
        prepared = self._prepared("meta-graph")
        before = prepared.graph
        outputs = [prepared.where(name) for name in prepared.selection.tensors]
        dropped = drop_writes(prepared.graph, outputs, FunctionUses(prepared.definitions))
        prepared.graph = dropped.graph
        for name, variables in dropped.dropped.items():
            prepared.notes.append(f"dropped {name}, which writes {', '.join(variables)}; no output needs it")
        self._settle(prepared, before)
        self._judge_averages(prepared)
        _keep_global_step(prepared)
        prepared.options = replace(prepared.options, batch_norm="keep")  # it is settled already
        model, tensors = with_state(prepared)
        inputs, results = prepared.names()
        listed: list[str] = [results[name] for name in self._inference.outputs.named]
        model = replace(
            model, collections={**model.collections, OUTPUT_COLLECTION: Collection("node", listed)},
            signatures={DEFAULT_SIGNATURE: self._public(model.signatures[DEFAULT_SIGNATURE])},
        )  # fmt: skip
        constants = graph_constants(model.graph)
        with EarlyComparison() as early:
            check = self._checked(tensors, constants, _META_FILE, early)
            delivery = Delivery(False, self._options.progress, check, early.written)
            write_meta_graph(model, tensors, folder / _META_FILE, delivery)
        if self._options.write_inference_graph:
            delivery = Delivery(check=self._checked({}, constants, "", None))
            write_graph(model, folder / TEXT_FILE, delivery)
        self._sides[_META_FILE] = inputs, results
        self._settings, self._values = prepared.settings, prepared.taken
        self.notes += prepared.notes

    def _write_frozen(self, folder: Path) -> None:
        """Write the frozen graph, and the SavedModel that is made of it."""
        prepared = self._prepared("frozen-graph")
        model, constants = freeze_prepared(prepared)
        others = {name: tensor for name, tensor in graph_constants(model.graph).items()
                  if name.removeprefix(":") not in constants}  # fmt: skip
        inputs, results = prepared.names()
        with EarlyComparison() as early:
            check = self._checked(constants, others, "", early)
            delivery = Delivery(False, self._options.progress, check, early.written)
            write_graph(model, folder / FROZEN_FILE, delivery)
        signature = self._moved(prepared)
        saved = replace(model, signatures={DEFAULT_SIGNATURE: self._public(signature)}, tags=("serve",), assets=[])
        with EarlyComparison() as early:
            check = self._checked({}, graph_constants(saved.graph), "", early)
            delivery = Delivery(False, self._options.progress, check, early.written)
            write_saved_model(saved, {}, folder / SAVED_MODEL, delivery)
        self._sides[FROZEN_FILE] = self._sides[SAVED_MODEL] = inputs, results
        self.inputs = {INPUT_KEY: inputs[INPUT_KEY]}
        self.outputs = {name: results[name] for name in self._inference.outputs.named}
        self.notes += prepared.notes

    def _checked(
        self, expected: Mapping[str, Tensor], constants: Mapping[str, Tensor], name: str, early: EarlyComparison | None
    ) -> Callable[[Path], None]:
        """Return the check that what was written holds what it should, bit for bit."""

        def check(written: Path) -> None:
            with open_artifact(written / name if name else written) as result:
                graph = result.model().graph
                found = result.variables if name else _constants_by_node(graph.nodes)
                proof = require_same(expected, found, path=self._options.output_directory,
                                     progress=self._options.progress, early=early)  # fmt: skip
                require_same(constants, graph_constants(graph), path=self._options.output_directory, early=early)
            if name:
                self.proof = WeightProof(proof.compared, proof.bytes, 0)

        return check

    def _settle(self, prepared: Prepared, before: Graph) -> None:
        """Let batch normalisation use its averages, and say what else is left of training."""
        refuse_training_defaults(prepared)
        switched = len(prepared.notes)
        settle_batch_norm(prepared, before)
        self._switched = self._options.batch_norm == "inference" and len(prepared.notes) > switched
        random = random_nodes(prepared.graph)
        if random:
            prepared.notes.append(
                f"the outputs depend on random numbers, as dropout in training does: {', '.join(random[:3])}"
                f"{' ...' if len(random) > 3 else ''}"
            )

    def _judge_averages(self, prepared: Prepared) -> None:
        held = self._inference.moving_averages
        if held is None:
            refuse_averages(plan_loosely(prepared).matches.values(), path=self._inference.checkpoint)
        else:
            prepared.notes += refuse_missing_averages(
                needed_variables(prepared), held, allowed=self._options.allow_missing,
                path=self._inference.checkpoint,
            )  # fmt: skip

    def _signature(self) -> Signature:
        """Return the signature of the graph before it is pruned, additional outputs among the results.

        Results are told as far as their rank: what is fed has other sizes than training had.
        """
        index = GraphIndex(self._inference.fed.model.graph.nodes)
        fed = self._inference.fed.placeholder
        dtype = index.nodes[fed.node].dtype("dtype") or DType.invalid
        before = {node.name: node for node in self._inference.source.graph.nodes}
        outputs = {}
        for name, tensor in self._results.items():
            source = self._inference.outputs.sources.get(name, tensor)
            dims = known_shape(before[source.node], source.output).dims
            shape = Shape(None if dims is None else (None,) * len(dims))
            given = output_dtype(index.nodes[tensor.node], tensor.output) or DType.invalid
            outputs[name] = SignatureTensor(str(tensor), given.base, shape)
        shape = index.nodes[fed.node].shape() or Shape(None)
        return Signature({INPUT_KEY: SignatureTensor(str(fed), dtype, shape)}, outputs)

    def _moved(self, prepared: Prepared) -> Signature:
        """Return the signature with its tensors where they are now."""
        inputs, outputs = prepared.names()
        made = prepared.selection.signatures[DEFAULT_SIGNATURE]
        return replace(
            made,
            inputs={name: replace(entry, tensor=inputs[name]) for name, entry in made.inputs.items()},
            outputs={name: replace(entry, tensor=outputs[name]) for name, entry in made.outputs.items()},
        )

    def _public(self, signature: Signature) -> Signature:
        """Return a signature without the additional outputs."""
        named = self._inference.outputs.named
        return replace(signature, outputs={name: signature.outputs[name] for name in named})

    def prove_outputs(self, folder: Path) -> OutputProof:
        """Run what was written, and the source where it has the same values, on the same images, and compare.

        Args:
            folder: The directory.

        Raises:
            VerificationError: Outputs differ.
        """
        options = self._options
        if options.verify == "weights":
            return OutputProof(why_not="only the weights were asked for")
        with open_artifact(folder / FROZEN_FILE) as frozen:
            reaching = reaching_ops(frozen.model().graph)
        if reaching and options.verify != "outputs":
            return OutputProof(
                why_not=f"the graph reaches outside ({', '.join(reaching)}); --verify outputs runs it all the same"
            )
        written = [
            Side(str(folder / name), inputs[INPUT_KEY], results, self._takes)
            for name, (inputs, results) in self._sides.items()
        ]
        inference, required = self._inference, options.verify == "outputs"
        why_not = self._why_not_source()
        shapes = [inference.fed.shape, inference.fed.at.shape]
        if why_not:
            self.notes.append(f"outputs were compared with those of {_META_FILE}: {why_not}")
            return prove_inference(written[0], written[1:], shapes, required=required)
        if inference.code is not None:
            return prove_live_inference(
                inference.code, self._values, self._source_side(), written, shapes, required=required
            )
        return prove_inference(self._source_side(), written, shapes, required=required)

    @property
    def _takes(self) -> str:
        return {ENCODED: "encoded", EXAMPLE: "examples"}.get(self._options.input_type, "images")

    def _source_side(self) -> Side:
        """Return how to run the source: fed where it was cut."""
        inference = self._inference
        results = {name: str(tensor) for name, tensor in inference.outputs.sources.items()}
        results |= {name: str(tensor) for name, tensor in _additional(inference.outputs).items()}
        at = inference.fed.at
        takes = self._takes if at.dtype is DType.string else "images"
        return Side(inference.path or "", str(at.tensor), results, takes, self._settings, at.dtype or DType.uint8)

    def _why_not_source(self) -> str | None:
        """Return why the export and its source give different outputs, or why the source is not run; else None."""
        inference = self._inference
        if self._switched:
            return "batch normalisation uses its moving averages now"
        if inference.code is not None:
            return None
        if inference.moving_averages is not None:
            return "the export has moving averages as values"
        if inference.path is None:
            return "the graph and the checkpoint came apart"
        model = inference.source
        index = GraphIndex(model.graph.nodes)
        outputs = [name.node for name in (*inference.outputs.sources.values(), *inference.outputs.additional)]
        needed = index.reach(outputs, stop=[inference.fed.at.tensor.node])
        needed |= index.reach(node_list(model.collections.get("table_initializer")))
        reaching = reaching_ops(model.graph.with_nodes(node for node in model.graph.nodes if node.name in needed))
        return f"the source reaches outside ({', '.join(reaching)})" if reaching else None


def _additional(outputs: InferenceOutputs) -> dict[str, TensorName]:
    """Return the additional tensors by names that no output has."""
    result: dict[str, TensorName] = {}
    for tensor in outputs.additional:
        if tensor not in outputs.named.values():
            result[free_name({*outputs.named, *result}, str(tensor).replace("/", "_").replace(":", "_"))] = tensor
    return result


def _constants_by_node(nodes: Iterable[Node]) -> dict[str, Tensor]:
    return {node.name: tensor for node in nodes if (tensor := node.tensor()) is not None}


def _keep_global_step(prepared: Prepared) -> None:
    """Keep the count of training steps, which the object detection API exports with every model."""
    value = prepared.values.get(_GLOBAL_STEP)
    if value is None or any(node.name == _GLOBAL_STEP for node in prepared.graph.nodes):
        return
    known = [node for node in prepared.whole.nodes if node.name == _GLOBAL_STEP]
    if known and known[0].op not in VARIABLE_OPS:
        return
    attrs: dict[str, Attr] = {
        "dtype": value.dtype, "shape": Shape(value.shape), "container": b"", "shared_name": b""
    }  # fmt: skip
    step = Node(_GLOBAL_STEP, known[0].op if known else "VariableV2", [], "", known[0].attrs if known else attrs)
    prepared.graph = prepared.graph.with_nodes([*prepared.graph.nodes, *without_lost_colocations([step])])
