"""What a proof says of a conversion: of its tensors, and of its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class WeightProof:
    """The comparison of every written tensor with its source.

    Attributes:
        compared: How many tensors.
        bytes: How many bytes.
        different: How many tensors differ; a conversion with any is an error and is not kept.
    """

    compared: int = 0
    bytes: int = 0
    different: int = 0


@dataclass(frozen=True)
class OutputProof:
    """The comparison of the outputs of what was written with those of its source.

    Attributes:
        done: Whether both were run.
        why_not: Why they were not, or None.
        runtime: What ran them, or None.
        max_abs: The largest absolute difference, or None.
        max_rel: The largest difference relative to the largest value of its output, or None.
        tolerance: The largest relative difference that counts as the same, or None.
    """

    done: bool = False
    why_not: str | None = None
    runtime: str | None = None
    max_abs: float | None = None
    max_rel: float | None = None
    tolerance: float | None = None


def joined(proofs: Sequence[OutputProof]) -> OutputProof:
    """Return what several proofs, all of them done, say together."""

    def largest(values: Iterable[float | None]) -> float:
        return max((value for value in values if value is not None), default=0.0)

    return replace(
        proofs[0],
        max_abs=largest(proof.max_abs for proof in proofs),
        max_rel=largest(proof.max_rel for proof in proofs),
        tolerance=largest(proof.tolerance for proof in proofs),
    )
