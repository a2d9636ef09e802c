"""Comparing the outputs of source and result."""

from functools import partial

import numpy as np
import pytest

from tfthaw import demo
from tfthaw.conversion.converting import convert
from tfthaw.dtypes import DType
from tfthaw.errors import RuntimeFailure, UsageError, VerificationError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node
from tfthaw.runtime.isolated import Answer
from tfthaw.verify import outputs
from tfthaw.verify.inputs import InputSpec, seeded_inputs
from tfthaw.verify.outputs import Endpoints, compare, prove_live_outputs, prove_outputs
from tfthaw.verify.risks import reaching_ops

NAMES = {"y": "y:0"}
SOURCE = Endpoints("source", {"x": "x:0"}, {"y": "y:0"})
WRITTEN = Endpoints("written", {"x": "x_fed:0"}, {"y": "z:0"})
SPECS = {"x": InputSpec(DType.float32, Shape((None, 3)))}


class TestCompare:
    @pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "c8"])
    def test_equal_floats(self, dtype):
        values = np.array([1, np.nan, np.inf], dtype)
        assert compare({"y:0": values}, {"y:0": values.copy()}, NAMES) == (0.0, 0.0, [])

    def test_small_differences_are_measured_and_forgiven(self):
        one, other = np.array([1.0, 100.0], "f4"), np.array([1.0, 100.001], "f4")
        largest_abs, largest_rel, problems = compare({"y:0": one}, {"y:0": other}, NAMES)
        assert largest_abs == pytest.approx(0.001, rel=0.01)
        assert largest_rel == pytest.approx(0.00001, rel=0.01)
        assert problems == []

    def test_large_differences_are_named(self):
        one, other = np.array([1.0, 100.0], "f4"), np.array([1.0, 101.0], "f4")
        assert compare({"y:0": one}, {"y:0": other}, NAMES)[2] == [
            "y: differs by 0.01 of its largest value, 0.0001 is allowed"
        ]

    def test_nan_is_no_number(self):
        one, other = np.array([1.0], "f4"), np.array([np.nan], "f4")
        assert len(compare({"y:0": one}, {"y:0": other}, NAMES)[2]) == 1

    def test_integers_and_strings_must_be_equal(self):
        assert compare({"y:0": np.array([1, 2])}, {"y:0": np.array([1, 3])}, NAMES)[2] == ["y: 1 of 2 elements differ"]
        strings = np.array([b"a"], object)
        assert compare({"y:0": strings}, {"y:0": strings.copy()}, NAMES)[2] == []

    def test_shapes_must_be_equal(self):
        assert "float64[2], written float64[3]" in compare({"y:0": np.zeros(2)}, {"y:0": np.zeros(3)}, NAMES)[2][0]


class TestProof:
    """What is said when things go wrong, with a runtime that answers as told."""

    @pytest.fixture
    def runtime(self, monkeypatch):
        def answer_with(*answers):
            waiting = list(answers)

            def run(attempts):
                result = waiting.pop(0)
                if isinstance(result, Exception):
                    raise result
                return Answer("tensorflow 0", list(result))

            monkeypatch.setattr(outputs, "is_installed", lambda: True)
            monkeypatch.setattr(outputs, "run_isolated", run)

        return answer_with

    def prove(self, *, required=False):
        return prove_outputs(SOURCE, WRITTEN, SPECS, {}, required=required)

    def test_same(self, runtime):
        y = np.ones(2, "f4")
        runtime(({"y:0": y}, {"y:0": y}, {"z:0": y}))
        proof = self.prove()
        assert (proof.done, proof.runtime, proof.max_abs, proof.tolerance) == (True, "tensorflow 0", 0.0, 1e-4)

    def test_other_outputs_are_refused(self, runtime):
        runtime(({"y:0": np.ones(2, "f4")}, {"y:0": np.ones(2, "f4")}, {"z:0": np.zeros(2, "f4")}))
        with pytest.raises(VerificationError, match="1 of 1 outputs differ"):
            self.prove()

    def test_a_result_that_does_not_run_is_refused(self, runtime):
        runtime(({"y:0": np.ones(2, "f4")}, {"y:0": np.ones(2, "f4")}, "no such op"))
        with pytest.raises(VerificationError, match="what was written does not: no such op"):
            self.prove()

    def test_a_result_that_kills_the_process_is_refused(self, runtime):
        runtime(RuntimeFailure("ended with signal 11"), ({"y:0": np.ones(2, "f4")},))
        with pytest.raises(VerificationError, match="what was written does not: ended with signal 11"):
            self.prove()

    def test_a_source_that_kills_the_process_is_not_compared(self, runtime):
        runtime(RuntimeFailure("ended with signal 11"), RuntimeFailure("ended with signal 11"))
        assert "does not run on generated inputs: ended with signal 11" in self.prove().why_not

    def test_a_source_that_does_not_run(self, runtime):
        runtime(("must feed",), ("must feed",))
        assert self.prove().why_not == "the source does not run on generated inputs: must feed"
        with pytest.raises(RuntimeFailure, match="must feed"):
            self.prove(required=True)

    def test_inputs_that_no_memory_holds_are_not_generated(self, runtime, monkeypatch):
        runtime()
        monkeypatch.setitem(SPECS, "x", InputSpec(DType.float32, Shape((1 << 40, 1 << 20))))
        run = lambda feeds: {}  # noqa: E731
        for prove in (self.prove, partial(prove_live_outputs, run, SOURCE, WRITTEN, SPECS, {})):
            assert "no memory for inputs of the declared shapes" in prove(required=False).why_not
            with pytest.raises(RuntimeFailure, match="no memory"):
                prove(required=True)

    def test_a_source_that_rolls_dice_is_not_compared(self, runtime):
        runtime(({"y:0": np.ones(2, "f4")}, {"y:0": np.zeros(2, "f4")}, {"z:0": np.ones(2, "f4")}))
        assert self.prove().why_not == "the source gives other outputs each time it runs"


def test_inputs_are_the_same_for_the_same_seed():
    specs = {
        "x": InputSpec(DType.float32, Shape((None, 3, None))), "n": InputSpec(DType.int64, Shape(None)),
        "s": InputSpec(DType.string, Shape(())), "b": InputSpec(DType.bool, Shape(())),
    }  # fmt: skip
    one, other = seeded_inputs(specs, size=8), seeded_inputs(specs, size=8)
    assert {name: values.shape for name, values in one.items()} == {"x": (1, 3, 8), "n": (1,), "s": (), "b": ()}
    assert all(np.array_equal(one[name], other[name]) for name in specs)
    assert not np.array_equal(one["x"], seeded_inputs(specs, size=8, seed=1)["x"])


def test_ops_that_reach_outside_are_found_in_functions_too():
    graph = Graph(nodes=[Node("a", "WriteFile"), Node("b", "MatMul"), Node("c", "PyFunc"), Node("d", "PyFunc")])
    assert reaching_ops(graph) == ["PyFunc", "WriteFile"]


@pytest.mark.tf
class TestConversion:
    def test_outputs_are_proved_where_a_runtime_is(self, tmp_path):
        result = convert(demo.META_GRAPH, tmp_path / "a.pb", to="frozen-graph", outputs=["probabilities"])
        assert result.verified.outputs.done
        assert result.verified.outputs.max_rel < 1e-5

    def test_weights_alone_have_no_outputs(self, tmp_path):
        with pytest.raises(UsageError, match="weights alone cannot be run"):
            convert(demo.META_GRAPH, tmp_path / "a.npz", to="npz", verify="outputs")
        assert not list(tmp_path.iterdir())
