"""What outputs of a GraphDef need: its nodes, and the functions that these call."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

_PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def reached_nodes(message: Any, outputs: Iterable[str], *, stop: Collection[str] = ()) -> list[Any]:
    """Return the nodes of a GraphDef that tensors need.

    Args:
        message: The GraphDef.
        outputs: The tensors; every node counts where there are none.
        stop: Nodes whose own inputs are not needed.
    """
    nodes = {node.name: node for node in message.node}
    waiting = [name.partition(":")[0] for name in outputs]
    if not waiting:
        return list(nodes.values())
    seen = set(waiting)
    for name in waiting:
        for text in nodes[name].input if name in nodes and name not in stop else ():
            source = text.lstrip("^").partition(":")[0]
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return [node for name, node in nodes.items() if name in seen]


def reached_functions(message: Any, nodes: Iterable[Any]) -> list[Any]:
    """Return the functions of a GraphDef's library that nodes call, and those that these call."""
    library = {function.signature.name: function for function in message.library.function}
    found: dict[str, Any] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        names = [node.op]
        for attr in node.attr.values():
            names += [attr.func.name, *(each.name for each in attr.list.func)]
        for name in names:
            if name in library and name not in found:
                found[name] = library[name]
                waiting += library[name].node_def
    return list(found.values())


def python_nodes(message: Any, nodes: Iterable[Any]) -> list[str]:
    """Return the nodes that call back into Python, those of library functions by function and node."""
    found = [node.name for node in nodes if node.op in _PYTHON_OPS]
    for function in message.library.function:
        found += [f"{function.signature.name}/{node.name}" for node in function.node_def if node.op in _PYTHON_OPS]
    return found
