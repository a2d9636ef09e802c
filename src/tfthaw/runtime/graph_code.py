"""Graphs of TensorFlow 1 that code builds: what it returns as inputs and outputs, and the graph around them.

A builder may return (inputs, outputs), each a tensor, a list or a dict of tensors; outputs alone, whose placeholders
are the inputs then; or nothing, where the user names the outputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tfthaw.errors import UsageError
from tfthaw.ir.signatures import DEFAULT_SIGNATURE
from tfthaw.passes.prune import free_name
from tfthaw.runtime.keras_models import is_keras_layer
from tfthaw.runtime.reached import reached_nodes

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
_TAKING = ("dequeue", "dequeue_many", "dequeue_up_to")
_PIPELINE_OPS = frozenset((
    "QueueDequeue", "QueueDequeueV2", "QueueDequeueMany", "QueueDequeueManyV2", "QueueDequeueUpTo",
    "QueueDequeueUpToV2", "IteratorGetNext", "ReaderRead", "ReaderReadV2",
))  # fmt: skip


@contextlib.contextmanager
def no_waiting(tf: Any) -> Iterator[None]:
    """Let code fail that takes from an empty queue in eager mode, where it would wait forever: it builds a graph."""
    kind = tf.queue.QueueBase
    own = {name: getattr(kind, name) for name in _TAKING}

    def guarded(name: str) -> Any:
        def take(queue: Any, *args: Any, **options: Any) -> Any:
            if tf.executing_eagerly() and not int(queue.size()):
                raise RuntimeError(f"{name} of an empty queue requires graph mode")
            return own[name](queue, *args, **options)

        return take

    try:
        for name in _TAKING:
            setattr(kind, name, guarded(name))
        yield
    finally:
        for name, method in own.items():
            setattr(kind, name, method)


def refuse_pipelines(message: Any, outputs: Iterable[str], inputs: Collection[str], *, code: str) -> None:
    """Refuse outputs that take from a queue or an iterator, which hold the data of a training.

    Args:
        message: The GraphDef.
        outputs: The tensors that are computed.
        inputs: The tensors that are fed.
        code: What the code is called in messages.

    Raises:
        UsageError: With each node.
    """
    fed = {name.partition(":")[0] for name in inputs}
    found = [node for node in reached_nodes(message, outputs, stop=fed)
             if node.op in _PIPELINE_OPS and node.name not in fed]  # fmt: skip
    if found:
        said = ", ".join(f"{node.name} ({node.op})" for node in found)
        raise UsageError(
            f"the outputs take their data from an input pipeline: {said}", path=code,
            hint="let the code return the tensors to feed instead as inputs, or name them: "
            f"--inputs {found[0].name} --outputs ...",
        )  # fmt: skip


def asset_files(tf: Any, graph: Any) -> dict[str, str]:
    """Return the files that a graph reads vocabularies from: the tensor that has the path -> the file."""
    paths = {
        tensor.name: tf.get_static_value(tensor)
        for tensor in graph.get_collection(tf.compat.v1.GraphKeys.ASSET_FILEPATHS)
        if isinstance(tensor, tf.Tensor)
    }
    return {name: path.item().decode() for name, path in paths.items() if path is not None}


def graph_of(tf: Any, result: Any, default: Any) -> Any:
    """Return the graph that a builder built into: the one that it gave, that of its tensors, else the default one.

    Raises:
        UsageError: Its tensors are in several graphs.
    """
    given = graph_given(tf, result)
    if given is not None:
        return given
    graphs = {id(tensor.graph): tensor.graph for tensor in _flat(tf, result)}
    if len(graphs) > 1:
        raise UsageError("the tensors that the code gives are in several graphs", hint="build the model in one graph")
    return next(iter(graphs.values()), default)


def graph_given(tf: Any, result: Any) -> Any:
    """Return the graph that a builder gave, by itself or in a session; None where it gave something else."""
    session = isinstance(result, (tf.compat.v1.Session, tf.compat.v1.InteractiveSession))
    graph = result.graph if session else result
    return graph if isinstance(graph, tf.Graph) else None


def is_symbolic(tf: Any, value: Any) -> bool:
    """Whether a value is a tensor of a graph."""
    return isinstance(value, tf.Tensor) and hasattr(value, "op") and not hasattr(value, "numpy")


def holds_tensors(tf: Any, result: Any) -> bool:
    """Whether a result has tensors of a graph in it."""
    return bool(_flat(tf, result))


Named = dict[str, Any]
"""Tensors by name."""


def graph_signatures(tf: Any, result: Any, notes: list[str]) -> dict[str, tuple[Named, Named]]:
    """Return the inputs and outputs that a builder returned, by name, for each signature; none where it returned none.

    Args:
        tf: TensorFlow.
        result: What the builder returned.
        notes: What was guessed or left out; added to.
    """
    if is_keras_layer(result):
        result = (list(result.inputs), list(result.outputs))
    if not holds_tensors(tf, result):
        return {}
    pairs = _fields(result)
    if pairs is not None and pairs and all(_is_pair(tf, part) for part in pairs.values()):
        return {key: (_named(tf, part[0], notes), _named(tf, part[1], notes)) for key, part in pairs.items()}
    if _is_pair(tf, result):
        return {DEFAULT_SIGNATURE: (_named(tf, result[0], notes), _named(tf, result[1], notes))}
    tensors = _named(tf, result, notes)
    given = {name: tensor for name, tensor in tensors.items() if tensor.op.type in _PLACEHOLDERS}
    outputs = {name: tensor for name, tensor in tensors.items() if name not in given}
    if not outputs:
        return {}
    inputs = given or _named(tf, _placeholders(outputs.values()), notes)
    notes.append(f"inputs are {', '.join(inputs) or 'none'}, outputs {', '.join(outputs)}, as the code gives them")
    return {DEFAULT_SIGNATURE: (inputs, outputs)}


def _is_pair(tf: Any, result: Any) -> bool:
    """Whether a result is (inputs, outputs): the first are placeholders, data of a pipeline, or named like the second.

    Two tensors of which one is computed of the other may just as well both be outputs.
    """
    if not isinstance(result, (tuple, list)) or len(result) != 2 or _fields(result) is not None:
        return False
    first, second = (_flat(tf, part) for part in result)
    if not first or not second:
        return False
    if all(tensor.op.type in _PLACEHOLDERS or tensor.op.type in _PIPELINE_OPS for tensor in first):
        return True
    return all(_fields(part) is not None for part in result)


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the parts of a dict, a namedtuple or a dataclass by name; None where a value is none of them."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return None


def _placeholders(outputs: Iterable[Any]) -> list[Any]:
    """Return the placeholders without a value that tensors need, in the order of the graph."""
    seen: set[str] = set()
    waiting = [tensor.op for tensor in outputs]
    found = []
    while waiting:
        operation = waiting.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        if operation.type in _PLACEHOLDERS[:2]:
            found.append(operation)
        waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    if not found:
        return []
    order = {operation.name: position for position, operation in enumerate(found[0].graph.get_operations())}
    return [operation.outputs[0] for operation in sorted(found, key=lambda item: order[item.name])]


def _named(tf: Any, value: Any, notes: list[str]) -> Named:
    """Return tensors by name: the key of a dict, else the tensor's own name with `/` turned into `_`.

    Args:
        tf: TensorFlow.
        value: What has the tensors.
        notes: What is no tensor, and what has another name than it should have; added to.
    """
    wanted: list[tuple[str, Any, bool]] = []  # name, tensor, whether it is called just so
    fields = _fields(value)
    if fields is None:
        for tensor in _flat(tf, value):
            name = tensor.name.removesuffix(":0")
            plain = name.replace("/", "_").replace(":", "_")
            wanted.append((plain, tensor, plain == name))
    for key, item in (fields or {}).items():
        tensors = _flat(tf, item)
        wanted += [(key, tensor, True) if len(tensors) == 1 else (f"{key}_{number}", tensor, False)
                   for number, tensor in enumerate(tensors)]  # fmt: skip
        if not tensors and item is not None:
            notes.append(f"{key} is left out: {type(item).__name__} is no tensor of the graph")
    named: Named = {}
    names: dict[int, str] = {}
    for position in sorted(range(len(wanted)), key=lambda position: not wanted[position][2]):
        name, tensor, _ = wanted[position]
        names[position] = free = free_name(named, name)
        if free != name:
            notes.append(f"{tensor.name} is called {free}, since {named[name].name} is called {name}")
        named[free] = tensor
    return {names[position]: tensor for position, (_, tensor, _) in enumerate(wanted)}


def _flat(tf: Any, value: Any) -> list[Any]:
    """Return the tensors in what a builder returned, in order; a variable is its value."""
    fields = _fields(value)
    if fields is not None:
        return [tensor for item in fields.values() for tensor in _flat(tf, item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _flat(tf, item)]
    if isinstance(value, (tf.SparseTensor, tf.RaggedTensor)):
        return [item for item in tf.nest.flatten(value, expand_composites=True) if is_symbolic(tf, item)]
    if isinstance(value, tf.Variable):
        # what the variable was made with, so that no node comes on top; reference variables have the other
        read = getattr(value, "_graph_element", getattr(value, "_snapshot", None))
        return [read] if read is not None and is_symbolic(tf, read) else []
    return [value] if is_symbolic(tf, value) else []
