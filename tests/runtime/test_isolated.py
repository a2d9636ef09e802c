"""Running artifacts in a process of their own."""

import sys

import ml_dtypes
import numpy as np
import pytest

from tfthaw import demo
from tfthaw.errors import RuntimeFailure
from tfthaw.runtime import isolated
from tfthaw.runtime.isolated import Run, run_isolated


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype="f4").reshape(2, 3), np.array(7), np.zeros((0, 3), "i8"), np.array([True]),
        np.array([1.5, -0.0, np.nan], ml_dtypes.bfloat16), np.array([[b"a\0", b""], [b"\xff", b"long"]], object),
        np.empty((0,), object), np.array([1 + 2j]),
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)  # fmt: skip
def test_arrays_pass_without_pickles(tmp_path, values):
    np.savez(tmp_path / "a.npz", **isolated.packed("x", values))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        found = isolated.unpacked(arrays, "x")
    assert found.dtype == values.dtype
    assert found.shape == values.shape
    assert found.tobytes() == values.tobytes() if values.dtype != object else found.tolist() == values.tolist()


@pytest.mark.tf
class TestRuns:
    def test_the_first_attempt_that_runs_counts(self):
        images = np.zeros((2, 8, 8, 1), "f4")
        wrong = Run(demo.META_GRAPH, {"images:0": images}, ["no_such_node:0"])
        right = Run(demo.META_GRAPH, {"images:0": images}, ["probabilities:0"])

        answer = run_isolated([[wrong, right], [right, wrong]])

        assert answer.runtime.startswith("tensorflow 2.")
        probabilities, complaint = answer.outputs
        assert probabilities["probabilities:0"].shape == (2, 10)
        assert "no_such_node" in complaint

    def test_what_never_runs_says_why(self):
        wrong = Run(demo.META_GRAPH, {}, ["probabilities:0"])
        assert "must feed a value" in run_isolated([[wrong, wrong]]).outputs[0]


def test_a_process_that_takes_too_long_is_ended():
    with pytest.raises(RuntimeFailure, match="still running after 0 s"):
        run_isolated([[Run(demo.META_GRAPH, {}, [])]], seconds=0.01)


def test_a_process_that_dies_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeFailure, match="ended with status 1"):
        run_isolated([[Run(demo.META_GRAPH, {}, [])]])
