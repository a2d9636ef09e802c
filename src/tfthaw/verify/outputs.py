"""Compare the outputs of what was written with those of its source, on the same inputs.

A runtime folds constants and picks kernels as it likes, so floats may differ in their last digits between a graph with
variables and one without; whatever is no float must be equal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfthaw.errors import MissingDependencyError, RuntimeFailure, UsageError, VerificationError
from tfthaw.runtime.isolated import Answer, Run, run_isolated
from tfthaw.runtime.tensorflow_runner import is_installed
from tfthaw.tensors import Array
from tfthaw.verify.inputs import InputSpec, input_attempts
from tfthaw.verify.proofs import OutputProof

TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""element type -> the largest difference, relative to the largest output, that counts as the same."""

_NEVER_RUNS = re.compile(r"Cast (string) to (\w+) is not supported")


@dataclass(frozen=True)
class Endpoints:
    """What to feed and fetch on one side of a comparison.

    Attributes:
        path: The artifact.
        inputs: input -> its tensor there.
        outputs: output -> its tensor there.
        tags: The tag set to load, where there are several.
    """

    path: str | os.PathLike[str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    tags: Sequence[str] | None = None


def prove_outputs(
    source: Endpoints, written: Endpoints, specs: Mapping[str, InputSpec], fixed: Mapping[str, Array], *, required: bool
) -> OutputProof:
    """Run source and result on the same seeded inputs, in a process of their own, and compare.

    Args:
        source: The source's side.
        written: The result's side.
        specs: input -> what it takes.
        fixed: Tensors of the source that the result has as constants, with their values.
        required: Whether it is an error when the outputs cannot be compared.

    Raises:
        VerificationError: The outputs differ, or the result does not run and the source does.
        RuntimeFailure: The source does not run, and that was required.
        MissingDependencyError: There is no runtime, and one was required.
    """
    if not is_installed() and not required:
        return OutputProof(why_not='no runtime is installed; pip install "tfthaw[tf]" brings one')
    attempts = []
    try:
        for feeds in _attempts(specs):
            original = Run(source.path, {**fixed, **_placed(feeds, source)}, list(source.outputs.values()), source.tags)
            copy = Run(written.path, _placed(feeds, written), list(written.outputs.values()), written.tags)
            attempts.append([original, original, copy])
        answer = _run(attempts)
        first = answer.outputs[0]
        if isinstance(first, str):
            raise RuntimeFailure(first, path=source.path)
    except (RuntimeFailure, MissingDependencyError) as error:
        if required:
            raise
        return OutputProof(why_not=f"the source does not run on generated inputs: {error.message}")
    return _judged(answer, source, written)


def prove_live_outputs(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]], source: Endpoints, written: Endpoints,
    specs: Mapping[str, InputSpec], fixed: Mapping[str, Array], *, required: bool,
    run_written: Callable[[Sequence[Sequence[Run]]], Answer] = run_isolated,
) -> OutputProof:  # fmt: skip
    """Run a live model and what was written of it on the same seeded inputs, and compare.

    Args:
        run: Runs the live model: tensor -> what to feed, gives tensor -> values for all outputs.
        source: The live model's side.
        written: The result's side.
        specs: input -> what it takes.
        fixed: Tensors of the source that the result has as constants, with their values.
        required: Whether it is an error when the outputs cannot be compared.
        run_written: Runs what was written, apart from this process.

    Raises:
        UsageError: The live model can never run on inputs of that type.
        VerificationError: The outputs differ, or the result does not run and the live model does.
        RuntimeFailure: The live model does not run, and that was required.
    """
    failed = ""
    try:
        attempts = _attempts(specs)
    except RuntimeFailure as error:
        if required:
            raise
        return OutputProof(why_not=error.message)
    for feeds in attempts:
        placed = {**fixed, **_placed(feeds, source)}
        try:
            expected, again = run(placed), run(placed)
        except RuntimeFailure as error:
            failed = failed or error.message
            continue
        copy = Run(written.path, _placed(feeds, written), list(written.outputs.values()), written.tags)
        try:
            answer = run_written([[copy]])
        except RuntimeFailure as error:
            raise VerificationError(f"the live model runs, what was written does not: {error.message}") from error
        outputs: list[dict[str, Array] | str] = [dict(expected), dict(again), *answer.outputs]
        return _judged(Answer(answer.runtime, outputs), source, written)
    if cast := _NEVER_RUNS.search(failed):
        raise UsageError(
            f"it never runs: what comes in is {cast[1]}, and is cast to {cast[2]}", path=source.path,
            hint="say with --input what it takes; tf.strings.to_number reads numbers out of strings",
        )  # fmt: skip
    if required:
        raise RuntimeFailure(failed, path=source.path)
    return OutputProof(why_not=f"on generated inputs, {failed}")


def _attempts(specs: Mapping[str, InputSpec]) -> list[dict[str, Array]]:
    """Return the inputs to try, one after the other.

    Raises:
        RuntimeFailure: They do not fit into memory.
    """
    try:
        return list(input_attempts(specs))
    except (MemoryError, ValueError) as error:  # numpy says the latter of sizes that no machine has
        raise RuntimeFailure("there is no memory for inputs of the declared shapes") from error


def _run(attempts: Sequence[Sequence[Run]]) -> Answer:
    """Run the attempts; when the process dies, find out whose fault it was."""
    try:
        return run_isolated(attempts)
    except RuntimeFailure as error:
        alone = run_isolated([attempt[:1] for attempt in attempts])
        if isinstance(alone.outputs[0], str):
            return alone
        raise VerificationError(f"the source runs, what was written does not: {error.message}") from error


def _judged(answer: Answer, source: Endpoints, written: Endpoints) -> OutputProof:
    """Compare what came out of the source, of the source once more, and of what was written."""
    expected, again, actual = answer.outputs
    if isinstance(expected, str) or isinstance(again, str) or compare(expected, again, source.outputs)[2]:
        return OutputProof(why_not="the source gives other outputs each time it runs")
    if isinstance(actual, str):
        raise VerificationError(f"the source runs, what was written does not: {actual}", path=source.path)
    named = {source.outputs[name]: actual[tensor] for name, tensor in written.outputs.items()}
    max_abs, max_rel, problems = compare(expected, named, source.outputs)
    if problems:
        raise VerificationError(
            f"{len(problems)} of {len(source.outputs)} outputs differ from the source's", report=problems,
            path=source.path, hint="nothing was written; please report this",
        )  # fmt: skip
    tolerance = max((_tolerance(each) for each in expected.values()), default=0.0)
    return OutputProof(True, None, answer.runtime, max_abs, max_rel, tolerance)


def _placed(feeds: Mapping[str, Array], side: Endpoints) -> dict[str, Array]:
    return {side.inputs[name]: values for name, values in feeds.items()}


def compare(
    expected: Mapping[str, Array], actual: Mapping[str, Array], names: Mapping[str, str]
) -> tuple[float, float, list[str]]:
    """Compare outputs by their tensors.

    Returns:
        The largest absolute and relative difference of floats, and a sentence for each output that is not the same.
    """
    largest_abs = largest_rel = 0.0
    problems = []
    for name, tensor in names.items():
        one, other = np.asarray(expected[tensor]), np.asarray(actual[tensor])
        if one.shape != other.shape or one.dtype != other.dtype:
            problems.append(f"{name}: {one.dtype}{list(one.shape)}, written {other.dtype}{list(other.shape)}")
            continue
        tolerance = _tolerance(one)
        if tolerance == 0.0:
            wrong = int(np.count_nonzero(one != other))
            if wrong:
                problems.append(f"{name}: {wrong} of {one.size} elements differ")
            continue
        absolute, relative = _distance(one, other)
        largest_abs, largest_rel = max(largest_abs, absolute), max(largest_rel, relative)
        if not relative <= tolerance:
            problems.append(f"{name}: differs by {relative:.3g} of its largest value, {tolerance:.3g} is allowed")
    return largest_abs, largest_rel, problems


def _distance(one: Array, other: Array) -> tuple[float, float]:
    """Return the largest difference, absolute and relative to the largest value; NaN and infinity equal themselves."""
    wide = np.complex128 if one.dtype.kind == "c" else np.float64
    a, b = one.astype(wide), other.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0, 0.0
    absolute = float(np.max(np.abs(a[~same] - b[~same])))
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if finite.size else 0.0
    return absolute, absolute / scale if scale else absolute


def _tolerance(values: Array) -> float:
    if values.dtype.kind == "c":
        return TOLERANCES["float32" if values.dtype.itemsize == 8 else "float64"]
    return TOLERANCES.get(values.dtype.name, 0.0)
