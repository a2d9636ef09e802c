"""Whether an object graph can be meant: what TensorFlow's loader refuses or trips over, all of it at once.

Cycles of children are legal, and objects that nothing leads to are too. Many problems of one kind in one object are one
sentence, so that a list of a million children that lead nowhere can still be told.

Source: tensorflow/python/saved_model/load.py and function_deserialization.py of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tfthaw.errors import StructureError
from tfthaw.ir.model import Model
from tfthaw.ir.object_graph import (
    AssetObject,
    CapturedTensorObject,
    Child,
    ConcreteFunctionObject,
    ConstantObject,
    FunctionObject,
    ObjectGraph,
    ResourceObject,
    SavedObject,
    SlotVariable,
    TrackableObjectGraph,
    VariableObject,
)
from tfthaw.ir.object_tree import TreeObject

_CAPTURED = (VariableObject, ResourceObject, AssetObject, ConstantObject, CapturedTensorObject)
_SHOWN = 3


def require_consistent_objects(model: Model, *, path: str | None = None) -> None:
    """Refuse a model whose object graph contradicts itself or what surrounds it; one without objects passes.

    Args:
        model: The model.
        path: The artifact, for the error.

    Raises:
        StructureError: With every problem.
    """
    problems = list(model_object_problems(model))
    if problems:
        raise StructureError(
            "the object graph contradicts itself", problems=problems, path=path,
            hint="TensorFlow's loader trips over it too; --style v1 takes the graph and its signatures without objects",
        )  # fmt: skip


def model_object_problems(model: Model) -> Iterator[str]:
    """Yield what is wrong with the object graph of a model, one sentence each; nothing where it has none."""
    if model.object_graph is not None:
        yield from object_graph_problems(
            model.object_graph,
            functions={function.name: len(function.inputs) for function in model.graph.functions},
            assets=len(model.assets),
            constants={node.name for node in model.graph.nodes if node.op == "Const"},
        )


def object_graph_problems(
    graph: ObjectGraph, *, functions: Mapping[str, int] | None = None, assets: int | None = None,
    constants: Collection[str] | None = None,
) -> Iterator[str]:
    """Yield what is wrong with the object graph of a SavedModel, one sentence each.

    Args:
        graph: The object graph.
        functions: The functions of the library, with the number of their arguments; None where it is not known.
        assets: How many assets the MetaGraph has; None where it is not known.
        constants: The Const nodes of the main graph; None where they are not known.
    """
    count = len(graph.nodes)
    if not count:
        yield "it has no objects, not even a root"
    for node, item in enumerate(graph.nodes):
        where = f"object {node}"
        yield from _edge_problems(where, item, count)
        yield from _told(where, "dependencies", _leading_nowhere(item.dependencies, count))
        saveables = [
            f"{name} -> {position}"
            for name, saveable in item.saveable_objects.items()
            for position in (saveable.save_function, saveable.restore_function)
            if not 0 <= position < count
        ]
        yield from _told(where, "functions that save and restore", saveables)
        yield from _kind_problems(where, item, graph, assets, constants)
    yield from _variable_slot_problems(graph)
    yield from _dependency_cycles(graph.nodes)
    for name, function in graph.concrete_functions.items():
        where = f"function {name}"
        if functions is not None and name not in functions:
            yield f"{where} is not in the library"
        elif functions is not None and len(function.bound_inputs) > functions[name]:
            captures, arguments = len(function.bound_inputs), functions[name]
            yield f"{where} captures {captures} objects and has {arguments} arguments"
        yield from _capture_problems(where, function.bound_inputs, graph.nodes)


def stored_graph_problems(graph: TrackableObjectGraph, keys: Collection[str] | None = None) -> Iterator[str]:
    """Yield what is wrong with the object graph of a checkpoint, one sentence each.

    Args:
        graph: The object graph.
        keys: The keys of the checkpoint; None where they are not known.
    """
    count = len(graph.nodes)
    if not count:
        yield "it has no objects, not even a root"
    for node, item in enumerate(graph.nodes):
        where = f"object {node}"
        yield from _edge_problems(where, item, count)
        if keys is not None:
            missing = [each.checkpoint_key for each in item.attributes if each.checkpoint_key not in keys]
            if missing:
                yield f"{where}: {_some(missing, 'values')} not in the checkpoint"


def _edge_problems(where: str, item: TreeObject, count: int) -> Iterator[str]:
    """Yield what is wrong with the children and slots of an object."""
    yield from _told(where, "children", _leading_nowhere(item.children, count))
    targets: dict[str, int] = {}
    twice = [child.name for child in item.children if targets.setdefault(child.name, child.node) != child.node]
    if twice:
        yield f"{where}: {_some(list(dict.fromkeys(twice)), 'names')} several children each"
    wrong = [
        f"{slot.slot} of {slot.original} -> {slot.variable}"
        for slot in item.slot_variables
        if not (0 <= slot.original < count and 0 <= slot.variable < count)
    ]
    yield from _told(where, "slot variables", wrong)


def _leading_nowhere(children: Iterable[Child], count: int) -> list[str]:
    return [f"{child.name} -> {child.node}" for child in children if not 0 <= child.node < count]


def _told(where: str, what: str, wrong: Sequence[str]) -> Iterator[str]:
    if wrong:
        yield f"{where}: {len(wrong)} {what} lead to no object: {_first(wrong)}"


def _some(items: Sequence[str], what: str) -> str:
    return f"{len(items)} {what} ({_first(items)}) {'have' if what == 'names' else 'are'}"


def _first(items: Sequence[str]) -> str:
    shown = ", ".join(item if len(item) < 200 else item[:200] + "..." for item in items[:_SHOWN])
    return shown + (", ..." if len(items) > _SHOWN else "")


def _kind_problems(where: str, item: SavedObject, graph: ObjectGraph, assets: int | None,
                   constants: Collection[str] | None) -> Iterator[str]:
    """Yield what is wrong with what an object is."""
    kind = item.kind
    known = graph.concrete_functions
    if isinstance(kind, FunctionObject):
        missing = [name for name in kind.concrete_functions if name not in known]
        if missing:
            yield f"{where}: {_some(missing, 'traces')} no concrete functions of the object graph"
    elif isinstance(kind, ConcreteFunctionObject):
        if kind.name not in known:
            yield f"{where}: {kind.name!r} is no concrete function of the object graph"
    elif isinstance(kind, AssetObject):
        if assets is not None and not 0 <= kind.index < assets:
            yield f"{where}: it is asset {kind.index}, and there are {assets}"
    elif isinstance(kind, ConstantObject):
        if constants is not None and kind.node not in constants:
            yield f"{where}: {kind.node!r} is no constant of the main graph"
    elif isinstance(kind, VariableObject):
        dims = () if kind.shape is None or kind.shape.dims is None else kind.shape.dims
        if any(size is not None and size < 0 for size in dims):
            yield f"{where}: variable {kind.name!r} has the shape {list(dims)}"


def _variable_slot_problems(graph: ObjectGraph) -> Iterator[str]:
    """Yield slots that exist and are not of or in a variable."""
    nodes = graph.nodes

    def is_other(position: int) -> bool:
        kind = nodes[position].kind if 0 <= position < len(nodes) else None
        return kind is not None and not isinstance(kind, VariableObject)

    for node, item in enumerate(nodes):
        slots: Sequence[SlotVariable] = item.slot_variables
        wrong = [
            f"{slot.slot} of {slot.original} -> {slot.variable}"
            for slot in slots
            if is_other(slot.original) or is_other(slot.variable)
        ]
        if wrong:
            yield f"object {node}: {len(wrong)} slot variables join objects that are no variables: {_first(wrong)}"


def _capture_problems(where: str, captures: Sequence[int], nodes: Sequence[SavedObject]) -> Iterator[str]:
    """Yield captures that lead nowhere, or to what has no value or handle."""
    nowhere = [str(node) for node in captures if not 0 <= node < len(nodes)]
    yield from _told(where, "captures", nowhere)
    wrong = [
        f"object {node} ({type(kind).__name__.removesuffix('Object')})"
        for node in captures
        if 0 <= node < len(nodes) and (kind := nodes[node].kind) is not None and not isinstance(kind, _CAPTURED)
    ]
    if wrong:
        yield (
            f"{where}: {len(wrong)} captures are neither variables nor tables, assets, constants or tensors: "
            f"{_first(wrong)}"
        )


def _dependency_cycles(nodes: Sequence[SavedObject]) -> Iterator[str]:
    """Yield that objects must wait for each other, which no order of making them satisfies."""
    waits_for = {
        node: {child.node for child in item.dependencies if 0 <= child.node < len(nodes)}
        for node, item in enumerate(nodes)
        if len(item.dependencies)
    }
    wanted_by: dict[int, list[int]] = {}
    for node, others in waits_for.items():
        for other in others:
            wanted_by.setdefault(other, []).append(node)
    left = {node: len(others) for node, others in waits_for.items()}
    ready = [node for node in wanted_by if not left.get(node)]
    for node in ready:
        for other in wanted_by.get(node, ()):
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    stuck = [str(node) for node, count in left.items() if count]
    if stuck:
        yield f"{len(stuck)} objects depend on each other in a circle: {_first(stuck)}"
