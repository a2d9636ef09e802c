"""From a prepared graph to a model in the style of TensorFlow 2: functions with captures, and an object graph.

The main graph that comes out has what functions capture (variables, tables, asset paths), the inputs, and one call for
each signature; inputs and outputs keep the names that their tensors had, so that whoever feeds and fetches by name
still can. Everything that was computed between is in the functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from keyword import iskeyword

import numpy as np

from tfthaw import proto
from tfthaw.conversion.freezing import settle_batch_norm
from tfthaw.conversion.function_notes import function_notes
from tfthaw.conversion.initialisation import Fillers, find_fillers, require_plain_init
from tfthaw.conversion.main_graph import MainGraph, main_collections
from tfthaw.conversion.prepared import Prepared, needed_variables
from tfthaw.conversion.trainable import Trainability, trainability
from tfthaw.conversion.values import plan_loosely, plan_values
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.export.saved_model_objects import (
    BuiltObjects,
    NewFunction,
    NewObjects,
    NewTable,
    NewVariable,
    build_objects,
)
from tfthaw.ir.attrs import Shape
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.object_graph import ConcreteFunction, ObjectGraph
from tfthaw.ir.signatures import DEFAULT_SIGNATURE, INIT_OP_SIGNATURE, Signature, SignatureTensor
from tfthaw.ir.structured_values import TensorSpec
from tfthaw.ir.variables import HANDLE_OPS, variable_name
from tfthaw.passes.add_saver import SavedVariable, add_saver
from tfthaw.passes.asset_variables import resolve_asset_variables
from tfthaw.passes.calls_by_attr import call_by_attr
from tfthaw.passes.carriers import find_carriers
from tfthaw.passes.freeze import own_variables
from tfthaw.passes.function_uses import FunctionUses
from tfthaw.passes.functions_from_graph import (
    Call,
    Capture,
    MadeFunction,
    Taken,
    calling_function,
    function_from_graph,
    needed_nodes,
)
from tfthaw.passes.prune import PLACEHOLDER_OPS, prune_library, without_lost_colocations
from tfthaw.passes.resource_tables import to_resource_tables
from tfthaw.passes.resource_variables import to_resource_variables
from tfthaw.passes.tables import TABLE_OPS
from tfthaw.passes.unfreeze import LEAST_ELEMENTS, unfreeze
from tfthaw.restore.object_keys import variable_objects
from tfthaw.restore.plan import Match, Plan
from tfthaw.serde.handle_data import handle_data
from tfthaw.serde.object_views import Objects
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_to_proto
from tfthaw.tensors import ArrayTensor, Tensor

_SCALAR_MEANS_UNKNOWN = 24
"""Before this version of GraphDef a placeholder that says it is a scalar says nothing of its shape."""


@dataclass(frozen=True, slots=True)
class Tf2Model:
    """A model in the style of TensorFlow 2.

    Attributes:
        model: The model, its object graph and Saver included.
        variables: The values of the variables by checkpoint key.
        object_graph: What the checkpoint has under `_CHECKPOINTABLE_OBJECT_GRAPH`.
    """

    model: Model
    variables: dict[str, Tensor]
    object_graph: Tensor


def to_tf2(prepared: Prepared, objects: Objects | None = None) -> Tf2Model:
    """Make functions of the signatures, and an object graph around them.

    Args:
        prepared: The prepared graph; its names lead to the tensors of the new main graph afterwards.
        objects: The objects of the source, where it has any: they say names and which variables train.

    Raises:
        RestoreError: Variables have no value.
        UnsupportedError: Something in the graph cannot be part of a function, or the init op does more than fill tables
            and set local variables; with everything that stands in the way.
    """
    settle_batch_norm(prepared)
    return _Writing(prepared, objects).model()


@dataclass(slots=True)
class _Parts:
    """The functions of the new model, and its signatures.

    Attributes:
        made: Every function.
        described: The same, as the object graph describes them.
        signatures: The SignatureDefs.
        names: key -> the function's name.
    """

    made: list[MadeFunction] = field(default_factory=list)
    described: list[NewFunction] = field(default_factory=list)
    signatures: dict[str, Signature] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


class _Writing:
    """One model on its way."""

    def __init__(self, prepared: Prepared, objects: Objects | None) -> None:
        self.prepared = prepared
        self.objects = objects
        self.parts = _Parts()
        self.calls: dict[str, Call] = {}
        self.sources: dict[TensorName, Node] = {}  # what is fed -> the node that gives it
        self.moved: dict[TensorName, TensorName] = {}
        self.handles: dict[int, str] = {}  # object of the source -> the node of its variable
        self.unfrozen: dict[TensorName, TensorName] = {}
        self.before = dict(prepared.fed)  # where tensors are in the graph that functions are made of
        assets = [TensorName.parse(asset.tensor) for asset in prepared.model.assets]
        self.fillers: Fillers = self._take_what_is_needed(assets)
        self.plan: Plan = plan_values(prepared)
        if prepared.options.unfreeze:
            self._unfreeze()
        require_plain_init(prepared, self.fillers, self.plan)
        self._turn_into_resources()
        self.index = GraphIndex(prepared.graph.nodes)
        self.definitions = Definitions(prepared.graph.functions, prepared.described)
        self.assets = [name.node for name in assets if name.node in self.index]
        self.written = self._written_variables()
        self.captures = self._captures()
        self.main = MainGraph(prepared, list(self.captures))

    def _take_what_is_needed(self, assets: list[TensorName]) -> Fillers:
        """Reduce the graph to what the signatures need, and what fills their tables."""
        prepared = self.prepared
        prepared.graph = resolve_asset_variables(prepared.graph, assets)
        index = GraphIndex(prepared.graph.nodes)
        reached: set[str] = set()
        self.calls = self._calls(index)
        for call in self.calls.values():
            inside, _ = needed_nodes(index, call, ())
            reached.update(inside)
        found = find_fillers(prepared, reached, assets)
        cone = [node for node in found.nodes if node.name not in reached]
        kept = [node for node in index.nodes.values() if node.name in reached]
        taken = prepared.graph.with_nodes(without_lost_colocations([*kept, *cone]))
        taken = prune_library(taken)
        taken = taken.with_nodes([*taken.nodes, *self._only_in_gradients(taken)])
        prepared.graph = call_by_attr(taken)
        held = own_variables(prepared.graph)
        if held:
            raise UnsupportedError(
                "functions hold variables of their own", problems=held, hint="keep the graph as it is: --style v1"
            )
        return found

    def _unfreeze(self) -> None:
        """Make variables of large constants, as asked."""
        prepared = self.prepared
        tensors = [tensor for call in self.calls.values() for tensor in (call.gives or {}).values()]
        unfrozen = unfreeze(prepared.graph, tensors)
        prepared.graph = unfrozen.graph
        self.unfrozen = unfrozen.reads
        for name, tensor in unfrozen.values.items():
            self.plan.matches[name] = Match(name, name, tensor, "constant", tensor)
        constants = [node.tensor() for node in unfrozen.graph.nodes]
        small = [value for value in constants if value is not None and value.dtype.is_float]
        prepared.notes.append(
            f"{len(unfrozen.values)} floating constants of {LEAST_ELEMENTS} elements or more are variables now; "
            f"{len(small)} smaller ones stayed constants"
        )

    def _turn_into_resources(self) -> None:
        """Turn references to variables and tables into resources, and let one node stand for each variable."""
        prepared = self.prepared
        runs = [
            [prepared.where(TensorName.parse(entry.tensor)) for entry in signature.outputs.values()]
            for signature in prepared.selection.signatures.values()
        ]
        rewritten = to_resource_variables(prepared.graph, *runs)
        if rewritten.variables:
            prepared.notes.append(
                f"{len(rewritten.variables)} reference variables are resource variables now, which TensorFlow 2 trains"
            )
        self.moved = rewritten.outputs
        prepared.graph = to_resource_tables(rewritten.graph).graph

    def _captures(self) -> dict[str, Capture]:
        found = {name: Capture(name, DType.string) for name in self.assets}
        for node in self.index.nodes.values():
            if node.op in HANDLE_OPS:
                dtype, shape = node.dtype("dtype") or DType.invalid, self._shape(node)
                found[node.name] = Capture(node.name, DType.resource, handle_data(dtype, shape))
            elif node.op in TABLE_OPS:
                found[node.name] = Capture(node.name, DType.resource)
        return found

    def _shape(self, node: Node) -> Shape:
        """Return the shape of a variable; what its node leaves open its value says, unless that may change."""
        shape = node.shape() or Shape(None)
        match = self.plan.matches.get(node.name)
        if shape.is_static or match is None or node.name in self.written:
            return shape
        return Shape(match.tensor.shape)

    def _written_variables(self) -> set[str]:
        """Return the variables that something in the graph may write."""
        found = find_carriers(self.index, set(self.index.nodes), FunctionUses(self.definitions))
        uses = [*found.writes.values(), *found.calls.values(), *found.mixed.values()]
        return {name for names in uses for name in names}

    def model(self) -> Tf2Model:
        """Return the model."""
        made = {key: self._add_signature(key) for key in self.prepared.selection.signatures}
        self.prepared.notes += function_notes(self.index, made, self.definitions)
        self._add_call(made)
        tables = self._add_tables()
        known = {item.function.name: item for item in self.parts.made}
        calls = [self.main.add_call("initialize", known[table.fill]) for table in tables if known[table.fill].captures]
        init = self.main.add_init_op(calls)
        built = self._objects(tables)
        return self._finished(built, init)

    def _calls(self, index: GraphIndex) -> dict[str, Call]:
        """Return what each signature takes and gives, in the order of its function's arguments and results.

        That order is the one in which TensorFlow flattens dictionaries: sorted by name.
        """
        calls = {}
        for key, signature in self.prepared.selection.signatures.items():
            takes = {}
            for argument in sorted(signature.inputs):
                entry = signature.inputs[argument]
                tensor = self._origin(entry)
                self.sources[tensor] = index.nodes[tensor.node]
                takes[argument] = Taken(tensor, entry.dtype, self._input_shape(index.nodes[tensor.node], entry))
            gives = {result: self._origin(signature.outputs[result]) for result in sorted(signature.outputs)}
            dtypes = {result: entry.dtype for result, entry in signature.outputs.items()}
            calls[key] = Call("", takes, gives, dtypes)
        return calls

    def _now(self, tensor: TensorName) -> TensorName:
        """Return where a tensor is since variables are resources."""
        tensor = self.unfrozen.get(tensor, tensor)
        return self.moved.get(tensor, tensor)

    def _origin(self, entry: SignatureTensor) -> TensorName:
        name = TensorName.parse(entry.tensor)
        return self.before.get(name, name)

    def _input_shape(self, node: Node, entry: SignatureTensor) -> Shape:
        own = node.shape() if node.op in PLACEHOLDER_OPS else None
        versions = self.prepared.graph.versions
        if own is not None and own.dims == () and (versions is None or versions.producer < _SCALAR_MEANS_UNKNOWN):
            own = None
        return own if own is not None and own.dims is not None else entry.shape or Shape(None)

    def _function(self, call: Call, gives: Mapping[str, Shape] | None = None) -> MadeFunction:
        """Make a function and describe it; without results it gives a number."""
        made = function_from_graph(self.index, call, self.captures, self.definitions)
        takes = {name: TensorSpec(name, taken.shape, taken.dtype) for name, taken in call.takes.items()}
        specs: dict[str, TensorSpec] | TensorSpec
        if gives is not None:
            specs = {
                name: TensorSpec(name, gives[name], dtype)
                for name, dtype in zip(gives, made.result_dtypes, strict=True)
            }
        else:
            specs = TensorSpec("unknown", Shape(()), made.result_dtypes[0])
        self.parts.made.append(made)
        self.parts.described.append(NewFunction(call.name, made.captures, takes, specs))
        return made

    def _function_name(self, kind: str) -> str:
        """Return a name that no function has; TensorFlow shows the middle part of such names."""
        taken = {*self.definitions.functions, *(item.function.name for item in self.parts.made)}
        number = len(self.parts.made)
        while f"__inference_{kind}_{number}" in taken:
            number += 1
        return f"__inference_{kind}_{number}"

    def _add_signature(self, key: str) -> MadeFunction:
        """Add the function of a signature, its call in the main graph, and the SignatureDef."""
        signature = self.prepared.selection.signatures[key]
        wanted = self.calls[key]
        call = replace(
            wanted, name=self._function_name(f"signature_{_plain(key)}"),
            gives={name: self._now(tensor) for name, tensor in (wanted.gives or {}).items()},
        )  # fmt: skip
        shapes = {name: signature.outputs[name].shape or Shape(None) for name in wanted.gives or {}}
        made = self._function(call, shapes)
        self.parts.names[key] = call.name
        inputs = {}
        for name, taken in call.takes.items():
            spare = f"{_plain(key)}_{_plain(name)}"
            placed = self.main.add_input(signature.inputs[name].tensor, taken, self.sources[taken.tensor], spare)
            inputs[name] = SignatureTensor(str(placed), taken.dtype, taken.shape)
        fed = [TensorName.parse(entry.tensor).as_input() for entry in inputs.values()]
        node = self.main.add_call("PartitionedCall", made, fed)
        outputs = {}
        for position, (name, dtype) in enumerate(zip(shapes, made.result_dtypes, strict=True)):
            placed = self.main.add_output(signature.outputs[name].tensor, TensorName(node, position), dtype)
            outputs[name] = SignatureTensor(str(placed), dtype, shapes[name])
        self.parts.signatures[key] = replace(
            signature, inputs={name: inputs[name] for name in signature.inputs},
            outputs={name: outputs[name] for name in signature.outputs},
        )  # fmt: skip
        return made

    def _add_call(self, made: Mapping[str, MadeFunction]) -> None:
        """Let the loaded object be called as its default signature is, or the only one: `loaded(x)`."""
        key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in made else next(iter(made), "")
        described = {item.name: item for item in self.parts.described}
        if (key != DEFAULT_SIGNATURE and len(made) != 1) or not all(map(_is_parameter, self.calls[key].takes)):
            return
        function = calling_function(self._function_name("__call__"), made[key])
        self.parts.made.append(function)
        self.parts.described.append(
            replace(described[made[key].function.name], name=function.function.name, is_call=True)
        )

    def _add_tables(self) -> list[NewTable]:
        """Add the functions that create, fill and destroy each table."""
        tables = []
        for node in self.index.nodes.values():
            if node.op not in TABLE_OPS:
                continue
            outside = {name: capture for name, capture in self.captures.items() if name != node.name}
            create = Call(self._function_name("creator"), gives={"handle": TensorName(node.name, 0)})
            made = function_from_graph(self.index, create, outside, self.definitions)
            self.parts.made.append(made)
            self.parts.described.append(
                NewFunction(create.name, made.captures, {}, TensorSpec("unknown", Shape(()), DType.resource))
            )
            fill = Call(self._function_name("initializer"), runs=self.fillers.chosen.get(node.name, ()))
            self._function(fill)
            destroy = Call(self._function_name("destroyer"))
            self._function(destroy)
            tables.append(NewTable(node.name, create.name, fill.name, destroy.name))
        return tables

    def _objects(self, tables: list[NewTable]) -> BuiltObjects:
        """Build the object graph."""
        prepared = self.prepared
        graph = prepared.model.object_graph
        places = variable_objects(prepared.whole, graph) if graph is not None else {}
        told: Trainability = trainability(needed_variables(prepared), self.plan, self.objects, places)
        prepared.notes += told.notes
        variables = []
        for node in self.index.nodes.values():
            if node.op in HANDLE_OPS:
                name = told.names.get(node.name) or variable_name(node)
                dtype = node.dtype("dtype") or DType.invalid
                variables.append(
                    NewVariable(node.name, name, dtype, self._shape(node), told.trainable.get(node.name, False))
                )
        gradients = self._gradients()
        return build_objects(
            NewObjects(variables, tables, self.assets, self.parts.described, self.parts.names, gradients)
        )

    def _only_in_gradients(self, graph: Graph) -> list[Node]:
        """Return the variables that custom gradients of a graph take, and nothing else in it."""
        objects = self.prepared.model.object_graph
        if objects is None or not graph.registered_gradients:
            return []
        bound = {place for item in _described(graph, objects).values() for place in item.bound_inputs}
        self.handles = {place: node for node, place in variable_objects(self.prepared.whole, objects).items()}
        if self.objects is not None and not bound <= self.handles.keys():  # no call tells which node an object has
            places = {item.key: item.node for item in self.objects.variables if item.key is not None}
            for node, match in self._plan_of_everything().matches.items():
                if match.key in places:
                    self.handles.setdefault(places[match.key], node)
        known = {node.name for node in graph.nodes}
        wanted = {self.handles[place] for place in bound if place in self.handles} - known
        return [node for node in self.prepared.whole.nodes if node.name in wanted]

    def _plan_of_everything(self) -> Plan:
        """Return where every variable of the whole graph has its value, if it has one."""
        return plan_loosely(replace(self.prepared, model=replace(self.prepared.model, graph=self.prepared.whole)))

    def _gradients(self) -> dict[str, tuple[ConcreteFunction, list[str]]]:
        """Return the functions that compute custom gradients, with the variables that each captures."""
        objects = self.prepared.model.object_graph
        found = {}
        for name, described in _described(self.prepared.graph, objects).items():
            captured = [self.handles.get(place, "") for place in described.bound_inputs]
            if all(node in self.captures for node in captured):
                found[name] = (described, captured)
            else:
                self.prepared.notes.append(
                    f"the custom gradient {name} takes what is no variable; there is no gradient through it"
                )
        return found

    def _finished(self, built: BuiltObjects, init: str) -> Tf2Model:
        """Put the parts together."""
        prepared, parts = self.prepared, self.parts
        empty = [node for node in built.keys if node not in self.plan.matches]
        if empty:
            raise UnsupportedError(
                "TensorFlow 2 loads no variables without value", problems=empty,
                hint="choose outputs that do not need them, or keep the graph as it is: --style v1",
            )  # fmt: skip
        stored = proto.serialize(trackable_object_graph_to_proto(built.stored))
        held = [self._held(self.index.nodes[name]) for name in self.captures]
        functions = [*prepared.graph.functions, *(item.function for item in parts.made)]
        graph = replace(prepared.graph, nodes=[*held, *self.main.nodes], functions=functions)
        saved = [SavedVariable(node, key) for node, key in built.keys.items()]
        added = add_saver(graph, saved, object_graph=stored)
        init_signature = Signature(
            outputs={INIT_OP_SIGNATURE: SignatureTensor(init, DType.invalid, Shape(None))}, method=""
        )
        order = {node: position for position, node in enumerate(self.assets)}
        assets = [asset for asset in prepared.model.assets if TensorName.parse(asset.tensor).node in order]
        model = replace(
            prepared.model, graph=added.graph, saver=added.saver, assets=assets, object_graph=built.graph,
            signatures={**parts.signatures, INIT_OP_SIGNATURE: init_signature},
            collections=main_collections(built, added, init),
            tags=prepared.model.tags or ("serve",),
        )  # fmt: skip
        values = {built.keys[node]: self.plan.matches[node].tensor for node in built.keys}
        return Tf2Model(model, values, ArrayTensor(np.array(stored, object), DType.string))

    def _held(self, node: Node) -> Node:
        """Return a node of the main graph that functions capture, without what was said of its old surroundings."""
        attrs = {name: value for name, value in node.attrs.items() if name != "_class"}
        if node.op in HANDLE_OPS:
            attrs["shape"] = self._shape(node)
        inputs = [text for text in node.inputs if not text.startswith("^")]
        return replace(node, attrs=attrs, inputs=inputs)


def _described(graph: Graph, objects: ObjectGraph | None) -> dict[str, ConcreteFunction]:
    """Return what an object graph says of the functions that compute the custom gradients of a graph."""
    known = objects.concrete_functions if objects is not None else {}
    names = [item.gradient for item in graph.registered_gradients]
    return {name: known[name] for name in names if name in known}


def _is_parameter(name: str) -> bool:
    """Whether a function of Python that is a method may take an argument of that name."""
    return name.isidentifier() and not iskeyword(name) and name != "self"


def _plain(text: str) -> str:
    """Return a text as it can be part of a function's name."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text)
