"""Object graphs are the same message after reading and writing, whatever they hold."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from generated_messages import generated
from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.formats.wire import Contents
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph, Versions
from tfthaw.ir.model import Model
from tfthaw.ir.object_graph import (
    AssetObject,
    CapturedTensorObject,
    Child,
    ConcreteFunction,
    ConcreteFunctionObject,
    ConstantObject,
    FunctionObject,
    FunctionSpec,
    ObjectGraph,
    RegisteredSaver,
    ResourceObject,
    SaveableObject,
    SavedObject,
    SerializedTensor,
    SlotVariable,
    TrackableObject,
    TrackableObjectGraph,
    UserObject,
    VariableObject,
)
from tfthaw.ir.structured_values import ABSENT, NamedTuple, TensorSpec
from tfthaw.serde.meta_graphs import model_from_proto, model_to_proto
from tfthaw.serde.object_graphs import object_graph_from_proto, object_graph_to_proto
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_from_proto, trackable_object_graph_to_proto

SETTINGS = settings(max_examples=40, deadline=None)
EVERYWHERE = [
    "tensorflow.SavedObjectGraph.nodes", "tensorflow.SavedObjectGraph.concrete_functions",
    "tensorflow.SavedObject.children", "tensorflow.SavedObject.slot_variables",
    "tensorflow.SavedObject.saveable_objects", "tensorflow.SavedFunction.function_spec",
    "tensorflow.FunctionSpec.fullargspec", "tensorflow.SavedConcreteFunction.output_signature",
]  # fmt: skip


def read_through(graph):
    """Return the graph with every object and function read."""
    return ObjectGraph(list(graph.nodes), dict(graph.concrete_functions), graph.opaque)


def listed(objects):
    """Return objects with their edges in lists, as they are built; those that were read have tuples where empty."""
    fields = ("children", "dependencies", "slot_variables")
    return [
        replace(item, **{name: list(getattr(item, name)) for name in fields if hasattr(item, name)}) for item in objects
    ]


@pytest.mark.parametrize("unknown", [False, True])
def test_saved_object_graphs(unknown):
    @SETTINGS
    @given(generated(proto.SavedObjectGraph, unknown=unknown, always=EVERYWHERE))
    def check(message):
        graph = object_graph_from_proto(message)
        assert proto.serialize(object_graph_to_proto(graph)) == proto.serialize(message)
        assert proto.serialize(object_graph_to_proto(read_through(graph))) == proto.serialize(message)

    check()


@pytest.mark.parametrize("unknown", [False, True])
def test_object_graphs_of_checkpoints(unknown):
    always = ["tensorflow.TrackableObjectGraph.nodes", "tensorflow.TrackableObjectGraph.TrackableObject.attributes"]

    @SETTINGS
    @given(generated(proto.TrackableObjectGraph, unknown=unknown, always=always))
    def check(message):
        graph = trackable_object_graph_from_proto(message)
        whole = TrackableObjectGraph(list(graph.nodes), graph.opaque)
        assert proto.serialize(trackable_object_graph_to_proto(graph)) == proto.serialize(message)
        assert proto.serialize(trackable_object_graph_to_proto(whole)) == proto.serialize(message)

    check()


def test_every_kind_of_object_is_read_as_it_was_built():
    spec = FunctionSpec(NamedTuple("FullArgSpec", [("args", ["x"]), ("varargs", None)]), True, None, 1)
    variable = VariableObject(DType.bfloat16, Shape((2, None)), True, "w", "/CPU:0", 1, 2)
    objects = [
        SavedObject(UserObject("_generic_user_object", Versions(1, 1, (3,)), "{}"), [Child(1, "w"), Child(0, "self")]),
        SavedObject(variable, dependencies=[Child(0, "d")], registered_name="Custom>V", registered_saver="S"),
        SavedObject(VariableObject(DType.float32, None, components=[variable])),
        SavedObject(FunctionObject(["f_1", "f_2"], spec)),
        SavedObject(ConcreteFunctionObject("f_1", ["x", "y"], 1, FunctionSpec())),
        SavedObject(ConstantObject("Const_1")),
        SavedObject(ResourceObject("/CPU:0"), saveable_objects={"table": SaveableObject(3, 4)}),
        SavedObject(AssetObject(2), serialized_user_proto=b""),
        SavedObject(CapturedTensorObject("x:0", "f_1"), slot_variables=[SlotVariable(1, "m", 2)]),
        SavedObject(),
    ]
    functions = {"f_1": ConcreteFunction([1, 5], ((TensorSpec("x", Shape((None,)), DType.float32),), {}), ABSENT)}
    message = object_graph_to_proto(ObjectGraph(objects, functions))
    again = object_graph_from_proto(proto.SavedObjectGraph.FromString(proto.serialize(message)))
    assert listed(again.nodes) == objects
    assert dict(again.concrete_functions) == functions


def test_objects_of_a_checkpoint_are_read_as_they_were_built():
    objects = [
        TrackableObject([Child(1, "w")], slot_variables=[SlotVariable(1, "m", 1)], has_checkpoint_values=False),
        TrackableObject(attributes=[SerializedTensor("VARIABLE_VALUE", "w", "w/.ATTRIBUTES/VARIABLE_VALUE")]),
        TrackableObject(registered_saver=RegisteredSaver("S", "o")),
    ]
    again = trackable_object_graph_from_proto(trackable_object_graph_to_proto(TrackableObjectGraph(objects)))
    assert listed(again.nodes) == objects


def test_objects_are_read_when_they_are_asked_for_and_once():
    message = object_graph_to_proto(ObjectGraph([SavedObject(UserObject("a")), SavedObject(UserObject("b"))]))
    nodes = object_graph_from_proto(message).nodes
    assert nodes[1] is nodes[-1]
    assert [item.kind.identifier for item in nodes[::-1]] == ["b", "a"]
    with pytest.raises(IndexError):
        nodes[2]


def test_asking_for_a_function_that_is_not_there_adds_none():
    message = object_graph_to_proto(ObjectGraph([], {"f": ConcreteFunction()}))
    graph = object_graph_from_proto(message)
    with pytest.raises(KeyError):
        graph.concrete_functions["g"]
    assert "g" not in graph.concrete_functions
    assert list(graph.concrete_functions) == ["f"] == list(message.concrete_functions)


def test_a_model_carries_its_object_graph():
    model = Model(Graph(), object_graph=ObjectGraph([SavedObject(VariableObject(DType.int64, Shape(())))]))
    again = model_from_proto(model_to_proto(model, Contents()))
    assert listed(again.object_graph.nodes) == model.object_graph.nodes
    assert model_from_proto(proto.MetaGraphDef()).object_graph is None
    empty = proto.MetaGraphDef()
    empty.object_graph_def.SetInParent()
    assert model_to_proto(model_from_proto(empty), Contents()).HasField("object_graph_def")
