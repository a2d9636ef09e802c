"""Set placeholders: a placeholder becomes a constant, and branches that can no longer be taken go.

With `is_training=false` a v1 cond has one live branch. Dead branches are where training graphs keep the writes that
no frozen graph can have, so they are cut: a Switch with a constant predicate hands its data to one side only, what
hangs on the other side never runs, and a Merge with one live input is that input.

Source: control_flow_ops.cc of TensorFlow (Switch, Merge and how deadness spreads).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.errors import NotFoundError, UsageError
from tfthaw.ir.attrs import Attr
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.passes.prune import PLACEHOLDER_OPS
from tfthaw.tensors import Array, ArrayTensor, Tensor

_SWITCHES = ("Switch", "RefSwitch")
_MERGES = ("Merge", "RefMerge")


@dataclass(frozen=True, slots=True)
class Settled:
    """What the pass did.

    Attributes:
        graph: The graph.
        dead: How many nodes could no longer run and went.
    """

    graph: Graph
    dead: int


def set_placeholders(graph: Graph, values: Mapping[str, object]) -> Graph:
    """Turn placeholders into constants.

    Args:
        graph: The graph.
        values: placeholder's node name -> its value (a number, a string, a list or an array).

    Raises:
        NotFoundError: There is no such node.
        UsageError: It is no placeholder, or the value does not fit its type or shape.
    """
    index = GraphIndex(graph.nodes)
    new = {}
    for name, value in values.items():
        node = index.nodes.get(name.removesuffix(":0"))
        if node is None:
            known = [other.name for other in graph.nodes if other.op in PLACEHOLDER_OPS]
            raise NotFoundError.named("placeholder", name, known, where="--set")
        if node.op not in PLACEHOLDER_OPS:
            raise UsageError(f"{name} is a {node.op}, not a placeholder", where="--set")
        tensor = _tensor(node, value)
        attrs: dict[str, Attr] = {"dtype": tensor.dtype, "value": tensor}
        controls = [text for text in node.inputs if text.startswith("^")]
        new[node.name] = Node(node.name, "Const", controls, node.device, attrs, node.opaque)
    return graph.with_nodes(new.get(node.name, node) for node in graph.nodes)


def _tensor(node: Node, value: object) -> Tensor:
    """Return the value as a tensor of the placeholder's type, refusing what does not fit."""
    dtype = node.dtype("dtype") or DType.invalid
    try:
        if dtype is DType.bool and not np.isin(np.asarray(value), (True, False)).all():
            raise ValueError(f"expected true or false, found {value!r}")
        if np.asarray(value).dtype == object and dtype is not DType.string:
            raise ValueError(f"{value!r} is no number")
        array: Array = np.asarray(value).astype(dtype.numpy)
        if dtype.is_numeric and not (np.asarray(value) == array).all() and not dtype.is_float:
            raise ValueError(f"{value!r} is no {dtype.name}")
    except (ValueError, TypeError) as error:
        raise UsageError(f"the value does not fit {dtype.name}: {error}", where=f"--set {node.name}") from error
    shape = node.shape()
    if shape is not None and shape.dims is not None and shape.dims != () and not _fits(shape.dims, array.shape):
        raise UsageError(f"the value has shape {list(array.shape)}, the placeholder {list(shape.dims)}",
                         where=f"--set {node.name}")  # fmt: skip
    return ArrayTensor(array, dtype)


def _fits(dims: tuple[int | None, ...], actual: tuple[int, ...]) -> bool:
    return len(dims) == len(actual) and all(d in (None, a) for d, a in zip(dims, actual, strict=True))


def cut_dead_branches(graph: Graph) -> Settled:
    """Cut the branches of conds whose predicate is a constant; loops are left as they are."""
    index = GraphIndex(graph.nodes)
    dead = _dead_tensors(index)
    if not dead:
        return Settled(graph, 0)
    dead_nodes = {name.node for name in dead if name.output == -1}
    nodes = []
    for node in graph.nodes:
        if node.name in dead_nodes:
            continue
        nodes.append(_settled(index, node, dead))
    return Settled(replace(graph, nodes=nodes), len(dead_nodes))


def _dead_tensors(index: GraphIndex) -> set[TensorName]:
    """Return the tensors that can never be computed; `TensorName(node, -1)` is a node that never runs."""
    dead: set[TensorName] = set()
    waiting: list[TensorName] = []

    def kill(name: TensorName) -> None:
        if name not in dead:
            dead.add(name)
            waiting.append(name)

    for node in index.nodes.values():
        if node.op in _SWITCHES and len(node.inputs) >= 2:
            predicate = known_bool(index, node.inputs[1])
            if predicate is not None:
                kill(TensorName(node.name, 0 if predicate else 1))
    while waiting:
        lost = waiting.pop()
        for node, position in index.consumers(lost.node):
            used = TensorName.parse(node.inputs[position])
            if TensorName(node.name, -1) in dead or not (used == lost or lost.output == -1):
                continue
            if node.op in _MERGES and not used.is_control:
                inputs = [TensorName.parse(text) for text in node.inputs if not text.startswith("^")]
                if not all(name in dead or TensorName(name.node, -1) in dead for name in inputs):
                    continue
            kill(TensorName(node.name, -1))
    return dead


def _settled(index: GraphIndex, node: Node, dead: set[TensorName]) -> Node:
    """Return a live node as it is without its dead surroundings."""
    if node.op in _SWITCHES and len(node.inputs) >= 2 and known_bool(index, node.inputs[1]) is not None:
        return node  # a Switch with a constant predicate is right as it is, and its data side stays lazy
    if node.op not in _MERGES:
        return node
    live = [text for text in node.inputs if not _is_dead(text, dead)]
    data = [text for text in live if not text.startswith("^")]
    if len(data) == len([text for text in node.inputs if not text.startswith("^")]):
        return node
    if len(data) == 1 and not any(
        TensorName.parse(user.inputs[position]).output == 1 for user, position in index.consumers(node.name)
    ):
        op = "RefIdentity" if node.op == "RefMerge" else "Identity"
        return Node(node.name, op, live, node.device, {"T": node.attrs["T"]}, node.opaque)
    return replace(node, inputs=live, attrs={**node.attrs, "N": len(data)})


def _is_dead(text: str, dead: set[TensorName]) -> bool:
    name = TensorName.parse(text)
    return name in dead or TensorName(name.node, -1) in dead


def known_bool(index: GraphIndex, text: str, depth: int = 32) -> bool | None:
    """Return the value of a boolean scalar that constants decide, or None."""
    name = TensorName.parse(text)
    node = index.nodes.get(name.node)
    if node is None or depth == 0:
        return None
    if node.op == "Const":
        tensor = node.tensor()
        return bool(tensor.numpy()) if tensor is not None and tensor.dtype is DType.bool and not tensor.shape else None
    if node.op in ("Identity", "StopGradient", "Squeeze") and node.inputs:
        return known_bool(index, node.inputs[0], depth - 1)
    if node.op in _SWITCHES and node.inputs:  # a cond switches its own predicate: both sides are the predicate
        return known_bool(index, node.inputs[0], depth - 1)
    if node.op == "LogicalNot" and node.inputs:
        value = known_bool(index, node.inputs[0], depth - 1)
        return None if value is None else not value
    if node.op in ("LogicalAnd", "LogicalOr") and len(node.inputs) >= 2:
        values = [known_bool(index, text, depth - 1) for text in node.inputs[:2]]
        decisive = node.op == "LogicalOr"
        if decisive in values:
            return decisive
        return None if None in values else not decisive
    return None
