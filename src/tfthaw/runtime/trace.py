"""Trace the user's code: build the model, find out what it is, and write its graph without values.

    target -> what it builds -> functions, each traced once -> one graph -> MetaGraph + LiveObjects
           -> a graph of TensorFlow 1 ---------------------------^

The caller's process stays as it was: a graph is built in a `tf.Graph` of its own, names that Keras counts up begin
anew and go back, and no variable gets another value.

Source: `export_meta_graph` of TensorFlow's saver.py; VariableDef, SignatureDef and TensorInfo of its messages.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfthaw.errors import TfthawError, UnsupportedError, UsageError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.live_objects import LiveObjects, LiveVariable
from tfthaw.ir.signatures import DEFAULT_SIGNATURE
from tfthaw.runtime.cheap_variables import cheap_initial_values
from tfthaw.runtime.constants import doubtful_constants, numeric_constants, python_nodes, reached_nodes
from tfthaw.runtime.endpoints import Endpoint, Request, find_endpoints, is_function
from tfthaw.runtime.explain import checked_result, explain, needs_graph_mode
from tfthaw.runtime.function_graphs import build_graph, captured_constants, captured_variables
from tfthaw.runtime.graph_code import (
    asset_files,
    graph_of,
    holds_tensors,
    inputs_and_outputs,
    no_waiting,
    refuse_pipelines,
)
from tfthaw.runtime.graph_objects import objects_holding, objects_of_graph, uncollected
from tfthaw.runtime.initial_values import Readings, other_initial_values
from tfthaw.runtime.keras_models import fresh_keras_names, is_keras_layer, keras_generation
from tfthaw.runtime.live_model import FunctionModel, GraphModel, LiveModel, Traced, dtype_of
from tfthaw.runtime.live_objects import collect_objects
from tfthaw.runtime.tensorflow_runner import import_tensorflow, quiet

META_NAME = "traced.meta"


def trace(target: Any, request: Request, folder: Path, *, is_own_process: bool = False) -> LiveModel:
    """Trace what the user's code gives.

    Args:
        target: A builder, a class, a model, a module, a function, or a dict of these.
        request: What the user asked for besides.
        folder: Where the MetaGraph is written.
        is_own_process: Whether nobody else uses the process, so that variables may stay without initial values.

    Raises:
        UsageError: It is nothing that can be exported, or nothing says what its inputs are.
        RuntimeFailure: The code raises, or TensorFlow does while it is traced.
    """
    tf = import_tensorflow("trace the model's code")
    if not _is_builder(tf, target, request):
        return _trace_object(tf, target, request, folder, Readings())
    readings = Readings()
    live = _build(tf, target, request, folder, readings, is_own_process=is_own_process)
    if readings.any or _is_doubtful(tf, live):
        try:
            _refuse_chance(tf, live, target, request, folder)
        except TfthawError:
            live.close()
            raise
    return live


def _build(
    tf: Any, builder: Callable[[], Any], request: Request, folder: Path, readings: Readings, *,
    is_own_process: bool = False,
) -> LiveModel:  # fmt: skip
    """Call a builder and trace what it gives, in eager mode or, where it needs that, in a graph."""
    with fresh_keras_names():
        if tf.executing_eagerly():
            try:
                cheaply = cheap_initial_values() if is_own_process else contextlib.nullcontext()
                with readings.watched(tf), no_waiting(tf), cheaply as waiting:
                    result = builder()
                readings.any = readings.any or (waiting is not None and waiting.was_read)
            except Exception as error:
                if not needs_graph_mode(error):
                    raise explain(error, request.code, "build the model") from error
            else:
                if not _is_computed(tf, result):
                    return _trace_object(tf, checked_result(result, request.code), request, folder, readings)
        return _trace_graph(tf, builder, request, folder)


def _is_doubtful(tf: Any, live: LiveModel) -> bool:
    """Whether constants of what was traced could be chance."""
    message, outputs = _written(tf, live)
    return bool(outputs) and bool(doubtful_constants(tf, reached_nodes(message.graph_def, outputs)))


def _written(tf: Any, live: LiveModel) -> tuple[Any, list[str]]:
    """Return the MetaGraph of what was traced, and the tensors that its signatures compute."""
    message = tf.compat.v1.MetaGraphDef.FromString(live.traced.path.read_bytes())
    return message, [item.name for signature in message.signature_def.values() for item in signature.outputs.values()]


def _refuse_chance(tf: Any, live: LiveModel, builder: Callable[[], Any], request: Request, folder: Path) -> None:
    """Run the code once more, with other initial values, and refuse constants that come out differently.

    Raises:
        UnsupportedError: With each of them.
    """
    again = folder / "again"
    again.mkdir()
    try:
        with other_initial_values(tf):
            other = _build(tf, builder, request, again, Readings())
    except TfthawError as error:
        live.traced.notes.append(
            "the code cannot be run twice in one process, so that nothing says whether its constants are the same each "
            f"time: {error.message}"
        )
        return
    found, second = (numeric_constants(tf, message.graph_def, outputs)
                     for message, outputs in (_written(tf, live), _written(tf, other)))  # fmt: skip
    other.close()
    changed = [name for name, values in found.items() if second.get(name, values) != values]
    if changed:
        raise UnsupportedError(
            "the code computes constants, of chance or of the initial values of variables, that come out differently "
            "each time it runs; the trained model had others, and no checkpoint holds them",
            problems=changed, path=request.code,
            hint="compute them of the variables in the exported function, seed what is random as the training did, or "
            "make them variables (trainable=False) and train anew",
        )  # fmt: skip


def _is_builder(tf: Any, target: Any, request: Request) -> bool:
    """Whether a target is called in order to get the model.

    Raises:
        UsageError: It needs arguments that nobody gives.
    """
    if inspect.isclass(target):
        required = _required(target)
    elif _is_model(tf, target):
        return False
    else:
        required = _required(target)
    if not required:
        return True
    declared = {item.name for item in request.inputs}
    is_plain = not inspect.isclass(target)
    if is_plain and (set(required) <= declared or len(required) == len(declared) or _is_annotated(tf, target)):
        return False
    name = getattr(target, "__name__", type(target).__name__)
    raise UsageError(
        f"{name} needs arguments: {', '.join(required)}", path=request.code,
        hint=f"name a function without arguments that calls it, such as `def exported(): return {name}(...)`; or, "
        "where the arguments are the tensors that it computes with, declare them: --input 'x:float32[?,784]'",
    )  # fmt: skip


def _is_model(tf: Any, target: Any) -> bool:
    """Whether a target is what gets exported, and not what makes it."""
    if is_keras_layer(target) or is_function(target) or isinstance(target, tf.Module) or not callable(target):
        return True
    return not inspect.isroutine(target) and is_function(target.__call__)


def _required(target: Any) -> list[str]:
    """Return the arguments that a callable cannot do without."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [item.name for item in parameters if item.default is inspect.Parameter.empty and item.kind not in variadic]


def _is_annotated(tf: Any, target: Any) -> bool:
    """Whether the annotations of a function are specs of tensors."""
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError):
        return False
    return all(isinstance(item.annotation, tf.TypeSpec) for item in parameters
               if item.default is inspect.Parameter.empty)  # fmt: skip


def _is_computed(tf: Any, result: Any) -> bool:
    """Whether a builder computed values: what builds a graph of TensorFlow 1 computes at once in eager mode."""
    if result is None:
        return True
    flat = tf.nest.flatten(result)
    return bool(flat) and all(isinstance(item, (tf.Tensor, tf.Variable)) and not is_keras_layer(item) for item in flat)


def _trace_object(tf: Any, target: Any, request: Request, folder: Path, readings: Readings) -> LiveModel:
    """Trace the functions of an object."""
    code = request.code
    traced = Traced(folder / META_NAME, LiveObjects(), runtime=f"tensorflow {tf.__version__}")
    try:
        with readings.watched(tf):
            endpoints = find_endpoints(tf, target, request, traced.notes)
        variables = captured_variables(endpoints)
    except TfthawError as error:
        raise explain(error, code, "trace the model") from error.__cause__
    except Exception as error:
        raise explain(error, code, "trace the model") from error
    labels = {id(variable): str(number) for number, variable in enumerate(variables)}
    is_bare = is_function(target) or inspect.isroutine(target)
    objects = LiveObjects() if is_bare else collect_objects(target, labels)
    if variables and not any(variable.node for variable in objects.variables()):
        objects = objects_holding(tf, labels)  # functions hide what they close over
    names = _node_names(objects, variables, endpoints)
    traced.objects = _with_nodes(objects, variables, names)
    nodes = {id(variable): names[number] for number, variable in enumerate(variables)}
    constants = captured_constants(tf, endpoints)
    if constants:
        said = ", ".join(dict.fromkeys(f"{item.dtype.name}{item.shape}" for item in constants))
        traced.notes.append(f"what the code computed and no variable holds is a constant now: {said}")
    built = build_graph(tf, endpoints, nodes, code=code, doubled_scopes=_generation(target) == 3)
    traced.assets = built.assets
    _write(tf, built.graph, built.signatures, traced)
    return FunctionModel(tf, traced, target, endpoints, signatures=built.signatures, nodes=nodes)


def _generation(target: Any) -> int:
    """Return which Keras made a model, or the models of a dict."""
    if isinstance(target, Mapping):
        return max((keras_generation(value) for value in target.values()), default=0)
    return keras_generation(target)


def _node_names(objects: LiveObjects, variables: Sequence[Any], endpoints: Sequence[Endpoint]) -> list[str]:
    """Return the name of each variable's node: its own where only it has that, else its path among the objects."""
    best: dict[str, str] = {}
    for variable in objects.variables():
        if variable.node and variable.names:
            best.setdefault(variable.node, variable.names[0])
    paths = _paths(objects)
    own = [best.get(str(number)) or variable.name.removesuffix(":0") for number, variable in enumerate(variables)]
    taken = {node.name for endpoint in endpoints for node in endpoint.concrete.graph.as_graph_def().node}
    names: list[str] = []
    for number, given in enumerate(own):
        name = paths.get(str(number), given) if own.count(given) > 1 or given == "Variable" else given
        free, count = name, 0
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free)
        names.append(free)
    return names


def _paths(objects: LiveObjects) -> dict[str, str]:
    """Return the shortest path of each variable from the root, by its node."""
    if not objects.nodes:
        return {}
    paths = {0: ""}
    waiting = [0]
    for place in waiting:
        for name, child in objects.nodes[place].children.items():
            if child not in paths:
                paths[child] = f"{paths[place]}/{name}" if paths[place] else name
                waiting.append(child)
    return {
        item.variable.node: paths[place]
        for place, item in enumerate(objects.nodes)
        if item.variable is not None and item.variable.node and place in paths
    }


def _with_nodes(objects: LiveObjects, variables: Sequence[Any], names: Sequence[str]) -> LiveObjects:
    """Return the objects with the names of nodes for the labels, and with the variables that no object holds."""
    known = set()
    for item in objects.nodes:
        if item.variable is not None and item.variable.node:
            known.add(item.variable.node)
            item.variable = replace(item.variable, node=names[int(item.variable.node)])
    objects.loose = [
        LiveVariable(
            names[number], (variable.name.removesuffix(":0"),), dtype_of(variable), _shape(variable.shape),
            bool(variable.trainable),
        )
        for number, variable in enumerate(variables)
        if str(number) not in known
    ]  # fmt: skip
    return objects


def _shape(shape: Any) -> Shape:
    return Shape(None if shape.rank is None else tuple(shape.as_list()))


def _trace_graph(tf: Any, builder: Callable[[], Any], request: Request, folder: Path) -> LiveModel:
    """Trace code that builds a graph of TensorFlow 1."""
    traced = Traced(folder / META_NAME, LiveObjects(), runtime=f"tensorflow {tf.__version__}")
    try:
        with _graph_mode(tf) as default, uncollected():
            result = builder()
            graph = graph_of(tf, result, default)
            named = inputs_and_outputs(tf, result, traced.notes)
            with graph.as_default():
                every = {*tf.compat.v1.global_variables(), *tf.compat.v1.local_variables()}
                traced.objects = objects_of_graph(tf, sorted(every, key=lambda variable: variable.op.name))
    except Exception as error:
        raise explain(error, request.code, "build the graph") from error
    if not graph.get_operations():
        raise UsageError(
            "the code built no graph", path=request.code,
            hint="return the model, or the inputs and outputs of the graph that it builds",
        )  # fmt: skip
    if result is not None and not holds_tensors(tf, result) and not request.graph_outputs and named is None:
        traced.notes.append(f"the code gives a {type(result).__name__}, which says nothing of inputs and outputs")
    traced.assets = asset_files(tf, graph)
    signatures = {} if named is None or request.graph_outputs else {DEFAULT_SIGNATURE: named}
    computed, fed = _chosen_tensors(request, signatures)
    if computed:
        refuse_pipelines(graph.as_graph_def(), computed, fed, code=request.code)
    _write(tf, graph, signatures, traced)
    return GraphModel(tf, traced, graph)


def _chosen_tensors(
    request: Request, signatures: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> tuple[list[str], list[str]]:
    """Return the tensors of a graph that are computed, and those that are fed."""
    if request.graph_outputs:
        return list(request.graph_outputs), list(request.graph_inputs)
    computed = [tensor.name for _, outputs in signatures.values() for tensor in outputs.values()]
    return computed, [tensor.name for inputs, _ in signatures.values() for tensor in inputs.values()]


@contextlib.contextmanager
def _graph_mode(tf: Any) -> Iterator[Any]:
    """Build into a graph of its own; where eager execution is off, what importing the code built comes first."""
    if not tf.executing_eagerly() and tf.compat.v1.get_default_graph().get_operations():
        yield tf.compat.v1.get_default_graph()
        return
    with tf.Graph().as_default() as graph:
        yield graph


def _write(
    tf: Any, graph: Any, signatures: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], traced: Traced
) -> None:
    """Write the MetaGraph of a graph.

    Raises:
        UnsupportedError: It calls back into Python.
    """
    v1 = tf.compat.v1
    with quiet(), graph.as_default():
        savers = graph.get_collection(v1.GraphKeys.SAVERS)
        saver = savers[0].saver_def if len(savers) == 1 else None
        message = v1.train.export_meta_graph(graph=graph, saver_def=saver)
        for key, (inputs, outputs) in signatures.items():
            message.signature_def[key].CopyFrom(
                v1.saved_model.build_signature_def(
                    {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in inputs.items()},
                    {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in outputs.items()},
                    v1.saved_model.signature_constants.PREDICT_METHOD_NAME,
                )
            )
    computed = [tensor.name for _, outputs in signatures.values() for tensor in outputs.values()]
    called = python_nodes(message.graph_def, reached_nodes(message.graph_def, computed) if signatures else ())
    if called:
        raise UnsupportedError(
            "the model calls back into Python (tf.py_function, tf.numpy_function), which no artifact can hold",
            problems=called, hint="write that part with TensorFlow's ops, or leave it out of what is exported",
        )  # fmt: skip
    for tensor, file in traced.assets.items():
        message.asset_file_def.add(filename=Path(file).name).tensor_info.name = tensor
    traced.path.write_bytes(message.SerializeToString())
