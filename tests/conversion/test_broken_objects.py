"""SavedModels whose object graph contradicts itself: refused with every problem where objects are written anew."""

import pytest

import tfthaw
from graphs import constant, graph, node
from object_artifacts import saved_graph, write_saved
from tfthaw.dtypes import DType
from tfthaw.errors import StructureError
from tfthaw.ir.model import Asset, Model
from tfthaw.ir.object_graph import Child, ConcreteFunction
from tfthaw.ir.signatures import Signature, SignatureTensor


@pytest.fixture
def source(tmp_path):
    objects = saved_graph()
    objects.nodes[0].children = [*objects.nodes[0].children, Child(40, "gone")]
    objects.concrete_functions = {**objects.concrete_functions, "lost": ConcreteFunction([-1])}
    float32 = DType.float32
    signature = Signature({}, {"y": SignatureTensor("y:0", float32)})
    model = Model(
        graph(constant("c", [1.0, 2.0]), node("y", "Identity", "c", T=float32)), {"serving_default": signature},
        assets=[Asset("c:0", "words.txt")], tags=("serve",),
    )  # fmt: skip
    return write_saved(tmp_path / "source", objects, model=model)


def test_every_problem_is_told_before_anything_is_written(source, tmp_path):
    with pytest.raises(StructureError, match="the object graph contradicts itself") as caught:
        tfthaw.convert(source, tmp_path / "out", to="saved-model", verify="weights")
    assert caught.value.problems == (
        "object 0: 1 children lead to no object: gone -> 40",
        "function lost is not in the library",
        "function lost: 1 captures lead to no object: -1",
    )
    assert caught.value.path == str(source)
    assert "--style v1" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_needs_no_objects_is_converted_all_the_same(source, tmp_path):
    tfthaw.convert(source, tmp_path / "v1", to="saved-model", style="v1", verify="weights")
    tfthaw.convert(source, tmp_path / "frozen.pb", to="frozen-graph", verify="weights")
    tfthaw.convert(source, tmp_path / "weights.npz", to="npz", verify="weights")
