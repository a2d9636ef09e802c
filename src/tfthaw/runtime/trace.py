"""Trace the user's code: build the model, find out what it is, and write its graph without values.

    target -> what it builds -> functions, each traced once -> one graph -> MetaGraph + LiveObjects
           -> a graph of TensorFlow 1 ---------------------------^

The caller's process stays as it was: a graph is built in a `tf.Graph` of its own, names that Keras counts up begin
anew and go back, and no variable gets another value. While something is traced, parts of TensorFlow are replaced by
watched ones, so that one thread traces at a time.

Source: `export_meta_graph` of TensorFlow's saver.py; VariableDef, SignatureDef and TensorInfo of its messages.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfthaw.errors import TfthawError, UnsupportedError, UsageError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.live_objects import LiveObjects, LiveVariable
from tfthaw.runtime.builders import (
    OtherWay,
    Way,
    computes,
    is_builder,
    likely_way,
    may_be_traced,
    models_alive,
    refuse_nothing,
)
from tfthaw.runtime.chance import Drawn, digests, may_be_chance, refuse_changed
from tfthaw.runtime.cheap_variables import cheap_initial_values
from tfthaw.runtime.endpoints import Endpoint, Request, find_endpoints, is_function
from tfthaw.runtime.explain import checked_result, explain, needs_graph_mode, needs_legacy_keras, with_causes
from tfthaw.runtime.function_graphs import build_graph, captured_constants, captured_variables
from tfthaw.runtime.graph_code import (
    asset_files,
    graph_given,
    graph_of,
    graph_signatures,
    holds_tensors,
    no_waiting,
    refuse_pipelines,
)
from tfthaw.runtime.graph_objects import objects_holding, objects_of_graph, uncollected
from tfthaw.runtime.initial_values import Readings, other_initial_values
from tfthaw.runtime.keras_models import fresh_keras_names, is_keras_layer, keras_generation
from tfthaw.runtime.live_model import FunctionModel, GraphModel, LiveModel, Traced, calling_eagerly, dtype_of
from tfthaw.runtime.live_objects import collect_objects
from tfthaw.runtime.reached import python_nodes, reached_nodes
from tfthaw.runtime.scalar_conditions import scalar_conditions
from tfthaw.runtime.tensorflow_runner import import_tensorflow, quiet

META_NAME = "traced.meta"
_ONE_AT_A_TIME = threading.RLock()


@dataclass
class Circumstances:
    """How to trace, besides what.

    Attributes:
        way: How a builder is called; None where its source says it.
        is_settled: Whether the other way is known to be wrong.
        is_own_process: Whether nobody else uses the process: it can be started anew where a builder needs another way,
            the graph that it has may have been built by the code, and variables may stay without initial values.
        is_second: Whether this is the second run of the code, with other initial values: all constants are wanted.
        readings: Whether initial values were read while the code was imported; added to.
        drawn: Whether random numbers were drawn then; added to.
    """

    way: Way | None = None
    is_settled: bool = False
    is_own_process: bool = False
    is_second: bool = False
    readings: Readings = field(default_factory=Readings)
    drawn: Drawn = field(default_factory=Drawn)


def trace(target: Any, request: Request, folder: Path, how: Circumstances | None = None) -> LiveModel:
    """Trace what the user's code gives.

    Args:
        target: A builder, a class, a model, a module, a function, or a dict of these.
        request: What the user asked for besides.
        folder: Where the MetaGraph is written.
        how: How to trace.

    Raises:
        UsageError: It is nothing that can be exported, or nothing says what its inputs are.
        UnsupportedError: It has constants that come out differently each time.
        RuntimeFailure: The code raises, or TensorFlow does while it is traced.
        OtherWay: Its builder must be called in another way, in another process of our own.
    """
    tf = import_tensorflow("trace the model's code")
    how = how if how is not None else Circumstances()
    with _ONE_AT_A_TIME, calling_eagerly(tf), scalar_conditions():
        is_graph = holds_tensors(tf, target) or graph_given(tf, target) is not None
        is_built = not is_graph and is_builder(tf, target, request)
        with how.drawn.watched():
            if is_graph:
                live = _trace_graph(tf, lambda: target, request, folder, replace(how, is_settled=True))
            elif is_built:
                live = _built(tf, target, request, folder, how)
            else:
                live = _trace_object(tf, target, request, folder, how.readings)
        is_doubtful = _note_constants(tf, live, how)
        if is_doubtful and is_built and not how.is_own_process and not how.is_second:
            try:
                _refuse_chance(tf, live, target, request, folder)
            except TfthawError:
                live.close()
                raise
    return live


def _built(tf: Any, builder: Callable[[], Any], request: Request, folder: Path, how: Circumstances) -> LiveModel:
    """Call a builder and trace what it gives."""
    way = how.way if how.way is not None else likely_way(tf, builder)
    try:
        return _build(tf, builder, request, folder, replace(how, way=way))
    except OtherWay as first:
        if how.is_own_process:
            raise
        try:
            settled = replace(how, way=first.way, is_settled=way is Way.EAGERLY)
            return _build(tf, builder, request, folder, settled)
        except OtherWay as second:  # it needs a graph after all
            if first.error is not None:
                raise first.error from second
            return _build(tf, builder, request, folder, replace(how, way=second.way, is_settled=True))


def _build(tf: Any, builder: Callable[[], Any], request: Request, folder: Path, how: Circumstances) -> LiveModel:
    """Call a builder in one way and trace what it gives.

    Raises:
        OtherWay: It is the wrong one.
    """
    with fresh_keras_names():
        if how.way is Way.IN_A_GRAPH:
            return _trace_graph(tf, builder, request, folder, how)
        cheaply = cheap_initial_values() if how.is_own_process and not how.is_second else contextlib.nullcontext()
        before = set() if how.is_own_process else models_alive(tf)
        try:
            with how.readings.watched(tf), no_waiting(tf), uncollected(), cheaply as waiting:
                result = builder()
                refuse_nothing(tf, result, request, before)
            how.readings.any = how.readings.any or (waiting is not None and waiting.was_read)
        except Exception as error:
            explained = explain(error, request.code, "build the model")
            explained.__cause__ = error if explained is not error else error.__cause__
            if needs_graph_mode(error):
                raise OtherWay(Way.IN_A_GRAPH, explained) from error
            raise explained from explained.__cause__
        if computes(tf, result):
            raise OtherWay(Way.IN_A_GRAPH)
        return _trace_object(tf, checked_result(result, request.code), request, folder, how.readings)


def _note_constants(tf: Any, live: LiveModel, how: Circumstances) -> bool:
    """Note the constants of what was traced where one could be chance, or where all are wanted."""
    message = tf.compat.v1.MetaGraphDef.FromString(live.traced.path.read_bytes())
    outputs = [item.name for signature in message.signature_def.values() for item in signature.outputs.values()]
    if not outputs:
        return False
    outputs += message.collection_def["table_initializer"].node_list.value  # words of a table
    if how.is_second or how.readings.any or how.drawn.any or may_be_chance(tf, message.graph_def, outputs):
        live.traced.constants = digests(tf, message.graph_def, outputs, live.traced.assets)
        return True
    return False


def _refuse_chance(tf: Any, live: LiveModel, builder: Callable[[], Any], request: Request, folder: Path) -> None:
    """Run the code once more in this process, with other initial values, and refuse constants that changed."""
    again = folder / "again"
    again.mkdir()
    how = Circumstances(is_second=True)
    try:
        with other_initial_values(tf):
            other = _built(tf, builder, request, again, how)
    except TfthawError as error:
        live.traced.notes.append(
            "the code cannot be run twice in one process, so that nothing says whether its constants are the same each "
            f"time: {error.message}"
        )
        return
    _note_constants(tf, other, how)
    other.close()
    refuse_changed(live.traced.constants, other.traced.constants, request.code)


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
    if not tf.executing_eagerly():
        return GraphModel(tf, traced)
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
        name = _as_node_name(name)
        free, count = name, 0
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free)
        names.append(free)
    return names


def _as_node_name(name: str) -> str:
    """Return a name that a node may have: attributes that begin with an underline do not."""
    parts = (re.sub(r"[^A-Za-z0-9_.\\>-]", "_", part).lstrip("_") for part in name.split("/"))
    return "/".join(part for part in parts if part) or "variable"


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


def _trace_graph(
    tf: Any, builder: Callable[[], Any], request: Request, folder: Path, how: Circumstances
) -> LiveModel:
    """Trace code that builds a graph of TensorFlow 1.

    Raises:
        OtherWay: It builds none.
    """
    traced = Traced(folder / META_NAME, LiveObjects(), runtime=f"tensorflow {tf.__version__}")
    may_be_eager = tf.executing_eagerly() and not how.is_settled
    disturbed = other_initial_values(tf) if how.is_second else contextlib.nullcontext()
    try:
        with _graph(tf, is_own_process=how.is_own_process) as default, uncollected(), disturbed:
            result = builder()
            graph = graph_of(tf, result, default)
            signatures = graph_signatures(tf, result, traced.notes)
            with graph.as_default():
                every = {*tf.compat.v1.global_variables(), *tf.compat.v1.local_variables()}
                traced.objects = objects_of_graph(tf, sorted(every, key=lambda variable: variable.op.name))
    except Exception as error:
        explained = explain(error, request.code, "build the graph")
        explained.__cause__ = error if explained is not error else error.__cause__
        if may_be_eager and not any(map(needs_legacy_keras, with_causes(error))):
            raise OtherWay(Way.EAGERLY, explained) from error
        raise explained from explained.__cause__
    is_said = bool(signatures or request.graph_outputs)
    if not is_said and may_be_eager and may_be_traced(tf, result):
        raise OtherWay(Way.EAGERLY)
    _require_graph(graph, None if is_said else result, request.code)
    if not (is_said or result is None or holds_tensors(tf, result) or graph_given(tf, result) is not None):
        traced.notes.append(f"the code gives a {type(result).__name__}, which says nothing of inputs and outputs")
    traced.assets = asset_files(tf, graph)
    signatures = {} if request.graph_outputs else signatures
    computed, fed = _chosen_tensors(request, signatures)
    if computed:
        refuse_pipelines(graph.as_graph_def(), computed, fed, code=request.code)
    _write(tf, graph, signatures, traced)
    return GraphModel(tf, traced)


def _require_graph(graph: Any, unsaid: Any, code: str) -> None:
    """Refuse what a builder gave where that is no graph.

    Args:
        graph: The graph that it built into.
        unsaid: What it gave, where that says nothing of inputs and outputs.
        code: What it is called.

    Raises:
        UsageError: It is something else.
    """
    if is_keras_layer(unsaid):
        raise UsageError(
            "the code switches eager execution off, which models of Keras 3 need", path=code,
            hint="take disable_eager_execution() and disable_v2_behavior() out",
        )  # fmt: skip
    if unsaid is not None:
        checked_result(unsaid, code)
    if not graph.get_operations():
        raise UsageError(
            "the code built no graph", path=code,
            hint="return the model, or the inputs and outputs of the graph that it builds",
        )  # fmt: skip


def _chosen_tensors(
    request: Request, signatures: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> tuple[list[str], list[str]]:
    """Return the tensors of a graph that are computed, and those that are fed."""
    if request.graph_outputs:
        return list(request.graph_outputs), list(request.graph_inputs)
    computed = [tensor.name for _, outputs in signatures.values() for tensor in outputs.values()]
    return computed, [tensor.name for inputs, _ in signatures.values() for tensor in inputs.values()]


@contextlib.contextmanager
def _graph(tf: Any, *, is_own_process: bool) -> Iterator[Any]:
    """Build into a graph of its own; where importing the code built one already, in our own process, into that."""
    if is_own_process and not tf.executing_eagerly() and tf.compat.v1.get_default_graph().get_operations():
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
