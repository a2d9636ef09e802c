"""StructuredValue <-> structured values.

Source: struct.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.formats.wire import Contents
from tfthaw.ir.attrs import Shape
from tfthaw.ir.structured_values import (
    Absent,
    BoundedTensorSpec,
    NamedTuple,
    OpaqueValue,
    StructuredValue,
    TensorSpec,
    TensorValue,
    TypeSpec,
)
from tfthaw.serde.attrs import has_unknown_inside, shape_from_proto, shape_to_proto
from tfthaw.serde.tensors import Payloads, tensor_from_proto, tensor_to_proto

_PLAIN = ("float64_value", "int64_value", "string_value", "bool_value")


def structured_value_from_proto(message: Any, payloads: Payloads, *, careful: bool = True) -> StructuredValue:
    """Return the value of a StructuredValue.

    Args:
        message: The StructuredValue.
        payloads: The bytes that its reader left in the file, by token.
        careful: Whether unknown fields must be looked for; one that has any, however deep, stays opaque as a whole.
    """
    if careful and has_unknown_inside(message):
        return OpaqueValue(proto.serialize(message))
    return _read(message, payloads)


def structured_value_to_proto(value: StructuredValue, target: Any, contents: Contents) -> None:
    """Write a value into an empty StructuredValue.

    Args:
        value: The value; tuples and lists, integers and booleans are told apart by their Python type.
        target: The message to fill.
        contents: Takes the tensors that are too large for a message.
    """
    target.SetInParent()
    for kind, write in _WRITERS:  # by type, the narrow types first: DType and bool are int too
        if isinstance(value, kind):
            write(value, target, contents)
            return
    raise TypeError(f"{type(value).__name__} is no structured value")


def _read(message: Any, payloads: Payloads) -> StructuredValue:
    kind = message.WhichOneof("kind")
    if kind is None:
        return OpaqueValue(b"")
    value = getattr(message, kind)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]
    if kind == "none_value":
        return None
    reader = _READERS.get(kind)
    return OpaqueValue(proto.serialize(message)) if reader is None else reader(value, payloads)


def _shape(message: Any) -> Shape | None:
    return shape_from_proto(message.shape, careful=False) if message.HasField("shape") else None


def _bounded(message: Any, payloads: Payloads) -> BoundedTensorSpec:
    minimum = tensor_from_proto(message.minimum, payloads) if message.HasField("minimum") else None
    maximum = tensor_from_proto(message.maximum, payloads) if message.HasField("maximum") else None
    return BoundedTensorSpec(message.name, _shape(message), DType(message.dtype), minimum, maximum)


def _type_spec(message: Any, payloads: Payloads) -> TypeSpec:
    state = _read(message.type_state, payloads) if message.HasField("type_state") else Absent.ABSENT
    return TypeSpec(message.type_spec_class, state, message.type_spec_class_name, message.num_flat_components)


def _named_tuple(message: Any, payloads: Payloads) -> NamedTuple:
    items: list[tuple[str, StructuredValue | Absent]] = [
        (pair.key, _read(pair.value, payloads) if pair.HasField("value") else Absent.ABSENT) for pair in message.values
    ]
    return NamedTuple(message.name, items)


_READERS: dict[str, Callable[[Any, Payloads], StructuredValue]] = {
    "tensor_shape_value": lambda value, _: shape_from_proto(value, careful=False),
    "tensor_dtype_value": lambda value, _: DType(value),
    "tensor_spec_value": lambda value, _: TensorSpec(value.name, _shape(value), DType(value.dtype)),
    "bounded_tensor_spec_value": _bounded,
    "type_spec_value": _type_spec,
    "list_value": lambda value, payloads: [_read(item, payloads) for item in value.values],
    "tuple_value": lambda value, payloads: tuple(_read(item, payloads) for item in value.values),
    "dict_value": lambda value, payloads: {key: _read(value.fields[key], payloads) for key in sorted(value.fields)},
    "named_tuple_value": _named_tuple,
    "tensor_value": lambda value, payloads: TensorValue(tensor_from_proto(value, payloads)),
    "numpy_value": lambda value, payloads: TensorValue(tensor_from_proto(value, payloads), is_numpy=True),
}


def _write_spec(value: TensorSpec | BoundedTensorSpec, target: Any) -> None:
    target.SetInParent()
    target.MergeFromString(value.opaque)
    target.name = value.name
    target.dtype = int(value.dtype)
    if value.shape is not None:
        shape_to_proto(value.shape, target.shape)


def _write_bounded(value: BoundedTensorSpec, target: Any, contents: Contents) -> None:
    spec = target.bounded_tensor_spec_value
    _write_spec(value, spec)
    for bound, stored in ((value.minimum, spec.minimum), (value.maximum, spec.maximum)):
        if bound is not None:
            stored.SetInParent()
            tensor_to_proto(bound, stored, contents)


def _write_type_spec(value: TypeSpec, target: Any, contents: Contents) -> None:
    spec = target.type_spec_value
    spec.SetInParent()
    spec.MergeFromString(value.opaque)
    spec.type_spec_class = value.kind
    spec.type_spec_class_name = value.class_name
    spec.num_flat_components = value.flat_components
    if not isinstance(value.state, Absent):
        structured_value_to_proto(value.state, spec.type_state, contents)


def _write_named_tuple(value: NamedTuple, target: Any, contents: Contents) -> None:
    stored = target.named_tuple_value
    stored.SetInParent()
    stored.name = value.name
    for key, item in value.items:
        pair = stored.values.add()
        pair.key = key
        if not isinstance(item, Absent):
            structured_value_to_proto(item, pair.value, contents)


def _write_items(field: str) -> Callable[[Any, Any, Contents], None]:
    def write(value: Any, target: Any, contents: Contents) -> None:
        stored = getattr(target, field)
        stored.SetInParent()
        for item in value:
            structured_value_to_proto(item, stored.values.add(), contents)

    return write


def _write_dict(value: dict[str, StructuredValue], target: Any, contents: Contents) -> None:
    target.dict_value.SetInParent()
    for key, item in value.items():
        structured_value_to_proto(item, target.dict_value.fields[key], contents)


def _write_tensor(value: TensorValue, target: Any, contents: Contents) -> None:
    stored = target.numpy_value if value.is_numpy else target.tensor_value
    stored.SetInParent()
    tensor_to_proto(value.tensor, stored, contents)


def _set(field: str) -> Callable[[Any, Any, Contents], None]:
    return lambda value, target, _: setattr(target, field, value)


_WRITERS: tuple[tuple[type, Callable[[Any, Any, Contents], None]], ...] = (
    (type(None), lambda _, target, __: target.none_value.SetInParent()),
    (DType, lambda value, target, _: setattr(target, "tensor_dtype_value", int(value))),
    (bool, _set("bool_value")),
    (int, _set("int64_value")),
    (float, _set("float64_value")),
    (str, _set("string_value")),
    (Shape, lambda value, target, _: shape_to_proto(value, target.tensor_shape_value)),
    (TensorSpec, lambda value, target, _: _write_spec(value, target.tensor_spec_value)),
    (BoundedTensorSpec, _write_bounded),
    (TypeSpec, _write_type_spec),
    (NamedTuple, _write_named_tuple),
    (TensorValue, _write_tensor),
    (OpaqueValue, lambda value, target, _: target.MergeFromString(value.data)),
    (tuple, _write_items("tuple_value")),
    (list, _write_items("list_value")),
    (dict, _write_dict),
)
