"""Which values of a checkpoint are those of the variables that code has; and code's variables as weights alone.

A checkpoint here is whatever holds values by name: of objects or names, V1 or V2, a Keras file, weights alone.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tfthaw.conversion.keras import object_graph_tensor
from tfthaw.conversion.options import Options
from tfthaw.conversion.weights import cast_floats
from tfthaw.errors import RestoreError, UnsupportedError, UsageError
from tfthaw.formats.names import KERAS_FORMATS
from tfthaw.ir.live_objects import LiveObject, LiveObjects, LiveVariable
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.passes.add_saver import OBJECT_GRAPH_KEY
from tfthaw.restore.keras_layouts import locate_legacy
from tfthaw.restore.live_checkpoints import model_variables, names_by_key, names_of, object_checkpoint
from tfthaw.restore.live_differences import differences
from tfthaw.restore.live_keras_files import match_keras_file
from tfthaw.restore.live_variables import LiveMatches, fits, label, match_live
from tfthaw.restore.plan import choose_averages
from tfthaw.serde.artifacts import Artifact
from tfthaw.tensors import Tensor


class CheckpointValues:
    """The values of a checkpoint, and what it says of the objects that have them.

    Args:
        artifact: The checkpoint.
        options: What the user asked for.

    Attributes:
        tensors: The values by key, moving averages chosen.
        stored: The object graph, where it has one.
        notes: What was chosen.
    """

    def __init__(self, artifact: Artifact, options: Options) -> None:
        if not artifact.tensors:
            raise UnsupportedError(f"{artifact.located.format} holds no values", path=artifact.path)
        self._artifact = artifact
        self._options = options
        self.tensors, self.notes = choose_averages(artifact.tensors, options.ema)
        self.stored: TrackableObjectGraph | None = None
        if artifact.checkpoint is not None:
            from tfthaw.serde.object_views import read_stored_graph  # only TensorFlow 2 has objects

            self.stored = read_stored_graph(artifact.checkpoint)

    @property
    def path(self) -> str:
        """The checkpoint, as the user named it."""
        return self._artifact.path

    def match(self, objects: LiveObjects) -> LiveMatches:
        """Find out which key fills which variable of live objects.

        Raises:
            RestoreError: What belongs to which is not clear.
        """
        matches = self._match(objects)
        allowed = self._options.allow_unused
        unused = [key for key in matches.unused if not any(fnmatch.fnmatchcase(key, glob) for glob in allowed)]
        if unused:
            raise RestoreError(
                f"the model in the checkpoint has {len(unused)} variables that the code does not have: it is of "
                "another architecture", unused=unused, path=self.path,
                hint="give the code that the checkpoint was trained with, or name what may stay out: --allow-unused",
            )  # fmt: skip
        return matches

    def _match(self, objects: LiveObjects) -> LiveMatches:
        renames, root = self._options.map, self._options.checkpoint_root
        if self._artifact.keras is None:
            return match_live(objects, self.tensors, self.stored, path=self.path, root=root, renames=renames)
        if root is not None:
            raise UsageError("--checkpoint-root names an object of a checkpoint; a Keras file has none", path=self.path)
        from tfthaw.conversion.keras_sources import read_keras_source

        source = read_keras_source(self._artifact)
        if source.layout != "legacy":
            return match_keras_file(objects, self.tensors, None, path=self.path, renames=renames)
        return match_keras_file(
            objects, self.tensors, lambda tree: locate_legacy(tree, source.listed(), source.tensors, source.generation),
            path=self.path, renames=renames,
        )  # fmt: skip

    @contextmanager
    def explaining(self, objects: LiveObjects, matches: LiveMatches) -> Iterator[None]:
        """Say in a restore that fails how the checkpoint differs from the code."""
        try:
            yield
        except RestoreError as error:
            error.differences = tuple(differences(objects, matches, self.tensors, self.stored))
            raise


def code_weights(
    objects: LiveObjects, values: CheckpointValues, options: Options, notes: list[str]
) -> dict[str, Tensor]:
    """Return the variables of code with the values of a checkpoint, as formats of weights alone hold them.

    Args:
        objects: The live objects.
        values: The checkpoint.
        options: What the user asked for.
        notes: What was left out; added to.

    Raises:
        RestoreError: Variables have no value that fits.
        UnsupportedError: Names are not unique, or the format cannot hold the variables.
    """
    if options.to in KERAS_FORMATS:
        raise UnsupportedError(
            f"a {options.to} is made of an artifact, not of code",
            hint="convert the checkpoint itself: a checkpoint of objects or a Keras file says which layers there are",
        )
    every = _all_named(objects)
    matches = values.match(every)
    notes += [*values.notes, *matches.notes]
    _require_fitting(every, matches, values, options)
    notes += _left_out(objects, every, matches, values)
    if options.keys == "objects":
        if options.optimizer == "keep":
            raise UsageError("the code gives the model's objects alone, and its optimizer is none of them")
        return _by_objects(every, matches, values)
    names = names_of(every)
    tensors = {names[node]: values.tensors[key] for node, key in matches.keys.items()}
    if options.optimizer == "keep":
        rest = [key for key in values.tensors if key not in matches.keys.values() and key != OBJECT_GRAPH_KEY]
        others = names_by_key(values.stored, rest) if values.stored is not None else {key: key for key in rest}
        tensors |= {name: values.tensors[key] for key, name in others.items()}
    return cast_floats(tensors, options, notes)


def _all_named(objects: LiveObjects) -> LiveObjects:
    """Return the objects of a model with a node for every variable, also for those that no output reaches."""
    of_model = model_variables(objects)
    nodes: list[LiveObject] = []
    for place, item in enumerate(objects.nodes):
        variable = item.variable
        if variable is not None and place in of_model and not variable.node:
            variable = replace(variable, node=f"variable {place}")
        nodes.append(replace(item, variable=variable))
    return replace(objects, nodes=nodes)


def _require_fitting(
    objects: LiveObjects, matches: LiveMatches, values: CheckpointValues, options: Options
) -> None:
    """Refuse variables that outputs need and that have no value; and every value that does not fit.

    Raises:
        RestoreError: With all of them.
    """
    missing, mismatched = [], []
    for variable in objects.variables():
        key = matches.keys.get(variable.node) if variable.node else None
        if key is not None and not fits(variable, values.tensors[key]):
            mismatched.append(_misfit(variable, key, values.tensors[key]))
        elif key is None and variable.node and not variable.node.startswith("variable "):
            name = label(variable)
            if not any(fnmatch.fnmatchcase(name, glob) for glob in options.allow_missing):
                missing.append(name)
    if missing or mismatched:
        with values.explaining(objects, matches):
            raise RestoreError(
                f"{len(missing) + len(mismatched)} variables have no value that fits", missing=missing,
                mismatched=mismatched, path=values.path,
                hint="give the checkpoint of this model, or name what may stay out with --allow-missing",
            )  # fmt: skip


def _misfit(variable: LiveVariable, key: str, tensor: Tensor) -> str:
    dims = ["?" if size is None else size for size in variable.shape.dims or ()]
    return (
        f"{label(variable)} is {variable.dtype.name}{dims}, the checkpoint has {tensor.dtype.name}{list(tensor.shape)} "
        f"under {key!r}"
    )


def _left_out(
    objects: LiveObjects, every: LiveObjects, matches: LiveMatches, values: CheckpointValues
) -> Sequence[str]:
    """Return what is not in what is written, as notes."""
    notes = []
    without = [label(item) for item in every.variables() if item.node and item.node not in matches.keys]
    if without:
        notes.append(f"the checkpoint has no value of {', '.join(without)}")
    rest = len(values.tensors) - len(set(matches.keys.values())) - (OBJECT_GRAPH_KEY in values.tensors)
    if rest > 0:
        notes.append(f"{rest} values of the checkpoint are not variables of the model and were left out")
    return notes


def _by_objects(objects: LiveObjects, matches: LiveMatches, values: CheckpointValues) -> dict[str, Tensor]:
    """Return the checkpoint of the objects."""
    if not objects.nodes:
        raise UnsupportedError(
            "the code builds a graph without objects, which has no paths of objects", hint="leave --keys out"
        )
    given = {
        place: values.tensors[matches.keys[item.variable.node]]
        for place, item in enumerate(objects.nodes)
        if item.variable is not None and item.variable.node in matches.keys
    }
    made = object_checkpoint(objects, given)
    return {**made.tensors, OBJECT_GRAPH_KEY: object_graph_tensor(made.graph)}


def named_by_objects(artifact: Artifact, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an object-based checkpoint under the names that its object graph gives them.

    Raises:
        UnsupportedError: Some have no name, or several have one.
    """
    if artifact.checkpoint is None or OBJECT_GRAPH_KEY not in tensors:
        return dict(tensors)
    from tfthaw.serde.object_views import read_stored_graph  # only TensorFlow 2 has objects

    stored = read_stored_graph(artifact.checkpoint)
    if stored is None:
        return dict(tensors)
    names = names_by_key(stored, [key for key in tensors if key != OBJECT_GRAPH_KEY])
    return {name: tensors[key] for key, name in names.items()}


def values_of_variables(
    names: Mapping[str, str], matches: LiveMatches, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return values under the names of variables, and those that fill none under their own keys.

    A key that is called like a variable and was not found to be its value is left out: nobody shall take it for that.

    Args:
        names: variable's node -> its name.
        matches: variable's node -> its key.
        tensors: The values by key.
    """
    given = {names[node]: tensors[key] for node, key in matches.keys.items() if node in names}
    left_out = {*matches.keys.values(), *names.values(), OBJECT_GRAPH_KEY}
    others = {key: tensor for key, tensor in tensors.items() if key not in left_out}
    return {**given, **others}
