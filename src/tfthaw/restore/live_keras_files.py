"""Which dataset of a Keras file fills which variable of live objects.

In the layout of Keras 3 (`.weights.h5`, `.keras`) the name of a dataset is a path of attributes, lists and classes,
which is followed through the live objects. In the layout of Keras 2 (`.h5`) layers and variables have an order, which
the model's configuration explains (`keras_assignment`); what it does not explain is found by the variables' names.

Source: saving_lib.py and legacy_h5_format.py of Keras 3; the same of tf_keras.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tfthaw.errors import RestoreError
from tfthaw.ir.live_objects import ASIDE, FILE_NAMES, LiveObjects
from tfthaw.ir.object_graph import Child, SerializedTensor, TrackableObject, TrackableObjectGraph
from tfthaw.restore.keras_assignment import assign
from tfthaw.restore.keras_layouts import Located, is_aside, locate_objects
from tfthaw.restore.keras_tree import KerasLayer, keras_tree
from tfthaw.restore.live_name_keys import keys_by_names, without_numbers
from tfthaw.restore.live_saved_files import SavedWalk, changed_places, own_ways, walk_saved_file
from tfthaw.restore.live_variables import LiveMatches, mapped
from tfthaw.tensors import LazyTensor, Tensor

_LEGACY_ROOT = "model_weights/"


def match_keras_file(
    objects: LiveObjects, values: Mapping[str, Tensor], locate: Callable[[KerasLayer], Located] | None, *, path: str,
    renames: Mapping[str, str] | None = None, layer_names: Mapping[str, str] | None = None,
) -> LiveMatches:  # fmt: skip
    """Find the dataset of each variable.

    Args:
        objects: The live objects.
        values: The file's datasets by name.
        locate: Finds the variables of a model among the datasets of a legacy file; None for the layout of Keras 3.
        path: The file, for errors.
        renames: dataset -> a variable's node or any of its names; it wins over everything else.
        layer_names: In the layout of Keras 3: group of a layer's variables -> the layer's name.

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
    doubles: set[str] = set()
    if locate is None:
        walk = walk_saved_file(objects, values).without({int(place) for place in chosen})
        problems = [*own_ways(objects, walk), *changed_places(objects, walk, layer_names or {})]
        problems += _unequal(walk, values)
        _refuse(problems, "save a tf.train.Checkpoint of the model, or say it in a map file", path)
        found = {place: min(names) for place, names in walk.found.items()}
        doubles.update(*walk.found.values())
    else:
        found = _by_order(objects, values, locate, result.notes)
        _require_one_order(objects, values, locate, {place: name for place, name in found.items()
                                                    if str(place) not in chosen}, path)  # fmt: skip
        found = _named_within(objects, found, {int(place) for place in chosen}, path)
        found |= _by_names(objects, values, set(found), path)
    found |= {int(place): name for place, name in chosen.items()}
    for place, name in found.items():
        variable = objects.nodes[place].variable
        result.places[place] = name
        if variable is not None and variable.node:
            result.keys[variable.node], result.reasons[variable.node] = name, "map" if str(place) in chosen else "layer"
    used = {*found.values(), *doubles}
    result.unused = [name for name in values
                     if name not in used and not is_aside(name) and "seed_generator" not in name]  # fmt: skip
    return result


def _refuse(problems: Sequence[str], cure: str, path: str) -> None:
    """Refuse what contradicts itself.

    Raises:
        RestoreError: Something does.
    """
    if problems:
        raise RestoreError(
            "it cannot be known which value fills which variable", mismatched=problems, path=path,
            hint=f'{cure}: "dataset" = "variable"',
        )  # fmt: skip


def _unequal(walk: SavedWalk, values: Mapping[str, Tensor]) -> list[str]:
    """Return the variables of which a file has several values, as sentences."""
    return [
        f"value: {first!r} and {name!r} hold one variable, with other values each"
        for first, *others in walk.found.values() for name in others if not _are_equal(values[first], values[name])
    ]  # fmt: skip


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


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


def _named_within(
    objects: LiveObjects, found: dict[int, str], chosen: Collection[int], path: str
) -> dict[int, str]:  # fmt: skip
    """Return what was found by order, but by name within layers whose variables all have the names of the file.

    A model inside of a model has one list of variables, and which of them come last depends on what was frozen when it
    was saved.

    Raises:
        RestoreError: Such names are numbers that Keras counted up, and say something else than the order.
    """
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for place, dataset in found.items():
        groups[dataset.removeprefix(_LEGACY_ROOT).partition("/")[0]][place] = dataset
    result, problems = dict(found), []
    for group in groups.values():
        named = {_name_in(dataset): dataset for dataset in group.values()}
        said: dict[int, str] = {}
        for place in group:
            variable = objects.nodes[place].variable
            mine = [name for name in variable.names if name in named] if variable is not None else []
            if len(mine) == 1:
                said[place] = named[mine[0]]
        if said.keys() != group.keys() or len(set(said.values())) < len(group) or len(named) < len(group):
            continue
        for place in group.keys() - set(chosen):
            name = _name_in(said[place])
            variable = objects.nodes[place].variable
            if said[place] != group[place] and name != without_numbers(name) and variable is not None:
                problems.append(f"order: {variable.label} is {said[place]!r} by its name, and {group[place]!r} by its "
                                "place")  # fmt: skip
        result |= said
    _refuse(problems, "a map file says it", path)
    return result


def _name_in(dataset: str) -> str:
    """Return what a legacy file calls a variable, behind the name of its layer."""
    return dataset.removeprefix(_LEGACY_ROOT).partition("/")[2].partition(":")[0]


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
        problems = [f"order: {variable.label} is {name!r} by its name, and {nameless[place]!r} by its layer's "
                    "place in the model" for place, name in differing.items()
                    if (variable := variables[place]) is not None]  # fmt: skip
        _refuse(problems, "a map file says it", path)


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
            names.setdefault(_name_in(dataset), dataset)
    found, contested = keys_by_names(left, names)
    problems = [problem for places, problem in contested if any(left[place].node for place in places)]
    _refuse(problems, "a map file says it", path)
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
