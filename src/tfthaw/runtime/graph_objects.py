"""The Keras models and modules whose variables are in a graph that code built, or in functions that it gave.

Code that builds a graph of TensorFlow 1 around a Keras model or a `tf.Module` gives tensors, not the model; a function
hides what it closes over. The object is what an object-based checkpoint knows, so it is looked for among all that is
alive.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tfthaw.errors import UnsupportedError
from tfthaw.ir.live_objects import LiveObjects
from tfthaw.runtime.keras_models import is_keras_layer
from tfthaw.runtime.live_objects import collect_objects, live_variable


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep what the code made and let go of alive: layers and their variables refer to each other."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def objects_of_graph(tf: Any, variables: Sequence[Any]) -> LiveObjects:
    """Return the objects that hold the variables of a graph; variables that none holds are loose.

    Args:
        tf: TensorFlow.
        variables: The variables of the graph.
    """
    nodes = {id(variable): variable.op.name for variable in variables}
    result = objects_holding(tf, nodes)
    held = {variable.node for variable in result.variables()}
    named = _named_by_the_user()
    result.loose = [
        replace(live_variable(item, nodes[id(item)]), is_numbered=item.op.name not in named)
        for item in variables if nodes[id(item)] not in held
    ]  # fmt: skip
    return result


def _named_by_the_user() -> set[str]:
    """Return the names of the default graph's variables that `get_variable` made, which never changes a name."""
    from tensorflow.python.ops.variable_scope import _get_default_variable_store

    return set(_get_default_variable_store()._vars)


def objects_holding(tf: Any, nodes: Mapping[int, str]) -> LiveObjects:
    """Return the Keras models and modules that are alive and hold variables.

    Args:
        tf: TensorFlow.
        nodes: id of each variable -> its node.
    """
    found = [item for item in gc.get_objects() if is_keras_layer(item) or isinstance(item, tf.Module)]
    owners: list[tuple[Any, LiveObjects]] = []
    for owner in found:
        try:
            objects = collect_objects(owner, nodes)
        except UnsupportedError:  # somebody else's, of which a checkpoint could not be made either
            continue
        if any(variable.node for variable in objects.variables()):
            owners.append((owner, objects))
    owners = _outermost(owners)
    result = LiveObjects()
    if len(owners) == 1:
        result = owners[0][1]
    elif owners:
        result = collect_objects({f"model_{number}": owner for number, (owner, _) in enumerate(owners)}, nodes)
    return result


def _outermost(owners: Sequence[tuple[Any, LiveObjects]]) -> list[tuple[Any, LiveObjects]]:
    """Return the owners with most variables, so that no two have the same ones: a model comes before its layers."""
    taken: set[str] = set()
    chosen = []
    for owner, objects in sorted(owners, key=lambda item: -len(_nodes(item[1]))):
        if not _nodes(objects) & taken:
            taken |= _nodes(objects)
            chosen.append((owner, objects))
    return chosen


def _nodes(objects: LiveObjects) -> set[str]:
    return {variable.node for variable in objects.variables() if variable.node}
