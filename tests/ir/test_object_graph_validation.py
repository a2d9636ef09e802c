"""Wrong object graphs: every problem at once, however many there are of a kind."""

import pytest

from tfthaw.dtypes import DType
from tfthaw.errors import StructureError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Shape
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph
from tfthaw.ir.model import Asset, Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.object_graph import (
    AssetObject,
    CapturedTensorObject,
    Child,
    ConcreteFunction,
    ConcreteFunctionObject,
    ConstantObject,
    FunctionObject,
    ObjectGraph,
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
from tfthaw.ir.object_graph_validation import (
    object_graph_problems,
    require_consistent_objects,
    stored_graph_problems,
)

VARIABLE = SavedObject(VariableObject(DType.float32, Shape((2,))))


def root(**more):
    return SavedObject(UserObject("_generic_user_object"), **more)


def problems(objects, traces=None, **around):
    return list(object_graph_problems(ObjectGraph(objects, traces or {}), **around))


def test_a_sound_graph_has_none():
    objects = [
        root(children=[Child(0, "self"), Child(1, "w"), Child(2, "f"), Child(1, "alias")],
             slot_variables=[SlotVariable(1, "m", 1)], dependencies=[Child(1, "w")]),
        VARIABLE, SavedObject(FunctionObject(["f_1"])), SavedObject(ConcreteFunctionObject("f_1")),
        SavedObject(ConstantObject("c")), SavedObject(AssetObject(0)), SavedObject(CapturedTensorObject()),
        SavedObject(ResourceObject(), saveable_objects={"table": SaveableObject(2, 3)}), SavedObject(),
    ]  # fmt: skip
    traces = {"f_1": ConcreteFunction([1, 4, 5, 6, 7, 8])}
    assert problems(objects, traces, functions={"f_1": 6}, assets=1, constants={"c"}) == []
    assert problems(objects, traces) == []


@pytest.mark.parametrize(("objects", "traces", "expected"), [
    ([], {}, "it has no objects, not even a root"),
    ([root(children=[Child(3, "a"), Child(-1, "b")])], {}, "object 0: 2 children lead to no object: a -> 3, b -> -1"),
    ([root(children=[Child(1, "a"), Child(0, "a")]), VARIABLE], {}, "object 0: 1 names (a) have several children each"),
    ([root(dependencies=[Child(9, "d")])], {}, "object 0: 1 dependencies lead to no object: d -> 9"),
    ([root(slot_variables=[SlotVariable(1, "m", 7)]), VARIABLE], {},
     "object 0: 1 slot variables lead to no object: m of 1 -> 7"),
    ([root(slot_variables=[SlotVariable(0, "m", 1)]), VARIABLE], {},
     "object 0: 1 slot variables join objects that are no variables: m of 0 -> 1"),
    ([root(saveable_objects={"t": SaveableObject(5, -2)})], {},
     "object 0: 2 functions that save and restore lead to no object: t -> 5, t -> -2"),
    ([root(), SavedObject(FunctionObject(["f", "g"]))], {"g": ConcreteFunction()},
     "object 1: 1 traces (f) are no concrete functions of the object graph"),
    ([root(), SavedObject(ConcreteFunctionObject("f"))], {},
     "object 1: 'f' is no concrete function of the object graph"),
    ([root(), SavedObject(AssetObject(3))], {}, "object 1: it is asset 3, and there are 1"),
    ([root(), SavedObject(AssetObject(-1))], {}, "object 1: it is asset -1, and there are 1"),
    ([root(), SavedObject(ConstantObject("gone"))], {}, "object 1: 'gone' is no constant of the main graph"),
    ([root(), SavedObject(VariableObject(DType.float32, Shape((-7,)), name="v"))], {},
     "object 1: variable 'v' has the shape [-7]"),
    ([root()], {"gone": ConcreteFunction()}, "function gone is not in the library"),
    ([root(), VARIABLE], {"f": ConcreteFunction([1, 1, 1])}, "function f captures 3 objects and has 2 arguments"),
    ([root()], {"f": ConcreteFunction([4, -1])}, "function f: 2 captures lead to no object: 4, -1"),
    ([root()], {"f": ConcreteFunction([0])},
     "function f: 1 captures are neither variables nor tables, assets, constants or tensors: object 0 (User)"),
    ([root(dependencies=[Child(1, "a")]), root(dependencies=[Child(0, "b")])], {},
     "2 objects depend on each other in a circle: 0, 1"),
    ([root(dependencies=[Child(0, "me")])], {}, "1 objects depend on each other in a circle: 0"),
])  # fmt: skip
def test_each_problem_is_told(objects, traces, expected):
    assert problems(objects, traces, functions={"f": 2, "g": 0}, assets=1, constants={"c"}) == [expected]


def test_all_problems_come_in_one_error():
    graph = ObjectGraph([root(children=[Child(5, "a")]), SavedObject(AssetObject(1)), SavedObject(ConstantObject("x"))],
                        {"f": ConcreteFunction([8]), "g": ConcreteFunction([2, 2])})  # fmt: skip
    library = [Function("g", arguments=[Argument("x")])]
    constants = [Node("c", "Const", [], "", {}), Node("x", "NoOp", [], "", {})]
    model = Model(Graph(constants, library), assets=[Asset("c:0", "a.txt")], object_graph=graph)
    with pytest.raises(StructureError, match="the object graph contradicts itself") as caught:
        require_consistent_objects(model, path="m")
    assert caught.value.problems == (
        "object 0: 1 children lead to no object: a -> 5", "object 1: it is asset 1, and there are 1",
        "object 2: 'x' is no constant of the main graph", "function f is not in the library",
        "function f: 1 captures lead to no object: 8", "function g captures 2 objects and has 1 arguments",
    )  # fmt: skip
    assert caught.value.path == "m"
    assert "--style v1" in caught.value.hint
    require_consistent_objects(Model(Graph(), object_graph=ObjectGraph([root()])))
    require_consistent_objects(Model(Graph()))


def test_many_problems_of_a_kind_are_one_sentence():
    found = problems([root(children=[Child(9, f"c{number}" * 100) for number in range(5000)])])
    assert len(found) == 1
    assert found[0].startswith("object 0: 5000 children lead to no object: ")
    assert len(found[0]) < 1000


def test_dependencies_that_meet_again_are_no_circle():
    objects = [root(dependencies=[Child(1, "a"), Child(2, "b")]), root(dependencies=[Child(3, "c")]),
               root(dependencies=[Child(3, "c"), Child(3, "again")]), root()]  # fmt: skip
    assert problems(objects) == []


def test_object_graphs_of_checkpoints():
    value = SerializedTensor("VARIABLE_VALUE", "w", "w/K")
    objects = [TrackableObject([Child(1, "w"), Child(0, "self")]), TrackableObject(attributes=[value])]
    sound = TrackableObjectGraph(objects)
    assert list(stored_graph_problems(sound, {"w/K"})) == list(stored_graph_problems(sound)) == []
    assert list(stored_graph_problems(sound, set())) == ["object 1: 1 values (w/K) are not in the checkpoint"]
    wrong = TrackableObjectGraph([TrackableObject([Child(-1, "w")], slot_variables=[SlotVariable(0, "m", 4)])])
    assert list(stored_graph_problems(wrong)) == [
        "object 0: 1 children lead to no object: w -> -1", "object 0: 1 slot variables lead to no object: m of 0 -> 4",
    ]  # fmt: skip
    assert list(stored_graph_problems(TrackableObjectGraph())) == ["it has no objects, not even a root"]
