"""Inspection: what an artifact is, what is in it, who made it, and what it can become.

The report is made of plain values; rendering is the command line's affair. Nothing here reads a tensor's values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfthaw.conversion.options import Options
from tfthaw.dtypes import DType
from tfthaw.errors import TfthawError
from tfthaw.formats.checkpoint_reader import CheckpointReader
from tfthaw.formats.names import CHECKPOINT_FORMATS, GRAPH_FORMATS, KERAS_FORMATS, WEIGHT_FORMATS
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph
from tfthaw.ir.model import Model
from tfthaw.ir.signatures import Signature, SignatureTensor
from tfthaw.ir.variables import VARIABLE_OPS, Variable, graph_variables, slot_variables
from tfthaw.serde.artifacts import Artifact

_V1_CONTROL_FLOW = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond",
                              "RefSwitch", "RefMerge", "RefEnter", "RefExit", "RefNextIteration"})  # fmt: skip
_V2_CONTROL_FLOW = frozenset({"If", "StatelessIf", "While", "StatelessWhile", "Case", "StatelessCase"})


@dataclass
class GraphReport:
    """What a graph holds.

    Attributes:
        nodes: Nodes of the main graph.
        functions: Functions of the library.
        ops: op -> its nodes in the main graph and in all functions.
        unregistered_ops: Ops that are neither TensorFlow's nor functions of the library.
        frozen: Whether it has no variables.
        control_flow: `none`, `v1` (Switch, Merge, Enter ...) or `v2` (If, While, Case).
    """

    nodes: int
    functions: int
    ops: dict[str, int]
    unregistered_ops: list[str]
    frozen: bool
    control_flow: str


@dataclass
class Report:
    """What `inspect` tells; `as_dict` is its JSON.

    Attributes:
        format: The format's name.
        path: The path as given.
        bytes: The size of all files.
        producer: Who wrote it: `tensorflow`, `graph`, `min_consumer`, `earliest` (the first TensorFlow with all its
            ops).
        tag_sets: The tag sets of a SavedModel.
        signatures: Signatures by key.
        variables: Variables, or every tensor of a weights format.
        graph: What its graph holds, or None.
        assets: The names of its assets.
        can_become: The formats that it can become as it is.
        cannot_become: The others, with what is missing and the cure.
        notes: What a user should know.
        keys: Of a checkpoint: `names` or `objects`; else None.
        object_graph: The objects of a TensorFlow 2 SavedModel or object-based checkpoint, as `tfthaw.object_inspection`
            describes them; else None. Then `variables` have a `path` beside their key, too.
    """

    format: str
    path: str
    bytes: int
    producer: dict[str, Any] = field(default_factory=dict)
    tag_sets: list[list[str]] = field(default_factory=list)
    signatures: dict[str, Any] = field(default_factory=dict)
    variables: list[dict[str, Any]] = field(default_factory=list)
    graph: GraphReport | None = None
    assets: list[str] = field(default_factory=list)
    can_become: list[str] = field(default_factory=list)
    cannot_become: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: str | None = None
    object_graph: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as `inspect --json` prints it."""
        document = dict(vars(self))
        document["graph"] = None if self.graph is None else vars(self.graph)
        if self.keys is None:
            del document["keys"]
        return document


def inspect(artifact: Artifact, tags: Sequence[str] | None = None) -> Report:
    """Tell what an artifact is and holds.

    Args:
        artifact: The artifact.
        tags: The tag set of the MetaGraph to look at, where a SavedModel has several.
    """
    report = Report(artifact.format, artifact.path, artifact.bytes)
    report.tag_sets = artifact.tag_sets
    report.notes += [f"{name} belongs to it and is not there" for name in artifact.located.missing]
    own_graph = artifact.has_graph and artifact.located.format not in CHECKPOINT_FORMATS
    model = artifact.model(tags) if own_graph else None
    if model is not None:
        _describe_model(report, model)
    if artifact.checkpoint is not None and artifact.located.format in CHECKPOINT_FORMATS:
        if artifact.located.format == "checkpoint":
            report.keys = "objects" if artifact.checkpoint.is_object_based else "names"
        report.variables = _entries(artifact.checkpoint)
        if artifact.located.meta_graph:
            report.notes.append(f"its graph is beside it: {artifact.located.meta_graph}")
    elif model is None:
        report.variables = tensors_report((name, item.dtype, item.shape) for name, item in artifact.variables.items())
    elif artifact.located.format == "saved-model" and artifact.checkpoint is not None:
        report.variables = _saved_variables(artifact.checkpoint, model)
    else:
        report.variables = [_variable(item) for item in graph_variables(model.graph.nodes, model.declared)]
    _describe_objects(report, artifact, model, tags)
    if artifact.keras is not None:
        _describe_keras(report, artifact)
    _outlook(report, artifact, model)
    return report


def _describe_model(report: Report, model: Model) -> None:
    from tfthaw.ir.op_history import earliest_version, package_of  # a checkpoint needs none of it

    producer = model.producer
    report.graph = graph_report(model.graph)
    version, deciding = earliest_version(report.graph.ops)
    report.producer = {
        "tensorflow": producer.tensorflow, "graph": producer.graph, "min_consumer": producer.min_consumer,
        "earliest": version, "earliest_because": list(deciding)[:5],
    }  # fmt: skip
    report.signatures = {key: _signature(value) for key, value in model.signatures.items()}
    report.assets = [asset.filename for asset in model.assets]
    report.notes += model.notes
    packages = {op: package_of(op) for op in report.graph.unregistered_ops}
    for op in report.graph.unregistered_ops:
        nodes = report.graph.ops.get(op, 0)
        where = f"it comes with {packages[op]}" if packages[op] else "it is a custom op"
        report.notes.append(f"{op} ({nodes} nodes) is not TensorFlow's: {where}")


def graph_report(graph: Graph) -> GraphReport:
    """Count what a graph holds."""
    from tfthaw.ir.op_history import unregistered

    ops = Counter(node.op for node in graph.walk())
    library = {function.name for function in graph.functions}
    v2 = any(op in _V2_CONTROL_FLOW for op in ops)
    v1 = any(op in _V1_CONTROL_FLOW for op in ops)
    return GraphReport(
        nodes=len(graph.nodes),
        functions=len(graph.functions),
        ops=dict(sorted(ops.items())),
        unregistered_ops=[op for op in unregistered(ops) if op not in library],
        frozen=not any(op in VARIABLE_OPS for op in ops),
        control_flow="v2" if v2 else "v1" if v1 else "none",
    )


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "method": signature.method, "inputs": _entries_of(signature.inputs), "outputs": _entries_of(signature.outputs)
    }  # fmt: skip


def _entries_of(entries: Mapping[str, SignatureTensor]) -> dict[str, dict[str, Any]]:
    """Describe what a signature takes or gives; sparse and composite tensors with the tensors they are made of."""
    return {
        name: {
            "tensor": entry.tensor, "dtype": entry.dtype.name if entry.dtype else None, "shape": _shape(entry.shape),
            **({"components": _entries_of(entry.components)} if entry.components else {}),
        }
        for name, entry in entries.items()
    }  # fmt: skip


def _shape(shape: Shape | None) -> list[int | None] | None:
    return None if shape is None or shape.dims is None else list(shape.dims)


def tensors_report(tensors: Iterable[tuple[str, DType, Sequence[int]]]) -> list[dict[str, Any]]:
    """Describe named tensors as the `variables` of a report."""
    every = list(tensors)
    slots = slot_variables(name for name, _, _ in every)
    result = []
    for name, dtype, shape in every:
        slot_of, slot = slots.get(name, (None, None))
        count = 1
        for size in shape:
            count *= size
        result.append({
            "name": name, "dtype": dtype.name, "shape": list(shape), "bytes": count * dtype.itemsize, "trainable": None,
            "slot_of": slot_of, "slot": slot,
        })  # fmt: skip
    return result


def _entries(checkpoint: CheckpointReader) -> list[dict[str, Any]]:
    return tensors_report((key, entry.dtype, entry.shape) for key, entry in checkpoint.entries.items())


def _saved_variables(checkpoint: CheckpointReader, model: Model) -> list[dict[str, Any]]:
    """Describe the variables of a SavedModel: its checkpoint's keys, trainable where the graph says so."""
    declared = {item.name: item.trainable for item in graph_variables(model.graph.nodes, model.declared)}
    result = _entries(checkpoint)
    for document in result:
        document["trainable"] = declared.get(document["name"])
    return result


def _variable(variable: Variable) -> dict[str, Any]:
    shape = _shape(variable.shape)
    count: int | None = 1
    for size in shape if shape is not None else [None]:
        count = None if size is None or count is None else count * size
    return {
        "name": variable.name, "dtype": variable.dtype.name, "shape": shape,
        "bytes": None if count is None else count * variable.dtype.itemsize, "trainable": variable.trainable,
        "slot_of": variable.slot_of, "slot": variable.slot,
    }  # fmt: skip


def _describe_objects(report: Report, artifact: Artifact, model: Model | None, tags: Sequence[str] | None) -> None:
    """Add the object graph, and what it says of the variables."""
    objects = artifact.objects(tags)
    if objects is None:
        return
    if objects.graph is None and objects.stored is None:
        report.notes += objects.notes
        return
    from tfthaw.object_inspection import object_report  # only what has objects needs it

    entries = artifact.checkpoint.entries if artifact.checkpoint is not None else {}
    report.object_graph = object_report(objects, model, entries)
    keys = {item.node: item.key for item in objects.variables}
    found = {item.key: item for item in objects.variables if item.key is not None}
    for document in report.variables:
        item = found.get(document["name"])
        document["path"] = item.path if item is not None else None
        if item is not None:
            document["slot_of"] = keys.get(item.slot.owner) if item.slot else None
            document["slot"] = item.slot.name if item.slot else None
            document["trainable"] = document["trainable"] if item.trainable is None else item.trainable
    problems = report.object_graph["problems"]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        report.notes.append(f"its object graph is not whole: {problems[0]}{more}")


def _describe_keras(report: Report, artifact: Artifact) -> None:
    keras = artifact.keras
    if keras is None:
        return
    version = getattr(keras, "keras_version", None)
    if version:
        report.producer = {"tensorflow": None, "graph": None, "min_consumer": None, "keras": version}
    lambdas: Mapping[str, Any] | Sequence[str] = getattr(keras, "lambdas", ())
    if lambdas:
        report.notes.append(f"Lambda layers hold Python bytecode, which is never run here: {', '.join(lambdas)}")


def _outlook(report: Report, artifact: Artifact, model: Model | None) -> None:
    """Say what the artifact can become, and what is missing for the rest."""
    for name in (*GRAPH_FORMATS, *WEIGHT_FORMATS):
        obstacle = (
            _weights_obstacle(artifact, model) if name in WEIGHT_FORMATS else _graph_obstacle(artifact, model, name)
        )
        if obstacle is None:
            report.can_become.append(name)
        else:
            report.cannot_become.append({"format": name, "missing": obstacle[0], "cure": obstacle[1]})
    for name in KERAS_FORMATS:
        obstacle = _keras_obstacle(artifact, name)
        if obstacle is None:
            report.can_become.append(name)
        else:
            report.cannot_become.append({"format": name, "missing": obstacle[0], "cure": obstacle[1]})
    if model is not None and not report.signatures and report.graph is not None and report.graph.nodes:
        from tfthaw.conversion.selection import rank_outputs  # a checkpoint needs none of it

        likely = [str(item.tensor) for item in rank_outputs(model.graph)[:3]]
        report.notes.append(f"it has no signature; likely outputs: {', '.join(likely) or 'none found'}")


def _weights_obstacle(artifact: Artifact, model: Model | None) -> tuple[str, str] | None:
    if artifact.variables:
        return None
    if model is None:
        return "it holds no tensors", "use the file that holds them"
    if artifact.format == "frozen-graph":
        constants = (node.tensor() for node in model.graph.nodes if node.op == "Const")
        weights = any(tensor is not None and tensor.dtype.is_float and tensor.shape for tensor in constants)
        return None if weights else ("it holds no floating constants", "there is nothing to take")
    return "the values: a graph alone has none", "add --checkpoint with the checkpoint that belongs to it"


def _keras_obstacle(artifact: Artifact, name: str) -> tuple[str, str] | None:
    cure = "give the model's .keras or .h5 as source, and this with --checkpoint"
    is_v1 = artifact.checkpoint is not None and not artifact.checkpoint.is_object_based
    if is_v1 or (artifact.format in GRAPH_FORMATS and artifact.checkpoint is None):
        return "the configuration of a Keras model, or the paths of its objects: it has neither", cure
    from tfthaw.conversion.keras import keras_contents  # only here: most artifacts are none of Keras

    try:
        keras_contents(artifact, "", Options(to=name), [])
    except TfthawError as error:
        return error.message, error.hint or cure
    return None


def _graph_obstacle(artifact: Artifact, model: Model | None, name: str) -> tuple[str, str] | None:
    if model is None:
        if artifact.located.meta_graph is not None:
            return None
        if artifact.located.format in CHECKPOINT_FORMATS:
            return (
                "the graph: a checkpoint holds values only",
                "convert the .meta or GraphDef that belongs to it, with --checkpoint, or name the Python that builds "
                "the model with --code",
            )
        return "the graph: this file holds weights only", "convert the graph that they belong to"
    if not model.graph.nodes:
        return "the graph: it has no nodes", "use the artifact that holds the graph"
    if name == "graph-def":
        return None
    has_variables = any(node.op in VARIABLE_OPS for node in model.graph.walk())
    if has_variables and not artifact.variables:
        return "the values of its variables", "add --checkpoint with the checkpoint that belongs to it"
    return None
