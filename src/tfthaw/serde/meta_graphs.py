"""MetaGraphDef and SavedModel <-> models.

Source: meta_graph.proto, saved_model.proto, saver.proto and variable.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.formats.wire import Contents
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph
from tfthaw.ir.model import Asset, Collection, Model, Producer, Saver
from tfthaw.ir.signatures import Signature, SignatureTensor
from tfthaw.ir.variables import VariableDeclaration
from tfthaw.serde.attrs import rest_of, shape_from_proto, shape_to_proto
from tfthaw.serde.graphs import graph_from_proto, graph_to_proto
from tfthaw.serde.object_graphs import object_graph_from_proto, object_graph_to_proto
from tfthaw.serde.tensors import Payloads

_MODELLED = ("saver_def", "collection_def", "signature_def", "asset_file_def", "object_graph_def")
_COLLECTION_KINDS = {"node_list": "node", "bytes_list": "bytes", "int64_list": "int64", "float_list": "float"}
GLOBAL_COLLECTIONS = ("variables", "trainable_variables")
VARIABLE_COLLECTIONS = (
    "variables", "trainable_variables", "local_variables", "model_variables", "moving_average_variables",
    "metric_variables", "global_step",
)  # fmt: skip


def model_from_graph_def(message: Any, payloads: Payloads | None = None) -> Model:
    """Return the model of a GraphDef that stands alone."""
    graph = graph_from_proto(message, payloads)
    producer = Producer()
    if graph.versions is not None:
        producer.graph = graph.versions.producer or None
        producer.min_consumer = graph.versions.min_consumer or None
    return Model(graph=graph, producer=producer, payloads=payloads or {})


def model_from_proto(message: Any, payloads: Payloads | None = None) -> Model:
    """Return the model of a MetaGraphDef.

    Args:
        message: The MetaGraphDef.
        payloads: The bytes that its reader left in the file, by token.
    """
    model = model_from_graph_def(message.graph_def, payloads)
    info = message.meta_info_def
    model.producer.tensorflow = info.tensorflow_version or None
    model.producer.git = info.tensorflow_git_version or None
    model.tags = tuple(info.tags)
    model.signatures = {name: _signature(message.signature_def[name]) for name in sorted(message.signature_def)}
    model.collections = {name: _collection(message.collection_def[name]) for name in sorted(message.collection_def)}
    model.saver = saver_from_proto(message.saver_def) if message.HasField("saver_def") else None
    model.assets = [_asset(item) for item in message.asset_file_def]
    model.declared = _declarations(model.collections)
    if message.HasField("object_graph_def"):
        model.object_graph = object_graph_from_proto(message.object_graph_def, payloads)
    # a graph that is there and empty is no graph either, and only the opaque rest can tell it from none
    is_empty = message.HasField("graph_def") and message.graph_def.ByteSize() == 0
    model.opaque = rest_of(message, *_MODELLED, *(() if is_empty else ("graph_def",)))
    if not message.HasField("graph_def"):
        model.notes.append("the MetaGraph has no graph")
    return model


def model_to_proto(model: Model, contents: Contents, target: Any = None) -> Any:
    """Return the MetaGraphDef of a model.

    Args:
        model: The model.
        contents: Takes the constants that are too large for a message.
        target: An empty MetaGraphDef to fill, or None for a new one.
    """
    message = proto.MetaGraphDef() if target is None else target
    message.SetInParent()
    message.MergeFromString(model.opaque or b"")
    info = message.meta_info_def
    if model.producer.tensorflow or info.tensorflow_version:
        info.tensorflow_version = model.producer.tensorflow or ""
    if model.producer.git or info.tensorflow_git_version:
        info.tensorflow_git_version = model.producer.git or ""
    if tuple(info.tags) != model.tags:
        del info.tags[:]
        info.tags.extend(model.tags)
    if model.graph != Graph():
        graph_to_proto(model.graph, contents, message.graph_def)
    if model.saver is not None:
        _saver_to_proto(model.saver, message.saver_def)
    for name, collection in model.collections.items():
        _collection_to_proto(collection, message.collection_def[name])
    for name, signature in model.signatures.items():
        _signature_to_proto(signature, message.signature_def[name])
    for asset in model.assets:
        entry = message.asset_file_def.add()
        entry.MergeFromString(asset.opaque)
        if asset.tensor:  # a sparse or composite tensor has no name of its own
            entry.tensor_info.name = asset.tensor
        entry.filename = asset.filename
    if model.object_graph is not None:
        object_graph_to_proto(model.object_graph, contents, message.object_graph_def)
    return message


def _signature(message: Any) -> Signature:
    return Signature(
        inputs={name: _signature_tensor(message.inputs[name]) for name in sorted(message.inputs)},
        outputs={name: _signature_tensor(message.outputs[name]) for name in sorted(message.outputs)},
        method=message.method_name,
        opaque=rest_of(message, "inputs", "outputs", "method_name"),
    )


def _signature_tensor(message: Any) -> SignatureTensor:
    has_shape = message.HasField("tensor_shape")
    has_name = message.WhichOneof("encoding") == "name"
    return SignatureTensor(
        tensor=message.name,
        dtype=DType(message.dtype),
        shape=shape_from_proto(message.tensor_shape) if has_shape else None,
        opaque=rest_of(message, "dtype", "tensor_shape", *(("name",) if has_name and message.name else ())),
        components={} if has_name else _components(message),
    )


def _components(message: Any) -> dict[str, SignatureTensor]:
    """Return what a sparse or composite tensor is made of, in TensorFlow's order."""
    if message.HasField("coo_sparse"):
        known = message.HasField("tensor_shape") and not message.tensor_shape.unknown_rank
        rank = len(message.tensor_shape.dim) if known else None
        names = message.coo_sparse
        return {
            "indices": SignatureTensor(names.indices_tensor_name, DType.int64, Shape((None, rank))),
            "values": SignatureTensor(names.values_tensor_name, DType(message.dtype), Shape((None,))),
            "dense_shape": SignatureTensor(names.dense_shape_tensor_name, DType.int64, Shape((rank,))),
        }
    found: dict[str, SignatureTensor] = {}
    for number, part in enumerate(message.composite_tensor.components):
        component = _signature_tensor(part)
        inside = component.components or {"": component}
        found |= {f"component_{number}{f'_{name}' if name else ''}": entry for name, entry in inside.items()}
    return found


def _signature_to_proto(signature: Signature, target: Any) -> None:
    target.SetInParent()
    target.MergeFromString(signature.opaque)
    target.method_name = signature.method
    for part, stored in ((signature.inputs, target.inputs), (signature.outputs, target.outputs)):
        for name, tensor in part.items():
            entry = stored[name]
            entry.SetInParent()
            entry.MergeFromString(tensor.opaque)
            if tensor.tensor:
                entry.name = tensor.tensor
            entry.dtype = int(tensor.dtype)
            if tensor.shape is not None:
                shape_to_proto(tensor.shape, entry.tensor_shape)


def _collection(message: Any) -> Collection:
    field = message.WhichOneof("kind")
    kind = _COLLECTION_KINDS.get(field or "")
    if kind is None or proto.has_unknown_fields(message) or proto.has_unknown_fields(getattr(message, field)):
        return Collection("opaque", [], proto.serialize(message))
    return Collection(kind, list(getattr(message, field).value))


def _collection_to_proto(collection: Collection, target: Any) -> None:
    target.SetInParent()
    if collection.kind == "opaque":
        target.MergeFromString(collection.opaque)
        return
    stored = getattr(target, f"{collection.kind}_list")
    stored.SetInParent()
    stored.value.extend(collection.items)


def saver_from_proto(message: Any) -> Saver:
    """Return what a SaverDef says."""
    return Saver(
        filename_tensor=message.filename_tensor_name,
        save_tensor=message.save_tensor_name,
        restore_op=message.restore_op_name,
        version=message.version,
        opaque=rest_of(message, "filename_tensor_name", "save_tensor_name", "restore_op_name", "version"),
    )


def _saver_to_proto(saver: Saver, target: Any) -> None:
    target.SetInParent()
    target.MergeFromString(saver.opaque)
    target.filename_tensor_name = saver.filename_tensor
    target.save_tensor_name = saver.save_tensor
    target.restore_op_name = saver.restore_op
    target.version = saver.version


def _asset(message: Any) -> Asset:
    opaque = rest_of(message, "filename")
    return Asset(tensor=message.tensor_info.name, filename=message.filename, opaque=opaque)


def _declarations(collections: Mapping[str, Collection]) -> dict[str, VariableDeclaration] | None:
    """Return what the variable collections say, by node name; None where there are none of them."""
    result: dict[str, VariableDeclaration] = {}
    found = False
    for name in VARIABLE_COLLECTIONS:
        collection = collections.get(name)
        if collection is None or collection.kind != "bytes":
            continue
        found = True
        for data in collection.items:
            declaration = _declaration(data, trainable=name == "trainable_variables")
            old = result.get(declaration.node)
            if old is None or declaration.trainable:
                result[declaration.node] = declaration
    return result if found else None


def global_variables(collections: Mapping[str, Collection]) -> set[str]:
    """Return the nodes of the variables that Savers save, as the collections say: those that are not local."""
    found: set[str] = set()
    for name in GLOBAL_COLLECTIONS:
        collection = collections.get(name)
        if collection is not None and collection.kind == "bytes":
            found.update(_declaration(data, trainable=False).node for data in collection.items)
    return found


def _declaration(data: Any, *, trainable: bool) -> VariableDeclaration:
    message = proto.parse(proto.VariableDef, data, where="variable collection")
    node = message.variable_name.partition(":")[0]
    if not message.HasField("save_slice_info_def"):
        return VariableDeclaration(node, trainable)
    part = message.save_slice_info_def
    return VariableDeclaration(node, trainable, part.full_name, tuple(part.full_shape), tuple(part.var_offset))


def variable_def(node: str, *, initializer: str, snapshot: str, is_resource: bool, trainable: bool) -> bytes:
    """Return a VariableDef as the variable collections of a MetaGraph hold it.

    Args:
        node: The variable's node.
        initializer: A node that gives the variable a value.
        snapshot: The tensor that reads it.
        is_resource: Whether the node gives a handle.
        trainable: Whether an optimizer may change it.
    """
    message = proto.VariableDef(
        variable_name=f"{node}:0", initializer_name=initializer, snapshot_name=snapshot, is_resource=is_resource,
        trainable=trainable,
    )  # fmt: skip
    return proto.serialize(message)
