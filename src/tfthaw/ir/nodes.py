"""Nodes: one op each, with its inputs and attrs.

Source: node_def.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Attr, AttrList, FunctionName, Shape
from tfthaw.tensors import Tensor


@dataclass(slots=True)
class Node:
    """One node of a graph or of a library function.

    Attributes:
        name: Unique in its graph.
        op: The op that it is an instance of, or the function that it calls.
        inputs: Its inputs, spelled as in GraphDef; control inputs (`^node`) come last.
        device: Where it asks to run, or empty.
        attrs: Its attrs by name.
        opaque: What else the node carried (debug info, full type, unknown fields), as bytes.
    """

    name: str
    op: str
    inputs: list[str] = field(default_factory=list)
    device: str = ""
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    opaque: bytes = b""

    def dtype(self, attr: str) -> DType | None:
        """Return an attr that is an element type, or None."""
        value = self.attrs.get(attr)
        return value if isinstance(value, DType) else None

    def shape(self, attr: str = "shape") -> Shape | None:
        """Return an attr that is a shape, or None."""
        value = self.attrs.get(attr)
        return value if isinstance(value, Shape) else None

    def tensor(self, attr: str = "value") -> Tensor | None:
        """Return an attr that is a tensor, or None."""
        value = self.attrs.get(attr)
        return value if isinstance(value, Tensor) else None

    def text(self, attr: str) -> str:
        """Return an attr that is a string, or an empty one."""
        value = self.attrs.get(attr)
        return value.decode(errors="replace") if isinstance(value, bytes) else ""

    def called(self) -> list[str]:
        """Return the names of the functions that the node's attrs name (branches, bodies, called functions)."""
        names = []
        for value in self.attrs.values():
            if isinstance(value, FunctionName):
                names.append(value.name)
            elif isinstance(value, AttrList):
                names += [item.name for item in value.items if isinstance(item, FunctionName)]
        return names
