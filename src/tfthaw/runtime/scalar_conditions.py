"""Conditions that are one true or false.

TensorFlow builds a cond on a tensor of several elements without a word, and takes its first branch whenever the tensor
is not empty: of `a > 0 and b > 0`, `x if m else y` or `0 < t < 1`, which Python code turns into conds, nothing is
decided by element. While code is traced, such a condition is refused at the line that has it.

Source: `cond_v2` of TensorFlow's cond_v2.py, and the documentation of the op `If` (what it makes of tensors that are
no scalars).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

_WORDS = "condition of cond expected to be `tf.bool` scalar"  # those of AutoGraph, where it notices
_LOCK = threading.RLock()


@contextlib.contextmanager
def scalar_conditions() -> Iterator[None]:
    """Refuse conds on tensors that have more than one element, while the block runs."""
    try:
        from tensorflow.python.ops import cond_v2 as module
    except ImportError:  # a TensorFlow that has it elsewhere
        yield
        return
    with _LOCK:
        own = module.cond_v2

        @functools.wraps(own)
        def checked(pred: Any, *arguments: Any, **keywords: Any) -> Any:
            dims = _dims(pred)
            if any(dim != 1 for dim in dims):
                raise ValueError(f"{_WORDS}, got a tensor with shape={_shown(dims)}")
            return own(pred, *arguments, **keywords)

        module.cond_v2 = checked
        try:
            yield
        finally:
            module.cond_v2 = own


def _dims(value: Any) -> tuple[int | None, ...]:
    """Return the sizes of a tensor as far as they are known; none where its rank is not."""
    shape = getattr(value, "shape", None)
    rank = getattr(shape, "rank", None)
    return tuple(shape) if shape is not None and rank is not None else ()


def _shown(dims: tuple[int | None, ...]) -> str:
    return f"({', '.join(map(str, dims))}{',' if len(dims) == 1 else ''})"
