"""Keras layers that were adapted to data, computing with their variables.

`Normalization` keeps its mean and variance as tensors that it computed of its variables when it was built, before any
checkpoint could fill those. Captured by a trace they would be constants of a fresh layer. While a model is traced such
layers compute them anew in the graph, of the variables, whenever they are called.

Source: `Normalization.finalize_state` of Keras 2 and Keras 3.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

from tfthaw.runtime.keras_models import is_keras_layer

_COMPUTED = ("mean", "variance")


@contextlib.contextmanager
def computing_with_variables() -> Iterator[None]:
    """Let every adapted layer that is alive compute with its variables; functions hide what they call."""
    with contextlib.ExitStack() as undone:
        for layer in _adapted_layers():
            kept = {name: vars(layer)[name] for name in (*_COMPUTED, "call") if name in vars(layer)}
            undone.callback(_put_back, layer, kept)
            object.__setattr__(layer, "call", _computing_first(layer, layer.call))
        yield


def _adapted_layers() -> list[Any]:
    """Return the layers that are alive and keep what they computed of variables."""
    kinds: dict[type, bool] = {}
    found = []
    for value in gc.get_objects():
        kind = type(value)
        if kind not in kinds:
            kinds[kind] = hasattr(kind, "finalize_state") and is_keras_layer(value)
        if kinds[kind] and getattr(value, "adapt_mean", None) is not None:
            found.append(value)
    return found


def _computing_first(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    def computed(*arguments: Any, **named: Any) -> Any:
        layer.finalize_state()
        return call(*arguments, **named)

    return computed


def _put_back(layer: Any, kept: dict[str, Any]) -> None:
    for name in (*_COMPUTED, "call"):
        if name in kept:
            object.__setattr__(layer, name, kept[name])
        elif name in vars(layer):
            object.__delattr__(layer, name)
