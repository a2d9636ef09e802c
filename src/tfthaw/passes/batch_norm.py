"""Batch normalisation that was left in training mode.

In training mode a FusedBatchNorm takes mean and variance from the batch at hand, and its moving averages are only
written, never used. A graph exported that way gives other answers for other batches. Switching to the moving averages
changes the outputs, so it is done only when asked for; otherwise the nodes are named.

Layer normalisation of Keras 2 is the same op over each example by itself, with a scale that is made as long as the
batch at hand asks for. It has no averages and is left alone.

Source: nn_ops.cc of TensorFlow (FusedBatchNorm: inputs x, scale, offset, mean, variance) and `tf.compat.v1.layers`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tfthaw.errors import UnsupportedError
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import VARIABLE_OPS

BATCH_NORM_OPS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_SHAPE_OPS = frozenset({"Shape", "ShapeN"})
_HANDING_ON = ("RefSwitch", "Switch", "Identity", "RefIdentity")
_BIASED = "/biased"  # of `assign_moving_average(zero_debias=True)`
AVERAGE_WRITES = frozenset({"AssignSub", "AssignSubVariableOp", "Assign", "AssignVariableOp"})


@dataclass(frozen=True, slots=True)
class UsesAverages:
    """What the pass did.

    Attributes:
        graph: The graph.
        changed: The nodes that use their moving averages now.
    """

    graph: Graph
    changed: tuple[str, ...]


def training_mode_nodes(graph: Graph) -> list[str]:
    """Return the batch normalisations that use the statistics of the batch; in functions, `name in function`."""
    index = GraphIndex(graph.nodes)
    inside = [f"{node.name} in {function.name}" for function in graph.functions for node in function.nodes
              if _is_training(node)]  # fmt: skip
    found = [node.name for node in graph.nodes if _is_training(node) and not _is_layer_normalisation(index, node)]
    return [*found, *inside]


def _is_training(node: Node) -> bool:
    return node.op in BATCH_NORM_OPS and node.attrs.get("is_training", True) is not False


def _is_layer_normalisation(index: GraphIndex, node: Node) -> bool:
    """Whether the scale of a node is made of a shape that only the batch at hand tells, and of no variable."""
    if len(node.inputs) < 2:
        return False
    waiting = [TensorName.parse(node.inputs[1]).node]
    ops = set()
    for name in waiting:
        source = index.nodes.get(name)
        if source is None:
            continue
        ops.add(source.op)
        if source.op not in _SHAPE_OPS:
            waiting += [each for text in source.inputs if (each := TensorName.parse(text).node) not in waiting]
    return bool(ops & _SHAPE_OPS) and not ops & VARIABLE_OPS


def use_moving_averages(graph: Graph, whole: Graph) -> UsesAverages:
    """Make batch normalisations use their moving averages.

    The averages are found where the whole graph writes the batch's mean (output 1) and variance (output 2) to
    variables.

    Args:
        graph: The graph to change.
        whole: The graph with everything that training adds.

    Raises:
        UnsupportedError: A node's averages cannot be found, or it is in a function; with every such node.
    """
    wanted = training_mode_nodes(graph)
    index = GraphIndex([*graph.nodes, *whole.nodes])  # what was inlined is in the graph alone
    present = {node.name: node for node in graph.nodes}
    changed: dict[str, Node] = {}
    extra: dict[str, Node] = {}
    lost = []
    for name in wanted:
        mean, variance = _written_from(index, name, 1), _written_from(index, name, 2)
        if mean is None or variance is None or name not in present:
            lost.append(name)
            continue
        node = present[name]
        reads = [_read(index, variable, extra) for variable in (mean, variance)]
        inputs = [*node.inputs[:3], *reads, *node.inputs[5:]]
        changed[name] = replace(node, inputs=inputs, attrs={**node.attrs, "is_training": False})
    if lost:
        raise UnsupportedError("the moving averages of batch normalisations cannot be found", problems=lost)
    nodes = [changed.get(node.name, node) for node in graph.nodes]
    nodes += [node for name, node in extra.items() if name not in present]
    return UsesAverages(replace(graph, nodes=nodes), tuple(changed))


def _written_from(index: GraphIndex, name: str, output: int) -> str | None:
    """Return the variable that a statistic of a batch is averaged into.

    An average whose start at zero is made up for is written from an average of its own, `VARIABLE/biased`, which is
    passed on the way.
    """
    waiting = [TensorName(name, output)]
    seen = set()
    for _ in range(64):  # decay arithmetic and conds stand between the statistic and its variable
        if not waiting:
            return None
        tensor = waiting.pop(0)
        for node, position in index.consumers(tensor.node):
            text = node.inputs[position]
            if text.startswith("^") or node.name in seen or (tensor.output and TensorName.parse(text) != tensor):
                continue
            seen.add(node.name)
            if node.op in AVERAGE_WRITES and position == 1:
                variable = variable_behind(index, node.inputs[0])
                if variable is not None and not variable.endswith(_BIASED):
                    return variable
                if variable is not None:
                    waiting.append(TensorName(variable, 0))
            waiting.append(TensorName(node.name, 0))
    return None


def variable_behind(index: GraphIndex, text: str) -> str | None:
    """Return the variable that an input names, also through nodes that only hand it on."""
    node = index.producer(text)
    seen = set()  # a damaged graph may have rings
    while node is not None and node.op in _HANDING_ON and node.inputs and node.name not in seen:
        seen.add(node.name)
        node = index.producer(node.inputs[0])
    return node.name if node is not None and node.op in VARIABLE_OPS else None


def _read(index: GraphIndex, variable: str, extra: dict[str, Node]) -> str:
    """Return the tensor that reads a variable, adding the nodes to `extra`."""
    # placed by nothing: what it was placed with may not be a part of what is being exported
    kept = {name: value for name, value in index.nodes[variable].attrs.items() if name != "_class"}
    node = extra[variable] = replace(index.nodes[variable], device="", attrs=kept)
    if node.op != "VarHandleOp":
        return variable
    name = f"{variable}/inference_read"
    extra[name] = Node(name, "ReadVariableOp", [variable], node.device, {"dtype": node.attrs["dtype"]})
    return name
