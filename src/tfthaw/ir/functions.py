"""Functions of a graph's library.

Source: function.proto and op_def.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr
from tfthaw.ir.nodes import Node


@dataclass(slots=True)
class Function:
    """One function of the library.

    Inside a function an input is `argument`, `node:output_name:index`, or `^node`.

    Attributes:
        name: Its name in the library.
        arguments: What it takes.
        results: What it gives.
        nodes: Its body.
        returns: result name -> the input spelling of the tensor that is returned.
        control_returns: control output -> the node that has run when the call has.
        attrs: Attrs of the function itself.
        argument_attrs: position of an argument -> its attrs.
        is_stateful: Whether calling it has side effects, so that a call nobody waits for still matters.
        signature: Everything else that the signature says (attrs that callers give, descriptions), as bytes.
        opaque: Everything else that the function carries, as bytes.
    """

    name: str
    arguments: list[Argument] = field(default_factory=list)
    results: list[Argument] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    returns: dict[str, str] = field(default_factory=dict)
    control_returns: dict[str, str] = field(default_factory=dict)
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    argument_attrs: dict[int, Mapping[str, Attr]] = field(default_factory=dict)
    is_stateful: bool = False
    signature: bytes = b""
    opaque: bytes = b""

    @property
    def inputs(self) -> list[str]:
        """The names of its arguments, in order."""
        return [argument.name for argument in self.arguments]

    @property
    def outputs(self) -> list[str]:
        """The names of its results, in order."""
        return [result.name for result in self.results]


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


@dataclass(slots=True)
class RegisteredGradient:
    """One entry of the library's table of gradients that code registered (`tf.custom_gradient`).

    Attributes:
        gradient: The function that computes the gradient.
        op_type: What nodes name in their attr `_gradient_op_type`.
        opaque: Fields that this version does not know.
    """

    gradient: str
    op_type: str
    opaque: bytes = b""
