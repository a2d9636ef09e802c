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
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.tensors import ArrayTensor, Tensor

_MAX_ELEMENTS = 1 << 16  # local variables are counters; anything larger is a model's weight and belongs in a checkpoint


def initial_values(index: GraphIndex, init_ops: Iterable[str]) -> dict[str, Tensor]:
    """Return the constants that init ops assign to variables.

    Args:
        index: The graph.
        init_ops: The nodes that loading the model runs.

    Returns:
        variable's node name -> the value that it has then.
    """
    result: dict[str, Tensor] = {}
    unclear = set()
    for name in index.reach(init_ops):
        node = index.nodes[name]
        if node.op not in ("Assign", "AssignVariableOp") or len(node.inputs) < 2:
            continue
        variable = index.producer(node.inputs[0])
        value = constant_value(index, node.inputs[1])
        if variable is None or variable.op not in VARIABLE_OPS:
            continue
        if value is None or variable.name in result:
            unclear.add(variable.name)  # which of its assignments is the last to run, nothing says
        else:
            result[variable.name] = value
    return {name: value for name, value in result.items() if name not in unclear}


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
