"""TensorFlow's protobuf messages, in a descriptor pool of their own.

The schema beside this file (`schema/*.proto`) is compiled into `descriptors.bin` by `make schema`. The messages live in
a private pool: in protobuf's default pool they would collide with those of TensorFlow in the same process. So a message
of this module is not an instance of TensorFlow's class of the same name; bytes are what the two exchange.

    from tfthaw import proto
    graph = proto.GraphDef()

Binary reading and writing is `parse` and `serialize`; the text format is in `proto.text`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, unknown_fields

from tfthaw.errors import FormatError

Message = message.Message

_pool = descriptor_pool.DescriptorPool()


def _load() -> None:
    compiled = Path(__file__).with_name("descriptors.bin").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(compiled)
    for file in files.file:
        _pool.Add(file)


_load()


def message_class(full_name: str) -> Any:
    """Return the class of a message by its full name, such as `tensorflow.MetaGraphDef.MetaInfoDef`.

    Raises:
        KeyError: The schema has no such message.
    """
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(full_name))


def pool() -> descriptor_pool.DescriptorPool:
    """Return the private pool, for the text format and for tests."""
    return _pool


AssetFileDef: Any = message_class("tensorflow.AssetFileDef")
AttrValue: Any = message_class("tensorflow.AttrValue")
BundleEntryProto: Any = message_class("tensorflow.BundleEntryProto")
BundleHeaderProto: Any = message_class("tensorflow.BundleHeaderProto")
CheckpointState: Any = message_class("tensorflow.CheckpointState")
CollectionDef: Any = message_class("tensorflow.CollectionDef")
FingerprintDef: Any = message_class("tensorflow.FingerprintDef")
FunctionDef: Any = message_class("tensorflow.FunctionDef")
FunctionDefLibrary: Any = message_class("tensorflow.FunctionDefLibrary")
GradientDef: Any = message_class("tensorflow.GradientDef")
GraphDef: Any = message_class("tensorflow.GraphDef")
MetaGraphDef: Any = message_class("tensorflow.MetaGraphDef")
MetaInfoDef: Any = message_class("tensorflow.MetaGraphDef.MetaInfoDef")
NameAttrList: Any = message_class("tensorflow.NameAttrList")
NodeDef: Any = message_class("tensorflow.NodeDef")
OpDef: Any = message_class("tensorflow.OpDef")
OpList: Any = message_class("tensorflow.OpList")
SavedModel: Any = message_class("tensorflow.SavedModel")
SavedObjectGraph: Any = message_class("tensorflow.SavedObjectGraph")
SavedTensorSlices: Any = message_class("tensorflow.SavedTensorSlices")
SaverDef: Any = message_class("tensorflow.SaverDef")
SignatureDef: Any = message_class("tensorflow.SignatureDef")
TensorInfo: Any = message_class("tensorflow.TensorInfo")
TensorProto: Any = message_class("tensorflow.TensorProto")
TensorShapeProto: Any = message_class("tensorflow.TensorShapeProto")
TrackableObjectGraph: Any = message_class("tensorflow.TrackableObjectGraph")
VariableDef: Any = message_class("tensorflow.VariableDef")
VersionDef: Any = message_class("tensorflow.VersionDef")


def parse(cls: Any, data: Any, *, path: str | None = None, where: str | None = None) -> Any:
    """Parse a binary message.

    Args:
        cls: A message class of this module.
        data: The bytes (anything with the buffer protocol).
        path: The file they come from, for the error.
        where: The place in it.

    Returns:
        The message; unknown fields are kept.

    Raises:
        FormatError: The bytes are no such message.
    """
    try:
        return cls.FromString(bytes(data))
    except (message.DecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"the bytes are no {cls.DESCRIPTOR.name}: {error}", path=path, where=where) from error


def serialize(value: Message) -> bytes:
    """Return the bytes of a message, maps sorted by key so that the same message gives the same bytes."""
    data: bytes = value.SerializeToString(deterministic=True)
    return data


def has_unknown_fields(value: Message) -> bool:
    """Whether a message itself (not what it contains) has fields that the schema does not know."""
    return len(unknown_fields.UnknownFieldSet(value)) > 0
