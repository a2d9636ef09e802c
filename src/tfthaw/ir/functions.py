"""Functions of a graph's library.

Source: function.proto and op_def.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfthaw.ir.attrs import Attr
from tfthaw.ir.nodes import Node


@dataclass(slots=True)
class Function:
    """One function of the library.

    Inside a function an input is `argument`, `node:output_name:index`, or `^node`.

    Attributes:
        name: Its name in the library.
        inputs: The names of its arguments, in order.
        outputs: The names of its results, in order.
        nodes: Its body.
        returns: result name -> the input spelling of the tensor that is returned.
        attrs: Attrs of the function itself.
        signature: Everything else that the signature says (types of arguments and results, statefulness), as bytes.
        opaque: Everything else that the function carries, as bytes.
    """

    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    returns: dict[str, str] = field(default_factory=dict)
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    signature: bytes = b""
    opaque: bytes = b""


@dataclass(slots=True)
class Gradient:
    """One entry of the library's table of gradients.

    Attributes:
        function: The function.
        gradient: The function that computes its gradient.
        opaque: Fields that this version does not know.
    """

    function: str
    gradient: str
    opaque: bytes = b""
