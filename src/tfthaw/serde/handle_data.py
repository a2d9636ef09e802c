"""What an argument of a function says of the variable whose handle it takes.

Source: OpDef.ArgDef of op_def.proto and ResourceHandleProto of resource_handle.proto of TensorFlow.
"""

from __future__ import annotations

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.serde.attrs import shape_to_proto


def handle_data(dtype: DType, shape: Shape) -> bytes:
    """Return the rest of the definition of an argument that takes the handle of a variable, as bytes.

    TensorFlow infers the shape of what is read through the handle from it.

    Args:
        dtype: The variable's element type.
        shape: The variable's shape.
    """
    message = proto.OpDef.ArgDef()
    described = message.handle_data.add()
    described.dtype = int(dtype)
    shape_to_proto(shape, described.shape)
    return proto.serialize(message)
