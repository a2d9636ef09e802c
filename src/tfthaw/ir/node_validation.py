"""Whether one node can be meant, whatever stands around it: its attrs, and the value that it holds.

Source: node_def_util.cc of TensorFlow, and its op definitions (`tfthaw.ir.op_history`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tfthaw.dtypes import DType
from tfthaw.errors import TfthawError
from tfthaw.ir.attrs import AttrPlaceholder
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history

NEXT_OPS = ("NextIteration", "RefNextIteration")
MERGE_OPS = ("Merge", "RefMerge")


def name_problems(nodes: Iterable[Node]) -> Iterator[str]:
    """Yield names that several nodes have, and say where nodes have none."""
    for name, count in Counter(node.name for node in nodes).items():
        if count > 1 or not name:
            yield f"{count} nodes have the name {name!r}"


def attr_problems(node: Node) -> Iterator[str]:
    """Yield attrs that are not there or of another kind; of ops that no TensorFlow knows nothing is said."""
    history = op_history(node.op)
    if history is None:
        return
    for attr in history.attrs:
        value = node.attrs.get(attr.name)
        if value is None:
            # what came later or went earlier than the op need not be there
            if attr.default is None and attr.since == history.since and attr.until in (None, history.until):
                yield f"the attr {attr.name!r} is missing"
        elif isinstance(value, AttrPlaceholder):
            yield f"the attr {attr.name!r} takes its value from the attr {value.name!r} of a function, and gets none"
        elif attr.type == "type" and not isinstance(value, DType):
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
