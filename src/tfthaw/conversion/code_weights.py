"""The variables of code with the values of a checkpoint, as formats of weights alone hold them.

Variables of the traced graph take what its Savers say, as they do in formats that carry the graph; others, which no
output reaches, take what the objects say. Parts of a partitioned variable become the whole again, under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfthaw.conversion.code_values import CheckpointValues, values_of_variables
from tfthaw.conversion.from_code import CodeSource, code_model, mapped_names
from tfthaw.conversion.keras import object_graph_tensor
from tfthaw.conversion.options import Options
from tfthaw.conversion.weights import cast_floats
from tfthaw.errors import UnsupportedError, UsageError
from tfthaw.formats.names import KERAS_FORMATS
from tfthaw.ir.live_objects import LiveObject, LiveObjects, LiveVariable
from tfthaw.ir.variables import graph_variables
from tfthaw.passes.add_saver import OBJECT_GRAPH_KEY
from tfthaw.restore.averages import EMA_SUFFIX
from tfthaw.restore.live_checkpoints import model_variables, names_by_key, names_of, object_checkpoint
from tfthaw.restore.live_variables import LiveMatches
from tfthaw.restore.plan import Match, plan_restore
from tfthaw.serde.artifacts import Artifact
from tfthaw.tensors import Tensor


def code_weights(
    source: CodeSource, values: CheckpointValues, options: Options, notes: list[str]
) -> dict[str, Tensor]:
    """Return the variables of code with the values of a checkpoint.

    Args:
        source: The traced code.
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
    objects = _all_named(source.live.traced.objects, without_averages=options.ema != "keep")
    matches = values.match(objects)
    notes += [*values.notes, *matches.notes]
    found = _found(source, objects, matches, values, options)
    notes += _left_out(objects, found, values)
    if options.keys == "objects":
        if options.optimizer == "keep":
            raise UsageError("the code gives the model's objects alone, and its optimizer is none of them")
        return _by_objects(objects, found)
    names = names_of(objects)
    tensors = {match.key if match.part else names[node]: match.whole for node, match in found.items()}
    if options.optimizer == "keep":
        used = {match.key for match in found.values()}
        rest = [key for key in values.tensors if key not in used and key != OBJECT_GRAPH_KEY]
        others = names_by_key(values.stored, rest) if values.stored is not None else {key: key for key in rest}
        tensors |= {name: values.tensors[key] for key, name in others.items()}
    return cast_floats(tensors, options, notes)


def _all_named(objects: LiveObjects, *, without_averages: bool) -> LiveObjects:
    """Return the objects of a model with a node for every variable, also for those that no output reaches.

    Args:
        objects: The live objects.
        without_averages: Whether the variables that hold moving averages of others are left out.
    """
    of_model = model_variables(objects)
    nodes: list[LiveObject] = []
    for place, item in enumerate(objects.nodes):
        variable = item.variable
        if variable is not None and place in of_model and not variable.node:
            variable = replace(variable, node=f"{_UNREACHED} {place}")
        nodes.append(replace(item, variable=variable))
    loose = [each for each in objects.loose if not (without_averages and each.label.endswith(EMA_SUFFIX))]
    return replace(objects, nodes=nodes, loose=loose)


_UNREACHED = "variable"
"""What a variable that no output reaches has for a node, with its position; no node of a graph has a blank in it."""


def _found(
    source: CodeSource, objects: LiveObjects, matches: LiveMatches, values: CheckpointValues, options: Options
) -> dict[str, Match]:
    """Return the value of each variable, by its node.

    Raises:
        RestoreError: Variables that outputs need have no value, or values do not fit; with all of them.
    """
    source.matches, model = matches, code_model(source)
    wanted = {variable.node: variable for variable in objects.variables() if variable.node}
    declared = [item for item in graph_variables(model.graph.nodes, model.declared) if item.node in wanted]
    names = {item.node: item.name for item in declared}
    plan = plan_restore(
        model.graph, declared, values_of_variables(names, matches, values.tensors), declared=model.declared,
        restore_op=model.saver.restore_op if model.saver else None, renames=mapped_names(source), path=values.path,
    )  # fmt: skip
    keys = {names[node]: key for node, key in matches.keys.items() if node in names}
    found = {node: replace(match, key=keys.get(match.key, match.key)) for node, match in plan.matches.items()}
    for node in wanted.keys() - names.keys():
        key = matches.keys.get(node)
        if key is None:
            continue
        tensor = values.tensors[key]
        if wanted[node].fits(tensor):
            found[node] = Match(node, key, tensor, matches.reasons[node], tensor)
        else:
            plan.mismatched.append(_misfit(wanted[node], key, tensor))
    with values.explaining(objects, matches):
        plan.require_complete(allow_missing=options.allow_missing)
    return found


def _misfit(variable: LiveVariable, key: str, tensor: Tensor) -> str:
    dims = ["?" if size is None else size for size in variable.shape.dims or ()]
    return (
        f"{variable.label} is {variable.dtype.name}{dims}, the checkpoint has {tensor.dtype.name}{list(tensor.shape)} "
        f"under {key!r}"
    )


def _left_out(objects: LiveObjects, found: Mapping[str, Match], values: CheckpointValues) -> list[str]:
    """Return what is not in what is written, as notes."""
    notes = []
    without = [item.label for item in objects.variables() if item.node and item.node not in found]
    if without:
        notes.append(f"the checkpoint has no value of {', '.join(without)}")
    rest = len(values.tensors) - len({match.key for match in found.values()}) - (OBJECT_GRAPH_KEY in values.tensors)
    if rest > 0:
        notes.append(f"{rest} values of the checkpoint are not variables of the model and were left out")
    return notes


def _by_objects(objects: LiveObjects, found: Mapping[str, Match]) -> dict[str, Tensor]:
    """Return the checkpoint of the objects."""
    if not objects.nodes:
        raise UnsupportedError(
            "the code builds a graph without objects, which has no paths of objects", hint="leave --keys out"
        )
    given = {
        place: found[item.variable.node].tensor
        for place, item in enumerate(objects.nodes)
        if item.variable is not None and item.variable.node in found
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
