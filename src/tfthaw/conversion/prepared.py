"""A model on its way from source to destination: what goes in and out is chosen, the rest is pruned.

The steps are the same for every format that carries a graph: choose what goes in and out, set placeholders, open
functions where the result stands alone, and take what the outputs need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tfthaw.conversion.options import Options
from tfthaw.conversion.selection import Selection, select, with_own_types
from tfthaw.errors import NotFoundError, UnsupportedError, UsageError
from tfthaw.formats.vocabulary import read_lines
from tfthaw.ir.attrs import Shape
from tfthaw.ir.definitions import Definition, Definitions
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Collection, Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.ir.signatures import INIT_OP_SIGNATURE
from tfthaw.ir.types import output_dtype
from tfthaw.ir.validation import require_consistent, require_unique_names
from tfthaw.ir.variables import VARIABLE_OPS, Variable, graph_variables
from tfthaw.passes.clear_devices import Cleared, clear_devices
from tfthaw.passes.inline_functions import inline_functions
from tfthaw.passes.prune import free_name, prune, prune_library, require_tensors
from tfthaw.passes.set_placeholders import cut_dead_branches, set_placeholders
from tfthaw.passes.shared_handles import merge_shared_handles
from tfthaw.passes.tables import fill_tables, fillers, refuse_mutable_tables
from tfthaw.passes.vocabularies import embed_vocabularies, file_names
from tfthaw.restore.averages import choose_averages
from tfthaw.restore.object_keys import keys_by_node
from tfthaw.restore.plan import Plan
from tfthaw.serde.described_ops import described_ops
from tfthaw.tensors import Array, Tensor
from tfthaw.verify.examples import serialized_example
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
        plan: Which value each variable took, once that is settled.
        assigned: variable's node -> the value that an initialiser gives it after it was restored, as the user asked.
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
    plan: Plan | None = None
    assigned: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def definitions(self) -> Definitions:
        """What the ops of the graph as it is now take and give."""
        return Definitions(self.graph.functions, self.described)

    @property
    def taken(self) -> dict[str, Tensor]:
        """The value that each variable took, by its node; nothing before that is settled."""
        return {} if self.plan is None else {node: match.tensor for node, match in self.plan.matches.items()}

    @property
    def graph(self) -> Graph:
        """The graph as it is now."""
        return self.model.graph

    @graph.setter
    def graph(self, graph: Graph) -> None:
        self.model = replace(self.model, graph=graph)

    def where(self, name: TensorName) -> TensorName:
        """Return where a tensor of the source is now."""
        moved = self.fed.get(name, name)
        while moved != name:  # out of a call, and then to the placeholder that stands for it
            name, moved = moved, self.fed.get(moved, moved)
        return name

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
    merged = merge_shared_handles(model.graph)
    model = replace(model, graph=merged.graph)
    values, notes = choose_averages(model.values, options.ema)
    notes += [f"{name} is the variable that {other} is: they share one name" for name, other in merged.merged.items()]
    every = options.to in ("saved-model", "meta-graph")
    if options.targets and not options.outputs:
        selection = Selection({}, {}, {})
    else:
        selection = select(
            model, signatures=options.signatures, inputs=options.inputs, outputs=options.outputs, every=every
        )
    selection, corrected = with_own_types(selection, model.graph)
    prepared = Prepared(model, model.graph, selection, values, path, options, [*model.notes, *notes, *corrected], {})
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
    if not selection.tensors and not prepared.options.targets:
        raise UsageError(
            f"the signature has no outputs: {', '.join(selection.signatures) or 'it has no name either'}",
            hint="choose another one with --signature, or name tensors with --outputs",
        )
    index = GraphIndex(prepared.graph.nodes)
    require_tensors(index, [*selection.tensors, *selection.feeds], what="signature")
    reached = index.reach([name.node for name in wanted])
    if to == "saved-model" and prepared.options.style == "v1" and _add_init_op(prepared, reached):
        index = GraphIndex(prepared.graph.nodes)
    keep = [*(init_ops(prepared.model) if to == "saved-model" else []), *prepared.options.targets]
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
    feeds = [prepared.where(name) for name in selection.feeds] if to == "frozen-graph" else []
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
    cleared = clear_devices(prepared.graph) if prepared.options.clear_devices else Cleared(prepared.graph, {})
    prepared.graph = cleared.graph
    for device, count in cleared.devices.items():
        prepared.notes.append(f"{count} nodes asked for {device}; they no longer do")


def _add_init_op(prepared: Prepared, reached: set[str]) -> bool:
    """Add the node that loaders run where tables need filling and nothing does it; return whether it was needed.

    Who has a graph in a session runs what the collection `table_initializer` lists; loaders of SavedModels do not.
    """
    if init_ops(prepared.model):
        return False
    index = GraphIndex(prepared.graph.nodes)
    listed = index.reach(node_list(prepared.model.collections.get("table_initializer")))
    needed = fillers(index, reached)
    waited = [node.name for nodes in needed.values() for node in nodes if node.name in listed]
    if not waited:
        return False
    init = Node(free_name(index.nodes, "init_tables"), "NoOp", [f"^{name}" for name in dict.fromkeys(waited)])
    collections = {**prepared.model.collections, "saved_model_main_op": Collection("node", [init.name])}
    prepared.model = replace(prepared.model, collections=collections)
    prepared.graph = prepared.graph.with_nodes([*prepared.graph.nodes, init])
    prepared.notes.append(f"lookup tables are filled when it is loaded: {', '.join(needed)}")
    return True


def _inline(prepared: Prepared, wanted: list[TensorName]) -> list[TensorName]:
    """Inline what the outputs and the init ops call; return where the wanted tensors are now."""
    index = GraphIndex(prepared.graph.nodes)
    feeds = prepared.selection.feeds
    filling = fillers(index, index.reach([name.node for name in wanted])).values()
    init = [*init_ops(prepared.model), *prepared.options.targets, *(node.name for nodes in filling for node in nodes)]
    init = list(dict.fromkeys(init))
    reached = index.reach([*(name.node for name in (*wanted, *feeds)), *init])
    taken = [node for node in prepared.graph.nodes if node.name in reached]
    graph = prune_library(prepared.graph.with_nodes(taken), keep_registered=False)
    require_consistent(graph)
    waited = [*init, *(name.node for name in (*wanted, *feeds))]
    inlined = inline_functions(graph, prepared.definitions, keep=waited)
    prepared.graph = merge_shared_handles(inlined.graph).graph
    prepared.fed |= inlined.moved
    return [prepared.where(name) for name in wanted]


def _fill_tables(prepared: Prepared, wanted: list[TensorName]) -> None:
    _embed_vocabularies(prepared)
    try:
        filled = fill_tables(prepared.graph, wanted)
    except UnsupportedError:
        index = GraphIndex(prepared.graph.nodes)
        needed = fillers(index, index.reach([name.node for name in wanted]))
        run = index.reach(prepared.options.targets)
        if run and all(any(node.name in run for node in nodes) for nodes in needed.values()):
            said = ", ".join(prepared.options.targets)
            prepared.notes.append(f"lookup tables are empty until {said} is run, as in the source: {', '.join(needed)}")
            return
        filled_from_outside = any(needed.values())
        holds_values = bool(variable_nodes(prepared.graph) or prepared.values)  # a checkpoint may fill tables too
        if holds_values or filled_from_outside or prepared.options.to != "frozen-graph":
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
    names = [name for key in _INIT_COLLECTIONS for name in node_list(model.collections.get(key))]
    return names[:1] if names else []


def node_list(collection: Collection | None) -> list[str]:
    """Return the nodes that a collection lists; nothing for another kind of collection."""
    if collection is None or collection.kind != "node":
        return []
    return [TensorName.parse(str(item)).node for item in collection.items]


def variable_nodes(graph: Graph) -> list[str]:
    """Return the nodes of the main graph that are variables."""
    return [node.name for node in graph.nodes if node.op in VARIABLE_OPS]


def needed_variables(prepared: Prepared) -> list[Variable]:
    """Return the variables of the graph as it is now that need a value."""
    kept = prepared.options.keep_variables
    return [item for item in graph_variables(prepared.graph.nodes, prepared.model.declared) if item.node not in kept]


def input_specs(prepared: Prepared) -> dict[str, InputSpec]:
    """Return what every input takes, by its tensor's name in the source; inputs that were set are none."""
    nodes = {node.name: node for node in prepared.whole.nodes}
    example = serialized_example(prepared.whole)
    result = {}
    for signature in prepared.selection.signatures.values():
        for entry in signature.inputs.values():
            name = TensorName.parse(entry.tensor)
            if str(name) in prepared.settings:
                continue
            own = nodes[name.node].shape() if name.node in nodes else None
            spec = InputSpec(entry.dtype, entry.shape or own or Shape(None))
            result[str(name)] = spec if example is None else replace(spec, text=example)
    return result
