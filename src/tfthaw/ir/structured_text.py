"""Structured values and calls of functions as text for people: `(x: float32[?, 784], training=False)`.

Source: none; the spelling is this library's own, types as everywhere in it (`float32[?, 10]`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.object_graph import ConcreteFunction, FunctionSpec
from tfthaw.ir.structured_values import (
    TYPE_SPEC_KINDS,
    Absent,
    BoundedTensorSpec,
    NamedTuple,
    OpaqueValue,
    StructuredValue,
    TensorSpec,
    TensorValue,
    TypeSpec,
)

_MOST_ITEMS = 16  # of one list or call; a person reads no more
_MOST_LETTERS = 60  # of one string
_MOST_LEVELS = 8


def shape_text(shape: Shape | None) -> str:
    """Return a shape: `[?, 28, 28]`, `[]` for a scalar, ` of unknown rank`."""
    if shape is None or shape.dims is None:
        return " of unknown rank"
    return f"[{', '.join('?' if size is None else str(size) for size in shape.dims)}]"


def value_text(value: StructuredValue | Absent, levels: int = _MOST_LEVELS) -> str:
    """Return a structured value: a tensor by its type, other values as Python writes them, long ones cut."""
    if levels == 0:
        return "..."
    if isinstance(value, (TensorSpec, BoundedTensorSpec)):
        return f"{value.dtype.name}{shape_text(value.shape)}"
    if isinstance(value, TypeSpec):
        return _type_text(value, levels)
    if isinstance(value, TensorValue):
        return f"constant {value.tensor.dtype.name}{list(value.tensor.shape)}"
    if isinstance(value, DType):
        return value.name
    if isinstance(value, Shape):
        return f"shape{shape_text(value)}"
    if isinstance(value, (Absent, OpaqueValue)):
        return "?"
    if isinstance(value, NamedTuple):
        return f"{value.name}({_joined(f'{name}={value_text(item, levels - 1)}' for name, item in value.items)})"
    if isinstance(value, dict):
        return f"{{{_joined(f'{name}: {value_text(item, levels - 1)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{_joined(value_text(item, levels - 1) for item in value)}]"
    if isinstance(value, tuple):
        return f"({_joined(value_text(item, levels - 1) for item in value)})"
    text = repr(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}..."


def _type_text(value: TypeSpec, levels: int) -> str:
    """Return a type of several tensors: `RaggedTensorSpec(shape[?, ?], int64, 1, int64)`."""
    name = value.class_name.rpartition(".")[2] or TYPE_SPEC_KINDS.get(value.kind, "TypeSpec")
    if isinstance(value.state, tuple):
        return f"{name}{value_text(value.state, levels - 1)}"
    return name if isinstance(value.state, Absent) else f"{name}({value_text(value.state, levels - 1)})"


def call_text(function: ConcreteFunction, spec: FunctionSpec | None = None, keywords: Sequence[str] = ()) -> str:
    """Return how a trace is called: `(x: float32[?, 784], training=False)`.

    Args:
        function: The trace.
        spec: The Python function that was traced, whose arguments have names.
        keywords: The names of the trace's arguments, where it has no such function.
    """
    return f"({_joined(_arguments(function, spec, keywords))})"


def result_text(function: ConcreteFunction) -> str:
    """Return what a trace gives: `float32[?, 10]`."""
    return value_text(function.output_signature)


def _arguments(function: ConcreteFunction, spec: FunctionSpec | None, keywords: Sequence[str]) -> Iterator[str]:
    """Yield the arguments of a trace, tensors by type and other values as they are."""
    given = function.canonicalized_input_signature
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[0], tuple):
        yield from keywords or ["?"]
        return
    names = argument_names(spec)
    for position, value in enumerate(given[0]):
        own = value.name if isinstance(value, TensorSpec) else ""
        name = names[position] if position < len(names) else own or f"argument_{position}"
        yield _argument(name, value)
    if isinstance(given[1], dict):
        for name, value in given[1].items():
            yield _argument(name, value)


def _argument(name: str, value: StructuredValue) -> str:
    is_plain = value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, DType))
    return f"{name}={value_text(value)}" if is_plain else f"{name}: {value_text(value)}"


def argument_names(spec: FunctionSpec | None) -> list[str]:
    """Return the names of a Python function's arguments, without `self` of a method."""
    if spec is None or not isinstance(spec.fullargspec, NamedTuple):
        return []
    arguments = dict(spec.fullargspec.items).get("args")
    names = [str(name) for name in arguments] if isinstance(arguments, list) else []
    return names[1:] if spec.is_method else names


def _joined(items: Iterator[str]) -> str:
    shown: list[str] = []
    for item in items:
        if len(shown) == _MOST_ITEMS:
            shown.append("...")
            break
        shown.append(item)
    return ", ".join(shown)
