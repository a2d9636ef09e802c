"""Small graphs built by hand, for tests that need no TensorFlow."""

import copy

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import AttrList, FunctionName, Shape
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node
from tfthaw.tensors import ArrayTensor

FLOAT = DType.float32


def constant(name, value, *inputs):
    """Return a Const; Python floats are float32, ints int32, strings strings."""
    array = np.asarray(value)
    if array.dtype.kind in "fi":
        array = array.astype("f4" if array.dtype.kind == "f" else "i4")
    tensor = ArrayTensor(array)
    return Node(name, "Const", list(inputs), attrs={"dtype": tensor.dtype, "value": tensor})


def placeholder(name, shape=None, dtype=FLOAT, op="Placeholder", *inputs):
    """Return a placeholder."""
    return Node(name, op, list(inputs), attrs={"dtype": dtype, "shape": Shape(shape)})


def variable(name, shape=(), dtype=FLOAT):
    """Return a v1 variable."""
    return Node(
        name, "VariableV2", attrs={"dtype": dtype, "shape": Shape(tuple(shape)), "container": b"", "shared_name": b""}
    )


def handle(name, shape=(), dtype=FLOAT, shared_name=None):
    """Return a resource variable."""
    shared = (name if shared_name is None else shared_name).encode()
    return Node(
        name,
        "VarHandleOp",
        attrs={"dtype": dtype, "shape": Shape(tuple(shape)), "container": b"", "shared_name": shared},
    )


def node(name, op, *inputs, **attrs):
    """Return any other node; `T` is float32 unless said otherwise, and absent where it is None."""
    attrs = {"T": FLOAT} | attrs
    return Node(name, op, list(inputs), attrs={key: value for key, value in attrs.items() if value is not None})


def read(name, variable):
    """Return the read of a resource variable."""
    return node(name, "ReadVariableOp", variable, T=None, dtype=FLOAT)


def function(name, arguments, nodes, returns, controls=(), **attrs):
    """Return a library function.

    Args:
        name: Its name.
        arguments: argument -> element type.
        nodes: Its body, in the spelling of functions.
        returns: result -> (the tensor in the spelling of functions, its element type).
        controls: The nodes that have run when a call has.
        **attrs: Attrs of the function.
    """
    return Function(
        name,
        [Argument(argument, dtype) for argument, dtype in arguments.items()],
        [Argument(result, dtype) for result, (_, dtype) in returns.items()],
        list(nodes),
        {result: text for result, (text, _) in returns.items()},
        {f"control_{name}": name for name in controls},
        attrs,
    )


def call(name, target, *inputs, op="StatefulPartitionedCall"):
    """Return a call of a library function."""
    return Node(name, op, list(inputs), attrs={"f": FunctionName(target)})


def library(nodes, *functions):
    """Return a graph with functions."""
    return Graph(list(nodes), list(functions))


def colocated(found, *names):
    """Return a node colocated with others."""
    found.attrs["_class"] = AttrList("s", [f"loc:@{name}".encode() for name in names])
    return found


def graph(*nodes):
    """Return a graph of nodes."""
    return Graph(list(nodes))


def by_name(graph):
    """Return the nodes of a graph by name, and check that no name comes twice."""
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    return {node.name: node for node in graph.nodes}


def ops(graph):
    """Return name -> op."""
    return {name: node.op for name, node in by_name(graph).items()}


class Unchanged:
    """A context in which a graph must not change."""

    def __init__(self, graph):
        self.graph = graph
        self.before = snapshot(graph)

    def __enter__(self):
        return self.graph

    def __exit__(self, kind, *exc):
        if kind is None:
            assert snapshot(self.graph) == self.before


def snapshot(graph):
    """Return everything that a pass could change in its argument, tensors by identity."""
    return [
        (id(node), node.name, node.op, list(node.inputs), node.device, copy.copy(dict(node.attrs)), node.opaque)
        for node in graph.walk()
    ]
