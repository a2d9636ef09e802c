"""OpDef -> definitions: the ops that a MetaGraph describes itself.

TensorFlow lists every op of a graph in the MetaGraph beside it, custom ops too. What no TensorFlow registers is known
from there alone.

Source: op_def.proto and MetaInfoDef.stripped_op_list of meta_graph.proto of TensorFlow.
"""

from __future__ import annotations

from typing import Any

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr
from tfthaw.ir.definitions import Definition, Definitions
from tfthaw.ir.model import Model
from tfthaw.serde.attrs import AttrReader
from tfthaw.serde.tensors import Payloads


def definitions_of(model: Model) -> Definitions:
    """Return what the ops of a model's graph take and give."""
    return Definitions(model.graph.functions, described_ops(model.opaque or b"", model.payloads))


def described_ops(meta_graph: bytes, payloads: Payloads | None = None) -> dict[str, Definition]:
    """Return the ops that a MetaGraph lists.

    Args:
        meta_graph: A MetaGraphDef as bytes; nothing but its list of ops is looked at.
        payloads: What tokens in it stand for.
    """
    message = proto.parse(proto.MetaGraphDef, meta_graph, where="MetaGraph")
    reader = AttrReader(payloads or {}, careful=False)
    return {op.name: _definition(op, reader) for op in message.meta_info_def.stripped_op_list.op}


def _definition(message: Any, reader: AttrReader) -> Definition:
    defaults: dict[str, Attr] = {
        attr.name: reader.read(attr.default_value) for attr in message.attr if attr.HasField("default_value")
    }
    inputs, outputs = (tuple(map(argument, part)) for part in (message.input_arg, message.output_arg))
    return Definition(inputs, outputs, message.is_stateful, defaults)


def argument(message: Any) -> Argument:
    """Return an OpDef.ArgDef without its descriptions."""
    return Argument(
        message.name,
        DType(message.type) if message.type else None,
        message.type_attr or None,
        message.number_attr or None,
        message.type_list_attr or None,
        message.is_ref,
    )
