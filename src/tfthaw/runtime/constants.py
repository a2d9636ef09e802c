"""Constants of a traced graph that no two runs of the code agree on.

A checkpoint holds variables. What code computes while it builds the model and keeps as a constant is in no checkpoint:
the trained model had the constant of its own process. Where running the code once more gives another one, the one that
is at hand cannot be it. Random projections and noise that were never made variables are such constants.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

_FLOATING = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
_PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def reached_nodes(message: Any, outputs: Iterable[str]) -> list[Any]:
    """Return the nodes of a GraphDef that tensors need.

    Args:
        message: The GraphDef.
        outputs: The tensors; every node counts where there are none.
    """
    nodes = {node.name: node for node in message.node}
    waiting = [name.partition(":")[0] for name in outputs]
    if not waiting:
        return list(nodes.values())
    seen = set(waiting)
    for name in waiting:
        for text in nodes[name].input if name in nodes else ():
            source = text.lstrip("^").partition(":")[0]
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return [node for name, node in nodes.items() if name in seen]


def doubtful_constants(tf: Any, nodes: Iterable[Any]) -> dict[str, bytes]:
    """Return constants that could be chance: floating, of several elements that are not all the same, by node."""
    found = {}
    for node in nodes:
        if node.op != "Const" or tf.as_dtype(node.attr["dtype"].type).name not in _FLOATING:
            continue
        tensor = node.attr["value"].tensor
        if tensor.tensor_content or any(dim.size > 1 for dim in tensor.tensor_shape.dim):
            values = tf.make_ndarray(tensor)
            if values.size > 1 and not np.all(values == values.reshape(-1)[0]):
                found[node.name] = values.tobytes()
    return found


def python_nodes(message: Any, nodes: Iterable[Any]) -> list[str]:
    """Return the nodes that call back into Python, those of library functions by function and node."""
    found = [node.name for node in nodes if node.op in _PYTHON_OPS]
    for function in message.library.function:
        found += [f"{function.signature.name}/{node.name}" for node in function.node_def if node.op in _PYTHON_OPS]
    return found
