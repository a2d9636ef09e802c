"""Which dataset of a Keras file fills which variable of live objects.

In the layout of Keras 3 (`.weights.h5`, `.keras`) the name of a dataset is a path of attributes, lists and classes,
which is followed through the live objects. In the layout of Keras 2 (`.h5`) layers and variables have an order, which
the model's configuration explains (`keras_assignment`); what it does not explain is found by the variables' names.

Source: saving_lib.py and legacy_h5_format.py of Keras 3; the same of tf_keras.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from tfthaw.errors import RestoreError
from tfthaw.ir.live_objects import ASIDE, FILE_NAMES, LAYERS, LiveObjects
from tfthaw.ir.object_graph import Child, SerializedTensor, TrackableObject, TrackableObjectGraph
from tfthaw.restore.keras_assignment import assign
from tfthaw.restore.keras_layouts import Located, is_aside, locate_objects
from tfthaw.restore.keras_tree import KerasLayer, keras_tree
from tfthaw.restore.live_name_keys import keys_by_names
from tfthaw.restore.live_variables import LiveMatches, mapped
from tfthaw.tensors import LazyTensor, Tensor

_OLD_LAYERS = "_layer_checkpoint_dependencies"  # what Keras 2.12 and 2.13 called the list of layers
_LEGACY_ROOT = "model_weights/"


def match_keras_file(objects: LiveObjects, values: Mapping[str, Tensor], locate: Callable[[KerasLayer], Located] | None,
                     *, path: str, renames: Mapping[str, str] | None = None) -> LiveMatches:  # fmt: skip
    """Find the dataset of each variable.

    Args:
        objects: The live objects.
        values: The file's datasets by name.
        locate: Finds the variables of a model among the datasets of a legacy file; None for the layout of Keras 3.
        path: The file, for errors.
        renames: dataset -> a variable's node or any of its names; it wins over everything else.

    Raises:
        RestoreError: It cannot be known which dataset fills a variable.
    """
    result = LiveMatches()
    variables = {str(place): item.variable for place, item in enumerate(objects.nodes) if item.variable is not None}
    nodes = {variable.node: place for place, variable in variables.items() if variable.node}
    given = {dataset: nodes.get(target, target) for dataset, target in (renames or {}).items()}
    chosen, problems = mapped(variables, values, given)
    if problems:
        raise RestoreError("the map does not fit", mismatched=problems, path=path)
    if locate is None:
        found = _followed(objects, values)
    else:
        found = _by_order(objects, values, locate, result.notes)
        _require_one_order(objects, values, locate, {place: name for place, name in found.items()
                                                    if str(place) not in chosen}, path)  # fmt: skip
        found |= _by_names(objects, values, set(found), path)
    found |= {int(place): name for place, name in chosen.items()}
    for place, name in found.items():
        variable = objects.nodes[place].variable
        result.places[place] = name
        if variable is not None and variable.node:
            result.keys[variable.node], result.reasons[variable.node] = name, "map" if str(place) in chosen else "layer"
    used = set(found.values())
    rest = [name for name in values if name not in used and not is_aside(name) and "seed_generator" not in name]
    result.unused = [name for name in rest if locate is not None or _is_listed(objects, name)]
    return result


def _is_listed(objects: LiveObjects, name: str) -> bool:
    """Whether a dataset is below an attribute that the model has; others may have been saved with it."""
    return _step(objects, 0 if objects.nodes else None, name.partition("/")[0]) is not None


def _followed(objects: LiveObjects, names: Iterable[str]) -> dict[int, str]:
    """Return the variables to which the names of datasets lead."""
    found: dict[int, str] = {}
    for name in names:
        place: int | None = 0 if objects.nodes and not is_aside(name) else None
        for part in name.split("/"):
            place = _step(objects, place, part)
        if place is not None and objects.nodes[place].variable is not None:
            found.setdefault(place, name)
    return found


def _step(objects: LiveObjects, place: int | None, part: str) -> int | None:
    if place is None:
        return None
    item = objects.nodes[place]
    plain = LAYERS if part == _OLD_LAYERS else part.lstrip("_")
    for spelled in (part, plain, f"_{plain}"):
        for names in (item.children, item.other_children):
            if spelled in names:
                return names[spelled]
    return None


def _by_order(objects: LiveObjects, values: Mapping[str, Tensor], locate: Callable[[KerasLayer], Located],
              notes: list[str]) -> dict[int, str]:  # fmt: skip
    """Return what the order in a legacy file says, as far as the configuration explains it."""
    if objects.config is None:
        return {}
    tree = keras_tree(objects.config, objects.keras)
    graph, stand_ins = _laid_out(objects)
    source = locate(tree)
    assignment = assign(tree, locate_objects(tree, graph, stand_ins), source, stand_ins, values)
    notes += [*source.notes, *assignment.notes]
    return {int(key): name for key, name in assignment.pairs.items()}


def _require_one_order(objects: LiveObjects, values: Mapping[str, Tensor], locate: Callable[[KerasLayer], Located],
                       found: Mapping[int, str], path: str) -> None:  # fmt: skip
    """Refuse layers that have the names of the file in another order, where their shapes leave both possible.

    Keras reads such files by order alone, and numbers the layers that have no name of their own as they are made.

    Raises:
        RestoreError: With every variable that names and order fill differently.
    """
    nameless = _by_order(objects, values, lambda tree: locate(_without_names(tree)), [])
    variables = {place: objects.nodes[place].variable for place in found}
    differing = {place: name for place, name in found.items() if nameless.get(place, name) != name}
    fitting = [variable for place in differing if (variable := variables[place]) is not None
               and variable.fits(values[nameless[place]])]  # fmt: skip
    if differing and len(fitting) == len(differing) and nameless.keys() >= found.keys():
        raise RestoreError(
            "it cannot be known which value fills which variable",
            mismatched=[f"order: {variable.label} is {name!r} by its name, and {nameless[place]!r} by its layer's "
                        "place in the model" for place, name in differing.items()
                        if (variable := variables[place]) is not None],
            path=path, hint='a map file says it: "dataset" = "variable"',
        )  # fmt: skip


def _without_names(tree: KerasLayer) -> KerasLayer:
    """Return layers under names that no file has, so that they are found by their order alone."""
    sublayers = [replace(item, layer=replace(item.layer, name=f"\0{number}"))
                 for number, item in enumerate(tree.sublayers)]  # fmt: skip
    return replace(tree, sublayers=sublayers)


def _by_names(objects: LiveObjects, values: Mapping[str, Tensor], settled: Collection[int], path: str
              ) -> dict[int, str]:  # fmt: skip
    """Return what the names of variables say, which a legacy file has behind the names of layers."""
    left = {str(place): item.variable for place, item in enumerate(objects.nodes)
            if item.variable is not None and place not in settled}  # fmt: skip
    names: dict[str, str] = {}
    for dataset in values:
        if not is_aside(dataset):
            _, _, name = dataset.removeprefix(_LEGACY_ROOT).partition("/")
            names.setdefault(name.partition(":")[0], dataset)
    found, contested = keys_by_names(left, names)
    problems = [problem for places, problem in contested if any(left[place].node for place in places)]
    if problems:
        raise RestoreError(
            "it cannot be known which value fills which variable", mismatched=problems, path=path,
            hint='a map file says it: "dataset" = "variable"',
        )  # fmt: skip
    return {int(place): names[name] for place, name in found.items()}


def _laid_out(objects: LiveObjects) -> tuple[TrackableObjectGraph, dict[str, Tensor]]:
    """Return live objects as an object graph, and a tensor of the type and shape of each variable by its key there."""
    nodes: list[TrackableObject] = []
    tensors: dict[str, Tensor] = {}
    for place, item in enumerate(objects.nodes):
        others = {name: child for name, child in item.other_children.items() if name not in FILE_NAMES}
        children = [Child(child, name) for name, child in (*item.children.items(), *others.items())
                    if name not in ASIDE]  # fmt: skip
        attributes = []
        variable = item.variable
        if variable is not None:
            attributes.append(SerializedTensor("VARIABLE_VALUE", "", str(place)))
            dims = tuple(size or 0 for size in variable.shape.dims or ())
            tensors[str(place)] = LazyTensor(variable.dtype, dims, lambda: np.empty(0))
        nodes.append(TrackableObject(children, attributes))
    return TrackableObjectGraph(nodes), tensors
