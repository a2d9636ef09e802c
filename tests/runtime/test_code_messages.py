"""What passes between tfthaw and the process that runs the user's code."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tfthaw import demo
from tfthaw._files import SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import (
    ChecksumError,
    MissingDependencyError,
    RestoreError,
    RuntimeFailure,
    TfthawError,
    UnsupportedError,
    UsageError,
)
from tfthaw.ir.attrs import Shape
from tfthaw.ir.input_specs import parse_inputs
from tfthaw.ir.live_objects import LiveObject, LiveObjects, LiveVariable
from tfthaw.runtime.code_messages import (
    error_from_json,
    error_json,
    place_json,
    request_from_json,
    request_json,
    tensor_at,
    traced_from_json,
    traced_json,
)
from tfthaw.runtime.endpoints import Request
from tfthaw.runtime.live_model import Traced
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import ArrayTensor, FileTensor, JoinedTensor, TensorPart


def through_json(document):
    return json.loads(json.dumps(document))


@pytest.mark.parametrize(
    "error",
    [
        UsageError("wrong", path="train.py:build", where="line 3", hint="mend it"),
        RestoreError("no", missing=["a", "b"], unused=["c"], mismatched=["d"]),
        UnsupportedError("ops", problems=["MyOp: 3 nodes"]),
        RuntimeFailure("it raised"),
        MissingDependencyError("tf_slim", hint="pip install tf_slim"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_as_they_are(error):
    back = error_from_json(through_json(error_json(error, "Traceback of the child")))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert "Traceback of the child" in str(back.__cause__)


def test_an_error_of_an_unknown_class_is_a_failure_of_the_runtime():
    document = error_json(TfthawError("odd")) | {"class": "SystemExit"}
    assert type(error_from_json(document)) is RuntimeFailure


def test_requests_come_back_with_the_functions_that_they_name():
    inputs = parse_inputs(["x:float32[?,784]", "n:int32[]", "any:string"])
    request = Request(inputs, {"serve": "m:f"}, ["a:0"], ["b"], "m:g")
    back = request_from_json(through_json(request_json(request)), {"m:f": print})
    assert back.inputs == list(inputs)
    assert (back.signatures, back.graph_inputs) == ({"serve": "m:f"}, ["a:0"])
    assert (back.graph_outputs, back.code) == (["b"], "m:g")
    assert back.functions == {"m:f": print}


def test_what_was_traced_comes_back():
    variable = LiveVariable("w", ("w", "dense/w"), DType.float32, Shape((2, None)))
    objects = LiveObjects([LiveObject({"w": 1}), LiveObject(variable=variable, class_name="Variable")], keras=3)
    traced = Traced(Path("/tmp/a.meta"), objects, {"asset:0": "vocab.txt"}, ["a note"], "tensorflow 2.21.0")
    assert traced_from_json(through_json(traced_json(traced))) == traced


class TestPlaces:
    @staticmethod
    def passed(tmp_path, tensor):
        """Return a tensor as the other side sees it, and how many arrays were sent along."""
        arrays = {}
        place = through_json(place_json("value.0", tensor, arrays))
        np.savez(tmp_path / "sent.npz", **arrays)
        with np.load(tmp_path / "sent.npz") as sent:
            return tensor_at(place, sent, {}), len(arrays)

    def test_values_of_a_checkpoint_are_ranges_of_its_files(self, tmp_path):
        with open_artifact(Path(demo.META_GRAPH).with_suffix(".index")) as artifact:
            assert artifact.tensors
            for tensor in artifact.tensors.values():
                back, sent = self.passed(tmp_path, tensor)
                assert sent == 0
                assert isinstance(back, FileTensor)
                assert back.crc32c == tensor.crc32c is not None
                np.testing.assert_array_equal(back.numpy(), tensor.numpy())

    def test_a_damaged_value_is_noticed_on_the_other_side(self, tmp_path):
        path = tmp_path / "data"
        path.write_bytes(bytes(8))
        with SourceFile(path) as file:
            tensor = FileTensor(DType.float32, (2,), file.slice(), crc32c=1)
            back, _ = self.passed(tmp_path, tensor)
            with pytest.raises(ChecksumError):
                back.numpy()

    def test_the_file_may_be_relative(self, tmp_path, monkeypatch):
        (tmp_path / "data").write_bytes(np.arange(3, dtype="<i4").tobytes())
        monkeypatch.chdir(tmp_path)
        with SourceFile("data") as file:
            place = place_json("v", FileTensor(DType.int32, (3,), file.slice()), {})
        monkeypatch.chdir("/")
        assert tensor_at(place, {}, {}).numpy().tolist() == [0, 1, 2]

    def test_parts_are_ranges_too(self, tmp_path):
        path = tmp_path / "data"
        path.write_bytes(np.arange(6, dtype="<f4").tobytes())
        with SourceFile(path) as file:
            rows = [FileTensor(DType.float32, (1, 3), file.slice(row * 12, 12)) for row in range(2)]
            parts = [TensorPart((number, 0), row) for number, row in enumerate(rows)]
            back, sent = self.passed(tmp_path, JoinedTensor(DType.float32, (2, 3), parts))
        assert sent == 0
        assert back.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize(
        "values",
        [np.arange(4.0), np.array(b"a", object), np.array([["a", "b"]], object), np.array([1.5], ml_dtypes.bfloat16)],
        ids=["float", "text", "texts", "bfloat16"],
    )
    def test_the_rest_are_arrays(self, tmp_path, values):
        tensor = ArrayTensor(values)
        back, sent = self.passed(tmp_path, tensor)
        assert sent
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert back.numpy().tolist() == tensor.numpy().tolist()
