"""Inputs as users declare them for code that does not say what it takes: `x:float32[?,784]`.

    NAME:DTYPE[DIMS]     x:float32[?,784]   a matrix of 784 columns and any number of rows
    NAME:DTYPE           x:string           any shape at all
    NAME:DTYPE[]         x:int64[]          a scalar

A dimension is a number, or `?`, `None`, `-1` where it is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfthaw.dtypes import DType
from tfthaw.errors import UsageError
from tfthaw.ir.attrs import Shape

_DECLARATION = re.compile(r"(?P<name>[^:\[\]]+):(?P<dtype>[A-Za-z_0-9]+)\s*(\[(?P<dims>[^\]]*)\])?")
_UNKNOWN = ("?", "None", "-1")
_EXAMPLE = "--input 'x:float32[?,784]'"


@dataclass(frozen=True, slots=True)
class InputDeclaration:
    """An input that the user declares.

    Attributes:
        name: The argument's name.
        dtype: Its element type.
        shape: Its shape, as far as it is known.
    """

    name: str
    dtype: DType
    shape: Shape


def parse_inputs(texts: str | Iterable[str] | Mapping[str, str]) -> tuple[InputDeclaration, ...]:
    """Read declarations of inputs.

    Args:
        texts: Each `NAME:DTYPE[DIMS]`, or one of them; or name -> `DTYPE[DIMS]`.

    Raises:
        UsageError: One is not of that form, or a name comes twice.
    """
    if isinstance(texts, str):
        pairs = [texts]
    else:
        pairs = [f"{name}:{text}" for name, text in texts.items()] if isinstance(texts, Mapping) else list(texts)
    declared: dict[str, InputDeclaration] = {}
    for text in pairs:
        found = _parse(text)
        if found.name in declared:
            raise UsageError(f"the input {found.name!r} is declared twice")
        declared[found.name] = found
    return tuple(declared.values())


def _parse(text: str) -> InputDeclaration:
    match = _DECLARATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} declares no input; expected NAME:DTYPE[DIMS]", hint=f"for example {_EXAMPLE}")
    name, dtype = match["name"].strip(), match["dtype"]
    if dtype not in DType.__members__ or not (DType[dtype].is_numeric or DType[dtype] is DType.string):
        raise UsageError(f"{text!r}: {dtype!r} is no element type", hint=f"for example {_EXAMPLE}")
    if match["dims"] is None:
        return InputDeclaration(name, DType[dtype], Shape(None))
    return InputDeclaration(name, DType[dtype], Shape(tuple(_dims(match["dims"], text))))


def _dims(text: str, declaration: str) -> Iterable[int | None]:
    for part in (item.strip() for item in text.split(",") if item.strip()):
        if part not in _UNKNOWN and not part.isdecimal():
            raise UsageError(
                f"{declaration!r}: the dimension {part!r} is no number",
                hint="write ? for a dimension that is not known, as in " + _EXAMPLE,
            )
        yield None if part in _UNKNOWN else int(part)
