"""Conversions into Keras files, and of Keras files into object-based checkpoints.

The source says how the model is built; its own values, or those of `--checkpoint`, are brought into the layout of what
is written. As long as that is the layout which the source has, names and attributes stay as they are and no
configuration is needed; any other layout is made from the configuration.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tfthaw import proto
from tfthaw.conversion.keras_sources import (
    STRUCTURE_KEY,
    KerasSource,
    layout_of,
    optimizer_names,
    read_keras_source,
)
from tfthaw.conversion.options import Options
from tfthaw.dtypes import DType
from tfthaw.errors import RestoreError, StructureError, UnsupportedError, UsageError
from tfthaw.export.keras import KerasContents
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY
from tfthaw.formats.hdf5_writer import Text
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.restore.keras_assignment import Assignment, assign, by_slot, require_fitting
from tfthaw.restore.keras_layouts import Located, is_aside, layer_names, legacy_names, saved_names
from tfthaw.restore.keras_objects import SAVE_COUNTER_KEY, keras_objects, without_values
from tfthaw.restore.keras_tree import KerasLayer
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_to_proto
from tfthaw.tensors import ArrayTensor, Tensor

_ASSETS_LEFT = "its assets ({}), which only .keras archives hold, were left out"


def keras_contents(artifact: Artifact, destination: str, options: Options, notes: list[str]) -> KerasContents:
    """Return what to write into a Keras file.

    Args:
        artifact: The source.
        destination: Where the file shall be; Keras tells layouts apart by the name.
        options: What the user asked for.
        notes: What was guessed, skipped or defaulted; added to.

    Raises:
        RestoreError: The values are not those of the model.
        UnsupportedError: The source does not tell how the model is built, or the format cannot hold it.
    """
    source = _with_values(artifact, options, notes)
    if options.optimizer == "drop":
        source = _without_optimizer(source, notes)
    layout = _layout(source, destination, options.to, notes)
    if source.assets and options.to != "keras-zip":
        notes.append(_ASSETS_LEFT.format(", ".join(source.assets)))
    if layout == "saved":
        tensors, attributes = _saved(source, notes)
    else:
        tensors, attributes = _legacy(source, with_config=options.to == "keras-h5", notes=notes)
    if options.to != "keras-zip":
        return KerasContents(tensors, attributes)
    if source.config is None:
        source.tree()  # says what is missing
    return KerasContents(tensors, attributes, _archive_config(source), _metadata(source), source.assets)


def checkpoint_tensors(artifact: Artifact, options: Options, notes: list[str]) -> dict[str, Tensor]:
    """Return what to write into an object-based checkpoint, object graph included.

    Raises:
        RestoreError: The values are not those of the model.
        UnsupportedError: The source does not tell how the model is built, or such checkpoints cannot hold it.
    """
    source = _with_values(artifact, options, notes)
    if options.optimizer == "drop":
        source = _without_optimizer(source, notes)
    if source.objects is not None:
        return _same_objects(artifact, source, source.objects)
    tree = source.tree()
    located = _explained(source, tree)
    objects = keras_objects(tree, source.generation, len(located.optimizer))
    names = by_slot(objects.slots, located, source.path)
    tensors = {key: source.tensors[name] for key, name in names.items()}
    tensors.update((key, source.tensors[name])
                   for key, name in zip(objects.optimizer, located.optimizer, strict=True))  # fmt: skip
    _note_left(source, located, notes, keeps_optimizer=True)
    tensors[SAVE_COUNTER_KEY] = ArrayTensor(np.int64(1))
    tensors[OBJECT_GRAPH_KEY] = object_graph_tensor(objects.graph)
    notes.append("a save counter of 1 was added, which tf.train.Checkpoint expects")
    return tensors


def _same_objects(artifact: Artifact, source: KerasSource, graph: TrackableObjectGraph) -> dict[str, Tensor]:
    """Return the checkpoint that the source is, with its values as they are now."""
    others = {name: tensor for name, tensor in artifact.variables.items()
              if tensor.dtype is DType.string and name != OBJECT_GRAPH_KEY}  # fmt: skip
    tensors = {**source.tensors, **others}
    return {**tensors, OBJECT_GRAPH_KEY: object_graph_tensor(without_values(graph, tensors))}


def object_graph_tensor(graph: TrackableObjectGraph) -> Tensor:
    """Return an object graph as a checkpoint holds it."""
    message = proto.serialize(trackable_object_graph_to_proto(graph))
    return ArrayTensor(np.array(message, object), DType.string)


def keras_structure(artifact: Artifact, options: Options) -> dict[str, str]:
    """Return the metadata for safetensors from which the Keras file that a source is can be written again."""
    if artifact.keras is None or options.checkpoint is not None or options.map:
        return {}
    return {STRUCTURE_KEY: read_keras_source(artifact).structure()}


# Values


def _with_values(artifact: Artifact, options: Options, notes: list[str]) -> KerasSource:
    """Return the source with the values that shall be written, under the names that it has for them."""
    if options.ema != "keep":
        raise UsageError("Keras models have no moving averages of their variables that --ema could mean")
    source = read_keras_source(artifact)
    if options.checkpoint is None:
        return _without_dropped(_renamed(source, options))
    values = read_keras_source(open_artifact(options.checkpoint, is_checkpoint=True))
    assignment = _assignment(source, values, options)
    if options.optimizer == "keep":
        assignment.pairs.update(_optimizer_pairs(source, values, notes))
    filled = {name: values.tensors[value] for name, value in assignment.pairs.items()}
    excused = [name for name in assignment.missing if _matches(name, options.allow_missing)]
    forgiven = [name for name in assignment.unused if _matches(name, options.allow_unused)]
    assignment.missing = [name for name in assignment.missing if name not in excused]
    assignment.unused = [name for name in assignment.unused if name not in forgiven]
    require_fitting(assignment, source.tensors, values.tensors, path=values.path)
    notes += assignment.notes
    if excused:
        notes.append(f"{len(excused)} variables kept the source's values: {', '.join(excused[:5])}")
    if forgiven:
        notes.append(f"{len(forgiven)} values were not used: {', '.join(forgiven[:5])}")
    state = optimizer_names(source)
    # Keras 2 wants to find the metrics of a trained model, whatever their values
    metrics = [name for name in source.tensors if is_aside(name) and name not in state and name not in filled]
    if metrics:
        notes.append(f"{len(metrics)} variables of metrics kept the source's values")
    kept = {name: tensor for name, tensor in source.tensors.items()
            if name in filled or name in excused or name in metrics}  # fmt: skip
    left = [name for name in source.tensors if name not in kept]
    if left:
        notes.append(f"{len(left)} tensors of the source that are no variables of the model were left out, since their "
                     f"values would belong to others: {', '.join(left[:5])}")  # fmt: skip
    return _without_dropped(replace(source, tensors={**kept, **filled}))


def _matches(name: str, globs: Any) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _renamed(source: KerasSource, options: Options) -> KerasSource:
    """Return the source with the names that a map gives its values."""
    unknown = [name for name in options.map if name not in source.tensors]
    if unknown:
        raise RestoreError("the map names keys that are not there", missing=unknown, path=source.path)
    tensors = {options.map.get(name, name): tensor for name, tensor in source.tensors.items()}
    if len(tensors) != len(source.tensors):
        raise UsageError("the map gives two values the same name", path=source.path)
    return replace(source, tensors=tensors, layout=layout_of(tensors) if source.layout == "names" else source.layout)


def _assignment(source: KerasSource, values: KerasSource, options: Options) -> Assignment:
    """Return which value fills which variable of the source: by the map, by equal names, or by the configuration."""
    said = {target: value for value, target in options.map.items()}
    unknown = [value for value in said.values() if value not in values.tensors]
    unknown += [target for target in said if target not in source.tensors]
    if unknown:
        raise RestoreError("the map names keys that are not there", missing=unknown, path=values.path)
    rest = [name for name in source.tensors if name not in said and not is_aside(name)]
    if all(name in values.tensors for name in rest):
        pairs = {**said, **{name: name for name in rest}}
        used = set(pairs.values())
        return Assignment(pairs, unused=[name for name in values.tensors if name not in used and not is_aside(name)])
    owner = source if source.config is not None else values
    target, found = source.locate(owner), values.locate(owner)
    _take_out(target, set(said))
    _take_out(found, set(said.values()))
    result = assign(owner.tree(), target, found, source.tensors, values.tensors)
    result.notes += [*target.notes, *found.notes]
    result.missing = [name for name in result.missing if name not in said]
    result.pairs.update(said)
    return result


def _optimizer_pairs(source: KerasSource, values: KerasSource, notes: list[str]) -> dict[str, str]:
    """Return which values fill the optimizer's variables, where both have the same ones in the same order."""
    target, found = source.optimizer(), values.optimizer()
    one = [(source.tensors[name].dtype, source.tensors[name].shape) for name in target]
    other = [(values.tensors[name].dtype, values.tensors[name].shape) for name in found]
    if one == other:
        return dict(zip(target, found, strict=True))
    notes.append(f"the optimizer's state was left out: the source has {len(one)} variables of it, the values have "
                 f"{len(other)}, and they are not the same ones")  # fmt: skip
    return {}


def _take_out(located: Located, names: set[str]) -> None:
    """Forget names that a map has dealt with."""
    located.slots = {slot: name for slot, name in located.slots.items() if name not in names}
    located.regions = {
        place: {path: name for path, name in region.items() if name not in names}
        for place, region in located.regions.items()
    }
    located.rest = [name for name in located.rest if name not in names]


def _without_optimizer(source: KerasSource, notes: list[str]) -> KerasSource:
    state = optimizer_names(source)
    if source.layout == "objects":
        state = {name for name in source.tensors if "optimizer" in name.split("/")[:2]}
    if not state:
        return source
    notes.append(f"{len(state)} tensors of the optimizer's state were left out")
    kept = {name: tensor for name, tensor in source.tensors.items() if name not in state}
    return _without_dropped(replace(source, tensors=kept))


def _without_dropped(source: KerasSource) -> KerasSource:
    """Return the source without the groups of an optimizer and of metrics that hold nothing any more."""
    heads = ("optimizer_weights", "optimizer", "_optimizer", "metrics", "_metrics")
    gone = {head for head in heads if not any(name.startswith(f"{head}/") for name in source.tensors)}
    attributes = {group: texts for group, texts in source.attributes.items() if group.partition("/")[0] not in gone}
    return replace(source, attributes=attributes)


# Layouts


def _layout(source: KerasSource, destination: str, to: str, notes: list[str]) -> str:
    """Return the layout to write: the one under which Keras opens a file of this format and name."""
    if to == "keras-h5":
        return "legacy"
    if to == "keras-zip" or source.layout != "legacy" or destination.endswith(".weights.h5"):
        return "saved"
    notes.append("the weights stay in the layout of Keras 2, which Keras opens under any name in .h5 but .weights.h5")
    return "legacy"


def _saved(source: KerasSource, notes: list[str]) -> tuple[Mapping[str, Tensor], Mapping[str, Mapping[str, Text]]]:
    """Return datasets and attributes of the layout of Keras 3."""
    if source.layout == "saved":
        return source.tensors, source.attributes
    tree = source.tree()
    located = _explained(source, tree)
    if source.generation < 3:
        _refuse_bfloat16(source, "Keras 2 cannot read bfloat16 from HDF5")
    slots, groups = saved_names(tree)
    names = by_slot(slots, located, source.path)
    tensors = {name: source.tensors[value] for name, value in names.items()}
    tensors.update((f"optimizer/vars/{position}", source.tensors[name])
                   for position, name in enumerate(located.optimizer))  # fmt: skip
    _note_left(source, located, notes, keeps_optimizer=True)
    is_new = source.generation >= 3
    return tensors, {group: {"name": name} if is_new else {} for group, name in groups.items()}


def _legacy(source: KerasSource, *, with_config: bool, notes: list[str]
            ) -> tuple[Mapping[str, Tensor], Mapping[str, Mapping[str, Text]]]:  # fmt: skip
    """Return datasets and attributes of the layout of Keras 2."""
    if source.layout == "legacy":
        return _legacy_as_it_is(source, with_config=with_config)
    tree = source.tree()
    located = _explained(source, tree)
    _refuse_bfloat16(source, "Keras cannot read bfloat16 from its legacy layout")
    slots, listed = legacy_names(tree, source.generation)
    root = "model_weights/"
    names = by_slot(slots, located, source.path)
    tensors = {f"{root}{name}": source.tensors[value] for name, value in names.items()}
    _note_left(source, located, notes, keeps_optimizer=False)
    common: dict[str, Text] = {"backend": "tensorflow", "keras_version": _version(source)}
    config = source.config or {}
    document = {"class_name": config.get("class_name"), "config": config.get("config")}
    attributes: dict[str, dict[str, Text]] = {
        "": {**common, "model_config": json.dumps(document)},
        root.rstrip("/"): {**common, "layer_names": list(listed)},
        f"{root}top_level_model_weights": {"weight_names": []},
    }
    attributes.update({f"{root}{layer}": {"weight_names": weights} for layer, weights in listed.items()})
    if config.get("compile_config"):
        notes.append("loss, metrics and optimizer of `compile` were left out: compile the model again")
    return tensors, attributes


def _legacy_as_it_is(source: KerasSource, *, with_config: bool
                     ) -> tuple[Mapping[str, Tensor], Mapping[str, Mapping[str, Text]]]:  # fmt: skip
    """Return what a legacy file has, or the weights in it."""
    if with_config or not source.root:
        return source.tensors, source.attributes
    root = source.root.rstrip("/")
    tensors = {name.removeprefix(source.root): tensor for name, tensor in source.tensors.items()
               if name.startswith(source.root)}  # fmt: skip
    attributes = {group.removeprefix(root).lstrip("/"): texts for group, texts in source.attributes.items()
                  if group == root or group.startswith(source.root)}  # fmt: skip
    for name in ("backend", "keras_version"):  # Keras 2 has them in both places, Keras 1 in one
        if name in source.attributes.get("", {}):
            attributes.setdefault("", {}).setdefault(name, source.attributes[""][name])
    return tensors, attributes


def _refuse_bfloat16(source: KerasSource, reason: str) -> None:
    problems = [name for name, tensor in source.tensors.items() if tensor.dtype is DType.bfloat16]
    if problems:
        raise UnsupportedError(reason, problems=problems, path=source.path)


def _explained(source: KerasSource, tree: KerasLayer) -> Located:
    """Return where the model's variables are, all of them explained by the configuration.

    Raises:
        UnsupportedError: With every layer that is not.
    """
    located = source.locate(source)
    located.optimizer = source.optimizer()
    unknown = {place: region for place, region in located.regions.items() if region}
    if unknown:
        raise UnsupportedError(
            "the configuration does not tell how these layers, which are not Keras's own, keep their variables",
            problems=[f"{layer_names(tree, place)}: {len(region)} variables" for place, region in unknown.items()],
            path=source.path,
            hint="give a file of the layout that you want as source, and the values with --checkpoint",
        )  # fmt: skip
    return located


def _note_left(source: KerasSource, located: Located, notes: list[str], *, keeps_optimizer: bool) -> None:
    used = {*located.slots.values(), *(located.optimizer if keeps_optimizer else ())}
    left = [name for name in source.tensors if name not in used]
    if left:
        notes.append(f"{len(left)} tensors that are no variables of the model were left out: {', '.join(left[:5])}")


# Configurations


def _version(source: KerasSource) -> str:
    """Return the Keras version to write: the source's own, or one of its generation."""
    said = source.metadata.get("keras_version")
    for group in ("", "model_weights"):
        said = said or source.attributes.get(group, {}).get("keras_version")
    return said if isinstance(said, str) else "3.0.0" if source.generation >= 3 else "2.15.0"


def _metadata(source: KerasSource) -> Mapping[str, Any]:
    return source.metadata or {"keras_version": _version(source), "date_saved": "1980-01-01@00:00:00"}


def _archive_config(source: KerasSource) -> Mapping[str, Any]:
    """Return the configuration for a `.keras` archive, which says from which module a class comes.

    Raises:
        UnsupportedError: The class is the user's own, or the Keras that wrote the model knows no such archives.
    """
    config = dict(source.config or {})
    if "module" in config:
        return config
    name, version = config.get("class_name"), _version(source)
    module = _functional_module(version)
    if module is None:
        raise UnsupportedError(f"Keras {version} knows no .keras archives; they came with 2.12", path=source.path,
                               hint="write keras-h5, or load the model in a later Keras and save it again")  # fmt: skip
    if name not in ("Sequential", "Functional"):
        raise UnsupportedError(f"from where Keras imports the class {name!r} is only in .keras archives",
                               path=source.path, hint="save the model as .keras once")  # fmt: skip
    is_exported = name == "Sequential"  # Functional is no public name
    try:
        settings = _plain_lists(config.get("config"))
    except RecursionError as error:
        raise StructureError("the configuration is nested too deep", path=source.path) from error
    return {"module": "keras" if is_exported else module, "class_name": name, "config": settings,
            "registered_name": None if is_exported else name}  # fmt: skip


def _plain_lists(value: Any) -> Any:
    """Return a configuration with lists where SavedModels of Keras 2 mark tuples, which archives mark otherwise."""
    if isinstance(value, Mapping):
        if value.get("class_name") in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list):
            return [_plain_lists(item) for item in value["items"]]
        return {key: _plain_lists(item) for key, item in value.items()}
    return [_plain_lists(item) for item in value] if isinstance(value, list) else value


def _functional_module(version: str) -> str | None:
    """Return the module of the class Functional in a Keras, or None where archives cannot name it."""
    if version.startswith("3"):
        return "keras.src.models.functional"
    minor = version.split(".")[1] if version.startswith("2.") else ""
    if not minor.isdecimal() or int(minor) < 12:
        return None
    return {12: "keras.engine.functional"}.get(
        int(minor), "keras.src.engine.functional" if int(minor) < 16 else "tf_keras.src.engine.functional"
    )
