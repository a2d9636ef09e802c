"""Graphs of TensorFlow 1 that code builds: what it returns as inputs and outputs, and the graph around them.

A builder may return (inputs, outputs), each a tensor, a list or a dict of tensors; outputs alone, whose placeholders
are the inputs then; or nothing, where the user names the outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tfthaw.errors import UsageError
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
    """Return the graph that a builder built into: that of its tensors, else the default one.

    Raises:
        UsageError: Its tensors are in several graphs.
    """
    graphs = {id(tensor.graph): tensor.graph for tensor in _flat(tf, result)}
    if len(graphs) > 1:
        raise UsageError("the tensors that the code gives are in several graphs", hint="build the model in one graph")
    return next(iter(graphs.values()), default)


def is_symbolic(tf: Any, value: Any) -> bool:
    """Whether a value is a tensor of a graph."""
    return isinstance(value, tf.Tensor) and hasattr(value, "op") and not hasattr(value, "numpy")


def holds_tensors(tf: Any, result: Any) -> bool:
    """Whether a result has tensors of a graph in it."""
    return bool(_flat(tf, result))


def inputs_and_outputs(tf: Any, result: Any, notes: list[str]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the inputs and outputs that a builder returned, by name; None where it returned none.

    Args:
        tf: TensorFlow.
        result: What the builder returned.
        notes: What was guessed; added to.
    """
    if is_keras_layer(result):
        result = (list(result.inputs), list(result.outputs))
    if not holds_tensors(tf, result):
        return None
    if isinstance(result, (tuple, list)) and len(result) == 2:
        first, second = ([*_flat(tf, part)] for part in result)
        if first and second and all(tensor.op.type in _PLACEHOLDERS for tensor in first):
            return _named(tf, result[0]), _named(tf, result[1])
    tensors = _named(tf, result)
    given = {name: tensor for name, tensor in tensors.items() if tensor.op.type in _PLACEHOLDERS}
    outputs = {name: tensor for name, tensor in tensors.items() if name not in given}
    if not outputs:
        return None
    inputs = given or _named(tf, _placeholders(outputs.values()))
    notes.append(f"inputs are {', '.join(inputs) or 'none'}, outputs {', '.join(outputs)}, as the code gives them")
    return inputs, outputs


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


def _named(tf: Any, value: Any) -> dict[str, Any]:
    """Return tensors by name: the key of a dict, else the tensor's own name with `/` turned into `_`."""
    if not isinstance(value, Mapping):
        return {
            tensor.name.removesuffix(":0").replace("/", "_").replace(":", "_"): tensor for tensor in _flat(tf, value)
        }
    named: dict[str, Any] = {}
    for key, item in value.items():
        tensors = _flat(tf, item)
        for number, tensor in enumerate(tensors):
            named[str(key) if len(tensors) == 1 else f"{key}_{number}"] = tensor
    return named


def _flat(tf: Any, value: Any) -> list[Any]:
    """Return the tensors in what a builder returned, in order."""
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _flat(tf, item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _flat(tf, item)]
    if isinstance(value, (tf.SparseTensor, tf.RaggedTensor)):
        return [item for item in tf.nest.flatten(value, expand_composites=True) if is_symbolic(tf, item)]
    return [value] if is_symbolic(tf, value) else []
