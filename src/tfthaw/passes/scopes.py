"""Scopes: a main graph or the body of one function, as rewriting of single nodes sees it.

The two spell inputs differently (`node:1`, `node:output:0`). A rule that replaces a node takes its inputs as they are
spelled, and asks the scope for the spelling of what it adds. What is known of shapes is what constants, placeholders,
variables and the attr `_output_shapes` state; nothing is inferred.

Source: function.proto and graph.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Attr, AttrList, Shape
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import TensorName
from tfthaw.ir.nodes import Node
from tfthaw.passes.prune import free_name
from tfthaw.tensors import Array, ArrayTensor

_FRAME_OPS = ("Enter", "RefEnter")
_HANDING_ON = ("Identity", "StopGradient", "PreventGradient")
_MOST_STEPS = 16


class Scope:
    """The nodes among which one node is replaced.

    Attributes:
        function: The function whose body it is, or None for the main graph.

    Args:
        nodes: The nodes.
        definitions: What ops take and give.
        function: The function whose body they are, or None.
        fetched: Tensors that are used from outside of a main graph.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        definitions: Definitions,
        function: Function | None = None,
        fetched: Iterable[TensorName] = (),
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.function = function
        self._definitions = definitions
        self._fetched = set(fetched)
        self._has_frames = any(node.op in _FRAME_OPS for node in self.nodes.values())
        self._taken = {*self.nodes, *(function.inputs if function is not None else ())}
        self._used: dict[str, set[int | None]] | None = None

    def new_name(self, node: Node, purpose: str) -> str:
        """Return a name for a node that is added for another one."""
        name = free_name(self._taken, f"{node.name}/{purpose}")
        self._taken.add(name)
        return name

    def output(self, node: Node, position: int = 0) -> str:
        """Return how the output of a node is spelled as an input."""
        if self.function is None:
            return TensorName(node.name, position).as_input()
        spans = self._definitions.output_spans(node) or []
        for span in spans:
            if span.first <= position < span.first + span.count:
                return f"{node.name}:{span.name}:{position - span.first}"
        raise AssertionError(f"{node.op} has no output {position}")  # rules name outputs of ops that they know

    def constant(self, node: Node, purpose: str, array: Array, dtype: DType) -> Node:
        """Return a constant for a node, in the loop that the node is in."""
        attrs: dict[str, Attr] = {"dtype": dtype, "value": ArrayTensor(array, dtype)}
        data = [text for text in node.inputs if text[:1] != "^"]
        producer = data[0].partition(":")[0] if data else ""
        inside = self._has_frames and producer in self.nodes
        return Node(self.new_name(node, purpose), "Const", [f"^{producer}"] if inside else [], node.device, attrs)

    def value(self, text: str) -> Array | None:
        """Return the value of an input that is a constant, or None."""
        node = self._source(text)
        tensor = node.tensor() if node is not None and node.op == "Const" else None
        return None if tensor is None else tensor.numpy()

    def shape(self, text: str) -> Shape | None:
        """Return what is stated of an input's shape, or None."""
        node = self._source(text)
        if node is None:
            return self._argument_shape(text)
        if node.op == "Const" and (tensor := node.tensor()) is not None:
            return Shape(tuple(tensor.shape))
        if node.op in ("ReadVariableOp", "VariableV2", "Variable"):
            variable = self._source(node.inputs[0]) if node.op == "ReadVariableOp" and node.inputs else node
            stated = variable.shape() if variable is not None else None
            return stated if stated is not None and stated.dims else None  # old scalars may say nothing
        stated = node.shape() if node.op.startswith("Placeholder") else None
        if stated is not None and stated.dims:
            return stated
        shapes = node.attrs.get("_output_shapes")
        position = self.position(text)
        if isinstance(shapes, AttrList) and position is not None and position < len(shapes.items):
            shape = shapes.items[position]
            return shape if isinstance(shape, Shape) else None
        return None

    def _argument_shape(self, text: str) -> Shape | None:
        """Return what is stated of the shape of a function's argument."""
        if self.function is None or text not in self.function.inputs:
            return None
        attrs: Mapping[str, Attr] = self.function.argument_attrs.get(self.function.inputs.index(text), {})
        shapes = attrs.get("_output_shapes")
        shape = shapes.items[0] if isinstance(shapes, AttrList) and len(shapes.items) == 1 else None
        return shape if isinstance(shape, Shape) else None

    def _source(self, text: str) -> Node | None:
        """Return the node that gives an input, behind nodes that only hand it on; None for arguments."""
        for _ in range(_MOST_STEPS):
            node = self.nodes.get(text.partition(":")[0])
            if node is None or node.op not in _HANDING_ON or not node.inputs or node.inputs[0][:1] == "^":
                return node
            if "_output_shapes" in node.attrs:
                return node
            text = node.inputs[0]
        return None

    def position(self, text: str) -> int | None:
        """Return which output of its node an input is, or None where nothing says it."""
        if self.function is None:
            return TensorName.parse(text).output
        parts = text.split(":")
        node = self.nodes.get(parts[0])
        if node is None:
            return None
        if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 10):
            return None
        for span in self._definitions.output_spans(node) or []:
            if span.name == parts[1]:
                return span.first + int(parts[2])
        return None

    def uses_only(self, node: Node, count: int) -> bool:
        """Whether nobody uses outputs of a node but its first ones."""
        if self._used is None:
            self._used = self._find_used()
        return all(position is not None and position < count for position in self._used.get(node.name, ()))

    def _find_used(self) -> dict[str, set[int | None]]:
        used: dict[str, set[int | None]] = {}
        texts = [text for node in self.nodes.values() for text in node.inputs if text[:1] != "^"]
        if self.function is not None:
            texts += self.function.returns.values()
        for text in texts:
            used.setdefault(text.partition(":")[0], set()).add(self.position(text))
        for name in self._fetched:
            used.setdefault(name.node, set()).add(name.output)
        return used


def is_zero(array: Array | None) -> bool:
    """Whether a constant is there and each of its elements is zero, no negative one."""
    if array is None or array.dtype == object:
        return False
    return not np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).any()
