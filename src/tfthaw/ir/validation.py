"""Whether a graph can be meant: what TensorFlow's importer refuses, found before anything is built on it.

An inconsistent graph loads, so that it can be shown; it is refused when something is to be made of it. Every problem is
found, not the first one. Ops that no TensorFlow knows are taken as they are: only their inputs can be judged.

Source: graph_constructor.cc and node_def_util.cc of TensorFlow, and its op definitions (`tfthaw.ir.op_history`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from tfthaw.dtypes import DType
from tfthaw.errors import StructureError, TfthawError
from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import OpHistory, op_history
from tfthaw.ir.types import count_of

_NEXT = ("NextIteration", "RefNextIteration")
_MERGES = ("Merge", "RefMerge")


def require_consistent(graph: Graph) -> None:
    """Refuse a graph that contradicts itself.

    Raises:
        StructureError: With every problem of the main graph.
    """
    _refuse(graph_problems(graph))


def require_unique_names(graph: Graph, within: Collection[str]) -> None:
    """Refuse a graph in which a name that counts means several nodes, or in which such a node has no name.

    Args:
        graph: The graph.
        within: The names that count.

    Raises:
        StructureError: With every such name.
    """
    _refuse(_name_problems(node for node in graph.nodes if node.name in within))


def _refuse(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise StructureError(
            "the graph contradicts itself", problems=found,
            hint="TensorFlow refuses it too; it was damaged, or a tool cut it wrongly",
        )  # fmt: skip


def _name_problems(nodes: Iterable[Node]) -> Iterator[str]:
    for name, count in Counter(node.name for node in nodes).items():
        if count > 1 or not name:
            yield f"{count} nodes have the name {name!r}"


def graph_problems(graph: Graph) -> Iterator[str]:
    """Yield what is wrong with the main graph, one sentence each."""
    nodes = graph.nodes
    yield from _name_problems(nodes)
    known = {node.name: node for node in nodes}
    library = {function.name: (len(function.inputs), len(function.outputs)) for function in graph.functions}
    for node in nodes:
        for problem in _node_problems(node, known, library):
            yield f"{node.name} ({node.op}): {problem}"
    yield from _cycles(nodes)


def _node_problems(node: Node, known: dict[str, Node], library: dict[str, tuple[int, int]]) -> Iterator[str]:
    """Yield what is wrong with one node."""
    history = None if node.op in library else op_history(node.op)
    if history is not None:
        problems = list(_attr_problems(node, history))
        yield from problems
        if problems:
            return  # what its attrs should count cannot be counted
    data = 0
    for position, text in enumerate(node.inputs):
        name = TensorName.parse(text)
        producer = known.get(name.node)
        if producer is None:
            yield f"input {position}, {text!r}, names no node"
        elif not name.is_control:
            outputs = _outputs(producer, library)
            if outputs is not None and name.output >= outputs:
                yield f"input {position}, {text!r}, names an output that {producer.op} does not have"
        if not name.is_control:
            if data < position:
                yield f"input {position}, {text!r}, comes after a control input"
            data += 1
    expected = library[node.op][0] if node.op in library else None
    if history is not None:
        expected = count_of(node, history.inputs)
    if expected is not None and data != expected:
        yield f"it has {data} inputs, its op takes {expected}"


def _outputs(node: Node, library: dict[str, tuple[int, int]]) -> int | None:
    """Return how many outputs a node has, or None where its op is unknown."""
    if node.op in library:
        return library[node.op][1]
    history = op_history(node.op)
    return None if history is None else count_of(node, history.outputs)


def _attr_problems(node: Node, history: OpHistory) -> Iterator[str]:
    """Yield attrs that are not there or of another kind."""
    for attr in history.attrs:
        if attr.name not in node.attrs:
            # what came later or went earlier than the op need not be there
            if attr.default is None and attr.since == history.since and attr.until in (None, history.until):
                yield f"the attr {attr.name!r} is missing"
        elif attr.type == "type" and not isinstance(node.attrs[attr.name], DType):
            yield f"the attr {attr.name!r} is no type"
    if node.op == "Const":
        yield from _constant_problems(node)


def _constant_problems(node: Node) -> Iterator[str]:
    tensor = node.tensor()
    if tensor is None:
        yield "its value is no tensor"
    elif tensor.dtype is not node.dtype("dtype"):
        stated = node.dtype("dtype")
        yield f"its value is {tensor.dtype.name}, its type {stated.name if stated else 'none'}"
    else:
        try:
            tensor.check()
        except TfthawError as error:
            yield error.message


def _cycles(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield one cycle that no loop explains; the only way back is from a NextIteration to a Merge."""
    names = {node.name for node in nodes}
    waits: dict[str, int] = {}
    users: dict[str, list[str]] = {}
    ops = {node.name: node.op for node in nodes}
    for node in nodes:
        sources = [source for source in _sources(node, ops) if source in names]
        waits[node.name] = len(sources)
        for source in sources:
            users.setdefault(source, []).append(node.name)
    ready = [name for name, count in waits.items() if count == 0]
    while ready:
        name = ready.pop()
        del waits[name]
        for user in users.get(name, ()):
            waits[user] -= 1
            if waits[user] == 0:
                ready.append(user)
    if waits:
        stuck = {node.name: node for node in nodes if node.name in waits}
        shown = _one_cycle(stuck, ops)
        yield f"nodes wait for each other without a loop: {' <- '.join(shown[:8])}{' ...' if len(shown) > 8 else ''}"


def _sources(node: Node, ops: dict[str, str]) -> Iterable[str]:
    """Return the distinct nodes that must run before a node, ways back into a loop left out."""
    # inputs were judged before, so that the short way of `GraphIndex` to their nodes is right
    found = {text[1:] if text[:1] == "^" else text.partition(":")[0] for text in node.inputs}
    if node.op in _MERGES:
        return [name for name in found if ops.get(name) not in _NEXT]
    return found


def _one_cycle(stuck: dict[str, Node], ops: dict[str, str]) -> list[str]:
    """Return the nodes of a cycle, each after the one that needs it; the first again at the end."""
    path: dict[str, None] = {}
    name = next(iter(stuck))
    while name not in path:
        path[name] = None
        name = next(source for source in _sources(stuck[name], ops) if source in stuck)
    order = list(path)
    return [*order[order.index(name):], name]
