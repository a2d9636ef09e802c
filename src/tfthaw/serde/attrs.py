"""AttrValue <-> attrs.

Source: attr_value.proto and tensor_shape.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.formats.wire import Contents
from tfthaw.ir.attrs import Attr, AttrList, AttrPlaceholder, FunctionName, OpaqueAttr, Shape
from tfthaw.serde.tensors import Payloads, tensor_from_proto, tensor_to_proto

_LIST_KINDS = ("s", "i", "f", "b", "type", "shape", "tensor", "func")


def rest_of(message: Any, *fields: str) -> bytes:
    """Return the bytes of a message without the named fields: what the IR does not model of it."""
    if proto.has_unknown_fields(message):
        copy = type(message)()
        copy.CopyFrom(message)
        for field in fields:
            copy.ClearField(field)
        return proto.serialize(copy)
    rest = type(message)()
    for field, value in message.ListFields():
        if field.name in fields:
            continue
        if hasattr(value, "MergeFrom"):  # messages, repeated fields and maps; the rest are plain values
            target = getattr(rest, field.name)
            if hasattr(target, "SetInParent"):
                target.SetInParent()
            target.MergeFrom(value)
        else:
            setattr(rest, field.name, value)
    return proto.serialize(rest)


def has_unknown_inside(message: Any) -> bool:
    """Whether a message or anything in it has fields that the schema does not know."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return bool(copy.ByteSize() != message.ByteSize())


class AttrReader:
    """Reads the attrs of one graph.

    Args:
        payloads: The bytes that were left in the file.
        careful: Whether unknown fields must be looked for in every value; false where the graph has none at all.
    """

    def __init__(self, payloads: Payloads, *, careful: bool) -> None:
        self.payloads = payloads
        self.careful = careful
        self._readers: dict[str, Callable[[Any], Attr]] = {
            "s": lambda value: value.s,
            "i": lambda value: value.i,
            "f": lambda value: value.f,
            "b": lambda value: value.b,
            "type": lambda value: DType(value.type),
            "shape": lambda value: shape_from_proto(value.shape, careful=self.careful),
            "tensor": lambda value: tensor_from_proto(value.tensor, self.payloads),
            "list": lambda value: self._list(value.list),
            "func": lambda value: self._function(value.func),
            "placeholder": lambda value: AttrPlaceholder(value.placeholder),
        }

    def read(self, value: Any) -> Attr:
        """Return the attr that an AttrValue holds."""
        kind = value.WhichOneof("value")
        if kind is None or (self.careful and proto.has_unknown_fields(value)):
            return OpaqueAttr(proto.serialize(value))
        if self.careful and kind in ("shape", "list") and has_unknown_inside(value):
            return OpaqueAttr(proto.serialize(value))
        return self._readers[kind](value)

    def read_all(self, values: Any) -> MessageAttrs:
        """Return the attrs of a map of AttrValues, each read when it is asked for."""
        return MessageAttrs(values, self)

    def _list(self, value: Any) -> Attr:
        kinds = [kind for kind in _LIST_KINDS if len(getattr(value, kind))]
        if not kinds:
            return AttrList("", [])
        if len(kinds) > 1:
            return OpaqueAttr(proto.serialize(proto.AttrValue(list=value)))
        kind = kinds[0]
        stored = getattr(value, kind)
        if kind == "type":
            return AttrList(kind, [DType(item) for item in stored])
        if kind == "shape":
            return AttrList(kind, [shape_from_proto(item, careful=self.careful) for item in stored])
        if kind == "tensor":
            return AttrList(kind, [tensor_from_proto(item, self.payloads) for item in stored])
        if kind == "func":
            return AttrList(kind, [self._function(item) for item in stored])
        return AttrList(kind, list(stored))

    def _function(self, value: Any) -> FunctionName:
        opaque = rest_of(value, "name", "attr") if self.careful else b""
        return FunctionName(value.name, self.read_all(value.attr), opaque)


class MessageAttrs(Mapping[str, Attr]):
    """The attrs of one node as its message has them.

    Most attrs of a large graph are never looked at; those go from message to message untouched.

    Attributes:
        message: The map of AttrValues; it must not be changed.
        payloads: The bytes that its tokens stand for.
    """

    __slots__ = ("_read", "_reader", "message")

    def __init__(self, message: Any, reader: AttrReader) -> None:
        self.message = message
        self._reader = reader
        self._read: dict[str, Attr] = {}

    @property
    def payloads(self) -> Payloads:
        """The bytes that tokens in the message stand for."""
        return self._reader.payloads

    def __getitem__(self, name: str) -> Attr:
        value = self._read.get(name)
        if value is None:
            if name not in self.message:  # asking the message for a name would add it
                raise KeyError(name)
            value = self._read[name] = self._reader.read(self.message[name])
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.message

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.message))

    def __len__(self) -> int:
        return len(self.message)


def attrs_to_proto(attrs: Mapping[str, Attr], target: Any, contents: Contents) -> None:
    """Write attrs into an empty map of AttrValues.

    Args:
        attrs: The attrs by name.
        target: The map to fill.
        contents: Takes the values that are too large for a message.
    """
    if isinstance(attrs, MessageAttrs):
        contents.adopt(attrs.payloads)
        target.MergeFrom(attrs.message)
        return
    for name, attr in attrs.items():
        attr_to_proto(attr, target[name], contents)


def attr_to_proto(attr: Attr, target: Any, contents: Contents) -> None:
    """Write an attr into an empty AttrValue.

    Args:
        attr: The attr.
        target: The message to fill.
        contents: Takes the values that are too large for a message.
    """
    _WRITERS.get(type(attr), _write_tensor)(attr, target, contents)


def _write_function(value: FunctionName, target: Any, contents: Contents) -> None:
    target.SetInParent()
    if value.opaque:
        target.MergeFromString(value.opaque)
    target.name = value.name
    attrs_to_proto(value.attrs, target.attr, contents)


def _write_list(value: AttrList, target: Any, contents: Contents) -> None:
    target.list.SetInParent()
    stored = getattr(target.list, value.kind) if value.kind else None
    for item in value.items:
        if value.kind == "shape":
            shape_to_proto(item, stored.add())  # type: ignore[arg-type, union-attr]
        elif value.kind == "tensor":
            tensor_to_proto(item, stored.add(), contents)  # type: ignore[arg-type, union-attr]
        elif value.kind == "func":
            _write_function(item, stored.add(), contents)  # type: ignore[arg-type, union-attr]
        else:
            stored.append(int(item) if value.kind == "type" else item)  # type: ignore[arg-type, union-attr]


def _write_tensor(value: Any, target: Any, contents: Contents) -> None:
    target.tensor.SetInParent()
    tensor_to_proto(value, target.tensor, contents)


def _set(field: str) -> Callable[[Any, Any, Contents], None]:
    return lambda value, target, _: setattr(target, field, value)


_WRITERS: dict[type, Callable[[Any, Any, Contents], None]] = {
    bytes: _set("s"),
    int: _set("i"),
    float: _set("f"),
    bool: _set("b"),
    DType: lambda value, target, _: setattr(target, "type", int(value)),
    Shape: lambda value, target, _: shape_to_proto(value, target.shape),
    AttrList: _write_list,
    FunctionName: lambda value, target, contents: _write_function(value, target.func, contents),
    AttrPlaceholder: lambda value, target, _: setattr(target, "placeholder", value.name),
    OpaqueAttr: lambda value, target, _: target.MergeFromString(value.data),
}


def shape_from_proto(message: Any, *, careful: bool = True) -> Shape:
    """Return the shape of a TensorShapeProto."""
    dims = message.dim
    opaque = b""
    if (message.unknown_rank and len(dims)) or (careful and has_unknown_inside(message)):
        opaque = rest_of(message)
    if message.unknown_rank:
        return Shape(None, opaque=opaque)
    if not dims:
        return Shape((), opaque=opaque)
    names = tuple(dim.name for dim in dims)
    sizes = tuple(None if dim.size == -1 else dim.size for dim in dims)
    return Shape(sizes, names if any(names) else None, opaque)


def shape_to_proto(shape: Shape, target: Any) -> None:
    """Write a shape into an empty TensorShapeProto."""
    target.SetInParent()
    if shape.opaque:
        target.MergeFromString(shape.opaque)
        return
    if shape.dims is None:
        target.unknown_rank = True
        return
    for position, size in enumerate(shape.dims):
        dim = target.dim.add()
        dim.size = -1 if size is None else size
        if shape.names:
            dim.name = shape.names[position]
