"""Arguments: what ops and library functions take and give.

Source: OpDef.ArgDef of op_def.proto of TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfthaw.dtypes import DType


@dataclass(frozen=True, slots=True)
class Argument:
    """An input or output of an op or of a function: one tensor or several.

    Attributes:
        name: Its name.
        dtype: Its element type, where the op fixes it.
        type_attr: The attr that says its element type.
        number_attr: The attr that says how many tensors it is; without one, and without `type_list_attr`, it is one.
        type_list_attr: The attr that lists the element types of its tensors, one each.
        is_ref: Whether it is a reference to a v1 variable, rather than a value.
        opaque: What else its definition says (description, handle data, full type), as bytes.
    """

    name: str
    dtype: DType | None = None
    type_attr: str | None = None
    number_attr: str | None = None
    type_list_attr: str | None = None
    is_ref: bool = False
    opaque: bytes = b""
