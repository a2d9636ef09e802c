"""Imports follow the floors of the house: a room imports from lower floors, never sideways, never from above.

Ground modules that are single files stand on each other in the order of their own floor here; folders do not.
"""

import ast

import pytest
from source_tree import at_module_level, imports, module_name, parsed, sources, unit_of

FLOORS = (
    {"errors", "limits"},
    {"_optional"},
    {"dtypes"},
    {"_files", "proto"},
    {"tensors", "_new_files"},
    {"formats", "ir"},
    {"serde", "passes", "restore"},
    {"export", "runtime"},
    {"verify"},
    {"conversion", "object_inspection"},
    {"inspection"},
    {"drop_ins", "demo"},
    {"cli"},
    {"", "__main__"},  # the face itself, whose imports are lazy, and `python -m`
)
FLOOR_OF = {unit: number for number, floor in enumerate(FLOORS) for unit in floor}
HEAVY = {"tensorflow", "tf_keras", "keras", "h5py", "onnxruntime", "jax", "torch"}
FILES = sources("src/tfthaw")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_room_imports_only_from_lower_floors(path):
    module = module_name(path)
    floor = FLOOR_OF[unit_of(module)]
    wrong = []
    for name, line in imports(parsed(path)):
        target = unit_of(name)
        if name.split(".")[0] != "tfthaw" or target == unit_of(module) or name == "tfthaw.__version__":
            continue
        if FLOOR_OF[target] >= floor:
            wrong.append(f"line {line}: {module} (floor {floor}) imports {name} (floor {FLOOR_OF[target]})")
    assert not wrong


def test_only_the_hall_and_what_stands_on_it_know_formats_and_ir_both():
    both = {}
    for path in FILES:
        rooms = {unit_of(name) for name, _ in imports(parsed(path)) if name.startswith("tfthaw.")}
        if {"formats", "ir"} <= rooms:
            both[module_name(path)] = FLOOR_OF[unit_of(module_name(path))]
    below = {name for name, floor in both.items() if floor < FLOOR_OF["serde"]}
    assert not below
    assert any(unit_of(name) == "serde" for name in both)
    assert {unit_of(name) for name in both if FLOOR_OF[unit_of(name)] == FLOOR_OF["serde"]} == {"serde"}


@pytest.mark.parametrize("room", ["ir", "passes", "restore"])
def test_the_meaning_wing_knows_no_bytes_and_no_protobuf(room):
    wrong = [
        f"{module_name(path)}:{line} {name}"
        for path in FILES
        if unit_of(module_name(path)) == room
        for name, line in imports(parsed(path))
        if unit_of(name) in ("formats", "proto", "serde", "_files") or name.split(".")[0] == "google"
    ]
    assert not wrong


def test_nothing_heavy_is_imported_with_a_module():
    wrong = []
    for path in FILES:
        for node in at_module_level(parsed(path)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                wrong += [f"{module_name(path)}:{line} {name}" for name, line in imports(node)
                          if name.split(".")[0] in HEAVY]  # fmt: skip
    assert not wrong


def test_tensorflow_and_keras_are_named_in_imports_of_the_runtime_alone():
    wrong = []
    for path in FILES:
        if unit_of(module_name(path)) == "runtime":
            continue
        tree = parsed(path)
        named = [name for name, _ in imports(tree)]
        named += [
            node.args[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("require", "import_module", "__import__")
        ]  # fmt: skip
        wrong += [f"{module_name(path)}: {name}" for name in named
                  if str(name).split(".")[0] in ("tensorflow", "keras", "tf_keras")]  # fmt: skip
    assert not wrong


def test_every_room_has_its_floor_and_every_floor_its_rooms():
    assert {unit_of(module_name(path)) for path in FILES} == set(FLOOR_OF)
