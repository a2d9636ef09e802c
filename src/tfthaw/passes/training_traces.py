"""What training leaves in a graph that is meant for inference: statistics of the batch, and random numbers.

Nothing is changed here. Batch normalisation that is made of single ops is known by what training averages and
inference does not use: a mean or sum that goes into the outputs, and into a variable that they do not need; or
by the names of its variables, a `moving_mean` that the outputs do not need beside a `beta` or `gamma` that they do.

Source: `tf.compat.v1.layers.BatchNormalization` and `tf.contrib.layers.batch_norm` for the names; random_ops.cc and
stateful_random_ops.cc of TensorFlow for the ops.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from tfthaw.dtypes import DType
from tfthaw.ir.graph import Graph, GraphIndex
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import VARIABLE_OPS, variable_name
from tfthaw.passes.batch_norm import AVERAGE_WRITES, training_mode_nodes, variable_behind
from tfthaw.passes.set_placeholders import cut_dead_branches, known_bool, set_placeholders

RANDOM_OPS = frozenset({
    "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "RandomShuffle", "Multinomial",
    "RandomGamma", "RandomPoissonV2", "ParameterizedTruncatedNormal", "StatefulUniform", "StatefulStandardNormalV2",
    "StatefulTruncatedNormal", "StatefulUniformInt", "StatefulRandomBinomial", "RandomCrop",
})  # fmt: skip
_AVERAGES = ("moving_mean", "moving_variance")
_LEARNED = ("beta", "gamma")
_ARITHMETIC = frozenset({
    "Squeeze", "Reshape", "ExpandDims", "Identity", "StopGradient", "Cast", "Sub", "Mul", "Add", "AddV2", "Neg",
    "RealDiv", "Div", "Reciprocal", "Square", "Switch", "Merge", *AVERAGE_WRITES,
})  # fmt: skip
_IMAGE_RANK = 4
_STATISTICS = frozenset({"Mean", "Sum"})
_CHOICES = frozenset({"Select", "SelectV2"})
_MOST_STEPS = 64  # decay arithmetic stands between a statistic and its average
_TRAINING_NAME = re.compile("train|phase|learning", re.IGNORECASE)


def left_in_training(graph: Graph, whole: Graph, outputs: Collection[str]) -> list[str]:
    """Return the scopes whose batch normalisation uses the statistics of the batch.

    Args:
        graph: The graph, pruned to its outputs.
        whole: The graph with everything that training adds.
        outputs: The nodes that give the outputs.
    """
    index = GraphIndex(graph.nodes)
    reached = index.reach(outputs, through_control=False)
    used = {node.name for node in graph.nodes if node.name in reached}
    needed = {variable_name(node) for node in graph.nodes if node.name in used and node.op in VARIABLE_OPS}
    idle = [name for node in whole.nodes if node.op in VARIABLE_OPS and (name := variable_name(node)) not in needed]
    if not idle:
        return []
    scopes: dict[str, None] = {}
    for variable in idle:
        scope, slash, last = variable.rpartition("/")
        if slash and last in _AVERAGES and any(f"{scope}/{name}" in needed for name in _LEARNED):
            scopes[scope] = None
    everything = GraphIndex([*graph.nodes, *whole.nodes])  # what was inlined is in the graph alone
    for node in graph.nodes:
        if node.name in used and node.op in _STATISTICS:
            for average in _averaged_into(everything, node.name):
                name = variable_name(everything.nodes[average])
                if name not in needed:
                    scopes[name.rpartition("/")[0] or name] = None
    return list(scopes)


def _averaged_into(index: GraphIndex, name: str) -> list[str]:
    """Return the variables that a statistic is averaged into, by nothing but arithmetic."""
    found: dict[str, None] = {}
    waiting, seen = [name], {name}
    while waiting and len(seen) < _MOST_STEPS:
        here = waiting.pop(0)
        for user, position in index.consumers(here):
            if user.name in seen or user.inputs[position].startswith("^"):
                continue
            if user.op in AVERAGE_WRITES and position == 1:
                variable = variable_behind(index, user.inputs[0])
                if variable is not None:
                    found[variable] = None
            elif user.op in _ARITHMETIC:
                seen.add(user.name)
                waiting.append(user.name)
    return list(found)


def training_defaults(graph: Graph, outputs: Collection[str]) -> list[str]:
    """Return the placeholders that tell a graph to train unless they are fed: their default is true.

    They are known by their names, and by what the graph is when they are true: batch normalisation that does not use
    its averages then, or random numbers.

    Args:
        graph: The graph, pruned to its outputs.
        outputs: The nodes that give the outputs.
    """
    index = GraphIndex(graph.nodes)
    found = []
    for node in graph.nodes:
        source = index.producer(node.inputs[0]) if node.op == "PlaceholderWithDefault" and node.inputs else None
        tensor = source.tensor() if source is not None and source.op == "Const" else None
        is_flag = tensor is not None and tensor.dtype is DType.bool and tensor.size == 1
        if tensor is None or not is_flag or not bool(tensor.numpy().reshape(-1)[0]):
            continue
        if _TRAINING_NAME.search(node.name) or _tells_to_train(graph, node.name, outputs):
            found.append(node.name)
    return found


def _tells_to_train(graph: Graph, flag: str, outputs: Collection[str]) -> bool:
    """Whether a graph that a flag is true for is one of training, and one that it is false for is not."""
    traces = []
    for value in (True, False):
        settled = cut_dead_branches(_with_choices(set_placeholders(graph, {flag: value}))).graph
        reached = GraphIndex(settled.nodes).reach(outputs)
        needed = settled.with_nodes(node for node in settled.nodes if node.name in reached)
        used = {variable_name(node) for node in needed.nodes if node.op in VARIABLE_OPS}
        index = GraphIndex(settled.nodes)
        statistics = {node.name for node in needed.nodes if _is_over_the_batch(index, node)}
        traces.append((used, statistics, bool(training_mode_nodes(needed) or random_nodes(needed))))
    (when_true, statistics, trains), (when_false, others, infers) = traces
    is_replaced = bool(statistics - others) and when_true < when_false
    return is_replaced or (trains and not infers)


def _is_over_the_batch(index: GraphIndex, node: Node) -> bool:
    """Whether a node takes the mean or sum over all images of a batch, or over all rows of one."""
    source = index.producer(node.inputs[1]) if node.op in _STATISTICS and len(node.inputs) > 1 else None
    axes = source.tensor() if source is not None and source.op == "Const" else None
    if axes is None or axes.dtype not in (DType.int32, DType.int64):
        return False
    return bool({0, -_IMAGE_RANK} & set(axes.numpy().reshape(-1).tolist()))


def _with_choices(graph: Graph) -> Graph:
    """Return a graph in which what a known condition chooses is all that is left of the choice."""
    index = GraphIndex(graph.nodes)
    nodes = []
    for node in graph.nodes:
        chosen = known_bool(index, node.inputs[0]) if node.op in _CHOICES and len(node.inputs) > 2 else None
        if chosen is not None:
            node = Node(node.name, "Identity", [node.inputs[1 if chosen else 2]], node.device, {})  # noqa: PLW2901
        nodes.append(node)
    return graph.with_nodes(nodes)


def random_nodes(graph: Graph) -> list[str]:
    """Return the nodes that give random numbers; in functions, `name in function`."""
    found = [node.name for node in graph.nodes if node.op in RANDOM_OPS]
    for function in graph.functions:
        found += [f"{node.name} in {function.name}" for node in function.nodes if node.op in RANDOM_OPS]
    return found
