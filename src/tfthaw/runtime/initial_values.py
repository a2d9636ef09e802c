"""Initial values of variables while a model is built: who reads them, and what comes of it if they are others.

A checkpoint replaces the values of variables, not what the code computed of them before. A constant that was computed
of initial values belongs to no trained model. Such constants are found by experiment: the model is built once more with
other initial values, and the constants of both graphs are compared. Only who reads a variable while the model is built
can have computed something of it, so that nothing is built twice where nobody does.

Source: resource_variable_ops.py of tensorflow/python/ops: every access takes the attribute `_handle`, Python's and that
of the C++ fast path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Readings:
    """What was seen while a model was built.

    Attributes:
        any: Whether the value of a variable may have been read outside of graphs; assigning counts as well, which costs
            time and nothing else.
    """

    any: bool = False

    @contextlib.contextmanager
    def watched(self, tf: Any) -> Iterator[None]:
        """See whether variables are read in this scope."""
        from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable

        def get(variable: Any) -> Any:
            if tf.executing_eagerly():
                self.any = True
            try:
                return vars(variable)["_handle"]
            except KeyError:
                raise AttributeError("_handle") from None

        def put(variable: Any, handle: Any) -> None:
            vars(variable)["_handle"] = handle

        had = vars(BaseResourceVariable).get("_handle")
        BaseResourceVariable._handle = property(get, put)
        try:
            yield
        finally:
            if had is None:
                del BaseResourceVariable._handle
            else:
                BaseResourceVariable._handle = had


@contextlib.contextmanager
def other_initial_values(tf: Any) -> Iterator[None]:
    """Give floating variables that are created eagerly other initial values than the code says."""

    def create(next_creator: Callable[..., Any], **arguments: Any) -> Any:
        if tf.executing_eagerly():
            arguments["initial_value"] = _changed(tf, arguments.get("initial_value"))
        return next_creator(**arguments)

    with tf.variable_creator_scope(create):
        yield


def _changed(tf: Any, initial_value: Any) -> Any:
    if initial_value is None or hasattr(initial_value, "checkpoint_position"):
        return initial_value  # what a restore that was deferred gives
    if callable(initial_value):
        return lambda *args, **options: _other(tf, initial_value(*args, **options))
    return _other(tf, initial_value)


def _other(tf: Any, value: Any) -> Any:
    if hasattr(value, "checkpoint_position"):
        return value
    tensor = tf.convert_to_tensor(value)
    if not tensor.dtype.is_floating:
        return value
    return tensor * tf.cast(1.25, tensor.dtype) + tf.cast(0.125, tensor.dtype)
