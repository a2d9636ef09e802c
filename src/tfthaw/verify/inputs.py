"""Inputs for a model that nobody gave any for: seeded, so that two runs get the same.

Unknown sizes are a guess: the first dimension is a batch of one, the others take a size that is tried until the model
runs. What has no rank is tried as a scalar first, since rates and flags are mostly declared so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.tensors import Array

SIZES = (1, 8, 32, 224)
"""What unknown sizes behind the batch are taken for, in this order: small ones run fast, images want large ones."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an input takes.

    Attributes:
        dtype: Its element type.
        shape: Its shape as far as it is known.
        text: What a string shall be.
    """

    dtype: DType
    shape: Shape
    text: bytes = b"tfthaw"


def input_attempts(specs: Mapping[str, InputSpec]) -> Iterator[dict[str, Array]]:
    """Yield inputs to try, one set after the other, until a model runs.

    Args:
        specs: input -> what it takes.
    """
    known = all(spec.shape.is_static for spec in specs.values())
    open_ranks = any(spec.shape.dims is None for spec in specs.values())
    others = [spec.shape for spec in specs.values() if spec.shape.dims is not None]
    sizes = SIZES[:1] if known or all(shape.is_static for shape in others) else SIZES
    for unranked in ((), (1,)) if open_ranks else ((),):
        for size in sizes:
            yield seeded_inputs(specs, size=size, unranked=unranked)


def seeded_inputs(
    specs: Mapping[str, InputSpec], *, size: int, seed: int = 0, unranked: tuple[int, ...] = (1,)
) -> dict[str, Array]:
    """Return an array for every input.

    Floats lie in [0, 1), integers are 0 or 1 so that they may be indices, strings are what the spec says.

    Args:
        specs: input -> what it takes.
        size: What to take for unknown sizes behind the first dimension.
        seed: Another seed gives other values.
        unranked: The shape of inputs without rank.
    """
    random = np.random.default_rng(seed)
    return {name: _array(spec, size, unranked, random) for name, spec in specs.items()}


def _array(spec: InputSpec, size: int, unranked: tuple[int, ...], random: np.random.Generator) -> Array:
    dims = spec.shape.dims if spec.shape.dims is not None else unranked
    shape = tuple((1 if position == 0 else size) if dim is None else dim for position, dim in enumerate(dims))
    if spec.dtype is DType.string:
        return np.full(shape, spec.text, object)
    if spec.dtype is DType.bool:
        return np.zeros(shape, bool)  # the flags of a model ask whether it is being trained
    if spec.dtype.is_float or spec.dtype.name.startswith("complex"):
        return random.random(shape).astype(spec.dtype.numpy)
    return random.integers(0, 2, shape).astype(spec.dtype.numpy)
