"""Freeze: every variable becomes a constant with its value.

Nodes keep their names; a variable's node becomes a Const, a read becomes an Identity, and what handed the variable on
(loops, conds, functions) now hands the value on. Values are not read here: they go from their source into the output
as they are. With nothing left to write, a handle and its value are the same thing, so a node that may hand on one of
several variables may hand on one of their values.

Source: the op definitions of state_ops.cc, resource_variable_ops.cc, array_ops.cc and control_flow_ops.cc of
TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import Attr, Shape
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.function_bodies import ARGUMENT_OP, Body
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.ir.variables import HANDLE_OPS, REF_VARIABLE_OPS, VARIABLE_OPS
from tfthaw.passes.carriers import REF_PASS_THROUGH, REF_QUESTIONS, Carriers, find_carriers
from tfthaw.passes.freeze_functions import FrozenFunctions, Value
from tfthaw.passes.function_uses import FunctionUses, handings
from tfthaw.passes.prune import free_name, prune_library
from tfthaw.tensors import ArrayTensor, Tensor

_SHAPE_HINTS = ("_output_shapes", "_handle_dtypes", "_handle_shapes")
"""Attrs that describe a handle; on a node that now gives the value they would be wrong."""


@dataclass(slots=True)
class Frozen:
    """What the pass did.

    Attributes:
        graph: The graph without variables.
        constants: variable's node -> the name of the constant that has its value now (the same name).
    """

    graph: Graph
    constants: dict[str, str] = field(default_factory=dict)


def freeze(
    graph: Graph, values: Mapping[str, Tensor], uses: FunctionUses | None = None, kept: Collection[str] = ()
) -> Frozen:
    """Turn every variable of a graph into a constant.

    Args:
        graph: The graph, pruned to its outputs, free of writes, its calls inlined.
        values: The value of every variable, by its node's name.
        uses: What its functions do with variables, where that is known already.
        kept: Nodes of variables that stay variables.

    Raises:
        UnsupportedError: A variable goes where it cannot be followed; with every such node.
        KeyError: A variable has no value.
    """
    uses = uses or FunctionUses(Definitions(graph.functions))
    index = GraphIndex(graph.nodes)
    variables = [node.name for node in index.nodes.values() if node.op in VARIABLE_OPS and node.name not in kept]
    carriers = find_carriers(index, set(index.nodes), uses, variables)
    refuse_unfrozen(index, carriers)
    if kept:
        _refuse_half_frozen(index, uses, kept)
    state = _Freezing(index, carriers, values, _Functions(uses), kept)
    nodes = [new for node in graph.nodes for new in state.frozen(node)]
    constants = {name: name for name in state.constants}
    made = state.functions.frozen.made
    result = prune_library(
        replace(graph, nodes=nodes, functions=[*graph.functions, *made]), keep_registered=False
    )
    held = own_variables(result)
    if held:
        raise UnsupportedError("functions hold variables of their own", problems=held)
    return Frozen(result, constants)


def own_variables(graph: Graph) -> list[str]:
    """Return the variables that functions of the library make themselves, `name (op) in function`."""
    return [
        f"{node.name} ({node.op}) in {function.name}"
        for function in graph.functions
        for node in function.nodes
        if node.op in VARIABLE_OPS
    ]


def refuse_unfrozen(index: GraphIndex, carriers: Carriers) -> None:
    """Refuse what this pass cannot freeze, all of it at once.

    Raises:
        UnsupportedError: With every node that stands in the way.
    """
    problems = []
    for name, variables in sorted(carriers.calls.items()):
        node = index.nodes[name]
        why = carriers.problems.get(name) or ", ".join(node.called()) or f"function {node.op}"
        problems.append(f"{name} ({node.op}) hands {', '.join(sorted(variables))} to {why}")
    for name, variables in sorted(carriers.mixed.items()):
        types = {_dtype_of(index.nodes[variable]) for variable in variables}
        if len(types) > 1 or carriers.writes:
            node = index.nodes[name]
            problems.append(f"{name} ({node.op}) may be any of {', '.join(sorted(variables))}")
    if problems:
        raise UnsupportedError(
            "variables go where their values cannot", problems=problems,
            hint="convert to saved-model, which keeps variables; or take the values: checkpoint, safetensors, npz",
        )  # fmt: skip


def _refuse_half_frozen(index: GraphIndex, uses: FunctionUses, kept: Collection[str]) -> None:
    """Refuse nodes that may hand on a variable that stays as well as one that becomes a constant.

    Raises:
        UnsupportedError: With every such node.
    """
    every = find_carriers(index, set(index.nodes), uses)
    problems = []
    for name, variables in sorted(every.mixed.items()):
        constants = variables.difference(kept)
        if constants and constants != variables:
            staying = ", ".join(sorted(variables - constants))
            problems.append(
                f"{name} ({index.nodes[name].op}) may be {', '.join(sorted(constants))} or {staying}, which stays"
            )
    if problems:
        raise UnsupportedError(
            "variables that become constants and variables that stay go the same way", problems=problems,
            hint="freeze all of them, or none",
        )  # fmt: skip


def _dtype_of(variable: Node) -> DType:
    """Return the element type of a variable, or of an argument that is one."""
    return variable.dtype("dtype") or DType.invalid


class _Functions:
    """What all bodies of one freezing share."""

    def __init__(self, uses: FunctionUses) -> None:
        self.uses = uses
        self.frozen = FrozenFunctions(uses.definitions, self._freeze_body)

    def _freeze_body(self, body: Body, given: Mapping[str, Value]) -> tuple[list[Node], dict[TensorName, Value]]:
        """Freeze a function's body whose named arguments are values now."""
        nodes = [_given(node, given[node.name]) if node.name in given else node for node in body.nodes]
        index = GraphIndex(nodes)
        carriers = find_carriers(index, set(index.nodes), self.uses, given)
        refuse_unfrozen(index, carriers)
        state = _Freezing(index, carriers, {}, self)
        return [new for node in nodes for new in state.frozen(node)], state.value_tensors()


def _given(argument: Node, value: Value) -> Node:
    """Return an argument of a function that is a value now, described like a variable."""
    return replace(argument, attrs={**argument.attrs, "T": value.dtype, "dtype": value.dtype, "shape": value.shape})


class _Freezing:
    """One run of the pass over one graph, or over the body of one function."""

    def __init__(
        self,
        index: GraphIndex,
        carriers: Carriers,
        values: Mapping[str, Tensor],
        functions: _Functions,
        kept: Collection[str] = (),
    ) -> None:
        self.index = index
        self.carriers = carriers
        self.values = values
        self.functions = functions
        self.kept = kept
        self.taken: set[str] = set(index.nodes)
        self.constants: list[str] = []

    def value_tensors(self) -> dict[TensorName, Value]:
        """Return every tensor that was a handle and is a value now."""
        return {tensor: self._value(tensor) for tensor in self.carriers.tensors}

    def _value(self, tensor: TensorName) -> Value:
        node = self.index.nodes[self.carriers.tensors[tensor]]
        tensor_value = self.values.get(node.name)
        shape = node.shape() or Shape(None)
        if tensor.node in self.carriers.mixed:
            shape = Shape(None)
        elif tensor_value is not None:
            shape = Shape(tensor_value.shape)
        return Value(_dtype_of(node), shape)

    def frozen(self, node: Node) -> list[Node]:
        """Return what stands in a node's place."""
        if node.name in self.kept:
            return [node]
        if node.op in VARIABLE_OPS:
            self.constants.append(node.name)
            return [_constant(node, self.values[node.name])]
        if node.name in self.carriers.through:
            variable = self.index.nodes[self.carriers.through[node.name]]
            return [_handing_on(node, variable)]
        if handings(node, self.functions.uses.definitions) is not None:
            tensors = [TensorName.parse(text) for text in node.inputs]
            given = {place: self._value(name) for place, name in enumerate(tensors) if name in self.carriers.tensors}
            given = {place: value for place, value in given.items() if not self._is_ref(tensors[place])}
            return [self.functions.frozen.frozen_node(node, given)] if given else [node]
        if node.name in self.carriers.reads:
            return self._read(node)
        if node.op in REF_PASS_THROUGH and not self._is_reference(node):
            # left over from a graph that was frozen before: its input is a value already
            return [replace(node, op=REF_PASS_THROUGH[node.op], attrs=_without_hints(node))]
        return [node]

    def _is_ref(self, tensor: TensorName) -> bool:
        """Whether a tensor stands for a variable as a v1 reference, whose value functions take."""
        return self.index.nodes[self.carriers.tensors[tensor]].op in REF_VARIABLE_OPS

    def _is_reference(self, node: Node) -> bool:
        """Whether what a node hands on is a reference that freezing leaves: a kept variable, an old lookup table."""
        seen = set()
        source: Node | None = node
        while source is not None and source.op in REF_PASS_THROUGH and source.name not in seen and source.inputs:
            seen.add(source.name)
            source = self.index.producer(source.inputs[0])
        if source is not None and source.name in self.kept:
            return True
        history = op_history(source.op) if source is not None and source.op not in VARIABLE_OPS else None
        return history is not None and any(output.is_ref for output in history.outputs)

    def _read(self, node: Node) -> list[Node]:
        """Return what stands in the place of a node that reads a variable."""
        if node.op in REF_QUESTIONS or node.op == "VarIsInitializedOp":
            # the control input keeps the answer in the loop or cond where the question was asked
            inputs = [f"^{TensorName.parse(node.inputs[0]).node}", *(text for text in node.inputs if text[:1] == "^")]
            attrs: dict[str, Attr] = {"dtype": DType.bool, "value": ArrayTensor(np.array(True))}
            return [Node(node.name, "Const", list(dict.fromkeys(inputs)), node.device, attrs, node.opaque)]
        if node.op in ("ReadVariableOp", "DisableCopyOnRead"):
            dtype = node.attrs.get("dtype", DType.float32)
            return [Node(node.name, "Identity", node.inputs, node.device, {"T": dtype} | _class_of(node), node.opaque)]
        if node.op == "ResourceGather":
            return self._gather(node)
        if node.op == "ResourceGatherNd":
            attrs = {"Tparams": node.attrs["dtype"], "Tindices": node.attrs["Tindices"]} | _class_of(node)
            return [Node(node.name, "GatherNd", node.inputs, node.device, attrs, node.opaque)]
        if node.op == "VariableShape":
            variable = self.carriers.reads[node.name]
            dtype = self.index.nodes[next(iter(variable))].attrs["dtype"]
            attrs = {"T": dtype, "out_type": node.attrs.get("out_type", DType.int32)} | _class_of(node)
            return [Node(node.name, "Shape", node.inputs, node.device, attrs, node.opaque)]
        return [node]  # an op that takes the value of a reference takes a value as well

    def _gather(self, node: Node) -> list[Node]:
        """Return GatherV2 and the constant that is its axis."""
        batch_dims = node.attrs.get("batch_dims", 0)
        axis = free_name(self.taken, f"{node.name}/axis")
        self.taken.add(axis)
        indices = TensorName.parse(node.inputs[1]).node
        # the control input puts the constant into the same loop frame as the indices
        value = ArrayTensor(np.array(batch_dims, np.int32))
        constant = Node(axis, "Const", [f"^{indices}"], node.device, {"dtype": DType.int32, "value": value})
        attrs: dict[str, Attr] = {
            "Taxis": DType.int32, "Tindices": node.attrs["Tindices"], "Tparams": node.attrs["dtype"],
            "batch_dims": batch_dims,
        }  # fmt: skip
        inputs = [*node.inputs[:2], axis, *node.inputs[2:]]
        return [constant, Node(node.name, "GatherV2", inputs, node.device, attrs | _class_of(node), node.opaque)]


def _constant(node: Node, value: Tensor) -> Node:
    """Return the constant that stands in a variable's place."""
    controls = [text for text in node.inputs if text.startswith("^")]
    attrs: dict[str, Attr] = {"dtype": value.dtype, "value": value}
    return Node(node.name, "Const", controls, node.device, attrs | _class_of(node), node.opaque)


def _handing_on(node: Node, variable: Node) -> Node:
    """Return a node that handed a variable on, now handing its value on."""
    op = node.op
    attrs = _without_hints(node)
    if variable.op in REF_VARIABLE_OPS:
        op = REF_PASS_THROUGH.get(op, op)
    elif variable.op in (*HANDLE_OPS, ARGUMENT_OP):
        attrs["T"] = variable.attrs["dtype"]
    return replace(node, op=op, attrs=attrs)


def _without_hints(node: Node) -> dict[str, Attr]:
    return {name: value for name, value in node.attrs.items() if name not in _SHAPE_HINTS}


def _class_of(node: Node) -> dict[str, Attr]:
    """Return the colocation of a node, which stays with its name."""
    return {"_class": node.attrs["_class"]} if "_class" in node.attrs else {}
