"""Values that a graph's own init op gives to variables that no checkpoint holds.

Local variables (counters of metrics, epochs of an input pipeline) are not saved; loading a SavedModel runs its init op,
which sets them. Where what it assigns is a constant, that constant is the variable's value after loading. Random
initialisers are never run: a variable that they would fill stays without value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.ir.variables import HANDLE_OPS, VARIABLE_OPS
from tfthaw.tensors import ArrayTensor, Tensor

_MAX_ELEMENTS = 1 << 16  # local variables are counters; anything larger is a model's weight and belongs in a checkpoint

_ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
_HANDS_ON = frozenset({"Identity", "Enter", "Exit", "Switch", "Merge", "NextIteration"})
_HANDLE_READS = frozenset({
    "ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp", "DisableCopyOnRead",
})  # fmt: skip
_REFERENCE_READS = frozenset({"IsVariableInitialized"}) | {f"Ref{op}" for op in _HANDS_ON}


def initial_values(index: GraphIndex, init_ops: Iterable[str]) -> dict[str, Tensor]:
    """Return the constants that init ops assign to variables, where they do nothing else to them.

    Args:
        index: The graph.
        init_ops: The nodes that loading the model runs.

    Returns:
        variable's node name -> the value that it has then.
    """
    writes: dict[str, list[Node]] = {}
    for name in index.reach(init_ops):
        node = index.nodes[name]
        for position, text in enumerate(node.inputs):
            variable = None if text.startswith("^") else _variable(index, text)
            if variable is not None and _writes(node, position, variable):
                writes.setdefault(variable.name, []).append(node)
    result: dict[str, Tensor] = {}
    for name, nodes in writes.items():
        first = nodes[0]
        # of several writes nothing says which is the last to run, and behind a switch nothing says whether one runs
        if len(nodes) > 1 or first.op not in _ASSIGN_OPS or len(first.inputs) < 2:
            continue
        value = constant_value(index, first.inputs[1])
        if value is not None and index.producer(first.inputs[0]) is index.nodes[name]:
            result[name] = value
    return result


def _variable(index: GraphIndex, text: str) -> Node | None:
    """Return the variable whose reference or handle a tensor is, or None where it is none."""
    seen = set()
    by_value = False  # what an Identity of a reference gives is no reference
    node = index.producer(text)
    while node is not None and node.name not in seen:
        if node.op in VARIABLE_OPS:
            return None if by_value and node.op not in HANDLE_OPS else node
        seen.add(node.name)
        history = op_history(node.op)
        gives_reference = history is not None and bool(history.outputs) and history.outputs[0].is_ref
        by_value = by_value or not gives_reference
        node = index.producer(node.inputs[0]) if node.inputs and (gives_reference or node.op in _HANDS_ON) else None
    return None


def _writes(node: Node, position: int, variable: Node) -> bool:
    """Whether a node may change a variable that it takes, by reference or by handle."""
    if variable.op in HANDLE_OPS:
        return node.op not in _HANDS_ON | _HANDLE_READS
    history = op_history(node.op)
    if history is None:
        return True
    arguments = history.inputs
    return node.op not in _REFERENCE_READS and position < len(arguments) and arguments[position].is_ref


def constant_value(index: GraphIndex, text: str, depth: int = 8) -> Tensor | None:
    """Return the value of a tensor that is a constant or a fill of constants, or None.

    Args:
        index: The graph.
        text: The tensor, spelled as a node's input.
        depth: How many nodes may stand between.
    """
    name = TensorName.parse(text)
    node = index.nodes.get(name.node)
    if node is None or depth == 0 or name.output != 0:
        return None
    if node.op == "Const":
        tensor = node.tensor()
        return tensor if tensor is not None and tensor.size <= _MAX_ELEMENTS else None
    if node.op == "Identity" and node.inputs:
        return constant_value(index, node.inputs[0], depth - 1)
    if node.op == "Fill" and len(node.inputs) >= 2:
        dims = constant_value(index, node.inputs[0], depth - 1)
        value = constant_value(index, node.inputs[1], depth - 1)
        if dims is None or value is None or value.shape or dims.dtype not in (DType.int32, DType.int64):
            return None
        shape = tuple(int(size) for size in dims.numpy().reshape(-1))
        if min(shape, default=0) < 0 or math.prod(shape) > _MAX_ELEMENTS:
            return None
        return ArrayTensor(np.full(shape, value.numpy()), value.dtype)
    return None


def variables_of_assets(index: GraphIndex, assets: Iterable[TensorName]) -> set[str]:
    """Return the variables that hold nothing but the path of an asset, which loading the model sets.

    Args:
        index: The graph.
        assets: The tensors that take the paths of assets.
    """
    paths = set(assets)
    set_to: dict[str, set[TensorName]] = {}
    for node in index.nodes.values():
        variable = index.producer(node.inputs[0]) if node.op == "AssignVariableOp" and len(node.inputs) > 1 else None
        if variable is not None:
            set_to.setdefault(variable.name, set()).add(TensorName.parse(node.inputs[1]))
    return {name for name, values in set_to.items() if values <= paths}
