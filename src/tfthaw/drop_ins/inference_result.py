"""What an export for inference gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tfthaw.conversion.result import Verified


@dataclass(frozen=True)
class InferenceExport:
    """What an export for inference wrote.

    Attributes:
        layout: `export_inference_graph` (TensorFlow 1) or `exporter_main_v2` (TensorFlow 2).
        path: The directory.
        files: What is in it.
        bytes: The size of all its files.
        variables: How many variables the model has.
        seconds: How long it took.
        inputs: signature argument -> its tensor, in the frozen graph or the SavedModel.
        outputs: The same for results.
        moving_averages: Whether variables have their moving averages as values.
        verified: What was proved.
        notes: What was guessed, cut or defaulted, one sentence each.
    """

    layout: str
    path: str
    files: tuple[str, ...]
    bytes: int
    variables: int
    seconds: float
    inputs: dict[str, str]
    outputs: dict[str, str]
    moving_averages: bool
    verified: Verified
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the result as `export-inference-graph --json` prints it."""
        return {**asdict(self), "files": list(self.files), "notes": list(self.notes)}
