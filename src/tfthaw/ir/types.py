"""Element types of the tensors that nodes give, as far as op definitions say.

Source: the op definitions of TensorFlow (`tfthaw.ir.op_history`).
"""

from __future__ import annotations

from collections.abc import Sequence

from tfthaw.dtypes import DType
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import AttrList
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history


def output_dtype(node: Node, output: int) -> DType | None:
    """Return the element type of a node's output, or None where its op is unknown or has no such output.

    Args:
        node: The node of a main graph.
        output: The position of the output.
    """
    history = op_history(node.op)
    if history is None:
        return None
    # a graph may leave out attrs that have their default, and old graphs lack attrs that came later
    attrs = {attr.name: attr.default for attr in history.attrs} | dict(node.attrs)
    here = 0
    for argument in history.outputs:
        if argument.type_list_attr:
            value = attrs.get(argument.type_list_attr)
            dtypes = [item for item in value.items if isinstance(item, DType)] if isinstance(value, AttrList) else []
            if here <= output < here + len(dtypes):
                return dtypes[output - here]
            here += len(dtypes)
            continue
        count = attrs.get(argument.number_attr) if argument.number_attr else 1
        count = count if isinstance(count, int) else 1
        if here <= output < here + count:
            dtype = argument.dtype if argument.dtype is not None else attrs.get(argument.type_attr or "")
            return dtype if isinstance(dtype, DType) else None
        here += count
    return None


def output_count(node: Node) -> int | None:
    """Return how many outputs a node has, or None where its op or one of the attrs that count them is unknown."""
    history = op_history(node.op)
    return None if history is None else count_of(node, history.outputs)


def count_of(node: Node, arguments: Sequence[Argument]) -> int | None:
    """Return how many tensors the arguments (inputs or outputs) of a node's op stand for; None where no attr says.

    Args:
        node: The node.
        arguments: The inputs or outputs of its op.
    """
    total = 0
    for argument in arguments:
        counting = argument.type_list_attr or argument.number_attr
        if counting is None:
            total += 1
            continue
        value = node.attrs.get(counting)
        if isinstance(value, AttrList):
            total += len(value.items)
        elif isinstance(value, int):
            total += value
        else:
            return None
    return total
