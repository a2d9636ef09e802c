"""What of an object is exported: which functions, under which keys, with which inputs and outputs.

An object is what the user's code gives: a Keras model, a `tf.Module`, a `tf.function`, a plain function, or a dict of
functions. What it is is found out here; nothing is asked. Each function is traced once, and that trace is what is
exported: `Endpoint` names its tensors.

Source: function.py and func_graph.py of TensorFlow; `Layer` and `Model` of Keras 2 and Keras 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfthaw.errors import NotFoundError, UsageError
from tfthaw.ir.input_specs import InputDeclaration
from tfthaw.ir.signatures import DEFAULT_SIGNATURE
from tfthaw.passes.prune import free_name
from tfthaw.runtime.adapted_layers import computing_with_variables
from tfthaw.runtime.keras_models import is_keras_layer, keras_function

_SPARSE_PARTS = ("indices", "values", "dense_shape")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One traced function.

    Attributes:
        key: The signature that it becomes.
        concrete: The `ConcreteFunction`.
        inputs: argument -> its placeholder in the traced graph.
        outputs: output -> its tensor in the traced graph.
    """

    key: str
    concrete: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]


@dataclass(slots=True)
class Traceable:
    """A function that can be traced.

    Attributes:
        trace: Traces it and returns the `ConcreteFunction`.
        output_names: What its outputs are called where they have no names of their own.
        input_names: The same of its inputs, for each argument.
        says_inputs: Whether it says itself what it takes, so that nothing that was declared counts.
    """

    trace: Callable[[], Any]
    output_names: Sequence[str] = ()
    input_names: Sequence[str] = ()
    says_inputs: bool = False


@dataclass(slots=True)
class Request:
    """What the user asked for besides the code.

    Attributes:
        inputs: The inputs that were declared.
        signatures: new key -> what it is: a method, a key of the dict that the code returned, or `module:function`.
        graph_inputs: Tensors of a graph of TensorFlow 1 that are fed.
        graph_outputs: Tensors of such a graph that are computed.
        code: What the code is called in messages.
        functions: `module:function` -> that function.
    """

    inputs: Sequence[InputDeclaration] = ()
    signatures: Mapping[str, str] = field(default_factory=dict)
    graph_inputs: Sequence[str] = ()
    graph_outputs: Sequence[str] = ()
    code: str = ""
    functions: Mapping[str, Any] = field(default_factory=dict)


def find_endpoints(tf: Any, target: Any, request: Request, notes: list[str]) -> list[Endpoint]:
    """Find out which functions an object exports, and trace them.

    Args:
        tf: TensorFlow.
        target: The object.
        request: What the user asked for.
        notes: What was guessed; added to.

    Raises:
        UsageError: Nothing says what the inputs are, or what to export.
        NotFoundError: The object has no such function.
    """
    if request.signatures:
        chosen = {key: _named(tf, target, what, request, notes) for key, what in request.signatures.items()}
    else:
        chosen = _default(tf, target, request, notes)
    endpoints = [_endpoint(tf, key, item) for key, item in chosen.items()]
    if request.inputs and all(item.says_inputs for item in chosen.values()):
        _refuse_idle_inputs(tf, endpoints, request)
    return endpoints


def _refuse_idle_inputs(tf: Any, endpoints: Sequence[Endpoint], request: Request) -> None:
    """Refuse declared inputs where the functions say themselves what they take, and it is something else.

    Raises:
        UsageError: They would change nothing.
    """
    wanted = [tensor_spec(tf, item) for item in request.inputs]
    for endpoint in endpoints:
        given = [tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in endpoint.inputs.items()]
        if given == wanted:
            return
    takes = "; ".join(
        ", ".join(f"{name}:{tensor.dtype.name}{_dims(tensor.shape)}" for name, tensor in endpoint.inputs.items())
        for endpoint in endpoints
    )
    raise UsageError(
        f"{request.code} says itself what it takes ({takes}), and --input would change nothing",
        hint="leave --input out",
    )


def _dims(shape: Any) -> str:
    if shape.rank is None:
        return ""
    return f"[{','.join('?' if size is None else str(size) for size in shape.as_list())}]"


def is_function(value: Any) -> bool:
    """Whether a value is a `tf.function` or a `ConcreteFunction`."""
    return hasattr(value, "get_concrete_function") or is_concrete(value)


def is_concrete(value: Any) -> bool:
    """Whether a value is a traced function."""
    return hasattr(value, "captured_inputs") and hasattr(value, "structured_input_signature")


def _default(tf: Any, target: Any, request: Request, notes: list[str]) -> dict[str, Traceable]:
    """Return what is exported of an object where the user named nothing."""
    if isinstance(target, Mapping):
        found = {str(key): value for key, value in target.items() if is_function(value) or inspect.isroutine(value)}
        if found:
            return {key: _traceable(tf, value, request, key) for key, value in found.items()}
        models = {str(key): value for key, value in target.items() if is_keras_layer(value)}
        if models:
            return {key: _traceable(tf, value, request, key, notes) for key, value in models.items()}
        raise UsageError(f"{request.code} gives a dict without functions or models", hint=_WHAT)
    if is_keras_layer(target) or is_function(target) or inspect.isroutine(target):
        return {DEFAULT_SIGNATURE: _traceable(tf, target, request, request.code, notes)}
    methods = {name: value for name, value in _methods(target).items() if is_function(value)}
    call = methods.get("__call__")
    if call is not None and (_is_declared(call) or request.inputs):
        return {DEFAULT_SIGNATURE: _traceable(tf, call, request, "__call__")}
    if callable(target) and not methods and request.inputs:
        return {DEFAULT_SIGNATURE: _traceable(tf, target.__call__, request, "__call__")}
    ready = {name: value for name, value in methods.items() if _is_declared(value)} or methods
    if len(ready) == 1:
        (name, value), = ready.items()
        return {DEFAULT_SIGNATURE: _traceable(tf, value, request, name)}
    if ready and all(_is_declared(value) for value in ready.values()):
        notes.append(f"exported are the functions that have a signature: {', '.join(ready)}")
        return {name: _traceable(tf, value, request, name) for name, value in ready.items()}
    if callable(target):
        raise UsageError(f"{request.code}: nothing says what {type(target).__name__} takes", hint=_DECLARE)
    if ready:
        raise UsageError(
            f"{request.code}: which function of {type(target).__name__} to export is not clear: {', '.join(ready)}",
            hint="choose with --signature NEW=METHOD",
        )
    raise UsageError(f"{request.code} gives a {type(target).__name__}, which has nothing to call", hint=_WHAT)


_WHAT = (
    "return a Keras model, a tf.Module, a tf.function, a function, a dict of functions, or the inputs and outputs of a "
    "graph"
)
_DECLARE = "declare its inputs, for example with --input 'x:float32[?,784]'"


def _named(tf: Any, target: Any, what: str, request: Request, notes: list[str]) -> Traceable:
    """Return the function that the user named for a signature."""
    if what in request.functions:
        return _outside(tf, request.functions[what], target, request, what)
    if isinstance(target, Mapping) and what in target:
        return _traceable(tf, target[what], request, what, notes)
    if is_function(target) and what in ("__call__", getattr(target, "__name__", "")):
        return _traceable(tf, target, request, what, notes)
    if what in ("__call__", DEFAULT_SIGNATURE):
        default = _default(tf, target, request, notes)
        if len(default) == 1:
            return next(iter(default.values()))
    found = getattr(target, what, None) if what.isidentifier() else None
    if callable(found):
        return _traceable(tf, found, request, what, notes)
    known = sorted(map(str, target) if isinstance(target, Mapping) else _own_methods(target))
    raise NotFoundError.named("function", what, known, path=request.code)


def _outside(tf: Any, function: Any, model: Any, request: Request, what: str) -> Traceable:
    """Return a function of the user's that stands beside the model: it has the model, or it is given the model."""
    parameters = _parameters(function)
    required = [name for name, item in parameters.items() if item.default is inspect.Parameter.empty]
    declared = {item.name for item in request.inputs}
    first = parameters.get(required[0]) if required else None
    takes_model = (
        first is not None and first.name not in declared and not _is_declared(function)
        and not isinstance(first.annotation, tf.TypeSpec)
    )  # fmt: skip
    if not takes_model:
        return _traceable(tf, function, request, what)
    if len(required) == 1:
        made = function(model)
        if not is_function(made) and not inspect.isroutine(made):
            raise UsageError(
                f"{what} takes the model and gives a {type(made).__name__}", hint="let it return a tf.function"
            )
        return _traceable(tf, made, request, what)
    plain = getattr(function, "python_function", function)
    rest = list(parameters.values())[1:]

    def with_model(*args: Any, **kwargs: Any) -> Any:
        return plain(model, *args, **kwargs)

    with_model.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]
    with_model.__name__ = getattr(function, "__name__", "with_model")
    return _traceable(tf, with_model, request, what)


def _traceable(tf: Any, value: Any, request: Request, name: str, notes: list[str] | None = None) -> Traceable:
    """Return how a value is traced.

    Raises:
        UsageError: Nothing says what its inputs are.
    """
    if is_keras_layer(value):
        said = notes if notes is not None else []
        function, specs, input_names, output_names = keras_function(tf, value, request.inputs, name, said)
        return Traceable(lambda: tf.function(function).get_concrete_function(*specs), output_names, input_names)
    if is_concrete(value):
        return Traceable(lambda: value, says_inputs=True)
    if not callable(value):
        raise UsageError(f"{name} is a {type(value).__name__}, which cannot be called", hint=_WHAT)
    function = value if is_function(value) else tf.function(value)
    if getattr(function, "input_signature", None) is not None:
        return Traceable(function.get_concrete_function, says_inputs=True)
    parameters = _parameters(value)
    if request.inputs:
        args, kwargs = _arguments(tf, parameters, request.inputs, name)
        return Traceable(lambda: function.get_concrete_function(*args, **kwargs))
    required = [item for item in parameters.values() if item.default is inspect.Parameter.empty]
    if all(isinstance(item.annotation, tf.TypeSpec) for item in required):
        annotated = {item.name: _with_name(tf, item.annotation, item.name) for item in required}
        return Traceable(lambda: function.get_concrete_function(**annotated))
    traces = _traces(function)
    if len(traces) == 1:
        return Traceable(lambda: traces[0])
    why = f"has been traced for {len(traces)} kinds of inputs" if traces else "has no signature"
    raise UsageError(
        f"{name} {why}, so that nothing says what it takes ({', '.join(item.name for item in required)})",
        hint=f"{_DECLARE}, or give it an input_signature",
    )


def _is_declared(function: Any) -> bool:
    """Whether a `tf.function` says what it takes."""
    has_signature = getattr(function, "input_signature", None) is not None
    return is_concrete(function) or has_signature or len(_traces(function)) == 1


def _traces(function: Any) -> list[Any]:
    """Return the traces that a `tf.function` has already."""
    listed = getattr(function, "_list_all_concrete_functions", None)
    return list(listed()) if listed is not None else []


def _methods(target: Any) -> dict[str, Any]:
    """Return the public functions of an object, without running its properties."""
    found = {}
    for name in dir(type(target)):
        value = inspect.getattr_static(target, name, None)
        if (not name.startswith("_") or name == "__call__") and not isinstance(value, property):
            found[name] = getattr(target, name, None)
    own = getattr(target, "__dict__", {})
    found.update((name, value) for name, value in own.items() if name[:1] != "_" and is_function(value))
    return {name: value for name, value in found.items() if callable(value) and name not in _MODULE_METHODS}


def _own_methods(target: Any) -> list[str]:
    """Return the names of the public functions that are not those of Keras or TensorFlow."""
    libraries = ("keras", "tf_keras", "tensorflow")
    return ["__call__", *(
        name for name, value in _methods(target).items()
        if name != "__call__" and (getattr(value, "__module__", None) or "").split(".")[0] not in libraries
    )]  # fmt: skip


_MODULE_METHODS = frozenset({"with_name_scope"})


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function by name, without `self`."""
    plain = getattr(function, "python_function", function)
    try:
        parameters = dict(inspect.signature(plain, eval_str=True).parameters)
    except (TypeError, ValueError, NameError):  # built in, or annotations that mean nothing at run time
        try:
            parameters = dict(inspect.signature(plain).parameters)
        except (TypeError, ValueError):
            return {}
    first = next(iter(parameters), "")
    if first == "self" and hasattr(function, "python_function"):
        del parameters["self"]  # a tf.function that is bound shows the method as it was written
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: item for name, item in parameters.items() if item.kind not in variadic}


def _arguments(
    tf: Any, parameters: Mapping[str, inspect.Parameter], declared: Sequence[InputDeclaration], name: str
) -> tuple[list[Any], dict[str, Any]]:
    """Return the specs with which a function is traced: by name where the names are its own, else by position.

    Raises:
        UsageError: The declared inputs are not its arguments.
    """
    specs = {item.name: tensor_spec(tf, item) for item in declared}
    required = [key for key, item in parameters.items() if item.default is inspect.Parameter.empty]
    if set(specs) <= set(parameters) and set(required) <= set(specs):
        return [], specs
    by_position = len(specs) == len(required) and (len(specs) == 1 or not set(specs) & set(parameters))
    if not parameters or by_position:
        return list(specs.values()), {}
    raise UsageError(
        f"{name} takes {', '.join(parameters) or 'nothing'}; declared are {', '.join(specs)}",
        hint="declare an input for every argument that is a tensor, each by its name",
    )


def tensor_spec(tf: Any, declared: InputDeclaration) -> Any:
    """Return the `tf.TensorSpec` of a declared input."""
    dims = declared.shape.dims
    return tf.TensorSpec(None if dims is None else list(dims), tf.as_dtype(declared.dtype.name), name=declared.name)


def _with_name(tf: Any, spec: Any, name: str) -> Any:
    if isinstance(spec, tf.TensorSpec) and spec.name is None:
        return tf.TensorSpec(spec.shape, spec.dtype, name=name)
    return spec


def _endpoint(tf: Any, key: str, item: Traceable) -> Endpoint:
    """Trace a function and name what goes in and comes out.

    Raises:
        UsageError: It gives no tensor.
    """
    with computing_with_variables():
        concrete = item.trace()
    graph = concrete.graph
    count = len(concrete.inputs) - len(concrete.captured_inputs)
    inputs: dict[str, Any] = {}
    for name, tensor in zip(_input_names(tf, concrete, item.input_names), concrete.inputs[:count], strict=True):
        inputs[free_name(inputs, name)] = tensor
    outputs: dict[str, Any] = {}
    names = _output_names(tf, graph.structured_outputs, item.output_names)
    for name, tensor in zip(names, concrete.outputs, strict=True):
        outputs[free_name(outputs, name)] = tensor
    if not outputs:
        raise UsageError(f"{key} gives no tensor", hint="let the function return what it computes")
    return Endpoint(key, concrete, inputs, outputs)


def _input_names(tf: Any, concrete: Any, given: Sequence[str]) -> list[str]:
    """Return a name for each tensor that a traced function takes; of sparse and ragged ones a name for each part."""
    specs = [spec for spec in tf.nest.flatten(concrete.structured_input_signature) if isinstance(spec, tf.TypeSpec)]
    names: list[str] = []
    for number, spec in enumerate(specs):
        parts = tf.nest.flatten(spec, expand_composites=True)
        first = _argument_name(concrete.inputs[len(names)])
        is_given = len(parts) > 1 and len(given) == len(specs)
        names += [first] if len(parts) == 1 else _parts(tf, given[number] if is_given else first, spec)
    return names


def _argument_name(tensor: Any) -> str:
    try:
        return str(tensor.op.get_attr("_user_specified_name").decode())
    except ValueError:  # what the user did not name has no such attr
        return str(tensor.op.name)


def _output_names(tf: Any, structure: Any, given: Sequence[str]) -> list[str]:
    """Return a name for each tensor of what a function returns, in the order of `tf.nest.flatten`."""
    if not isinstance(structure, Mapping):
        leaves = [leaf for leaf in tf.nest.flatten(structure) if leaf is not None]
        names = list(given) if len(given) == len(leaves) else [f"output_{number}" for number in range(len(leaves))]
        return [part for name, leaf in zip(names, leaves, strict=True) for part in _parts(tf, name, leaf)]
    names = []
    for key in sorted(structure):
        names += _nested(tf, str(key), structure[key])
    return names


def _nested(tf: Any, name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [part for key in sorted(value) for part in _nested(tf, f"{name}_{key}", value[key])]
    if isinstance(value, (list, tuple)):
        return [part for number, item in enumerate(value) for part in _nested(tf, f"{name}_{number}", item)]
    return [] if value is None else _parts(tf, name, value)


def _parts(tf: Any, name: str, leaf: Any) -> list[str]:
    """Return the names of the tensors that a value, or its spec, is: one, or the parts of a sparse or ragged tensor."""
    if isinstance(leaf, (tf.SparseTensor, tf.SparseTensorSpec)):
        return [f"{name}_{part}" for part in _SPARSE_PARTS]
    count = len(tf.nest.flatten(leaf, expand_composites=True))
    if isinstance(leaf, (tf.RaggedTensor, tf.RaggedTensorSpec)):
        splits = [f"{name}_row_splits_{number}" for number in range(count - 1)]
        return [f"{name}_values", *splits]
    return [name] if count == 1 else [f"{name}_{number}" for number in range(count)]
