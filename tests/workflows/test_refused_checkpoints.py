"""Checkpoints that must not be exported: one bit flipped, those of another model, those that are not clear."""

from pathlib import Path

import pytest

from workflows.conversions import Conversion
from workflows.table import KERAS, WORKFLOWS

pytestmark = pytest.mark.tf

PYTHON = [
    Conversion(keras, "live", position, workflow.kinds[0], fault)
    for keras in KERAS for position, workflow in enumerate(WORKFLOWS) for fault in ("damaged", "stranger")
    if keras == "tf_keras" or not workflow.is_graph  # which `tf.layers` makes anyway
]  # fmt: skip
COMMAND_LINE = [
    Conversion("keras3", "cli", 0, "fitted", "damaged"), Conversion("keras3", "cli", 5, "model", "stranger"),
    Conversion("tf_keras", "cli", 6, "version1", "damaged"), Conversion("tf_keras", "cli", 1, "model", "stranger"),
]  # fmt: skip


@pytest.mark.parametrize("conversion", [*PYTHON, *COMMAND_LINE], ids=str)
def test_nothing_is_written(conversion, lab):
    answer = lab.answer(conversion)
    assert answer.status, answer.document
    assert {path.name for path in answer.folder.iterdir()} <= {"damaged", "answer.json"}
    if conversion.fault == "damaged":
        assert "checksum" in answer.message
    elif conversion.way != "cli":
        assert answer.document["error"] == "RestoreError"
    if conversion.way == "cli":
        assert answer.status == (2 if conversion.fault == "damaged" else 1)
        assert answer.message.startswith("tfthaw: ")
        assert "Traceback" not in answer.message


UNCLEAR = [Conversion("keras3", "live", position, kind)
           for position, workflow in enumerate(WORKFLOWS) for kind in workflow.unclear]  # fmt: skip


@pytest.mark.parametrize("conversion", UNCLEAR, ids=str)
def test_what_is_not_clear_is_not_guessed(conversion, lab):
    """Keras 3 calls the kernels of both layers of a subclassed model `classifier/kernel`."""
    answer = lab.answer(conversion)
    assert answer.document["error"] == "RestoreError"
    assert "'classifier/kernel' could fill" in answer.message
    assert not Path(conversion.table.destination(answer.folder)).exists()
