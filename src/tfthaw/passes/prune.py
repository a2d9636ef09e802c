"""Prune: keep what the outputs need, with the chosen inputs as placeholders.

It changes no value: what is dropped could not be seen from the outputs. Side effects that no output waits for go with
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from tfthaw.dtypes import DType
from tfthaw.errors import NotFoundError, UsageError
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.types import output_count

PLACEHOLDER_OPS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})


def require_tensors(index: GraphIndex, names: Iterable[TensorName], *, what: str) -> None:
    """Refuse names of tensors that are not there.

    Raises:
        NotFoundError: There is no such node, with near names; or the node has no such output.
    """
    for name in names:
        if name.node not in index:
            raise NotFoundError.named("node", name.node, index.nodes, where=what)
        node = index.nodes[name.node]
        outputs = output_count(node)
        if name.is_control or (outputs is not None and name.output >= outputs):
            has = "a number of outputs" if outputs is None else f"{outputs} output{'' if outputs == 1 else 's'}"
            raise NotFoundError(f"no tensor {name.as_input()!r}: {name.node} ({node.op}) has {has}", where=what)


def prune(
    graph: Graph,
    outputs: Collection[TensorName],
    inputs: Collection[TensorName] = (),
    *,
    keep: Iterable[str] = (),
    dtypes: Mapping[TensorName, DType] | None = None,
) -> tuple[Graph, dict[TensorName, TensorName]]:
    """Keep what the outputs need.

    Args:
        graph: The graph.
        outputs: The tensors to keep.
        inputs: Tensors that are fed: their nodes become placeholders, and what computed them goes.
        keep: Further nodes to keep, with all that they need.
        dtypes: The element types of inputs that are no placeholders yet.

    Returns:
        The pruned graph, and for every input the tensor that is fed now.

    Raises:
        NotFoundError: An output or an input is not in the graph.
        UsageError: An input's element type is not known.
    """
    index = GraphIndex(graph.nodes)
    require_tensors(index, outputs, what="output")
    require_tensors(index, inputs, what="input")
    cut, fed = _feeds(index, inputs, dtypes or {})
    replaced = {old: new for old, new in fed.items() if old != new}
    nodes = [_rewired(cut.get(node.name, node), replaced) for node in index.nodes.values()]
    nodes += [node for name, node in cut.items() if name not in index]
    index = GraphIndex(nodes)
    roots = [replaced.get(name, name).node for name in outputs]
    reached = index.reach([*roots, *keep, *(name.node for name in fed.values())])
    kept = [node for node in nodes if node.name in reached]
    return prune_library(replace(graph, nodes=without_lost_colocations(kept))), fed


def _feeds(
    index: GraphIndex, inputs: Iterable[TensorName], dtypes: Mapping[TensorName, DType]
) -> tuple[dict[str, Node], dict[TensorName, TensorName]]:
    """Return the placeholder nodes that stand for the inputs, and where each input is fed."""
    cut: dict[str, Node] = {}
    fed: dict[TensorName, TensorName] = {}
    for name in inputs:
        node = index.nodes[name.node]
        if node.op in PLACEHOLDER_OPS:
            fed[name] = name
            continue
        dtype = dtypes.get(name)
        if dtype is None:
            raise UsageError(
                f"the element type of {name} ({node.op}) is not known, so it cannot become a placeholder",
                where=f"input {name}", hint="choose a placeholder, or a tensor of one of TensorFlow's own ops",
            )  # fmt: skip
        alone = all(
            TensorName.parse(user.inputs[position]) in (name, TensorName(node.name, -1))
            for user, position in index.consumers(node.name)
        )
        # a node that also gives tensors that are not fed must stay, so its place is taken only where it does not
        new = node.name if name.output == 0 and alone else free_name({*index.nodes, *cut}, f"{node.name}_{name.output}")
        cut[new] = Node(new, "Placeholder", [], "", {"dtype": dtype, "shape": Shape(None)})
        fed[name] = TensorName(new, 0)
    return cut, fed


def _rewired(node: Node, replaced: Mapping[TensorName, TensorName]) -> Node:
    """Return the node with its inputs taken from where the replaced tensors are now."""
    if not replaced:
        return node
    inputs = [
        replaced[name].as_input() if (name := TensorName.parse(text)) in replaced else text for text in node.inputs
    ]
    return node if inputs == node.inputs else replace(node, inputs=inputs)


def prune_library(graph: Graph, *, keep_registered: bool = True) -> Graph:
    """Drop library functions that nothing calls, and gradients of functions that are gone.

    Args:
        graph: The graph.
        keep_registered: Whether the gradients that code registered (`tf.custom_gradient`) stay with the nodes that name
            them; a graph without variables has no use for them.
    """
    library = {function.name: function for function in graph.functions}
    if not library:
        return graph if not graph.registered_gradients else replace(graph, registered_gradients=[])
    gradients = {gradient.function: gradient.gradient for gradient in graph.gradients}
    registered = {item.op_type.encode(): item.gradient for item in graph.registered_gradients if keep_registered}
    reached: set[str] = set()
    waiting = [name for node in graph.nodes for name in _named(node, registered)]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in library:
            continue
        reached.add(name)
        waiting += [called for node in library[name].nodes for called in _named(node, registered)]
        if name in gradients:
            waiting.append(gradients[name])
    return replace(
        graph,
        functions=[function for function in graph.functions if function.name in reached],
        gradients=[gradient for gradient in graph.gradients if gradient.function in reached],
        registered_gradients=[item for item in graph.registered_gradients if item.gradient in reached],
    )


def _named(node: Node, registered: Mapping[bytes, str]) -> list[str]:
    """Return the functions that a node names: as its op, in attrs, or as its gradient."""
    names = [node.op, *node.called()]
    kind = node.attrs.get("_gradient_op_type") if registered else None
    if isinstance(kind, bytes) and kind in registered:
        names.append(registered[kind])
    return names


def without_lost_colocations(nodes: list[Node]) -> list[Node]:
    """Drop colocations (`loc:@name` in the attr `_class`) with nodes that are gone; importers refuse them."""
    names = {node.name for node in nodes}
    return [_colocated(node, names) if "_class" in node.attrs else node for node in nodes]


def _colocated(node: Node, names: set[str]) -> Node:
    value = node.attrs["_class"]
    if not isinstance(value, AttrList):
        return node
    kept = [
        item
        for item in value.items
        if not (
            isinstance(item, bytes) and item.startswith(b"loc:@") and item[5:].decode(errors="replace") not in names
        )
    ]
    if len(kept) == len(value.items):
        return node
    attrs = {name: attr for name, attr in node.attrs.items() if name != "_class"}
    if kept:
        attrs["_class"] = AttrList(value.kind, kept)
    return replace(node, attrs=attrs)


def free_name(taken: Collection[str], wanted: str) -> str:
    """Return wanted, or wanted with the first free number behind it."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
