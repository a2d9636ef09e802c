"""`tfthaw demo`: everything that it shows is true, and it says so when it is not."""

import json
import sys
import time

import numpy as np
import pytest

from tfthaw import demo
from tfthaw.cli import demo as command
from tfthaw.cli.main import main
from tfthaw.errors import FormatError
from tfthaw.serde.artifacts import open_artifact


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def run(capsys, *arguments):
    status = main(["demo", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def test_without_tensorflow_all_but_the_outputs_is_shown(without_tensorflow, capsys):
    began = time.perf_counter()
    assert main(["demo"]) == 0
    assert time.perf_counter() - began < 2
    screen = capsys.readouterr().out
    words = " ".join(screen.split())
    for said in (
        "706 nodes", "37 variables, 22 of", "digits_saved_model", "The same: 37 tensors",
        "Refused, and nothing was written:", "tensor 'dense1/kernel'", "checksum mismatch",
        'Not done: TensorFlow is not installed; pip install "tfthaw[tf]"', "Everything is as promised.",
    ):  # fmt: skip
        assert said in words
    assert max(len(line) for line in screen.splitlines()) <= 110


def test_the_document_has_the_same_facts(without_tensorflow, capsys):
    status, document = run(capsys)
    assert status == 0
    assert document["as_promised"] is True
    assert [item["format"] for item in document["converted"]] == ["frozen-graph", "saved-model", "safetensors"]
    assert [item["verified"]["weights"]["compared"] for item in document["converted"]] == [14, 14, 37]
    assert document["compared"]["same"] is True
    assert document["damaged"]["tensor"] == "dense1/kernel"
    assert document["damaged"]["error"].startswith("model.ckpt-1000.data-00000-of-00001: tensor 'dense1/kernel'")
    assert document["outputs"]["done"] is False


def test_what_is_written_can_be_kept(without_tensorflow, capsys, tmp_path):
    folder = tmp_path / "out"
    assert run(capsys, "--output", str(folder))[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["digits.pb", "digits.safetensors", "digits_saved_model"]
    with open_artifact(folder / "digits.safetensors") as artifact:
        assert len(artifact.variables) == 37
    assert main(["demo", "--output", str(folder)]) == 2
    assert "digits.pb" in capsys.readouterr().err
    assert run(capsys, "--output", str(folder), "--overwrite")[0] == 0


@pytest.mark.tf
def test_with_tensorflow_accuracy_is_the_same_before_and_after(tf, capsys):
    status, document = run(capsys)
    assert status == 0
    outputs = document["outputs"]
    assert outputs["runtime"] == f"tensorflow {tf.__version__}"
    assert [model["format"] for model in outputs["models"]] == ["checkpoint", "frozen-graph", "saved-model"]
    facts = json.loads(demo.FACTS.read_text())
    assert {model["correct"] for model in outputs["models"]} == {facts["correct"]}
    assert max(model["max_abs"] for model in outputs["models"]) <= outputs["tolerance"]


@pytest.mark.tf
def test_the_accuracy_is_on_the_screen(tf, capsys):
    assert main(["demo"]) == 0
    screen = capsys.readouterr().out
    assert screen.count("446 of 450    99.11%") == 4
    assert "after: saved-model" in screen


def test_damage_that_goes_unnoticed_is_no_success(without_tensorflow, monkeypatch, capsys):
    monkeypatch.setattr(command, "_refusal", lambda *_: None)
    assert main(["demo"]) == 1
    screen = capsys.readouterr().out
    assert "It was converted: the damage to dense1/kernel went unnoticed." in screen
    assert "Not everything is as promised." in screen


def test_an_error_on_the_way_is_no_success(without_tensorflow, monkeypatch, capsys):
    def fail(*_, **__):
        raise FormatError("this file is odd")

    monkeypatch.setattr(command, "convert", fail)
    assert main(["demo"]) == 1
    assert "the demo is not as promised: this file is odd" in capsys.readouterr().err


def test_outputs_that_moved_are_no_success(monkeypatch, capsys):
    right = np.eye(10)[np.load(demo.HELD_OUT)["labels"]]
    answers = iter([right, right + 1e-3, right[::-1]])
    monkeypatch.setattr(command.tensorflow_runner, "is_installed", lambda: True)
    monkeypatch.setattr(command.tensorflow_runner, "runtime_name", lambda: "tensorflow 0")
    monkeypatch.setattr(command.tensorflow_runner, "run_graph", lambda *_: {"probabilities:0": next(answers)})
    status, document = run(capsys)
    assert status == 1
    assert "frozen-graph: the outputs are those of the checkpoint" in document["broken"]
    assert "saved-model: as accurate as right after training" in document["broken"]
