"""What training leaves in a graph that is meant for inference: statistics of the batch, and random numbers.

Nothing is changed here. Batch normalisation that is made of single ops is known by its variables: a scope with a
`moving_mean` that the outputs do not need, whose `beta` or `gamma` they need.

Source: `tf.compat.v1.layers.BatchNormalization` and `tf.contrib.layers.batch_norm` for the names; random_ops.cc and
stateful_random_ops.cc of TensorFlow for the ops.
"""

from __future__ import annotations

import re

from tfthaw.dtypes import DType
from tfthaw.ir.graph import Graph, GraphIndex
from tfthaw.ir.variables import VARIABLE_OPS, variable_name

RANDOM_OPS = frozenset({
    "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "RandomShuffle", "Multinomial",
    "RandomGamma", "RandomPoissonV2", "ParameterizedTruncatedNormal", "StatefulUniform", "StatefulStandardNormalV2",
    "StatefulTruncatedNormal", "StatefulUniformInt", "StatefulRandomBinomial", "RandomCrop",
})  # fmt: skip
_AVERAGES = ("moving_mean", "moving_variance")
_LEARNED = ("beta", "gamma")
_TRAINING_NAME = re.compile("train|phase|learning", re.IGNORECASE)


def left_in_training(graph: Graph, whole: Graph) -> list[str]:
    """Return the scopes whose batch normalisation uses the statistics of the batch.

    Args:
        graph: The graph, pruned to its outputs.
        whole: The graph with everything that training adds.
    """
    needed = {variable_name(node) for node in graph.nodes if node.op in VARIABLE_OPS}
    scopes: dict[str, None] = {}
    for node in whole.nodes:
        scope, slash, last = (variable_name(node) if node.op in VARIABLE_OPS else "").rpartition("/")
        is_idle = bool(slash) and last in _AVERAGES and f"{scope}/{last}" not in needed
        if is_idle and any(f"{scope}/{name}" in needed for name in _LEARNED):
            scopes[scope] = None
    return list(scopes)


def training_defaults(graph: Graph) -> list[str]:
    """Return the placeholders that tell a graph to train unless they are fed: their default is true.

    Args:
        graph: The graph, pruned to its outputs.
    """
    index = GraphIndex(graph.nodes)
    found = []
    for node in graph.nodes:
        source = index.producer(node.inputs[0]) if node.op == "PlaceholderWithDefault" and node.inputs else None
        tensor = source.tensor() if source is not None and source.op == "Const" else None
        is_flag = tensor is not None and tensor.dtype is DType.bool and tensor.size == 1
        if tensor is not None and is_flag and bool(tensor.numpy().reshape(-1)[0]) and _TRAINING_NAME.search(node.name):
            found.append(node.name)
    return found


def random_nodes(graph: Graph) -> list[str]:
    """Return the nodes that give random numbers; in functions, `name in function`."""
    found = [node.name for node in graph.nodes if node.op in RANDOM_OPS]
    for function in graph.functions:
        found += [f"{node.name} in {function.name}" for node in function.nodes if node.op in RANDOM_OPS]
    return found
