"""Constants of a traced graph that no two runs of the code agree on.

A checkpoint holds variables. What code computes while it builds the model and keeps as a constant is in no checkpoint:
the trained model had the constant of its own process. Where running the code once more gives another one, the one that
is at hand cannot be it. Random projections and noise that were never made variables are such constants, and so is what
was computed of the initial values of variables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

_MANY = 9
_NUMBER = re.compile(r"(_\d+)+$")
_PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def reached_nodes(message: Any, outputs: Iterable[str], *, stop: Collection[str] = ()) -> list[Any]:
    """Return the nodes of a GraphDef that tensors need.

    Args:
        message: The GraphDef.
        outputs: The tensors; every node counts where there are none.
        stop: Nodes whose own inputs are not needed.
    """
    nodes = {node.name: node for node in message.node}
    waiting = [name.partition(":")[0] for name in outputs]
    if not waiting:
        return list(nodes.values())
    seen = set(waiting)
    for name in waiting:
        for text in nodes[name].input if name in nodes and name not in stop else ():
            source = text.lstrip("^").partition(":")[0]
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return [node for name, node in nodes.items() if name in seen]


def doubtful_constants(tf: Any, nodes: Iterable[Any]) -> list[str]:
    """Return the constants that could be chance: of several elements that are not all the same, by node.

    Few whole numbers are shapes and axes; many of them may be a permutation.
    """
    found = []
    for node in nodes:
        if node.op != "Const":
            continue
        dtype, tensor = tf.as_dtype(node.attr["dtype"].type), node.attr["value"].tensor
        least = _MANY if dtype.is_integer else 2 if dtype.is_floating or dtype.is_complex else None
        if least is None or not (tensor.tensor_content or any(dim.size > 1 for dim in tensor.tensor_shape.dim)):
            continue
        values = tf.make_ndarray(tensor)
        if values.size >= least and not np.all(values == values.reshape(-1)[0]):
            found.append(node.name)
    return found


def numeric_constants(tf: Any, message: Any, outputs: Iterable[str]) -> dict[str, list[bytes]]:
    """Return the constants that are numbers: those that tensors need, and those of library functions.

    Functions have numbers at the end of their names that no two traces agree on, so that constants of the same name in
    functions of the same name are one entry.

    Args:
        tf: TensorFlow.
        message: The GraphDef.
        outputs: The tensors.
    """
    found: dict[str, list[bytes]] = {}
    places = [("", reached_nodes(message, outputs))]
    places += [(_NUMBER.sub("", item.signature.name) + "/", item.node_def) for item in message.library.function]
    for place, nodes in places:
        for node in nodes:
            dtype = tf.as_dtype(node.attr["dtype"].type) if node.op == "Const" else tf.string
            if dtype.is_integer or dtype.is_floating or dtype.is_complex:
                values = tf.make_ndarray(node.attr["value"].tensor)
                found.setdefault(place + node.name, []).append(values.tobytes())
    return {name: sorted(values) for name, values in found.items()}


def python_nodes(message: Any, nodes: Iterable[Any]) -> list[str]:
    """Return the nodes that call back into Python, those of library functions by function and node."""
    found = [node.name for node in nodes if node.op in _PYTHON_OPS]
    for function in message.library.function:
        found += [f"{function.signature.name}/{node.name}" for node in function.node_def if node.op in _PYTHON_OPS]
    return found
