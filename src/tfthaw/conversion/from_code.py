"""From the Python of a model: its traced graph becomes the source, a checkpoint gives every value.

The graph comes from `tfthaw.runtime`: from a process of its own for `--code`, from this process for live objects.
Variables and values are matched by `tfthaw.restore.live_variables`; from there on values have the names of variables,
and the conversion is that of any graph whose values lie beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfthaw.conversion.code_values import CheckpointValues, values_of_variables
from tfthaw.conversion.options import Options
from tfthaw.conversion.prepared import Prepared, needed_variables
from tfthaw.conversion.values import plan_loosely
from tfthaw.errors import UsageError
from tfthaw.ir.input_specs import parse_inputs
from tfthaw.ir.model import Model
from tfthaw.ir.variables import VariableDeclaration, graph_variables
from tfthaw.passes.writes import drop_idle_variables
from tfthaw.restore.live_variables import LiveMatches
from tfthaw.runtime.endpoints import Request
from tfthaw.runtime.live_model import LiveModel
from tfthaw.serde.artifacts import Artifact, open_artifact


@dataclass
class CodeSource:
    """The Python of a model, traced.

    Attributes:
        live: The live model.
        artifact: Its graph, without values.
        name: What the code is called in messages.
        matches: Which key each variable takes.
        notes: What was guessed.
    """

    live: LiveModel
    artifact: Artifact
    name: str
    matches: LiveMatches | None = None
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_code(source: Any, options: Options) -> Iterator[CodeSource]:
    """Trace the code that a conversion is from.

    Args:
        source: A live object; or what is no object, where `options.code` says where the code is.
        options: What the user asked for.

    Raises:
        UsageError: It is nothing that can be exported.
        RuntimeFailure: The code raises, or tracing it does.
    """
    chosen, functions = _signatures(options)
    request = Request(
        inputs=parse_inputs(options.input), signatures=chosen, graph_inputs=tuple(options.inputs),
        graph_outputs=tuple(options.outputs), code=options.code or _name(source),
        functions=dict.fromkeys(functions),
    )  # fmt: skip
    if options.code is not None:
        from tfthaw.runtime.code_process import CodeProcess  # only here: objects are traced in this process

        with CodeProcess(options.code, request) as process:
            yield _traced(process, request.code)
        return
    from tfthaw.runtime.trace import trace
    from tfthaw.runtime.user_code import load_code

    with tempfile.TemporaryDirectory(prefix="tfthaw-code-") as folder:
        request.functions = {spec: load_code(spec).target for spec in functions}
        live = trace(source, request, Path(folder))
        try:
            yield _traced(live, request.code)
        finally:
            live.close()


@contextmanager
def traced_artifact(options: Options) -> Iterator[Artifact]:
    """Trace the code that `options.code` names and open its graph, without values."""
    with open_code(None, options) as code:
        yield code.artifact


def _traced(live: LiveModel, name: str) -> CodeSource:
    artifact = open_artifact(live.traced.path)
    artifact.path = name
    return CodeSource(live, artifact, name, notes=list(live.traced.notes))


def _name(source: Any) -> str:
    name = getattr(source, "__qualname__", None) or getattr(source, "name", None)
    return name if isinstance(name, str) else type(source).__name__


def _signatures(options: Options) -> tuple[dict[str, str], list[str]]:
    """Return which function each signature is, and those of them that stand beside the model (`module:function`)."""
    chosen: dict[str, str] = {}
    for text in options.signatures:
        key, equals, what = text.partition("=")
        if key in chosen:
            raise UsageError(f"the signature {key!r} is asked for twice: {chosen[key]} and {what or key}")
        chosen[key] = what if equals else key
        if not key or (equals and not what):
            raise UsageError(f"--signature {text!r}: expected NEW=METHOD or NEW=MODULE:FUNCTION")
    return chosen, [what for what in chosen.values() if ":" in what]


def code_model(source: CodeSource) -> Model:
    """Return the model of a traced graph: what the live objects say of its variables, and its assets."""
    model = source.artifact.model()
    live = source.live.traced
    trainable = {variable.node: variable.is_trainable for variable in live.objects.variables() if variable.node}
    declared = dict(model.declared or {})
    for variable in graph_variables(model.graph.nodes):
        if variable.node not in declared and variable.node in trainable:
            declared[variable.node] = VariableDeclaration(variable.node, trainable[variable.node])
    for asset in model.assets:
        asset.source = Path(live.assets[asset.tensor]) if live.assets.get(asset.tensor) else None
    return replace(model, declared=declared)


def graph_options(source: CodeSource, options: Options) -> Options:
    """Return the options as they are for the traced graph: what tracing and matching took care of is done."""
    traced = source.artifact.model().signatures
    is_settled = {text.partition("=")[0] for text in options.signatures} <= set(traced)
    signature = None if is_settled else options.signature
    return replace(
        options, checkpoint=None, map=mapped_names(source), ema="keep", signature=signature, code=None, input=()
    )


def mapped_names(source: CodeSource) -> dict[str, str]:
    """Return the variables that the user's map fills, as a map for values that have the names of variables already."""
    if source.matches is None:
        return {}
    reasons = source.matches.reasons
    return {item.name: item.name for item in graph_variables(source.artifact.model().graph.nodes)
            if reasons.get(item.node) == "map"}  # fmt: skip


def drop_idle_state(prepared: Prepared) -> None:
    """Take out variables without a value that no output needs, such as the seeds of dropout, and what writes them."""
    missing = set(plan_loosely(prepared).missing)
    variables = [item.node for item in needed_variables(prepared) if item.name in missing]
    if not variables:
        return
    outputs = [prepared.where(name) for name in prepared.selection.tensors]
    dropped = drop_idle_variables(prepared.graph, outputs, variables)
    prepared.graph = dropped.graph
    left = {item.node for item in needed_variables(prepared)}
    gone = [node for node in variables if node not in left]
    if gone:
        prepared.notes.append(f"left out, since no output needs it and the checkpoint lacks it: {', '.join(gone)}")


def with_values(source: CodeSource, model: Model, values: CheckpointValues | None) -> Model:
    """Give the variables of a traced graph their values from a checkpoint.

    Args:
        source: The traced code.
        model: Its model.
        values: The checkpoint; None where none was given.

    Raises:
        UsageError: There are variables and no checkpoint, or a checkpoint and no variables.
        RestoreError: What of the checkpoint belongs to which variable is not clear.
    """
    variables = graph_variables(model.graph.nodes, model.declared)
    if values is not None and not variables and not source.live.traced.objects.variables():
        raise UsageError(
            f"{source.name} has no variables, and the {len(values.tensors)} values of the checkpoint would go nowhere",
            path=values.path, hint="leave the checkpoint out, or let the code hold its variables",
        )
    if values is None:
        if variables:
            raise UsageError(
                f"{source.name} has {len(variables)} variables, and no checkpoint gives them values",
                hint="give --checkpoint; values are never taken from initialisers. A live model is saved with "
                "tf.train.Checkpoint(model=model).write('ckpt')",
            )
        return model
    source.notes += values.notes
    matches = source.matches = values.match(source.live.traced.objects)
    source.notes += matches.notes
    names = {variable.node: variable.name for variable in variables}
    given = values_of_variables(names, matches, values.tensors)
    return replace(model, values=given)
