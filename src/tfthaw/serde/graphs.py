"""GraphDef <-> graphs.

Source: graph.proto, node_def.proto and function.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tfthaw import proto
from tfthaw.formats.wire import Contents
from tfthaw.ir.arguments import Argument
from tfthaw.ir.functions import Function, Gradient, RegisteredGradient
from tfthaw.ir.graph import Graph, Versions
from tfthaw.ir.nodes import Node
from tfthaw.serde.attrs import AttrReader, attrs_to_proto, has_unknown_inside, rest_of
from tfthaw.serde.described_ops import argument
from tfthaw.serde.tensors import Payloads

_ARGUMENT_FIELDS = {"name", "type", "type_attr", "number_attr", "type_list_attr", "is_ref"}


def graph_from_proto(message: Any, payloads: Payloads | None = None) -> Graph:
    """Return the graph of a GraphDef.

    Args:
        message: The GraphDef.
        payloads: The bytes that its reader left in the file, by token.
    """
    reader = AttrReader(payloads or {}, careful=has_unknown_inside(message))
    library = message.library if message.HasField("library") else None
    return Graph(
        nodes=_nodes(message.node, reader),
        functions=[_function(item, reader) for item in library.function] if library is not None else [],
        gradients=[_gradient(item) for item in library.gradient] if library is not None else [],
        registered_gradients=(
            [_registered_gradient(item) for item in library.registered_gradients] if library is not None else []
        ),
        versions=_versions(message.versions) if message.HasField("versions") else None,
        opaque=rest_of(message, "node", "library", "versions"),
        library_opaque=None if library is None else rest_of(library, "function", "gradient", "registered_gradients"),
    )


def graph_to_proto(graph: Graph, contents: Contents, target: Any = None) -> Any:
    """Return the GraphDef of a graph.

    Args:
        graph: The graph.
        contents: Takes the constants that are too large for a message.
        target: An empty GraphDef to fill, or None for a new one.
    """
    message = proto.GraphDef() if target is None else target
    message.SetInParent()
    if graph.opaque:
        message.MergeFromString(graph.opaque)
    for node in graph.nodes:
        _node_to_proto(node, message.node.add(), contents)
    if graph.versions is not None:
        message.versions.SetInParent()
        message.versions.MergeFromString(graph.versions.opaque)
        message.versions.producer = graph.versions.producer
        message.versions.min_consumer = graph.versions.min_consumer
        message.versions.bad_consumers.extend(graph.versions.bad_consumers)
    if graph.library_opaque is not None or graph.functions or graph.gradients or graph.registered_gradients:
        message.library.SetInParent()
        message.library.MergeFromString(graph.library_opaque or b"")
    for function in graph.functions:
        _function_to_proto(function, message.library.function.add(), contents)
    for gradient in graph.gradients:
        entry = message.library.gradient.add()
        entry.MergeFromString(gradient.opaque)
        entry.function_name, entry.gradient_func = gradient.function, gradient.gradient
    for registered in graph.registered_gradients:
        entry = message.library.registered_gradients.add()
        entry.MergeFromString(registered.opaque)
        entry.gradient_func, entry.registered_op_type = registered.gradient, registered.op_type
    return message


def _nodes(messages: Iterable[Any], reader: AttrReader) -> list[Node]:
    nodes = []
    for message in messages:
        opaque = b""
        odd = message.HasField("experimental_debug_info") or message.HasField("experimental_type")
        if odd or (reader.careful and proto.has_unknown_fields(message)):
            opaque = rest_of(message, "name", "op", "input", "device", "attr")
        nodes.append(
            Node(message.name, message.op, list(message.input), message.device, reader.read_all(message.attr), opaque)
        )
    return nodes


def _node_to_proto(node: Node, target: Any, contents: Contents) -> None:
    if node.opaque:
        target.MergeFromString(node.opaque)
    target.name = node.name
    target.op = node.op
    target.input.extend(node.inputs)
    target.device = node.device
    attrs_to_proto(node.attrs, target.attr, contents)


def _versions(message: Any) -> Versions:
    opaque = b""
    if proto.has_unknown_fields(message):
        opaque = rest_of(message, "producer", "min_consumer", "bad_consumers")
    return Versions(message.producer, message.min_consumer, tuple(message.bad_consumers), opaque)


def _function(message: Any, reader: AttrReader) -> Function:
    signature = message.signature
    controls = list(signature.control_output)
    # what the signature does not list, TensorFlow does not wait for; a contradiction is kept as it is
    agree = ("control_output", "control_ret") if sorted(controls) == sorted(message.control_ret) else ()
    known = not (reader.careful and any(proto.has_unknown_fields(item) for item in message.arg_attr.values()))
    places = sorted(message.arg_attr) if known else ()
    return Function(
        name=signature.name,
        arguments=[_argument(argument) for argument in signature.input_arg],
        results=[_argument(result) for result in signature.output_arg],
        nodes=_nodes(message.node_def, reader),
        returns={name: message.ret[name] for name in sorted(message.ret)},
        control_returns={name: message.control_ret[name] for name in controls} if agree else {},
        attrs=reader.read_all(message.attr),
        argument_attrs={place: reader.read_all(message.arg_attr[place].attr) for place in places},
        is_stateful=signature.is_stateful,
        signature=rest_of(signature, "name", "input_arg", "output_arg", "is_stateful", *agree[:1]),
        # an empty signature can only be told from none by what is opaque
        opaque=rest_of(message, "node_def", "ret", "attr", *agree[1:], *(("arg_attr",) if known else ()),
                       *(("signature",) if signature.ByteSize() else ())),
    )  # fmt: skip


def _argument(message: Any) -> Argument:
    found = argument(message)
    if proto.has_unknown_fields(message) or {field.name for field, _ in message.ListFields()} - _ARGUMENT_FIELDS:
        return replace(found, opaque=rest_of(message, *_ARGUMENT_FIELDS))
    return found


def _argument_to_proto(argument: Argument, target: Any) -> None:
    if argument.opaque:
        target.MergeFromString(argument.opaque)
    target.name = argument.name
    if argument.dtype is not None:
        target.type = int(argument.dtype)
    target.type_attr = argument.type_attr or ""
    target.number_attr = argument.number_attr or ""
    target.type_list_attr = argument.type_list_attr or ""
    target.is_ref = argument.is_ref


def _function_to_proto(function: Function, target: Any, contents: Contents) -> None:
    target.MergeFromString(function.opaque)
    if any((function.name, function.signature, function.arguments, function.results, function.is_stateful,
            function.control_returns)):  # fmt: skip
        _signature_to_proto(function, target.signature)
    for node in function.nodes:
        _node_to_proto(node, target.node_def.add(), contents)
    for name, text in function.returns.items():
        target.ret[name] = text
    for name, node_name in function.control_returns.items():
        target.control_ret[name] = node_name
    attrs_to_proto(function.attrs, target.attr, contents)
    for place, attrs in function.argument_attrs.items():
        target.arg_attr[place].SetInParent()
        attrs_to_proto(attrs, target.arg_attr[place].attr, contents)


def _signature_to_proto(function: Function, target: Any) -> None:
    target.SetInParent()
    target.MergeFromString(function.signature)
    target.name = function.name
    target.is_stateful = function.is_stateful
    for arguments, stored in ((function.arguments, target.input_arg), (function.results, target.output_arg)):
        for item in arguments:
            _argument_to_proto(item, stored.add())
    target.control_output.extend(function.control_returns)


def _gradient(message: Any) -> Gradient:
    opaque = rest_of(message, "function_name", "gradient_func") if proto.has_unknown_fields(message) else b""
    return Gradient(message.function_name, message.gradient_func, opaque)


def _registered_gradient(message: Any) -> RegisteredGradient:
    fields = ("gradient_func", "registered_op_type")
    opaque = rest_of(message, *fields) if proto.has_unknown_fields(message) else b""
    return RegisteredGradient(message.gradient_func, message.registered_op_type, opaque)
