"""Freeze inside of functions: control flow that was given a variable is given its value.

A branch or loop body that takes a handle becomes one that takes the value: a copy of the function, made for the
arguments that are variables. The value stays one constant in the main graph, however many functions it goes through.

Source: functional_ops.cc of TensorFlow (attrs of If, Case and While), function.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr, AttrList, FunctionName, Shape
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.function_bodies import Body, close_body, open_body
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import TensorName
from tfthaw.ir.nodes import Node
from tfthaw.passes.function_uses import CASE_OPS, IF_OPS, WHILE_OPS, handings
from tfthaw.passes.prune import free_name


@dataclass(frozen=True, slots=True)
class Value:
    """What a tensor that was a handle is now.

    Attributes:
        dtype: The element type of the variable.
        shape: Its shape.
    """

    dtype: DType
    shape: Shape


Values = tuple[tuple[int, Value], ...]
"""The arguments of a function that are values now, by position."""

FreezeBody = Callable[[Body, Mapping[str, Value]], tuple[list[Node], dict[TensorName, Value]]]
"""Freezes the nodes of a body, given which of its arguments are values; returns them, and every tensor that is a value
now."""


class FrozenFunctions:
    """Functions with values in the place of handles, each made once.

    Attributes:
        made: The functions that were made.

    Args:
        definitions: What the ops of the graph take and give.
        freeze_body: Freezes one body.
    """

    def __init__(self, definitions: Definitions, freeze_body: FreezeBody) -> None:
        self.definitions = definitions
        self.made: list[Function] = []
        self._freeze_body = freeze_body
        self._known: dict[tuple[str, Values], tuple[str, dict[int, Value]]] = {}
        self._taken = set(definitions.functions)

    def frozen_node(self, node: Node, values: Mapping[int, Value]) -> Node:
        """Return a node that hands values to its functions where it handed variables.

        Args:
            node: The node: If, Case, While, or a call.
            values: Its inputs that are values now.

        Raises:
            UnsupportedError: Its functions do not agree on what they give.
        """
        targets = handings(node, self.definitions) or []
        names: dict[str, str] = {}
        given: list[dict[int, Value]] = []
        for target in targets:
            taken = tuple((place - target.first, value) for place, value in sorted(values.items()))
            name, results = self._function(target.function, taken)
            names[target.function.name] = name
            if target.gives:
                given.append(results)
        expected = self._agreed(node, values, given)
        if node.op in WHILE_OPS and expected != values:  # the body hands on another variable than it was given
            return self.frozen_node(node, expected)
        attrs = {name: self._renamed(attr, names) for name, attr in node.attrs.items()}
        for stale in ("_read_only_resource_inputs", "_handle_dtypes", "_handle_shapes", "_output_shapes"):
            attrs.pop(stale, None)
        first = 1 if node.op in IF_OPS | CASE_OPS else 0
        taken_in = {place - first: value for place, value in values.items()}
        for attr, given_values in (("T", taken_in), ("Tin", taken_in), ("Tout", expected)):
            if attr in attrs and (attr == "T") is (node.op in WHILE_OPS):
                attrs[attr] = _with_dtypes(attrs[attr], given_values)
        if "output_shapes" in attrs:
            attrs["output_shapes"] = _with_shapes(attrs["output_shapes"], expected)
        return replace(node, op=names.get(node.op, node.op), attrs=attrs)

    def _agreed(self, node: Node, values: Mapping[int, Value], given: list[dict[int, Value]]) -> dict[int, Value]:
        """Return which outputs of a node are values, as all its functions give them."""
        every = [dict(values), *given] if node.op in WHILE_OPS else given
        agreed = dict(every[0])
        for results in every[1:]:
            same = results.keys() == agreed.keys()
            if not same or any(results[place].dtype is not value.dtype for place, value in agreed.items()):
                raise UnsupportedError(
                    f"{node.name} ({node.op}): its functions give a variable in one case and something else in another"
                )
            for place, value in results.items():
                if value.shape != agreed[place].shape:
                    agreed[place] = Value(value.dtype, Shape(None))
        return agreed

    def _function(self, called: FunctionName, values: Values) -> tuple[str, dict[int, Value]]:
        """Return the name of a function for values, and which of its results are values."""
        if (called.name, values) not in self._known:
            function = self.definitions.functions[called.name]
            if function.signature:
                raise UnsupportedError(
                    f"{function.name} is made for several types and takes variables, which is not converted"
                )
            self._known[called.name, values] = self._made(function, dict(values))
        return self._known[called.name, values]

    def _made(self, function: Function, values: dict[int, Value]) -> tuple[str, dict[int, Value]]:
        body = open_body(function, self.definitions)
        body.nodes, found = self._freeze_body(body, {body.arguments[place]: value for place, value in values.items()})
        nodes, returns = close_body(body, self.definitions)
        results = {place: found[tensor] for place, tensor in enumerate(body.returns) if tensor in found}
        name = free_name(self._taken, f"{function.name}_frozen")
        self._taken.add(name)
        attrs = dict(function.argument_attrs)
        for place, value in values.items():
            kept = attrs.get(place, {})
            attrs[place] = {key: kept[key] for key in kept if key == "_user_specified_name"}
            attrs[place]["_output_shapes"] = AttrList("shape", [value.shape])  # type: ignore[index]
        made = replace(
            function, name=name, nodes=nodes, returns=dict(zip(function.outputs, returns, strict=True)),
            arguments=_with_types(function.arguments, values), results=_with_types(function.results, results),
            argument_attrs=attrs,
        )  # fmt: skip
        self.made.append(made)
        return name, results

    def _renamed(self, attr: Attr, names: Mapping[str, str]) -> Attr:
        if isinstance(attr, FunctionName) and attr.name in names:
            return replace(attr, name=names[attr.name])
        if isinstance(attr, AttrList) and attr.kind == "func":
            return replace(attr, items=[self._renamed(item, names) for item in attr.items])
        return attr


def _with_types(arguments: list[Argument], values: Mapping[int, Value]) -> list[Argument]:
    return [
        Argument(argument.name, values[place].dtype) if place in values else argument
        for place, argument in enumerate(arguments)
    ]


def _with_dtypes(attr: Attr, values: Mapping[int, Value]) -> AttrList:
    items = list(attr.items) if isinstance(attr, AttrList) else []
    return AttrList("type", [values[place].dtype if place in values else item for place, item in enumerate(items)])


def _with_shapes(attr: Attr, values: Mapping[int, Value]) -> Attr:
    if not isinstance(attr, AttrList):
        return attr
    items: list[Attr] = [values[place].shape if place in values else item for place, item in enumerate(attr.items)]
    return replace(attr, items=items)
