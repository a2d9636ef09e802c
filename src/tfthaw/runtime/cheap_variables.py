"""Build a model without paying for initial values that a checkpoint replaces.

A model of 500 MB spends most of its building on random numbers, and three times its size in memory, for values that
nobody wants: they come from the checkpoint. In this scope a large variable of a Keras layer is only declared; it gets
its initial value when something first reads it. This is no approximation: code that reads finds what it would have
found without the scope. That holds because only initial values that are *pure* wait: those of Keras's own initialisers
whose settings are plain numbers and texts, the seed among them. Such an initialiser gives the same values whenever it
is called, and leaves no random generator changed, so that whatever else the code draws stays as it was. All other
initial values are computed when TensorFlow would compute them.

After the scope, variables that nothing has read stay without values until they are assigned; to read one is an error.
So this is for a process whose variables nobody else uses.

    access to the variable's handle                        value
    in the scope, eagerly or while a function is traced     computed and assigned first
    in the scope, in a graph that Keras throws away         stays away: such a graph infers shapes and never runs
    after the scope, while a function is traced             stays away: whoever runs the function assigns first
    after the scope, eagerly, to read                       FailedPreconditionError

The last line is ours: TensorFlow reads a variable without a value as an empty tensor.

Source: resource_variable_ops.py of tensorflow/python/ops (`UninitializedVariable`, which loading a SavedModel uses;
every access takes the attribute `_handle`: Python's by `handle`, that of the C++ fast path directly); the
`_initialize_with_initializer` of Keras 3 and `make_variable` of Keras 2 (how an initialiser reaches `tf.Variable`);
`RandomInitializer` of Keras 3 and `RandomGenerator` of Keras 2 (where the seed is).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

LARGE_BYTES = 64 * 1024
"""From here on an initial value waits; what is smaller costs less than the detour."""

_MODULES = (
    "keras.src.initializers.random_initializers",  # Keras 3
    "keras.src.initializers.constant_initializers",
    "tf_keras.src.initializers.initializers",  # Keras 2
    "keras.src.initializers.initializers",  # Keras 2 of TensorFlow 2.13 to 2.15
    "keras.initializers.initializers",  # and of 2.12
)
_INITIALIZERS = frozenset((
    "Zeros", "Ones", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "Orthogonal",
    "OrthogonalInitializer", "GlorotNormal", "GlorotUniform", "LecunNormal", "LecunUniform", "HeNormal", "HeUniform",
))  # fmt: skip
_PLAIN = (int, float, str, type(None))
_SCRATCH = ("scratch_graph", "keras_graph")  # what graphs that Keras throws away have in their names


@contextlib.contextmanager
def cheap_initial_values() -> Iterator[_Scope]:
    """Let large variables that are created eagerly in this scope wait for their initial values until they are read.

    What it gives says afterwards whether one was read (`was_read`).
    """
    import tensorflow as tf

    scope = _Scope()

    def create(next_creator: Callable[..., Any], **arguments: Any) -> Any:
        variable = _declared(tf, scope, arguments)
        return next_creator(**arguments) if variable is None else variable

    with tf.variable_creator_scope(create):
        try:
            yield scope
        finally:
            scope.is_open = False


class _Scope:
    """Whether values are still computed for who reads them, and whether any was."""

    is_open = True
    was_read = False


def _declared(tf: Any, scope: _Scope, arguments: dict[str, Any]) -> Any:
    """Return a variable that waits for its initial value, or None where the value must be computed at once."""
    if not tf.executing_eagerly() or tf.distribute.has_strategy():
        return None
    initial_value, trainable = arguments.get("initial_value"), arguments.get("trainable")
    if any(arguments.get(name) for name in ("caching_device", "variable_def", "import_scope", "collections")):
        return None
    found = _initializer_and_shape(initial_value)
    if found is None or not isinstance(trainable, bool) or not arguments.get("dtype"):
        return None
    initializer, dims = found
    dtype = tf.as_dtype(arguments["dtype"])
    if math.prod(dims) * dtype.size < LARGE_BYTES or not _is_pure(initializer):
        return None
    passed = {name: arguments.get(name) for name in ("name", "constraint", "synchronization", "aggregation")}
    variable = _variable_class()(trainable=trainable, shape=tf.TensorShape(dims), dtype=dtype, **passed)
    variable._wait(scope, initial_value)
    return variable


def _initializer_and_shape(initial_value: Any) -> tuple[Any, tuple[int, ...]] | None:
    """Return the initialiser that Keras is about to call, and the shape that it asks for."""
    shape: Any
    if isinstance(initial_value, functools.partial):  # Keras 2
        if len(initial_value.args) != 1 or initial_value.keywords.keys() != {"dtype"}:
            return None
        initializer, shape = initial_value.func, initial_value.args[0]
    else:  # Keras 3: lambda: initializer(self._shape, dtype=self._dtype)
        code = getattr(initial_value, "__code__", None)
        if code is None or code.co_freevars != ("initializer", "self"):
            return None
        initializer, variable = (cell.cell_contents for cell in initial_value.__closure__)
        shape = getattr(variable, "_shape", None)
    try:
        dims = tuple(shape)
    except (TypeError, ValueError):  # no shape, or one of unknown rank
        return None
    return (initializer, dims) if all(isinstance(dim, int) for dim in dims) else None


def _is_pure(initializer: Any) -> bool:
    """Whether an initialiser gives the same values whenever it is called, and changes nothing by it."""
    kind = type(initializer)
    if kind.__module__ not in _MODULES or kind.__name__ not in _INITIALIZERS:
        return False
    settings = dict(vars(initializer))
    generator = settings.pop("_random_generator", None)
    if generator is not None:  # of Keras 2; where it has no seed yet, it draws one now, as its first call would
        if getattr(generator, "_rng_type", None) != "stateless":
            return False
        generator._maybe_init()
        settings["seed of the generator"] = generator._seed
    return all(isinstance(value, _PLAIN) for value in settings.values())


@functools.cache
def _variable_class() -> Any:
    """Return the class of variables that wait; TensorFlow is imported by now."""
    import tensorflow as tf
    from tensorflow.python.framework import ops
    from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

    def is_inferring() -> bool:
        """Whether nodes are being put into a graph that Keras throws away."""
        name = getattr(ops.get_default_graph(), "name", "")  # eagerly, this is whatever graph stands around
        return not tf.executing_eagerly() and any(part in name for part in _SCRATCH)

    class WaitingVariable(UninitializedVariable):  # type: ignore[misc]
        """A variable that computes its initial value when its handle is first asked for."""

        _awaited: Callable[[], Any] | None = None

        def _wait(self, scope: _Scope, initial_value: Callable[[], Any]) -> None:
            self._creation_scope, self._awaited = scope, initial_value

        @property
        def handle(self) -> Any:
            """The resource, with the initial value in it where someone may read it."""
            initial_value = self._awaited
            if initial_value is not None and self._creation_scope.is_open and not is_inferring():
                self._awaited = None
                self._creation_scope.was_read = True
                with tf.init_scope():
                    value = tf.convert_to_tensor(initial_value(), self._dtype)
                    tf.raw_ops.AssignVariableOp(resource=self._resource, value=value)
            return self._resource

        @property
        def _handle(self) -> Any:
            self._require_value()
            return self.handle

        @_handle.setter
        def _handle(self, handle: Any) -> None:
            self._resource = handle

        def _read_variable_op(self, *args: Any, **options: Any) -> Any:
            self._require_value()
            return super()._read_variable_op(*args, **options)

        def _require_value(self) -> None:
            if self._awaited is None or self._creation_scope.is_open or not tf.executing_eagerly():
                return
            if not tf.raw_ops.VarIsInitializedOp(resource=self._resource):
                message = f"{self.name} has no value: what fills it, here a checkpoint, comes later"
                raise tf.errors.FailedPreconditionError(None, None, message)

    return WaitingVariable
