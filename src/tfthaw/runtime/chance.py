"""Constants of a traced graph that no two runs of the code agree on.

A checkpoint holds variables. What code computes while it builds the model and keeps as a constant is in no checkpoint:
the trained model had the constant of its own process. Where running the code once more, with other initial values of
its variables, gives another one, the one that is at hand cannot be it. Random projections, masks and factors that were
never made variables are such constants. So are words in the order of a set, and what was computed of initial values.

Running code once more takes time, so it is done where a constant could be chance: where it is none that somebody would
write, or where numpy's random numbers were drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfthaw.errors import UnsupportedError
from tfthaw.runtime.reached import reached_functions, reached_nodes
from tfthaw.tensors import Array

_MANY_WHOLE = 9  # fewer whole numbers are mostly shapes and axes
_MOST_WRITTEN = 16  # longer lists of fractions are computed
_SMALL_BYTES = 2  # every number of such a type has few digits
_DIGITS = 5  # what somebody writes; of random numbers of 24 bits one in a hundred has as few
_MOST_ROOTS = 65536
_NUMBER = re.compile(r"(_\d+)+$")
_TAKES_SHAPES = frozenset((
    "Transpose", "Reshape", "Fill", "BroadcastTo", "BroadcastArgs", "Tile", "StridedSlice", "Slice", "Pad", "PadV2",
    "MirrorPad", "Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "Conv2DBackpropInput", "Conv3DBackpropInputV2",
    "ResizeBilinear", "ResizeNearestNeighbor", "TensorListReserve", "TensorListFromTensor", "TensorListStack",
    "TensorListGetItem", "RandomUniform", "RandomStandardNormal", "ConcatV2",
))  # fmt: skip


@dataclass(slots=True)
class Drawn:
    """Whether random numbers were drawn.

    Attributes:
        any: Whether numpy's were; those of Python are drawn by Keras itself, for seeds that no output needs.
    """

    any: bool = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """See whether random numbers are drawn in this scope."""
        before = _numpy_state()
        make = np.random.default_rng

        def noticed(*arguments: Any, **named: Any) -> Any:
            self.any = True
            return make(*arguments, **named)

        np.random.default_rng = noticed
        try:
            yield
        finally:
            np.random.default_rng = make
            self.any = self.any or _numpy_state() != before


def _numpy_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return (kind, np.asarray(keys).tobytes(), *rest)


def may_be_chance(tf: Any, message: Any, outputs: Iterable[str]) -> bool:
    """Whether a constant that outputs need is one that nobody would write.

    Args:
        tf: TensorFlow.
        message: The GraphDef.
        outputs: The tensors that are computed.
    """
    return any(
        _is_unwritten(_value(tf, node), users)
        for _, nodes in _places(message, outputs)
        for node, users in _constants(nodes)
    )


def digests(tf: Any, message: Any, outputs: Iterable[str], paths: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the constants that outputs need: where each is -> its type, shape and digest.

    Functions have numbers at the end of their names that no two traces agree on, so that constants of the same name in
    functions of the same name are one entry.

    Args:
        tf: TensorFlow.
        message: The GraphDef.
        outputs: The tensors that are computed.
        paths: Tensors that hold the paths of files, which may be others each time.
    """
    left_out = {name.partition(":")[0] for name in paths}
    found: dict[str, list[str]] = defaultdict(list)
    for place, nodes in _places(message, outputs):
        for node, _ in _constants(nodes):
            if node.name not in left_out:
                found[place + node.name].append(_digest(_value(tf, node)))
    return {name: sorted(values) for name, values in found.items()}


def refuse_changed(first: Mapping[str, Sequence[str]], second: Mapping[str, Sequence[str]], code: str) -> None:
    """Refuse constants that came out differently the second time.

    Args:
        first: What `digests` gave.
        second: What it gave when the code ran once more.
        code: What the code is called in messages.

    Raises:
        UnsupportedError: With each of them.
    """
    changed = changed_constants(first, second)
    if changed:
        raise UnsupportedError(
            "the code computes constants, of chance or of the initial values of variables, that come out differently "
            "each time it runs; the trained model had others, and no checkpoint holds them",
            problems=changed, path=code,
            hint="compute them of the variables in the exported function, seed what is random as the training did, or "
            "make them variables (trainable=False) and train anew",
        )  # fmt: skip


def changed_constants(first: Mapping[str, Sequence[str]], second: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the constants that came out differently the second time, by where they are.

    Where the code calls them otherwise each time, it must have the same ones under any name.
    """
    found = [name for name, values in first.items() if name in second and list(second[name]) != list(values)]
    renamed = Counter(value for name, values in second.items() if name not in first for value in values)
    for name, values in first.items():
        if name not in second:
            if Counter(values) - renamed:
                found.append(name)
            renamed -= Counter(values)
    return found


def _places(message: Any, outputs: Iterable[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the nodes that outputs need, then those of each function that is called, with what to put before names."""
    nodes = reached_nodes(message, outputs)
    yield "", nodes
    for function in reached_functions(message, nodes):
        yield _NUMBER.sub("", function.signature.name) + "/", list(function.node_def)


def _constants(nodes: Sequence[Any]) -> Iterator[tuple[Any, set[str]]]:
    """Yield each constant with the ops that take it."""
    users: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        for text in node.input:
            users[text.partition(":")[0]].add(node.op)
    for node in nodes:
        if node.op == "Const":
            yield node, users[node.name]


def _value(tf: Any, node: Any) -> Array:
    value: Array = tf.make_ndarray(node.attr["value"].tensor)
    return value


def _digest(value: Array) -> str:
    data = b"\0".join(map(bytes, value.reshape(-1))) if value.dtype == object else value.tobytes()
    return f"{value.dtype}{list(value.shape)} {hashlib.sha256(data).hexdigest()}"


def _is_unwritten(value: Array, users: set[str]) -> bool:
    """Whether a constant is one that nobody would write: many different numbers, or one of many digits."""
    if not value.size:
        return False
    flat = value.reshape(-1)
    is_uniform = bool(np.all(flat == flat[0]))
    if value.dtype in (object, bool):
        return not is_uniform
    if np.issubdtype(value.dtype, np.integer):
        is_sorted = bool(np.all(flat[1:] >= flat[:-1]) or np.all(flat[1:] <= flat[:-1]))
        return not is_uniform and (flat.size >= _MANY_WHOLE or (not is_sorted and not users <= _TAKES_SHAPES))
    if np.issubdtype(value.dtype, np.floating) and value.dtype.itemsize > _SMALL_BYTES and (
        is_uniform or flat.size <= _MOST_WRITTEN
    ):
        return not all(map(_is_written, flat[:1] if is_uniform else flat))
    return not is_uniform  # complex numbers and small types count as one; so do long lists


def _is_written(number: Any) -> bool:
    """Whether a number is one of few digits, a fraction of one, a root, or the reciprocal of a root."""
    kind, value = type(number), float(number)
    if not math.isfinite(value) or not value:
        return True
    size = abs(value)
    candidates = [float(f"{size:.{_DIGITS}g}")]
    for power in (1.0 / size, size * size, 1.0 / (size * size)):
        if 0.5 < power < _MOST_ROOTS:
            whole = float(round(power))
            candidates += [1.0 / whole, math.sqrt(whole), 1.0 / math.sqrt(whole)]
    return any(kind(candidate) == kind(size) for candidate in candidates)
