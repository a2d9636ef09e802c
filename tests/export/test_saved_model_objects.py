"""Object graphs that are built for what is written."""

import pytest

from tfthaw.dtypes import DType
from tfthaw.export.saved_model_objects import NewFunction, NewObjects, NewTable, NewVariable, build_objects
from tfthaw.ir.attrs import Shape
from tfthaw.ir.object_graph import (
    AssetObject,
    ConcreteFunction,
    ConcreteFunctionObject,
    FunctionObject,
    ResourceObject,
    UserObject,
    VariableObject,
)
from tfthaw.ir.object_graph_validation import object_graph_problems
from tfthaw.ir.object_variables import object_variables
from tfthaw.ir.structured_values import TensorSpec
from tfthaw.serde.object_graphs import object_graph_from_proto, object_graph_to_proto

FLOAT = DType.float32
SPEC = TensorSpec("x", Shape((None, 2)), FLOAT)
NUMBER = TensorSpec("unknown", Shape(()), DType.int32)


def variable(name, *, trainable=True):
    return NewVariable(f"node_{name}", name, FLOAT, Shape((2,)), trainable)


def build():
    return build_objects(NewObjects(
        [variable("dense/kernel"), variable("dense/step", trainable=False), variable("w")],
        [NewTable("words", "create", "fill", "destroy")],
        ["vocabulary"],
        [
            NewFunction("f", ["node_w", "words"], {"x": SPEC}, {"y": SPEC}),
            NewFunction("g", ["node_dense/kernel"], {"a": SPEC, "b": SPEC}, {"y": SPEC}),
            NewFunction("create", [], {}, NUMBER),
            NewFunction("fill", ["words", "vocabulary"], {}, NUMBER),
            NewFunction("destroy", [], {}, NUMBER),
        ],
        {"one": "f", "serving_default": "g"},
        {"gradient": (ConcreteFunction([9, 9]), ["words", "node_w"])},
    ))  # fmt: skip


def at(built, *names):
    """Return the number of the object at the end of a path."""
    node = 0
    for name in names:
        node = {child.name: child.node for child in built.graph.nodes[node].children}[name]
    return node


def test_every_object_has_its_place():
    built = build()
    kind = {path: built.graph.nodes[at(built, *path)].kind for path in [
        (), ("dense",), ("dense", "kernel"), ("dense", "step"), ("words",), ("words", "_create_resource"),
        ("variables",), ("variables", "1"), ("trainable_variables",), ("asset_paths", "0"), ("signatures",),
        ("signatures", "one"), ("_default_save_signature",),
    ]}  # fmt: skip

    assert isinstance(kind[()], UserObject)
    assert isinstance(kind["dense",], UserObject)
    assert kind["dense", "kernel"] == VariableObject(FLOAT, Shape((2,)), True, "dense/kernel")
    assert kind["dense", "step"] is kind["variables", "1"]
    assert kind["variables",].identifier == "trackable_list_wrapper"
    assert kind["signatures",].identifier == "signature_map"
    assert kind["words",] == ResourceObject()
    assert isinstance(kind["words", "_create_resource"], FunctionObject)
    assert kind["asset_paths", "0"] == AssetObject(0)
    assert kind["signatures", "one"] == ConcreteFunctionObject("f", ["x"], 1)
    assert kind["_default_save_signature",] == ConcreteFunctionObject("g", ["a", "b"], 0)
    assert [child.name for child in built.graph.nodes[at(built, "trainable_variables")].children] == ["0", "1"]
    assert at(built, "trainable_variables", "1") == at(built, "w")


def test_functions_capture_objects():
    built = build()
    bound = {name: function.bound_inputs for name, function in built.graph.concrete_functions.items()}

    assert bound == {
        "f": [at(built, "w"), at(built, "words")], "g": [at(built, "dense", "kernel")], "create": [], "destroy": [],
        "fill": [at(built, "words"), at(built, "asset_paths", "0")], "gradient": [at(built, "words"), at(built, "w")],
    }  # fmt: skip
    described = built.graph.concrete_functions["g"]
    assert described.canonicalized_input_signature == ((), {"a": SPEC, "b": SPEC})
    assert described.output_signature == {"y": SPEC}
    assert built.graph.concrete_functions["fill"].output_signature == NUMBER


def test_the_checkpoint_has_the_same_objects():
    built = build()

    assert built.keys == {
        f"node_{name}": f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in ("dense/kernel", "dense/step", "w")
    }
    assert [item.children for item in built.stored.nodes] == [item.children for item in built.graph.nodes]
    _, found = object_variables(built.graph, built.stored)
    keys = {name.removeprefix("node_"): key for name, key in built.keys.items()}
    assert {item.path: item.key for item in found} == keys


def test_what_is_built_is_consistent_and_survives_its_message():
    built = build()
    functions = {"f": 3, "g": 3, "create": 0, "fill": 2, "destroy": 0, "gradient": 4}

    assert list(object_graph_problems(built.graph, functions=functions, assets=1, constants=[])) == []
    again = object_graph_from_proto(object_graph_to_proto(built.graph))
    assert [item.kind for item in again.nodes] == [item.kind for item in built.graph.nodes]


@pytest.mark.parametrize(
    ("names", "args", "keywords", "signature"),
    [
        (["x"], ["x"], [], ((SPEC,), {})),
        (["a", "b"], [], ["a", "b"], ((), {"a": SPEC, "b": SPEC})),
    ],
)
def test_the_root_can_be_called(names, args, keywords, signature):
    function = NewFunction("call", [], dict.fromkeys(names, SPEC), {"y": SPEC}, is_call=True)
    built = build_objects(NewObjects(functions=[function]))
    kind = built.graph.nodes[at(built, "__call__")].kind
    said = dict(kind.spec.fullargspec.items)
    assert (kind.concrete_functions, said["args"], said["kwonlyargs"]) == (["call"], args, keywords)
    assert built.graph.concrete_functions["call"].canonicalized_input_signature == signature


def test_a_model_of_constants_alone():
    built = build_objects(NewObjects(functions=[NewFunction("f", [], {}, {"y": SPEC})], signatures={"s": "f"}))

    assert built.keys == {}
    assert {child.name for child in built.graph.nodes[0].children} == {
        "variables", "trainable_variables", "signatures", "_default_save_signature",
    }  # fmt: skip
    assert at(built, "_default_save_signature") == at(built, "signatures", "s")
