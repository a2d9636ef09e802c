"""Bodies: the nodes of a library function as a graph of their own.

A function spells its inputs by the names of arguments and of op outputs (`x`, `split:output:1`), a graph by positions
(`split:1`). A `Body` is a function in a graph's spelling, so that what works on graphs works on it. As when TensorFlow
instantiates a function, each tensor that it takes is a node `_Arg`.

    function    x    matmul:product:0    split:output:1    ^print
    graph       x    matmul              split:1           ^print

Source: function.proto and function.cc (InstantiateFunction) of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tfthaw.errors import StructureError, UnsupportedError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr, AttrList, AttrPlaceholder, FunctionName
from tfthaw.ir.definitions import Definitions, Span, dtypes_of, spans
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import TensorName
from tfthaw.ir.nodes import Node

ARGUMENT_OP = "_Arg"


@dataclass(slots=True)
class Body:
    """A function in a graph's spelling.

    Attributes:
        name: The function.
        nodes: One `_Arg` node for each tensor that it takes, then its own nodes.
        arguments: The names of the `_Arg` nodes, in order.
        returns: The tensors that it gives, in order.
        controls: control output -> the node that has run when the call has.
    """

    name: str
    nodes: list[Node]
    arguments: list[str]
    returns: list[TensorName]
    controls: dict[str, str] = field(default_factory=dict)


def open_body(function: Function, definitions: Definitions, attrs: Mapping[str, Attr] | None = None) -> Body:
    """Return the body of a function as a graph.

    Args:
        function: The function.
        definitions: What the ops in it take and give.
        attrs: The attrs that the caller gives, for a function that is made for several types.

    Raises:
        UnsupportedError: Ops whose outputs nothing describes are referred to by the names of their outputs.
        StructureError: The function refers to what is not there, or the caller leaves out attrs.
    """
    given = attrs or {}
    arguments = spans(function.arguments, given)
    dtypes = dtypes_of(function.arguments, given)
    if arguments is None or dtypes is None:
        raise StructureError(
            "the function is called without the attrs that say the types of its arguments",
            where=f"function {function.name!r}",
        )
    opening = _Opening(function, definitions, given)
    for span in arguments:
        opening.take(span, dtypes)
    nodes = [*opening.taken, *map(opening.node, function.nodes)]
    returns = [tensor for result in function.results for tensor in opening.returned(result)]
    opening.refuse_unknown()
    names = [node.name for node in opening.taken]
    return Body(function.name, nodes, names, returns, dict(function.control_returns))


class _Opening:
    """One function on its way into a graph's spelling."""

    def __init__(self, function: Function, definitions: Definitions, attrs: Mapping[str, Attr]) -> None:
        self.function = function
        self.definitions = definitions
        self.attrs = attrs
        self.own = {node.name: node for node in function.nodes}
        self.taken: list[Node] = []
        self.tensors: dict[str, TensorName] = {}
        self.is_generic = bool(function.signature)  # attrs that callers give are listed there
        self._spans: dict[str, dict[str, Span] | None] = {}
        self._counts: dict[str, int] = {}
        self.dangling: list[str] = []
        self.undescribed: set[str] = set()

    def take(self, span: Span, dtypes: Sequence[object]) -> None:
        """Add the `_Arg` nodes of one argument."""
        self._counts[span.name] = span.count
        for position in range(span.count):
            name = span.name if span.count == 1 else f"{span.name}_{position}"
            while name in self.own:
                name += "_arg"
            place = span.first + position
            self.taken.append(Node(name, ARGUMENT_OP, [], "", {"T": dtypes[place], "index": place}))  # type: ignore[dict-item]
            self.tensors[f"{span.name}:{position}"] = TensorName(name, 0)
            if position == 0:
                self.tensors[span.name] = TensorName(name, 0)

    def node(self, node: Node) -> Node:
        """Return a node of the function in a graph's spelling, with the attrs that the caller gives."""
        inputs = [spelled for text in node.inputs for spelled in self._inputs(text)]
        attrs = bound_attrs(node.attrs, self.attrs, where=self.function.name) if self.is_generic else node.attrs
        return Node(node.name, node.op, inputs, node.device, attrs, node.opaque)

    def _inputs(self, text: str) -> list[str]:
        """Return the inputs that one of a function's stands for: without an index it is all tensors of that name."""
        if text.startswith("^"):
            found = self.tensors.get(text[1:])
            return [text if found is None or text[1:] in self.own else f"^{found.node}"]
        return [tensor.as_input() for tensor in self._all(text)]

    def _all(self, text: str) -> list[TensorName]:
        """Return every tensor that a spelling names."""
        parts = text.split(":")
        count = self._counts.get(text, 1)
        if len(parts) == 2 and text not in self.tensors and parts[0] in self.own:
            span = (self._outputs(parts[0]) or {}).get(parts[1])
            count = 1 if span is None else span.count
            text = f"{text}:0" if count == 1 else text
        return [self.tensor(text if count == 1 else f"{text}:{position}") for position in range(count)]

    def returned(self, result: Argument) -> list[TensorName]:
        """Return the tensors that one result stands for."""
        text = self.function.returns.get(result.name)
        if text is None:
            self.dangling.append(f"result {result.name!r} is given by nothing")
            return []
        found = self._all(text)
        expected = spans([result], self.attrs)
        if expected is not None and expected[0].count != len(found):
            self.dangling.append(f"result {result.name!r} is {expected[0].count} tensors, {text!r} is {len(found)}")
        return found

    def tensor(self, text: str) -> TensorName:
        """Return the tensor that a spelling names."""
        found = self.tensors.get(text)
        if found is None:
            found = self.tensors[text] = self._output(text)
        return found

    def _output(self, text: str) -> TensorName:
        """Return the tensor of a node's output that is spelled by name."""
        parts = text.split(":")
        if parts[0] not in self.own or len(parts) > 3:
            self.dangling.append(f"{text!r} names nothing in it")
            return TensorName(parts[0], 0)
        if len(parts) == 1:
            return TensorName(parts[0], 0)
        index = parts[2] if len(parts) == 3 else "0"
        outputs = self._outputs(parts[0])
        if outputs is None:
            return TensorName(parts[0], 0)
        span = outputs.get(parts[1])
        if span is None or not (index.isascii() and index.isdigit()) or int(index) >= span.count:
            self.dangling.append(f"{text!r} names no output of {parts[0]} ({self.own[parts[0]].op})")
            return TensorName(parts[0], 0)
        return TensorName(parts[0], span.first + int(index))

    def _outputs(self, name: str) -> dict[str, Span] | None:
        if name not in self._spans:
            node = self.own[name]
            if self.is_generic:
                node = replace(node, attrs=bound_attrs(node.attrs, self.attrs, where=self.function.name))
            found = self.definitions.output_spans(node)
            if found is None:
                self.undescribed.add(f"{name} ({node.op})")
            self._spans[name] = None if found is None else {span.name: span for span in found}
        return self._spans[name]

    def refuse_unknown(self) -> None:
        """Refuse what could not be resolved."""
        where = f"function {self.function.name!r}"
        if self.dangling:
            raise StructureError("the function contradicts itself", where=where, problems=self.dangling)
        if self.undescribed:
            raise UnsupportedError(
                "nothing says what these ops give, so who takes which of their outputs is not known",
                where=where, problems=sorted(self.undescribed),
                hint="convert to saved-model, which keeps functions as they are",
            )  # fmt: skip


def bound_attrs(attrs: Mapping[str, Attr], given: Mapping[str, Attr], *, where: str) -> Mapping[str, Attr]:
    """Return attrs with the caller's values in the place of placeholders.

    Args:
        attrs: The attrs of a node in a function.
        given: The attrs that the caller gives to the function.
        where: The function, for errors.

    Raises:
        StructureError: The caller does not give an attr.
    """
    changed = {}
    for name, value in attrs.items():
        bound = _bound(value, given, where)
        if bound is not value:
            changed[name] = bound
    return {**attrs, **changed} if changed else attrs


def _bound(value: Attr, given: Mapping[str, Attr], where: str) -> Attr:
    if isinstance(value, AttrPlaceholder):
        if value.name not in given:
            raise StructureError(f"the caller does not give the attr {value.name!r}", where=f"function {where!r}")
        return given[value.name]
    if isinstance(value, FunctionName):
        attrs = bound_attrs(value.attrs, given, where=where)
        return value if attrs is value.attrs else replace(value, attrs=attrs)
    if isinstance(value, AttrList) and value.kind == "func":
        items = [_bound(item, given, where) for item in value.items]
        same = all(one is other for one, other in zip(items, value.items, strict=True))
        return value if same else replace(value, items=items)
    return value


def close_body(body: Body, definitions: Definitions) -> tuple[list[Node], list[str]]:
    """Return the nodes of a body in a function's spelling, and the spellings of what it gives.

    Args:
        body: The body; its `_Arg` nodes become the function's arguments and are not among the nodes.
        definitions: What the ops in it take and give.

    Raises:
        UnsupportedError: Nothing says what an op gives.
    """
    known = {node.name: node for node in body.nodes}
    taken = set(body.arguments)
    names: dict[str, list[str]] = {}
    unknown: dict[str, Node] = {}

    def spelled(tensor: TensorName) -> str:
        if tensor.node in taken:
            return tensor.node
        if tensor.node not in names:
            node = known[tensor.node]
            found = definitions.output_spans(node)
            if found is None:
                unknown[node.name] = node
            names[tensor.node] = [
                f"{node.name}:{span.name}:{position}" for span in found or () for position in range(span.count)
            ]
        outputs = names[tensor.node]
        return outputs[tensor.output] if tensor.output < len(outputs) else f"{tensor.node}:?:{tensor.output}"

    nodes = []
    for node in body.nodes:
        if node.name not in taken:
            inputs = [text if text[:1] == "^" else spelled(TensorName.parse(text)) for text in node.inputs]
            nodes.append(Node(node.name, node.op, inputs, node.device, node.attrs, node.opaque))
    returns = [spelled(tensor) for tensor in body.returns]
    if unknown:
        raise UnsupportedError(
            "nothing says what these ops give, so they cannot be part of a function",
            problems=[f"{node.name} ({node.op})" for node in unknown.values()],
            hint="convert to saved-model with --style v1, which needs no functions",
        )  # fmt: skip
    return nodes, returns
