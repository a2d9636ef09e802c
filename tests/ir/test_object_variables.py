"""Variables of object graphs: keys, slots, and whether they are trainable."""

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.object_graph import (
    Child,
    ObjectGraph,
    SavedObject,
    SerializedTensor,
    SlotVariable,
    TrackableObject,
    TrackableObjectGraph,
    UserObject,
    VariableObject,
)
from tfthaw.ir.object_variables import Slot, checkpoint_keys, checkpoint_variables, find_slots, object_variables

SHAPE = Shape((2,))


def user(slots=(), **children):
    return SavedObject(UserObject(""), [Child(node, name) for name, node in children.items()], slot_variables=slots)


def variable(name, trainable=True):
    return SavedObject(VariableObject(DType.float32, SHAPE, trainable, name))


def stored(key="", slots=(), full_name="", children=()):
    values = [SerializedTensor("VARIABLE_VALUE", full_name, key)] if key else []
    return TrackableObject([Child(node, name) for name, node in children], values, slots)


def by_path(variables):
    return {item.path: item for item in variables}


def test_variables_of_a_saved_model():
    graph = ObjectGraph([user(w=1, b=2), variable("kernel"), variable("bias", trainable=False), variable("lost")])
    _, variables = object_variables(graph)
    found = by_path(variables)
    assert list(found) == ["w", "b", None]
    assert (found["w"].dtype, found["w"].shape, found["w"].trainable, found["w"].name) == (
        DType.float32, SHAPE, True, "kernel",
    )  # fmt: skip
    assert found["b"].trainable is False
    assert found[None].node == 3
    assert {item.key for item in variables} == {None}


def test_keys_are_found_along_names_not_numbers():
    graph = ObjectGraph([user(w=1, sub=2), variable("kernel"), user(v=3, up=0), variable("x")])
    there = TrackableObjectGraph([
        stored(children=[("sub", 3), ("w", 2), ("more", 1)]), stored("more/K"), stored("w/K"),
        stored(children=[("v", 4), ("up", 0)]), stored("sub/v/K"),
    ])  # fmt: skip
    assert checkpoint_keys(graph, there) == {1: "w/K", 3: "sub/v/K"}
    assert checkpoint_keys(graph, TrackableObjectGraph()) == {}
    assert checkpoint_keys(ObjectGraph(), there) == {}


def test_keys_of_slots_are_found_by_what_they_belong_to():
    graph = ObjectGraph([
        user(w=1, optimizer=2), variable("w"), user([SlotVariable(1, "m", 3), SlotVariable(1, "v", 4)]),
        variable("w/m"), variable("w/v"),
    ])  # fmt: skip
    there = TrackableObjectGraph([
        stored(children=[("optimizer", 1), ("w", 4)]), stored(slots=[SlotVariable(4, "v", 2), SlotVariable(4, "m", 3)]),
        stored("V"), stored("M"), stored("W"),
    ])  # fmt: skip
    tree, variables = object_variables(graph, there)
    found = by_path(variables)
    assert {path: item.key for path, item in found.items()} == {"w": "W", "optimizer/m/w": "M", "optimizer/v/w": "V"}
    assert found["optimizer/m/w"].slot == Slot(1, "m", 2)
    assert tree.paths[3] == "optimizer/m/w"


def test_what_leads_nowhere_is_passed_over():
    slots = [SlotVariable(1, "m", 9), SlotVariable(-1, "m", 1), SlotVariable(7, "m", 1)]
    graph = ObjectGraph([user(slots, w=1, gone=8, before=-1), variable("w")])
    there = TrackableObjectGraph([stored(children=[("w", 1), ("gone", 8), ("before", 1)], slots=slots), stored("W")])
    _, variables = object_variables(graph, there)
    assert [(item.path, item.key, item.slot) for item in variables] == [("w", "W", None)]


def keras_3(trained, *lists):
    """Return an optimizer with its lists: object numbers by the list's name."""
    names = {"_variables": [4, 5, 6, 7], "_trainable_variables": trained, **dict(lists)}
    objects = [user(a=1, b=2, optimizer=3), variable("m/a"), variable("m/b"), None]
    objects += [variable(name) for name in ("adam/m_a_momentum", "adam/m_b_momentum", "adam/m_a_v", "adam/iteration")]
    children = {"_iterations": 7}
    for name, items in names.items():
        children[name] = len(objects)
        objects.append(user(**{str(position): node for position, node in enumerate(items)}))
    objects[3] = user(**children)
    return objects


def slots_of(objects):
    return find_slots(objects, {node: item.kind.name for node, item in enumerate(objects)
                                if isinstance(item.kind, VariableObject)})  # fmt: skip


def test_slots_of_keras_3_stand_in_the_order_of_the_variables():
    objects = keras_3([1, 2], ("_momentums", [4, 5]), ("_other", [6]))
    assert slots_of(objects) == {4: Slot(1, "momentum", 3), 5: Slot(2, "momentum", 3)}


def test_a_list_that_says_no_slot_name_gives_its_own():
    objects = keras_3([1, 2], ("_velocities", [6, 7]))
    assert slots_of(objects)[7] == Slot(2, "velocities", 3)


def test_slots_of_keras_2_11_are_named_after_their_variables():
    objects = keras_3([])
    objects[4] = variable("Adam/m/m/a")
    objects[5] = variable("Adam/v/m/b")
    objects[6] = variable("Adam/v/nothing")
    assert slots_of(objects) == {4: Slot(1, "m", 3), 5: Slot(2, "v", 3)}


def test_a_name_that_two_variables_have_tells_nothing():
    objects = keras_3([])
    objects[4] = variable("Adam/m/m/a")
    objects[2] = variable("m/a")
    assert slots_of(objects) == {}


def test_variables_of_a_checkpoint():
    there = TrackableObjectGraph([
        stored(children=[("model", 1), ("optimizer", 2)]),
        stored(children=[("layer_with_weights-0", 3)]),
        stored(children=[("_variables", 5), ("_iterations", 6), ("_trainable_variables", 7), ("_momentums", 8)]),
        stored(children=[("kernel", 4)]),
        stored("K", full_name="dense/kernel"),
        stored(children=[("0", 6), ("1", 9)]),
        stored("I", full_name="adam/iteration"),
        stored(children=[("0", 4)]),
        stored(children=[("0", 9)]),
        stored("M", full_name="adam/dense_kernel_momentum"),
        TrackableObject(attributes=[SerializedTensor("table-keys", "t", "T")]),
    ])  # fmt: skip
    _, variables = checkpoint_variables(there)
    assert [(item.path, item.key, item.trainable) for item in variables] == [
        ("model/dense/kernel", "K", True), ("optimizer/iterations", "I", None),
        ("optimizer/momentum/model/dense/kernel", "M", None),
    ]  # fmt: skip
