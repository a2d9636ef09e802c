"""Unfreeze: large floating constants become variables again, so that a frozen graph can be trained further.

Which constants of a frozen graph were variables, nothing says any more. Weights are floating tensors of many elements;
what is smaller, of another type or a scalar is as likely part of the computation, and stays. A constant that something
ties to a loop or a branch stays as well.

    before              after
    w = Const           w = VarHandleOp
    y = MatMul(x, w)    w/Read/ReadVariableOp = ReadVariableOp(w)
                        y = MatMul(x, w/Read/ReadVariableOp)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.passes.prune import free_name
from tfthaw.tensors import Tensor

LEAST_ELEMENTS = 1024
"""Constants with fewer elements stay constants."""


@dataclass(frozen=True, slots=True)
class Unfrozen:
    """What the pass did.

    Attributes:
        graph: The graph.
        values: The variables that were constants, with their values.
        reads: Each of the outputs that was such a constant -> the tensor that reads the variable.
    """

    graph: Graph
    values: dict[str, Tensor] = field(default_factory=dict)
    reads: dict[TensorName, TensorName] = field(default_factory=dict)


def unfreeze(graph: Graph, outputs: Collection[TensorName] = ()) -> Unfrozen:
    """Make variables of the large floating constants of a main graph.

    Args:
        graph: The graph.
        outputs: The tensors that are asked for.
    """
    index = GraphIndex(graph.nodes)
    values = {
        node.name: tensor
        for node in graph.nodes
        if node.op == "Const" and not node.inputs and (tensor := node.tensor()) is not None and _is_weight(tensor)
    }
    taken = set(index.nodes)
    reads: dict[TensorName, TensorName] = {}
    for name in values:
        read = free_name(taken, f"{name}/Read/ReadVariableOp")
        taken.add(read)
        reads[TensorName(name, 0)] = TensorName(read, 0)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name in values:
            value, read = values[node.name], reads[TensorName(node.name, 0)].node
            nodes.append(Node(node.name, "VarHandleOp", [], "", {
                "dtype": value.dtype, "shape": Shape(value.shape), "shared_name": node.name.encode(), "container": b"",
            }))  # fmt: skip
            nodes.append(Node(read, "ReadVariableOp", [node.name], "", {"dtype": value.dtype}))
            continue
        inputs = [_input(text, reads) for text in node.inputs]
        nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    return Unfrozen(graph.with_nodes(nodes), values, {old: new for old, new in reads.items() if old in set(outputs)})


def _input(text: str, reads: dict[TensorName, TensorName]) -> str:
    read = reads.get(TensorName.parse(text))
    return text if read is None else read.as_input()


def _is_weight(tensor: Tensor) -> bool:
    return tensor.dtype.is_float and len(tensor.shape) > 0 and tensor.size >= LEAST_ELEMENTS
