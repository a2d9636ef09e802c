"""Keras layers that were adapted to data, computing with their variables.

`Normalization` keeps its mean and variance as tensors that it computed of its variables when it was built, before any
checkpoint could fill those. Captured by a trace they would be constants of a fresh layer. While a model is traced such
layers compute them anew in the graph, of the variables, whenever they are called.

`Discretization` keeps its bins as Python numbers; one that does not have any is refused.

Source: `Normalization.finalize_state` and `Discretization` of Keras 2 and Keras 3.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

from tfthaw.errors import UnsupportedError
from tfthaw.runtime.keras_models import is_keras_layer

_COMPUTED = ("mean", "variance")


@contextlib.contextmanager
def computing_with_variables() -> Iterator[None]:
    """Let every adapted layer that is alive compute with its variables; functions hide what they call."""
    with contextlib.ExitStack() as undone:
        for layer in _adapted_layers():
            kept = {name: vars(layer)[name] for name in (*_COMPUTED, "call") if name in vars(layer)}
            undone.callback(_put_back, layer, kept)
            first = _refuse if _lacks_boundaries(layer) else type(layer).finalize_state
            object.__setattr__(layer, "call", _doing_first(first, layer, layer.call))
        yield


def _adapted_layers() -> list[Any]:
    """Return the layers that are alive and keep what they computed of variables."""
    kinds: dict[type, bool] = {}
    found = []
    for value in gc.get_objects():
        kind = type(value)
        if kind not in kinds:
            kinds[kind] = hasattr(kind, "finalize_state") and is_keras_layer(value)
        if kinds[kind] and (getattr(value, "adapt_mean", None) is not None or _lacks_boundaries(value)):
            found.append(value)
    return found


def _lacks_boundaries(layer: Any) -> bool:
    """Whether a layer that sorts into bins was not told them: what `adapt` finds is in no checkpoint."""
    return getattr(layer, "num_bins", None) is not None and not getattr(layer, "bin_boundaries", True)


def _refuse(layer: Any) -> None:
    raise UnsupportedError(
        f"{layer.name} has no bins; those that a {type(layer).__name__} layer was adapted to are in no checkpoint",
        hint="give them to the layer (bin_boundaries=...)",
    )


def _doing_first(first: Callable[[Any], None], layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    def computed(*arguments: Any, **named: Any) -> Any:
        first(layer)
        return call(*arguments, **named)

    return computed


def _put_back(layer: Any, kept: dict[str, Any]) -> None:
    for name in (*_COMPUTED, "call"):
        if name in kept:
            object.__setattr__(layer, name, kept[name])
        elif name in vars(layer):
            object.__delattr__(layer, name)
