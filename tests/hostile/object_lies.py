"""Object graphs that lie: edges that lead nowhere, graphs as large as their limit allows, and damaged bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from judge import Case

from object_artifacts import METADATA, STORED, saved_graph, write_checkpoint, write_saved
from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.object_graph import (
    AssetObject,
    Child,
    ConcreteFunction,
    ConcreteFunctionObject,
    FunctionObject,
    ObjectGraph,
    SavedObject,
    SlotVariable,
    TrackableObject,
    TrackableObjectGraph,
    UserObject,
    VariableObject,
)
from tfthaw.limits import DEFAULT_LIMITS
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_to_proto

MOST = DEFAULT_LIMITS.max_objects - 10
MANY = MOST // 20
"""What takes time in the square of itself takes far too long with as many; and what does not is over quickly."""
TOO_MANY = 1_000_000


def _user(children=(), **more):
    return SavedObject(UserObject("_generic_user_object"), children, **more)


def _variable(name="v"):
    return SavedObject(VariableObject(DType.float32, Shape((1,)), name=name))


def _graphs() -> Iterator[tuple[str, ObjectGraph]]:
    """Yield object graphs by name."""
    yield "none", ObjectGraph()
    yield "numbers", ObjectGraph(
        [
            _user([Child(-1, "a"), Child(2**31 - 1, "b"), Child(-(2**31), "")], dependencies=[Child(-1, "d")],
                  slot_variables=[SlotVariable(-1, "m", -2), SlotVariable(0, "m", 1)]),
            _variable("\0/../" + "x" * 5000), SavedObject(AssetObject(-1)), SavedObject(FunctionObject(["f", ""])),
            SavedObject(ConcreteFunctionObject("")), SavedObject(),
        ],
        {"": ConcreteFunction([-1, 0, 2**31 - 1])},
    )  # fmt: skip
    yield "many-children", ObjectGraph([_user([Child(5, f"c{number}") for number in range(TOO_MANY)])])
    yield "many-nowhere", ObjectGraph([_user([Child(5, f"c{number}") for number in range(MANY)])])
    yield "many-aliases", ObjectGraph([_user([Child(1, f"_c{number}") for number in range(MANY)]), _variable()])
    yield "many-of-a-name", ObjectGraph([_user([Child(1, "c") for _ in range(MANY)]), _variable()])
    yield "many-empty", ObjectGraph([SavedObject()] * MANY)
    half = MOST // 2
    yield "wide", ObjectGraph([_user([Child(n + 1, f"_v{n}") for n in range(half)])] + [_variable("m/v")] * half)
    yield "deep", ObjectGraph([_user([Child(number + 1, "c")]) for number in range(MANY)] + [_variable()])
    items = [Child(n + 2, str(n)) for n in range(MANY)]
    yield "one-name", ObjectGraph([_user([Child(1, "variables")]), _user(items), *[_variable("same")] * MANY])
    yield "slots", ObjectGraph(
        [_user([Child(1, "w")], slot_variables=[SlotVariable(1, "m", n + 1) for n in range(MANY)])]
        + [_variable()] * (MANY + 1)
    )
    yield "circle", ObjectGraph([_user(dependencies=[Child((n + 1) % MANY, "d")]) for n in range(MANY)])
    lists = [Child(1, name) for name in ("_variables", "_iterations", "_trainable_variables")]
    lists += [Child(1, f"_list{number}") for number in range(MANY)]
    yield "lists", ObjectGraph([_user(lists), _user(items), *[_variable("a/b/c/v")] * MANY])
    names = [f"layer-{number}" for number in range(MANY)]
    yield "layers", ObjectGraph(
        [_user([Child(n + 1, name) for n, name in enumerate(names)])]
        + [_user([Child(MANY + n + 1, "k")]) for n in range(MANY)] + [_variable("a/" * 300 + "k")] * MANY
    )  # fmt: skip
    yield "long-names", ObjectGraph([_user([Child(n + 1, "m" * 100_000)]) for n in range(20)] + [_variable()])
    many_captures = ConcreteFunction(list(range(50_000)))
    yield "captures", ObjectGraph([SavedObject(FunctionObject(["f_1"] * 10)) for _ in range(2000)],
                                  {"f_1": many_captures})  # fmt: skip


def lying_objects(folder: Path) -> Iterator[Case]:
    """Yield SavedModels and checkpoints whose object graphs lie."""
    for name, graph in _graphs():
        target = write_saved(folder / name, graph)
        large = len(graph.nodes) >= MOST // 2 or name == "many-children"  # they are as large as they claim
        yield Case(f"objects-{name}", str(target), formats=() if large else ("npz",), allowance=2 if large else 1)
    children = [Child(n + 1, f"c{n}") for n in range(MANY)]
    stored = {
        "none": TrackableObjectGraph(),
        "numbers": TrackableObjectGraph([TrackableObject([Child(-5, "a")], slot_variables=[SlotVariable(9, "", -1)])]),
        "many": TrackableObjectGraph([TrackableObject(children), *[TrackableObject()] * MANY]),
        "more": TrackableObjectGraph([TrackableObject([Child(0, f"c{n}") for n in range(TOO_MANY)])]),
        "damaged": None,
    }
    for name, each in stored.items():
        target = write_checkpoint(folder / f"checkpoint-{name}", each)
        yield Case(f"stored-{name}", str(target), formats=("npz",))
    texts = {"deep": "[" * 200_000, "words": "no json", "list": "[1]", "huge": '{"name": "' + "n" * 10**6 + '"}'}
    for name, text in texts.items():
        metadata = {**METADATA, 1: ("_tf_keras_layer", text)}
        target = write_saved(folder / f"metadata-{name}", saved_graph(), metadata=metadata)
        yield Case(f"metadata-{name}", str(target), formats=("npz",))


def damaged_objects(folder: Path, count: int = 40) -> Iterator[Case]:
    """Yield SavedModels and checkpoints in whose object graphs bytes were changed or cut."""
    rng = random.Random(5)
    whole = write_saved(folder / "whole", saved_graph())
    saved = (whole / "saved_model.pb").read_bytes()
    message = proto.SavedModel.FromString(saved)
    graph = proto.serialize(message.meta_graphs[0].object_graph_def)
    begin = saved.find(graph)
    stored = proto.serialize(trackable_object_graph_to_proto(STORED))
    for number in range(count):
        data = bytearray(saved)
        for _ in range(rng.choice([1, 1, 3])):
            data[begin + rng.randrange(len(graph))] = rng.randrange(256)
        target = write_saved(folder / f"flip{number}", saved_graph())
        (target / "saved_model.pb").write_bytes(data)
        yield Case(f"flip-{number}", str(target), formats=("npz",))
        cut = bytearray(stored[: rng.randrange(len(stored))])
        if cut and number % 2:
            cut[rng.randrange(len(cut))] ^= 1 << rng.randrange(8)
        prefix = write_checkpoint(folder / f"cut{number}", graph_tensor=np.array(bytes(cut), object))
        yield Case(f"cut-{number}", str(prefix), formats=("npz",))
