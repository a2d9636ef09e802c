"""Cut inputs: what takes a tensor takes another one instead, and what computed the tensor is no longer needed.

    reader ─ decode ─ queue ─ batch ─┬─ model        before
    image_tensor ─ Cast ─────────────┴─ model        after, cut at `batch`

Nodes that waited for the pipeline by control inputs alone no longer wait. Nothing else is removed: pruning does that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from tfthaw.errors import UsageError
from tfthaw.ir.graph import Graph, GraphIndex, Node, TensorName
from tfthaw.passes.input_boundary import PIPELINE_OPS

_SHAPES = "_output_shapes"


@dataclass(frozen=True, slots=True)
class Cut:
    """What the pass did.

    Attributes:
        graph: The graph.
        waits: Nodes of the pipeline, or behind it, that something waited for and no longer does.
    """

    graph: Graph
    waits: tuple[str, ...] = ()


def cut_input(
    graph: Graph, at: TensorName, given: TensorName, nodes: Sequence[Node], outputs: Collection[TensorName]
) -> Cut:
    """Let everything that takes a tensor take another one.

    Shapes that nodes claim of their outputs go: they were inferred from the tensor that is gone.

    Args:
        graph: The graph.
        at: The tensor.
        given: The tensor to take instead: one that `nodes` give.
        nodes: The nodes to add; a node of the graph that has the name of one of them and is no longer needed goes.
        outputs: The tensors that must stay computable.

    Raises:
        UsageError: An output is computed without the tensor, or needs a node whose name is wanted.
    """
    without = GraphIndex(_rewired(node, at, TensorName("", 0)) for node in graph.nodes)  # what is left of the source
    added = {node.name for node in nodes}
    taken = sorted(added & without.reach([name.node for name in outputs]) - {at.node})
    if taken:
        raise UsageError(
            f"the name {taken[0]} is wanted for what feeds the model, and a node ({without.nodes[taken[0]].op}) has it "
            f"that the outputs need", hint="cut the graph behind it with --input_tensor",
        )  # fmt: skip
    kept = [_rewired(node, at, given) for node in graph.nodes if node.name not in added]
    kept, waits = _without_waits([*nodes, *kept], outputs)
    return Cut(graph.with_nodes(_without_shapes(node) for node in kept), tuple(waits))


def _rewired(node: Node, at: TensorName, given: TensorName) -> Node:
    """Return a node that takes `given` where it took `at`, and waits for it where it waited for the node of `at`."""
    inputs = []
    for text in node.inputs:
        name = TensorName.parse(text)
        if name == at:
            inputs.append(given.as_input())
        elif name == TensorName(at.node, -1):
            inputs.append(f"^{given.node}")
        else:
            inputs.append(text)
    return node if inputs == node.inputs else replace(node, inputs=inputs)


def _without_waits(nodes: list[Node], outputs: Collection[TensorName]) -> tuple[list[Node], list[str]]:
    """Drop control inputs that lead into the pipeline, from nodes that the outputs need."""
    index = GraphIndex(nodes)
    pipeline = [node.name for node in nodes if node.op in PIPELINE_OPS]
    behind = {f"^{name}" for name in (*index.descend(pipeline), *pipeline)}
    waits: dict[str, None] = {}
    changed: dict[str, Node] = {}
    seen: set[str] = set()
    waiting = [name.node for name in outputs]
    while waiting:
        node = index.nodes.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        inputs = [text for text in node.inputs if text not in behind]
        if len(inputs) < len(node.inputs):
            waits.update(dict.fromkeys(text[1:] for text in node.inputs if text in behind))
            changed[node.name] = replace(node, inputs=inputs)
        waiting += [TensorName.parse(text).node for text in inputs]
    return [changed.get(node.name, node) for node in nodes], list(waits)


def _without_shapes(node: Node) -> Node:
    if _SHAPES not in node.attrs:
        return node
    return replace(node, attrs={name: value for name, value in node.attrs.items() if name != _SHAPES})
