"""Artifacts with object graphs, made without TensorFlow."""

import json

import numpy as np

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.export.weights import write_bundle
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY
from tfthaw.formats.saved_model import write_saved_model
from tfthaw.formats.wire import Contents
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph
from tfthaw.ir.model import Asset, Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.object_graph import (
    AssetObject,
    Child,
    ConcreteFunction,
    ConcreteFunctionObject,
    FunctionObject,
    FunctionSpec,
    ObjectGraph,
    ResourceObject,
    SavedObject,
    SerializedTensor,
    SlotVariable,
    TrackableObject,
    TrackableObjectGraph,
    UserObject,
    VariableObject,
)
from tfthaw.ir.structured_values import NamedTuple, TensorSpec
from tfthaw.serde.meta_graphs import model_to_proto
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_to_proto
from tfthaw.tensors import ArrayTensor

KERNEL = "layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = "layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
STEP = "optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE"

STORED = TrackableObjectGraph([
    TrackableObject([Child(1, "layer_with_weights-0"), Child(2, "optimizer"), Child(0, "root")]),
    TrackableObject([Child(3, "kernel")]),
    TrackableObject([Child(4, "iter")], slot_variables=[SlotVariable(3, "m", 5)]),
    TrackableObject(attributes=[SerializedTensor("VARIABLE_VALUE", "dense/kernel", KERNEL)]),
    TrackableObject(attributes=[SerializedTensor("VARIABLE_VALUE", "Adam/iter", STEP)]),
    TrackableObject(attributes=[SerializedTensor("VARIABLE_VALUE", "Adam/dense/kernel/m", SLOT)]),
])  # fmt: skip
VALUES = {
    KERNEL: np.array([[1, 2]], np.float32), SLOT: np.array([[3, 4]], np.float32), STEP: np.array(7, np.int64),
}  # fmt: skip

_X = TensorSpec("x", Shape((None, 1)), DType.float32)
_SPEC = FunctionSpec(NamedTuple("FullArgSpec", [("args", ["self", "x", "training"])]), is_method=True)


def saved_graph():
    """Return the object graph of a model of one dense layer, with an optimizer, a table and its file."""
    float32 = DType.float32
    return ObjectGraph(
        [
            SavedObject(UserObject("_tf_keras_sequential"), [
                Child(1, "layer_with_weights-0"), Child(2, "optimizer"), Child(3, "__call__"), Child(8, "table"),
                Child(9, "file"), Child(10, "signatures"), Child(0, "up"),
            ]),
            SavedObject(UserObject("_tf_keras_layer"), [Child(4, "kernel")]),
            SavedObject(UserObject("optimizer"), [Child(5, "iter")], slot_variables=[SlotVariable(4, "m", 6)]),
            SavedObject(FunctionObject(["f_1"], _SPEC), [Child(7, "trace_0")]),
            SavedObject(VariableObject(float32, Shape((1, 2)), True, "dense/kernel")),
            SavedObject(VariableObject(DType.int64, Shape(()), False, "Adam/iter")),
            SavedObject(VariableObject(float32, Shape((1, 2)), False, "Adam/dense/kernel/m")),
            SavedObject(ConcreteFunctionObject("f_1")),
            SavedObject(ResourceObject(), registered_name="tf.StaticHashTable"),
            SavedObject(AssetObject(0)),
            SavedObject(UserObject("signature_map"), [Child(11, "serving_default")]),
            SavedObject(ConcreteFunctionObject("s_1", ["x"])),
        ],
        {
            "f_1": ConcreteFunction([4], ((_X, False), {}), TensorSpec("", Shape((None, 2)), float32)),
            "s_1": ConcreteFunction([4], ((), {"x": _X}), {"y": TensorSpec("y", Shape((None, 2)), float32)}),
        },
    )  # fmt: skip


METADATA = {
    0: ("_tf_keras_sequential", json.dumps({"name": "model", "class_name": "Sequential", "config": {"name": "model"}})),
    1: ("_tf_keras_layer", json.dumps({"name": "d", "class_name": "Dense", "config": {"units": 2, "name": "d"}})),
}


def write_checkpoint(folder, stored=STORED, name="ckpt", values=None, graph_tensor=None):
    """Write an object-based checkpoint and return its prefix."""
    if graph_tensor is None:
        data = proto.serialize(trackable_object_graph_to_proto(stored)) if stored is not None else b"\xff no message"
        graph_tensor = np.array(data, object)
    tensors = {**(VALUES if values is None else values), OBJECT_GRAPH_KEY: graph_tensor}
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle({key: ArrayTensor(value) for key, value in tensors.items()}, folder, name, None)
    return folder / name


def write_saved(folder, graph, stored=STORED, metadata=METADATA, functions=("f_1", "s_1"), model=None):
    """Write a SavedModel directory and return it."""
    write_checkpoint(folder / "variables", stored, "variables")
    nodes = [Node("c", "NoOp", [], "", {})]
    model = model or Model(Graph(nodes=nodes), assets=[Asset("c:0", "words.txt")], tags=("serve",))
    model.object_graph = graph
    message = proto.SavedModel(saved_model_schema_version=1)
    meta_graph = model_to_proto(model, Contents(), message.meta_graphs.add())
    for name in functions:
        function = meta_graph.graph_def.library.function.add()
        function.signature.name = name
        for argument in ("x", "kernel"):
            function.signature.input_arg.add(name=argument)
    with open(folder / "saved_model.pb", "wb") as file:
        write_saved_model(file, message)
    (folder / "assets").mkdir()
    (folder / "assets" / "words.txt").write_text("a\n")
    if metadata is not None:
        saved = proto.message_class("third_party.tensorflow.python.keras.protobuf.SavedMetadata")()
        for node, (identifier, text) in metadata.items():
            saved.nodes.add(node_id=node, identifier=identifier, metadata=text)
        (folder / "keras_metadata.pb").write_bytes(proto.serialize(saved))
    return folder
