"""Keras models as functions: what a model takes, what it gives, and how it is called for inference.

It asks objects what they are and imports no Keras of its own: which one made a model is the user's affair.

Source: `Model`, `Functional`, `Sequential` and `Layer` of Keras 2 (keras 2.12 to 2.15, tf_keras) and Keras 3.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tfthaw.errors import UsageError
from tfthaw.ir.input_specs import InputDeclaration

_PACKAGES = ("keras", "tf_keras")
_WRONG_STRUCTURE = (TypeError, ValueError, LookupError, AttributeError)  # what code raises that expects another one


def keras_generation(value: Any) -> int:
    """Return which Keras made a layer or model: 2 or 3; 0 where it is neither."""
    for kind in type(value).__mro__:
        package = str(kind.__module__).partition(".")[0]  # a class of proxies may have a property there
        if kind.__name__ in ("Layer", "Model") and package in _PACKAGES:
            if package == "tf_keras":
                return 2
            version = getattr(sys.modules.get("keras"), "__version__", "3")
            return 3 if str(version).startswith("3") else 2
    return 0


def is_keras_layer(value: Any) -> bool:
    """Whether a value is a Keras model or layer."""
    return keras_generation(value) != 0


def keras_function(
    tf: Any, model: Any, declared: Sequence[InputDeclaration], name: str, notes: list[str]
) -> tuple[Callable[..., Any], list[Any], list[str], Sequence[str]]:
    """Return a Keras model as a function for inference.

    Args:
        tf: TensorFlow.
        model: The model or layer.
        declared: The inputs that the user declared.
        name: What the model is called in messages.
        notes: What was guessed; added to.

    Returns:
        The function, a spec and a name for each of its arguments, and the names of its outputs where the model has
        some.

    Raises:
        UsageError: Nothing says what the model takes.
    """
    structure = _structure(tf, model, declared, name, notes)
    flat = tf.nest.flatten(structure)
    extra = {"training": False} if _takes_training(model) else {}

    def serve(*tensors: Any) -> Any:
        packed = tf.nest.pack_sequence_as(structure, list(tensors))
        if isinstance(packed, _Keywords):
            first, *others = packed  # Keras 2 takes the first one by position alone
            return model(packed[first], **{key: packed[key] for key in others}, **extra)
        if isinstance(packed, _Named):
            return _call_with_several(model, packed, extra)
        return model(packed, **extra)

    listed = _functional_inputs(tf, model)
    given = listed[2] if listed is not None and len(listed[2]) == len(flat) else [""] * len(flat)
    names = [getattr(spec, "name", None) or name or f"inputs_{number}"
             for number, (spec, name) in enumerate(zip(flat, given, strict=True))]  # fmt: skip
    return serve, flat, names, _output_names(model)


class _Keywords(dict[str, Any]):
    """Inputs that are arguments of `call`, each by its name."""


class _Named(dict[str, Any]):
    """Inputs that are one argument of `call`: a dict, or a list in the order in which they were declared."""


def _call_with_several(model: Any, inputs: _Named, extra: Mapping[str, Any]) -> Any:
    """Call a model with a dict of inputs or, where it does not take that, with a list."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a Keras that cannot build the model warns first
            return model(dict(inputs), **extra)
    except _WRONG_STRUCTURE as error:
        try:
            return model(list(inputs.values()), **extra)
        except _WRONG_STRUCTURE as other:
            if "indices must be integers" in str(other):
                raise error from None  # it does take a dict, and something else is wrong
            raise


def _structure(tf: Any, model: Any, declared: Sequence[InputDeclaration], name: str, notes: list[str]) -> Any:
    """Return the specs of what a model takes, in the structure that its call expects."""
    known = _known_inputs(tf, model)
    if declared:
        return _declared(tf, model, known, declared, name)
    if known is not None:
        return known
    shapes = _built_shapes(model)
    if shapes is None:
        raise UsageError(
            f"{name}: nothing says what this {type(model).__name__} takes: it was never called and is not functional",
            hint="declare its inputs, for example with --input 'x:float32[?,784]', or call the model once before it is "
            "returned: model(tf.zeros([1, 784]))",
        )
    dtype = tf.as_dtype(getattr(model, "input_dtype", None) or getattr(model, "compute_dtype", None) or "float32")
    specs = {
        key: tf.TensorSpec([None, *list(shape)[1:]] if len(shape) else [], dtype, name=key)
        for key, shape in shapes.items()
    }
    said = ", ".join(f"{key}:{dtype.name}[{','.join('?' if size is None else str(size) for size in spec.shape)}]"
                     for key, spec in specs.items())  # fmt: skip
    notes.append(f"the inputs are those that the model was built for: {said}; --input says it otherwise")
    return next(iter(specs.values())) if len(specs) == 1 else _Keywords(specs)


def _known_inputs(tf: Any, model: Any) -> Any:
    """Return the specs of what a functional model, or one that was called in Keras 2, takes; None where it is open."""
    listed = _functional_inputs(tf, model)
    if listed is not None:
        structure, flat, names = listed
        specs = [_spec_of(tf, item, name) for item, name in zip(flat, names, strict=True)]
        return tf.nest.pack_sequence_as(structure, specs)
    if keras_generation(model) == 2:
        saved = getattr(model, "save_spec", lambda: None)()
        if saved is not None:
            args, kwargs = saved
            if len(args) == 1 and not {key: value for key, value in kwargs.items() if key != "training"}:
                return _with_names(tf, args[0])
    return None


def _functional_inputs(tf: Any, model: Any) -> tuple[Any, list[Any], list[str]] | None:
    """Return the inputs of a functional model: their structure, flat, and their names; None where it is none."""
    for owner in (getattr(model, "_functional", None), model):
        for attribute in ("_inputs_struct", "_nested_inputs"):
            structure = getattr(owner, attribute, None)
            if structure is not None:
                flat = tf.nest.flatten(structure)
                return structure, flat, _input_names(model, owner, flat)
    return None


def _spec_of(tf: Any, item: Any, name: str) -> Any:
    """Return the spec of an input of a functional model, which may be sparse or ragged."""
    shape, dtype = list(item.shape), tf.as_dtype(item.dtype)
    own = getattr(item, "type_spec", None)  # of Keras 2
    if isinstance(own, (tf.SparseTensorSpec, tf.RaggedTensorSpec)):
        return own
    if getattr(item, "sparse", False):
        return tf.SparseTensorSpec(shape, dtype)
    if getattr(item, "ragged", False):
        return tf.RaggedTensorSpec(shape, dtype, ragged_rank=1)
    return tf.TensorSpec(shape, dtype, name=name)


def _with_names(tf: Any, structure: Any) -> Any:
    """Return specs that all have names, where specs can have them."""
    flat = tf.nest.flatten(structure)
    named = [
        tf.TensorSpec(spec.shape, spec.dtype, name=spec.name or ("inputs" if len(flat) == 1 else f"inputs_{number}"))
        if isinstance(spec, tf.TensorSpec) else spec
        for number, spec in enumerate(flat)
    ]  # fmt: skip
    return tf.nest.pack_sequence_as(structure, named)


def _input_names(model: Any, owner: Any, tensors: Sequence[Any]) -> list[str]:
    """Return the names of the inputs of a functional model: those of its input layers."""
    names = getattr(owner, "input_names", None) or getattr(model, "input_names", None)
    if not names or len(names) != len(tensors):
        names = []
        for tensor in tensors:
            history = getattr(tensor, "_keras_history", None)
            layer = getattr(history, "operation", None) or getattr(history, "layer", None)
            names.append(str(getattr(layer, "name", None) or tensor.name))
    return [str(name).replace("/", "_").replace(":", "_") for name in names]


def _built_shapes(model: Any) -> dict[str, Sequence[int | None]] | None:
    """Return the shapes that a model was built for, by argument; None where it was not."""
    shapes = getattr(model, "_build_shapes_dict", None)
    if shapes:
        if len(shapes) == 1:
            (shape,) = shapes.values()
            return {"inputs": shape} if _is_shape(shape) else None
        if all(_is_shape(shape) for shape in shapes.values()):
            return {key.removesuffix("_shape"): shape for key, shape in shapes.items()}
        return None
    shape = getattr(model, "_build_input_shape", None)
    if shape is None or isinstance(shape, Mapping) or not _is_shape(shape):
        return None
    return {"inputs": tuple(shape)}


def _is_shape(shape: Any) -> bool:
    try:
        return all(size is None or isinstance(size, int) for size in tuple(shape))
    except TypeError:
        return False


def _declared(tf: Any, model: Any, known: Any, declared: Sequence[InputDeclaration], name: str) -> Any:
    """Return the declared inputs in the structure that the model's call expects."""
    from tfthaw.runtime.endpoints import tensor_spec

    specs = {item.name: tensor_spec(tf, item) for item in declared}
    if known is not None:
        flat = tf.nest.flatten(known)
        names = [getattr(spec, "name", None) or "" for spec in flat]
        is_clear = len(flat) == 1 or set(names) == set(specs) or set(names).isdisjoint(specs)
        if len(flat) != len(specs) or not is_clear:
            takes = ", ".join(f"{key}:{spec.dtype.name}{spec.shape}" for key, spec in zip(names, flat, strict=True))
            raise UsageError(
                f"{name} takes {len(flat)} inputs ({takes}); declared are {', '.join(specs)}",
                hint="declare all of them, each by its name",
            )
        ordered = [specs[key] for key in names] if set(names) == set(specs) else list(specs.values())
        return tf.nest.pack_sequence_as(known, ordered)
    arguments = _call_arguments(model)
    if len(specs) == 1:
        return next(iter(specs.values()))
    if set(specs) <= set(arguments):
        return _Keywords((key, specs[key]) for key in arguments if key in specs)
    return _Named(specs)


def _call_arguments(model: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(model.call).parameters)
    except (TypeError, ValueError):
        return {}


def _takes_training(model: Any) -> bool:
    arguments = _call_arguments(model)
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in arguments.values())
    return "training" in arguments or takes_any


def _output_names(model: Any) -> Sequence[str]:
    names = getattr(model, "output_names", None) or getattr(getattr(model, "_functional", None), "output_names", None)
    return [str(name) for name in names] if names else ()


@contextlib.contextmanager
def fresh_keras_names() -> Iterator[None]:
    """Let Keras number its layers from the beginning, as in a new process, and go on afterwards where it was."""
    with contextlib.ExitStack() as undone:
        state = sys.modules.get("keras.src.backend.common.global_state")
        if state is not None and hasattr(state, "get_global_attribute"):
            kept = state.get_global_attribute("object_name_uids")
            state.set_global_attribute("object_name_uids", None)
            undone.callback(state.set_global_attribute, "object_name_uids", kept)
        for module in ("tf_keras.src.backend", "keras.src.backend", "keras.backend"):
            backend = sys.modules.get(module)
            counted = getattr(backend, "PER_GRAPH_OBJECT_NAME_UIDS", None)
            if backend is not None and counted is not None:
                setattr(backend, "PER_GRAPH_OBJECT_NAME_UIDS", type(counted)())  # noqa: B010
                undone.callback(setattr, backend, "PER_GRAPH_OBJECT_NAME_UIDS", counted)
        yield
