"""SavedObjectGraph <-> object graphs of SavedModels.

A graph of many objects is read object by object, when they are asked for; one that nobody looks at goes from message
to message untouched.

Source: saved_object_graph.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.formats.wire import Contents
from tfthaw.ir.graph import Versions
from tfthaw.ir.object_graph import (
    AssetObject,
    CapturedTensorObject,
    ConcreteFunction,
    ConcreteFunctionObject,
    ConstantObject,
    FunctionObject,
    FunctionSpec,
    ObjectGraph,
    ObjectKind,
    ResourceObject,
    SaveableObject,
    SavedObject,
    UserObject,
    VariableObject,
)
from tfthaw.ir.structured_values import Absent, StructuredValue
from tfthaw.serde.attrs import rest_of, shape_from_proto, shape_to_proto
from tfthaw.serde.object_parts import MessageObjects, PartsReader, children_to_proto, slots_to_proto
from tfthaw.serde.structured_values import structured_value_from_proto, structured_value_to_proto
from tfthaw.serde.tensors import Payloads


def object_graph_from_proto(message: Any, payloads: Payloads | None = None) -> ObjectGraph:
    """Return the object graph of a SavedObjectGraph.

    Args:
        message: The SavedObjectGraph; it must not be changed while the graph is in use.
        payloads: The bytes that its reader left in the file, by token.
    """
    reader = _Reader(message, payloads or {})
    return ObjectGraph(
        nodes=MessageObjects(message.nodes, reader.saved_object, reader.payloads),
        concrete_functions=MessageFunctions(message.concrete_functions, reader),
        opaque=rest_of(message, "nodes", "concrete_functions") if proto.has_unknown_fields(message) else b"",
    )


def object_graph_to_proto(graph: ObjectGraph, contents: Contents | None = None, target: Any = None) -> Any:
    """Return the SavedObjectGraph of an object graph.

    Args:
        graph: The object graph.
        contents: Takes the tensors that are too large for a message.
        target: An empty SavedObjectGraph to fill, or None for a new one.
    """
    message = proto.SavedObjectGraph() if target is None else target
    contents = Contents() if contents is None else contents
    message.SetInParent()
    message.MergeFromString(graph.opaque)
    if isinstance(graph.nodes, MessageObjects):
        contents.adopt(graph.nodes.payloads)
        message.nodes.MergeFrom(graph.nodes.messages)
    else:
        for item in graph.nodes:
            _saved_object_to_proto(item, message.nodes.add(), contents)
    if isinstance(graph.concrete_functions, MessageFunctions):
        contents.adopt(graph.concrete_functions.payloads)
        message.concrete_functions.MergeFrom(graph.concrete_functions.messages)
    else:
        for name, function in graph.concrete_functions.items():
            _concrete_function_to_proto(function, message.concrete_functions[name], contents)
    return message


_NO_SAVEABLES: Mapping[str, SaveableObject] = MappingProxyType({})


class MessageFunctions(Mapping[str, ConcreteFunction]):
    """The concrete functions of an object graph as their messages have them, each read when it is asked for.

    Attributes:
        messages: The map of SavedConcreteFunctions; it must not be changed.
    """

    __slots__ = ("_found", "_reader", "messages")

    def __init__(self, messages: Any, reader: _Reader) -> None:
        self.messages = messages
        self._reader = reader
        self._found: dict[str, ConcreteFunction] = {}

    @property
    def payloads(self) -> Payloads:
        """The bytes that tokens in the messages stand for."""
        return self._reader.payloads

    def __getitem__(self, name: str) -> ConcreteFunction:
        function = self._found.get(name)
        if function is None:
            if name not in self.messages:  # asking the message for a name would add it
                raise KeyError(name)
            function = self._found[name] = self._reader.concrete_function(self.messages[name])
        return function

    def __contains__(self, name: object) -> bool:
        return name in self.messages

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.messages))

    def __len__(self) -> int:
        return len(self.messages)


class _Reader(PartsReader):
    """Reads the objects and functions of a SavedObjectGraph."""

    def saved_object(self, message: Any) -> SavedObject:
        """Return the object of a SavedObject."""
        kind = message.WhichOneof("kind")
        return SavedObject(
            kind=None if kind is None else _KINDS[kind][0](self, getattr(message, kind)),
            children=self.children(message.children),
            dependencies=self.children(message.dependencies),
            slot_variables=self.slots(message.slot_variables),
            saveable_objects=self._saveables(message.saveable_objects),
            registered_name=message.registered_name,
            registered_saver=message.registered_saver,
            serialized_user_proto=(
                proto.serialize(message.serialized_user_proto) if message.HasField("serialized_user_proto") else None
            ),
            opaque=self.rest(
                message, "children", "dependencies", "slot_variables", "saveable_objects", "registered_name",
                "registered_saver", "serialized_user_proto", *((kind,) if kind else ()),
            ),
        )  # fmt: skip

    def concrete_function(self, message: Any) -> ConcreteFunction:
        """Return what a SavedConcreteFunction says."""
        return ConcreteFunction(
            bound_inputs=list(message.bound_inputs),
            canonicalized_input_signature=self._value(message, "canonicalized_input_signature"),
            output_signature=self._value(message, "output_signature"),
            opaque=self.rest(message, "bound_inputs", "canonicalized_input_signature", "output_signature"),
        )

    def user(self, message: Any) -> UserObject:
        """Return the kind of a SavedUserObject."""
        versions = None
        if message.HasField("version"):
            stored = message.version
            opaque = self.rest(stored, "producer", "min_consumer", "bad_consumers")
            versions = Versions(stored.producer, stored.min_consumer, tuple(stored.bad_consumers), opaque)
        return UserObject(
            message.identifier, versions, message.metadata, self.rest(message, "identifier", "version", "metadata")
        )

    def asset(self, message: Any) -> AssetObject:
        """Return the kind of a SavedAsset."""
        return AssetObject(message.asset_file_def_index, self.rest(message, "asset_file_def_index"))

    def function(self, message: Any) -> FunctionObject:
        """Return the kind of a SavedFunction."""
        return FunctionObject(
            list(message.concrete_functions), self._spec(message),
            self.rest(message, "concrete_functions", "function_spec"),
        )  # fmt: skip

    def variable(self, message: Any) -> VariableObject:
        """Return the kind of a SavedVariable."""
        return VariableObject(
            dtype=DType(message.dtype),
            shape=shape_from_proto(message.shape, careful=self.careful) if message.HasField("shape") else None,
            trainable=message.trainable,
            name=message.name,
            device=message.device,
            synchronization=message.synchronization,
            aggregation=message.aggregation,
            components=[self.variable(item) for item in message.experimental_distributed_variable_components],
            opaque=self.rest(
                message, "dtype", "shape", "trainable", "name", "device", "synchronization", "aggregation",
                "experimental_distributed_variable_components",
            ),
        )  # fmt: skip

    def bare_concrete_function(self, message: Any) -> ConcreteFunctionObject:
        """Return the kind of a SavedBareConcreteFunction."""
        return ConcreteFunctionObject(
            message.concrete_function_name,
            list(message.argument_keywords),
            message.allowed_positional_arguments,
            self._spec(message),
            self.rest(
                message, "concrete_function_name", "argument_keywords", "allowed_positional_arguments", "function_spec"
            ),
        )

    def constant(self, message: Any) -> ConstantObject:
        """Return the kind of a SavedConstant."""
        return ConstantObject(message.operation, self.rest(message, "operation"))

    def resource(self, message: Any) -> ResourceObject:
        """Return the kind of a SavedResource."""
        return ResourceObject(message.device, self.rest(message, "device"))

    def captured_tensor(self, message: Any) -> CapturedTensorObject:
        """Return the kind of a CapturedTensor."""
        return CapturedTensorObject(
            message.name, message.concrete_function, self.rest(message, "name", "concrete_function")
        )

    def _saveables(self, messages: Any) -> Mapping[str, SaveableObject]:
        if not messages:
            return _NO_SAVEABLES
        found = {}
        for name in sorted(messages):
            item = messages[name]
            rest = self.rest(item, "save_function", "restore_function")
            found[name] = SaveableObject(item.save_function, item.restore_function, rest)
        return found

    def _spec(self, message: Any) -> FunctionSpec | None:
        if not message.HasField("function_spec"):
            return None
        spec = message.function_spec
        return FunctionSpec(
            self._value(spec, "fullargspec"),
            spec.is_method,
            self._value(spec, "input_signature"),
            spec.jit_compile,
            self.rest(spec, "fullargspec", "is_method", "input_signature", "jit_compile"),
        )

    def _value(self, message: Any, field: str) -> StructuredValue | Absent:
        if not message.HasField(field):
            return Absent.ABSENT
        return structured_value_from_proto(getattr(message, field), self.payloads, careful=self.careful)


def _saved_object_to_proto(item: SavedObject, target: Any, contents: Contents) -> None:
    target.MergeFromString(item.opaque)
    if item.kind is not None:
        field, write = _WRITERS[type(item.kind)]
        kind = getattr(target, field)
        kind.SetInParent()
        kind.MergeFromString(item.kind.opaque)
        write(item.kind, kind, contents)
    children_to_proto(item.children, target.children)
    children_to_proto(item.dependencies, target.dependencies)
    slots_to_proto(item.slot_variables, target.slot_variables)
    for name, saveable in item.saveable_objects.items():
        entry = target.saveable_objects[name]
        entry.SetInParent()
        entry.MergeFromString(saveable.opaque)
        entry.save_function, entry.restore_function = saveable.save_function, saveable.restore_function
    target.registered_name = item.registered_name
    target.registered_saver = item.registered_saver
    if item.serialized_user_proto is not None:
        target.serialized_user_proto.SetInParent()
        target.serialized_user_proto.MergeFromString(item.serialized_user_proto)


def _concrete_function_to_proto(function: ConcreteFunction, target: Any, contents: Contents) -> None:
    target.SetInParent()
    target.MergeFromString(function.opaque)
    target.bound_inputs.extend(function.bound_inputs)
    _write_value(function.canonicalized_input_signature, target, "canonicalized_input_signature", contents)
    _write_value(function.output_signature, target, "output_signature", contents)


def _write_value(value: StructuredValue | Absent, target: Any, field: str, contents: Contents) -> None:
    if not isinstance(value, Absent):
        structured_value_to_proto(value, getattr(target, field), contents)


def _write_spec(spec: FunctionSpec | None, target: Any, contents: Contents) -> None:
    if spec is None:
        return
    target.SetInParent()
    target.MergeFromString(spec.opaque)
    _write_value(spec.fullargspec, target, "fullargspec", contents)
    target.is_method = spec.is_method
    _write_value(spec.input_signature, target, "input_signature", contents)
    target.jit_compile = spec.jit_compile


def _write_user(kind: UserObject, target: Any, contents: Contents) -> None:
    target.identifier, target.metadata = kind.identifier, kind.metadata
    if kind.versions is not None:
        target.version.SetInParent()
        target.version.MergeFromString(kind.versions.opaque)
        target.version.producer = kind.versions.producer
        target.version.min_consumer = kind.versions.min_consumer
        target.version.bad_consumers.extend(kind.versions.bad_consumers)


def _write_asset(kind: AssetObject, target: Any, contents: Contents) -> None:
    target.asset_file_def_index = kind.index


def _write_function(kind: FunctionObject, target: Any, contents: Contents) -> None:
    target.concrete_functions.extend(kind.concrete_functions)
    _write_spec(kind.spec, target.function_spec, contents)


def _write_variable(kind: VariableObject, target: Any, contents: Contents) -> None:
    target.dtype = int(kind.dtype)
    if kind.shape is not None:
        shape_to_proto(kind.shape, target.shape)
    target.trainable, target.name, target.device = kind.trainable, kind.name, kind.device
    target.synchronization, target.aggregation = kind.synchronization, kind.aggregation
    for component in kind.components:
        entry = target.experimental_distributed_variable_components.add()
        entry.MergeFromString(component.opaque)
        _write_variable(component, entry, contents)


def _write_concrete_function(kind: ConcreteFunctionObject, target: Any, contents: Contents) -> None:
    target.concrete_function_name = kind.name
    target.argument_keywords.extend(kind.argument_keywords)
    target.allowed_positional_arguments = kind.allowed_positional_arguments
    _write_spec(kind.spec, target.function_spec, contents)


def _write_constant(kind: ConstantObject, target: Any, contents: Contents) -> None:
    target.operation = kind.node


def _write_resource(kind: ResourceObject, target: Any, contents: Contents) -> None:
    target.device = kind.device


def _write_captured_tensor(kind: CapturedTensorObject, target: Any, contents: Contents) -> None:
    target.name, target.concrete_function = kind.name, kind.concrete_function


# field of SavedObject.kind: (how it is read, the class that it becomes, how that is written)
_KINDS: dict[str, tuple[Callable[[_Reader, Any], ObjectKind], type, Callable[[Any, Any, Contents], None]]] = {
    "user_object": (_Reader.user, UserObject, _write_user),
    "asset": (_Reader.asset, AssetObject, _write_asset),
    "function": (_Reader.function, FunctionObject, _write_function),
    "variable": (_Reader.variable, VariableObject, _write_variable),
    "bare_concrete_function": (_Reader.bare_concrete_function, ConcreteFunctionObject, _write_concrete_function),
    "constant": (_Reader.constant, ConstantObject, _write_constant),
    "resource": (_Reader.resource, ResourceObject, _write_resource),
    "captured_tensor": (_Reader.captured_tensor, CapturedTensorObject, _write_captured_tensor),
}
_WRITERS = {cls: (field, write) for field, (_, cls, write) in _KINDS.items()}
