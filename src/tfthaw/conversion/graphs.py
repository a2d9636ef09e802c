"""Conversions into formats that carry a graph.

The steps are the same for each: choose what goes in and out, set placeholders, take what the outputs need, plan where
every variable's value comes from, and then either freeze (frozen-graph) or give the graph a Saver of its own
(meta-graph, saved-model). `Prepared` is the state between the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tfthaw.conversion.options import Options
from tfthaw.conversion.selection import Selection, public_signatures, select
from tfthaw.errors import NotFoundError, UnsupportedError, UsageError
from tfthaw.formats.vocabulary import read_lines
from tfthaw.ir.attrs import Shape
from tfthaw.ir.composites import put_together
from tfthaw.ir.definitions import Definition, Definitions
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Asset, Collection, Model, Saver
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.ir.signatures import INIT_OP_SIGNATURE, Signature
from tfthaw.ir.types import output_dtype
from tfthaw.ir.validation import require_consistent, require_unique_names
from tfthaw.ir.variables import HANDLE_OPS, VARIABLE_OPS, Variable, graph_variables
from tfthaw.passes.add_saver import SavedVariable, WithSaver, add_saver
from tfthaw.passes.batch_norm import training_mode_nodes, use_moving_averages
from tfthaw.passes.clear_devices import clear_devices
from tfthaw.passes.freeze import freeze
from tfthaw.passes.function_uses import FunctionUses
from tfthaw.passes.idle_controls import drop_idle_controls
from tfthaw.passes.inline_functions import inline_functions
from tfthaw.passes.prune import prune, prune_library, require_tensors
from tfthaw.passes.set_placeholders import cut_dead_branches, set_placeholders
from tfthaw.passes.tables import fill_tables, fillers, refuse_mutable_tables
from tfthaw.passes.transient import first_call
from tfthaw.passes.vocabularies import embed_vocabularies, file_names
from tfthaw.passes.writes import drop_writes
from tfthaw.restore.initial_values import initial_values
from tfthaw.restore.object_keys import keys_by_node
from tfthaw.restore.plan import Match, Plan, choose_averages, plan_restore
from tfthaw.restore.saved_names import V1_RESTORE_OPS
from tfthaw.serde.described_ops import described_ops
from tfthaw.serde.meta_graphs import variable_def
from tfthaw.tensors import Array, Tensor
from tfthaw.verify.inputs import InputSpec

LOCAL_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op", "local_init_op", "table_initializer")
_STANDS_ALONE = ("frozen-graph", "meta-graph")  # nothing runs an init op when these are loaded
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")


@dataclass
class Prepared:
    """A model on its way from source to destination.

    Attributes:
        model: The model; its graph shrinks from step to step.
        whole: The graph as it came, Saver and init ops included.
        selection: What goes in and out.
        values: The checkpoint's tensors by key.
        path: Where the values come from, for errors.
        options: What the user asked for.
        notes: What was guessed, skipped or defaulted.
        fed: Where each input is fed now.
        settings: Placeholders that are constants now, by tensor name, with their values.
        described: Ops that the source describes itself.
        objects: variable's node -> checkpoint key, as object graphs say.
    """

    model: Model
    whole: Graph
    selection: Selection
    values: Mapping[str, Tensor]
    path: str
    options: Options
    notes: list[str]
    fed: dict[TensorName, TensorName]
    settings: dict[str, Array] = field(default_factory=dict)
    described: Mapping[str, Definition] = field(default_factory=dict)
    objects: Mapping[str, str] = field(default_factory=dict)

    @property
    def definitions(self) -> Definitions:
        """What the ops of the graph as it is now take and give."""
        return Definitions(self.graph.functions, self.described)

    @property
    def graph(self) -> Graph:
        """The graph as it is now."""
        return self.model.graph

    @graph.setter
    def graph(self, graph: Graph) -> None:
        self.model = replace(self.model, graph=graph)

    def where(self, name: TensorName) -> TensorName:
        """Return where a tensor of the source is now."""
        return self.fed.get(name, name)

    def names(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return what the user calls each input and output -> its tensor now."""
        return (
            {name: str(self.where(tensor)) for name, tensor in self.selection.inputs.items()},
            {name: str(self.where(tensor)) for name, tensor in self.selection.outputs.items()},
        )


def prepare(model: Model, options: Options, *, path: str, stored: TrackableObjectGraph | None = None) -> Prepared:
    """Choose, set placeholders, and take what the outputs need.

    Args:
        model: The model, with its values.
        options: What the user asked for.
        path: Where the values come from, for errors.
        stored: The object graph of the checkpoint that they come from.

    Raises:
        TfthawError: As `select`, `set_placeholders`, `prune` and `fill_tables` do.
    """
    values, notes = choose_averages(model.values, options.ema)
    every = options.to in ("saved-model", "meta-graph")
    selection = select(model, signature=options.signature, inputs=options.inputs, outputs=options.outputs, every=every)
    prepared = Prepared(model, model.graph, selection, values, path, options, [*model.notes, *notes], {})
    if model.object_graph is not None and stored is not None:
        prepared.objects = keys_by_node(model.graph, model.object_graph, stored)
    if model.graph.functions:
        prepared.described = described_ops(model.opaque or b"", model.payloads)
    if options.set:
        prepared.graph = set_placeholders(prepared.graph, options.set)
        names = {name.removesuffix(":0") for name in options.set}
        prepared.settings = {
            f"{node.name}:0": tensor.numpy()
            for node in prepared.graph.nodes
            if node.name in names and (tensor := node.tensor()) is not None
        }
        prepared.selection = selection.without_inputs({name.removesuffix(":0") for name in options.set})
        settled = cut_dead_branches(prepared.graph)
        prepared.graph = settled.graph
        said = ", ".join(f"{name}={value}" for name, value in options.set.items())
        prepared.notes.append(f"set {said}; {settled.dead} nodes could no longer run and went")
    _take_what_is_needed(prepared)
    return prepared


def _take_what_is_needed(prepared: Prepared) -> None:
    """Prune to the outputs, tables filled."""
    selection, to = prepared.selection, prepared.options.to
    wanted = [*selection.tensors, *(name for name in selection.feeds if to != "frozen-graph")]
    if not selection.tensors:
        raise UsageError(
            f"the signature has no outputs: {', '.join(selection.signatures) or 'it has no name either'}",
            hint="choose another one with --signature, or name tensors with --outputs",
        )
    index = GraphIndex(prepared.graph.nodes)
    require_tensors(index, [*selection.tensors, *selection.feeds], what="signature")
    reached = index.reach([name.node for name in wanted])
    keep = init_ops(prepared.model) if to == "saved-model" else []
    for name in keep:
        if name not in index:
            raise NotFoundError.named("node", name, index.nodes, where="init op")
    require_unique_names(prepared.graph, index.reach([*reached, *keep]))
    if prepared.graph.functions and to in _STANDS_ALONE:
        wanted = _inline(prepared, wanted)
        index = GraphIndex(prepared.graph.nodes)
        reached = index.reach([name.node for name in wanted])
    if to == "saved-model":  # its loader runs the init op, which fills tables and sets local variables
        refuse_mutable_tables(index, reached)
    elif fillers(index, reached):
        _fill_tables(prepared, wanted)
    feeds = selection.feeds if to == "frozen-graph" else []
    dtypes = {
        name: dtype
        for name in feeds
        if name.node in index and (dtype := output_dtype(index.nodes[name.node], name.output)) is not None
    }
    prepared.graph, fed = prune(prepared.graph, wanted, feeds, keep=keep, dtypes=dtypes)
    prepared.fed |= fed
    require_consistent(prepared.graph)  # only what is taken: the rest may be as broken as it likes
    for old, new in fed.items():
        if old == new:
            continue
        prepared.notes.append(f"{old} was no placeholder; it is fed as {new} now")
    cleared = clear_devices(prepared.graph)
    prepared.graph = cleared.graph
    for device, count in cleared.devices.items():
        prepared.notes.append(f"{count} nodes asked for {device}; they no longer do")


def _inline(prepared: Prepared, wanted: list[TensorName]) -> list[TensorName]:
    """Inline what the outputs and the init ops call; return where the wanted tensors are now."""
    init = init_ops(prepared.model)
    index = GraphIndex(prepared.graph.nodes)
    reached = index.reach([*(name.node for name in wanted), *init])
    taken = [node for node in prepared.graph.nodes if node.name in reached]
    graph = prune_library(prepared.graph.with_nodes(taken))
    require_consistent(graph)
    inlined = inline_functions(graph, prepared.definitions, keep=init)
    prepared.graph = inlined.graph
    prepared.fed |= inlined.moved
    return [prepared.where(name) for name in wanted]


def _fill_tables(prepared: Prepared, wanted: list[TensorName]) -> None:
    _embed_vocabularies(prepared)
    try:
        filled = fill_tables(prepared.graph, wanted)
    except UnsupportedError:
        index = GraphIndex(prepared.graph.nodes)
        filled_from_outside = any(fillers(index, index.reach([name.node for name in wanted])).values())
        if variable_nodes(prepared.graph) or filled_from_outside or prepared.options.to != "frozen-graph":
            raise
        prepared.notes.append("nothing in the graph fills its lookup tables, as in the source")
        return
    prepared.graph = filled.graph
    for table, filler in filled.tables.items():
        prepared.notes.append(f"lookup table {table} fills itself now ({filler} runs before each use)")


def _embed_vocabularies(prepared: Prepared) -> None:
    """Put the vocabularies that came with the model into its graph."""
    sources = {TensorName.parse(asset.tensor): asset.source for asset in prepared.model.assets}
    files = {}
    for name in file_names(prepared.graph).values():
        source = sources.get(name)
        if source is not None and source.is_file():
            files[name] = read_lines(source)
    embedded = embed_vocabularies(prepared.graph, files)
    prepared.graph = embedded.graph
    for filler, count in embedded.tables.items():
        prepared.notes.append(f"the vocabulary of {filler} ({count} entries) is in the graph now")


def init_ops(model: Model) -> list[str]:
    """Return the nodes that a loader runs after restoring."""
    signature = model.signatures.get(INIT_OP_SIGNATURE)
    if signature is not None:
        return [TensorName.parse(entry.tensor).node for entry in signature.outputs.values()]
    names = [name for key in _INIT_COLLECTIONS for name in _node_list(model.collections.get(key))]
    return names[:1] if names else []


def _node_list(collection: Collection | None) -> list[str]:
    if collection is None or collection.kind != "node":
        return []
    return [TensorName.parse(str(item)).node for item in collection.items]


def variable_nodes(graph: Graph) -> list[str]:
    """Return the nodes of the main graph that are variables."""
    return [node.name for node in graph.nodes if node.op in VARIABLE_OPS]


def needed_variables(prepared: Prepared) -> list[Variable]:
    """Return the variables of the graph as it is now."""
    return graph_variables(prepared.graph.nodes, prepared.model.declared)


def plan_values(prepared: Prepared) -> Plan:
    """Plan where every variable of the graph takes its value from.

    Variables that no checkpoint holds and that the model's own init op sets to a constant take that constant.

    Raises:
        RestoreError: Variables have no value that fits; with all of them.
    """
    plan = _plan(prepared)
    plan.require_complete(allow_missing=prepared.options.allow_missing)
    prepared.notes += plan.notes
    for match in plan.matches.values():
        if match.reason == "initial":
            prepared.notes.append(f"{match.key} is in no checkpoint; it has the value that loading the model gives it")
    if plan.missing:
        prepared.notes.append(f"left without value, as allowed: {', '.join(plan.missing)}")
    return plan


def _plan(prepared: Prepared) -> Plan:
    """Plan without judging whether the plan is complete."""
    model = prepared.model
    saving = saving_graph(model.saver, prepared.whole, prepared.described)
    plan = plan_restore(
        saving, needed_variables(prepared), prepared.values, declared=model.declared,
        restore_op=model.saver.restore_op if model.saver else None, renames=prepared.options.map,
        objects=prepared.objects, path=prepared.path,
    )  # fmt: skip
    if not plan.missing:
        return plan
    roots = [name for key in LOCAL_INIT_COLLECTIONS for name in _node_list(model.collections.get(key))]
    constants = initial_values(GraphIndex(prepared.whole.nodes), [*roots, *init_ops(model)])
    for variable in needed_variables(prepared):
        if variable.name in plan.missing and variable.node in constants:
            plan.missing.remove(variable.name)
            value = constants[variable.node]
            plan.matches[variable.node] = Match(variable.node, variable.name, value, "initial", value)
    return plan


def saving_graph(saver: Saver | None, whole: Graph, described: Mapping[str, Definition]) -> Graph:
    """Return a graph whose restore nodes are in the open: where the Saver is a function, that is inlined.

    Args:
        saver: The Saver.
        whole: The whole graph.
        described: Ops that the source describes itself.
    """
    restore = TensorName.parse(saver.restore_op).node if saver is not None else ""
    index = GraphIndex(whole.nodes)
    if not whole.functions or restore not in index:
        return whole
    reached = index.reach([restore])
    graph = prune_library(whole.with_nodes(node for node in whole.nodes if node.name in reached))
    if not graph.functions:
        return whole
    require_consistent(graph)
    inlined = inline_functions(graph, Definitions(graph.functions, described), keep=[restore]).graph
    known = {node.name for node in inlined.nodes}
    return whole.with_nodes([*inlined.nodes, *(node for node in whole.nodes if node.name not in known)])


def freeze_prepared(prepared: Prepared) -> tuple[Model, dict[str, Tensor]]:
    """Turn every variable into a constant.

    Returns:
        The frozen model, and the constants that were variables by node name.

    Raises:
        UnsupportedError: The graph cannot be frozen; with every reason.
        RestoreError: Variables have no value.
    """
    plan = None
    outputs = [prepared.where(name) for name in prepared.selection.tensors]
    _settle_batch_norm(prepared)
    if variable_nodes(prepared.graph):
        transient = [match.variable for match in _plan(prepared).matches.values() if match.reason == "initial"]
        uses = FunctionUses(prepared.definitions)
        rewritten = first_call(prepared.graph, outputs, transient, uses)
        prepared.graph = rewritten.graph
        for name in rewritten.rewritten:
            prepared.notes.append(f"{name} counts from what loading the model gives it; a frozen graph keeps no count")
        dropped = drop_writes(prepared.graph, outputs, uses)
        prepared.graph = dropped.graph
        for name, variables in dropped.dropped.items():
            prepared.notes.append(f"dropped {name}, which writes {', '.join(variables)}; no output needs it")
        plan = plan_values(prepared)
    else:
        prepared.notes.append("the graph holds no variables: it was frozen already")
    values = {node: match.tensor for node, match in plan.matches.items()} if plan else {}
    _require_values(prepared, values)
    frozen = freeze(prepared.graph, values, FunctionUses(prepared.definitions))
    frozen.graph = drop_idle_controls(frozen.graph, outputs)
    model = replace(prepared.model, graph=frozen.graph, saver=None, collections={}, signatures={}, object_graph=None)
    kept = {node.name for node in frozen.graph.nodes}
    return model, {name: values[name] for name in frozen.constants if name in kept}


def _require_values(prepared: Prepared, values: Mapping[str, Tensor]) -> None:
    """Refuse to freeze variables that were allowed to stay without value."""
    empty = [name for name in variable_nodes(prepared.graph) if name not in values]
    if empty:
        raise UnsupportedError(
            "a frozen graph cannot hold variables without value", problems=empty,
            hint="choose outputs that do not need them, or convert to saved-model",
        )  # fmt: skip


def _settle_batch_norm(prepared: Prepared) -> None:
    """Leave batch normalisation as it is and say so, or make it use its moving averages, as asked."""
    if prepared.options.batch_norm == "inference":
        changed = use_moving_averages(prepared.graph, prepared.whole)
        prepared.graph = changed.graph
        prepared.notes += [f"{name} uses its moving averages now" for name in changed.changed]
        return
    training = training_mode_nodes(prepared.graph)
    if training:
        first = ", ".join(training[:3]) + (" ..." if len(training) > 3 else "")
        prepared.notes.append(
            f"{len(training)} batch normalisations run in training mode (statistics of the batch), as in the source: "
            f"{first}; --batch-norm inference uses moving averages"
        )


def with_state(prepared: Prepared) -> tuple[Model, dict[str, Tensor]]:
    """Give the graph a Saver of its own and say which tensors its checkpoint must hold.

    Returns:
        The model, and the checkpoint's tensors by key.

    Raises:
        RestoreError: Variables have no value.
        UnsupportedError: The library's functions hold variables.
    """
    if prepared.options.optimizer == "keep":
        raise UsageError("a graph pruned to its outputs needs nothing of an optimizer")
    _settle_batch_norm(prepared)
    plan = plan_values(prepared) if variable_nodes(prepared.graph) else Plan()
    matches = list(plan.matches.values())
    saved = [SavedVariable(match.variable, match.key, match.part) for match in matches]
    # a Saver without variables would make loaders look for a checkpoint that is not there
    added = add_saver(prepared.graph, saved) if saved else WithSaver(prepared.graph, None, {}, {})
    model = replace(
        prepared.model, graph=added.graph, saver=added.saver,
        collections=_collections(prepared, added, plan), signatures=_signatures(prepared),
        assets=_assets(prepared, added.graph), object_graph=None,
    )  # fmt: skip
    return model, {match.key: match.whole for match in matches}


def with_current_saver(model: Model, *, path: str) -> tuple[Model, list[str]]:
    """Give a whole graph a new Saver where its own reads nothing but V1 checkpoints, which are no longer written.

    Args:
        model: The model, with its values.
        path: Where the values come from, for errors.

    Returns:
        The model, and what was done as notes.

    Raises:
        RestoreError: Values do not fit their variables.
    """
    if model.saver is None:
        return model, []
    index = GraphIndex(model.graph.nodes)
    restoring = index.reach([TensorName.parse(model.saver.restore_op).node])
    if not any(index.nodes[name].op in V1_RESTORE_OPS for name in restoring):
        return model, []
    plan = plan_restore(
        model.graph, graph_variables(model.graph.nodes, model.declared), model.values, declared=model.declared,
        restore_op=model.saver.restore_op, path=path,
    )  # fmt: skip
    plan.require_complete(allow_missing=["*"])  # what the checkpoint never held, the old Saver did not restore either
    saved = [SavedVariable(match.variable, match.key, match.part) for match in plan.matches.values()]
    if not saved:
        return model, []
    added = add_saver(model.graph, saved)
    note = "its Saver reads V1 checkpoints alone; a new one reads the checkpoint that was written"
    return replace(model, graph=added.graph, saver=added.saver), [note, *plan.notes]


def _signatures(prepared: Prepared) -> dict[str, Signature]:
    """Return the selected signatures, with the init op where it is said as a signature."""
    result = {key: put_together(signature) for key, signature in prepared.selection.signatures.items()}
    init = prepared.model.signatures.get(INIT_OP_SIGNATURE)
    if init is not None and prepared.options.to == "saved-model":
        result[INIT_OP_SIGNATURE] = init
    return result


def _assets(prepared: Prepared, graph: Graph) -> list[Asset]:
    kept = {node.name for node in graph.nodes}
    return [asset for asset in prepared.model.assets if TensorName.parse(asset.tensor).node in kept]


def _collections(prepared: Prepared, added: WithSaver, plan: Plan) -> dict[str, Collection]:
    """Return the collections of variables, and the init op."""
    index = GraphIndex(added.graph.nodes)
    trainable, every = [], []
    for variable in graph_variables(prepared.graph.nodes, prepared.model.declared):
        if variable.node not in plan.matches:
            continue
        data = variable_def(
            variable.node, initializer=added.assigns[variable.node], snapshot=added.snapshots[variable.node],
            is_resource=index.nodes[variable.node].op in HANDLE_OPS, trainable=bool(variable.trainable),
        )  # fmt: skip
        every.append(data)
        if variable.trainable:
            trainable.append(data)
    result = {}
    if every:
        result["variables"] = Collection("bytes", every)
    if trainable:
        result["trainable_variables"] = Collection("bytes", trainable)
    init = [name for name in init_ops(prepared.model) if name in index]
    if init and prepared.options.to == "saved-model" and INIT_OP_SIGNATURE not in prepared.model.signatures:
        result["saved_model_main_op"] = Collection("node", init)
    return result


def input_specs(prepared: Prepared) -> dict[str, InputSpec]:
    """Return what every input takes, by its tensor's name in the source; inputs that were set are none."""
    nodes = {node.name: node for node in prepared.whole.nodes}
    result = {}
    for signature in prepared.selection.signatures.values():
        for entry in signature.inputs.values():
            name = TensorName.parse(entry.tensor)
            if str(name) in prepared.settings:
                continue
            own = nodes[name.node].shape() if name.node in nodes else None
            result[str(name)] = InputSpec(entry.dtype, entry.shape or own or Shape(None))
    return result


def keeps_whole_graph(model: Model, options: Options) -> bool:
    """Whether a MetaGraph is written with all of its graph: the user chose nothing, and no signature does."""
    chosen = options.outputs or options.signature or options.set or public_signatures(model)
    return options.to == "meta-graph" and not chosen
