"""What a conversion gives back: what was written, and what was proved of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tfthaw.verify.proofs import OutputProof, WeightProof


@dataclass(frozen=True)
class Verified:
    """What was proved.

    Attributes:
        weights: Of the tensors.
        outputs: Of the outputs.
    """

    weights: WeightProof = field(default_factory=WeightProof)
    outputs: OutputProof = field(default_factory=OutputProof)


@dataclass(frozen=True)
class ConversionResult:
    """What a conversion wrote.

    Attributes:
        format: The format's name.
        path: Where it is.
        bytes: The size of all its files.
        variables: How many variables (or, in weights formats, tensors; in a frozen graph, constants that were
            variables).
        seconds: How long it took.
        inputs: What the user calls an input (signature argument or tensor name) -> its tensor in what was written.
        outputs: The same for outputs.
        verified: What was proved.
        notes: What was guessed, skipped or defaulted, one sentence each.
    """

    format: str
    path: str
    bytes: int
    variables: int
    seconds: float
    verified: Verified
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the result as `convert --json` prints it."""
        return {**asdict(self), "notes": list(self.notes)}
