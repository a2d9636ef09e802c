"""From a prepared model to a frozen one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfthaw.conversion.prepared import Prepared, variable_nodes
from tfthaw.conversion.values import plan_loosely, plan_values
from tfthaw.errors import UnsupportedError, UsageError
from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.passes.batch_norm import training_mode_nodes, use_moving_averages
from tfthaw.passes.freeze import freeze
from tfthaw.passes.function_uses import FunctionUses
from tfthaw.passes.idle_controls import drop_idle_controls
from tfthaw.passes.training_traces import left_in_training, training_defaults
from tfthaw.passes.transient import first_call
from tfthaw.passes.writes import drop_writes
from tfthaw.tensors import Tensor


def freeze_prepared(prepared: Prepared) -> tuple[Model, dict[str, Tensor]]:
    """Turn every variable into a constant.

    Returns:
        The frozen model, and the constants that were variables by node name. Variables that were to stay are still
        in it.

    Raises:
        UnsupportedError: The graph cannot be frozen; with every reason.
        RestoreError: Variables have no value.
    """
    kept = prepared.options.keep_variables
    outputs = [prepared.where(name) for name in prepared.selection.tensors]
    outputs += [TensorName(name, -1) for name in prepared.options.targets]
    before = prepared.graph
    if variable_nodes(before):
        _drop_what_is_written(prepared, outputs)
    settle_batch_norm(prepared, before)
    plan = plan_values(prepared) if variable_nodes(prepared.graph) else None
    if plan is None:
        had = any(node.op in VARIABLE_OPS for node in prepared.whole.walk())
        said = "no variable is needed by the outputs" if had else "the graph holds no variables: it was frozen already"
        prepared.notes.append(said)
    values = {node: match.tensor for node, match in plan.matches.items()} if plan else {}
    _require_values(prepared, values)
    frozen = freeze(prepared.graph, values, FunctionUses(prepared.definitions), kept)
    frozen.graph = drop_idle_controls(frozen.graph, outputs)
    model = replace(prepared.model, graph=frozen.graph, saver=None, collections={}, signatures={}, object_graph=None)
    present = {node.name for node in frozen.graph.nodes}
    return model, {name: values[name] for name in frozen.constants if name in present}


def _drop_what_is_written(prepared: Prepared, outputs: list[TensorName]) -> None:
    """Take out writes to variables, which a frozen graph has no place for, where no output needs them."""
    transient = [match.variable for match in plan_loosely(prepared).matches.values() if match.reason == "initial"]
    uses = FunctionUses(prepared.definitions)
    rewritten = first_call(prepared.graph, outputs, transient, uses)
    for name in rewritten.rewritten:
        prepared.notes.append(f"{name} counts from what loading the model gives it; a frozen graph keeps no count")
    frozen = [name for name in variable_nodes(rewritten.graph) if name not in prepared.options.keep_variables]
    dropped = drop_writes(rewritten.graph, outputs, uses, frozen)
    for name, variables in dropped.dropped.items():
        prepared.notes.append(f"dropped {name}, which writes {', '.join(variables)}; no output needs it")
    prepared.graph = dropped.graph


def _require_values(prepared: Prepared, values: Mapping[str, Tensor]) -> None:
    """Refuse to freeze variables that were allowed to stay without value."""
    kept = prepared.options.keep_variables
    empty = [name for name in variable_nodes(prepared.graph) if name not in values and name not in kept]
    if empty:
        raise UnsupportedError(
            "a frozen graph cannot hold variables without value", problems=empty,
            hint="choose outputs that do not need them, or convert to saved-model",
        )  # fmt: skip


def settle_batch_norm(prepared: Prepared, before: Graph | None = None) -> None:
    """Leave batch normalisation as it is and say so, or make it use its moving averages, as asked.

    Args:
        prepared: The model.
        before: The graph as it was with its writes, which say where the averages are; None where it has them still.
    """
    if prepared.options.batch_norm == "inference":
        refuse_training_defaults(prepared)
        whole = prepared.whole if before is None else prepared.whole.with_nodes([*before.nodes, *prepared.whole.nodes])
        changed = use_moving_averages(prepared.graph, whole)
        prepared.graph = changed.graph
        prepared.notes += [f"{name} uses its moving averages now" for name in changed.changed]
        if left := _left(prepared, whole):
            raise UnsupportedError(
                "batch normalisations take the statistics of the batch, as in training, and are made of single ops "
                "that cannot be told to use their moving averages", problems=left,
                hint="give a graph that was built for inference, set the placeholder that says so (--set "
                     "is_training=false), or keep it as it is with --batch-norm keep",
            )  # fmt: skip
        return
    training = training_mode_nodes(prepared.graph)
    if training:
        first = ", ".join(training[:3]) + (" ..." if len(training) > 3 else "")
        prepared.notes.append(
            f"{len(training)} batch normalisations run in training mode (statistics of the batch), as in the source: "
            f"{first}; --batch-norm inference uses moving averages"
        )
    elif left := _left(prepared, prepared.whole):
        prepared.notes.append(
            f"batch normalisations of single ops take the statistics of the batch, as in the source: "
            f"{', '.join(left[:3])}{' ...' if len(left) > 3 else ''}; a graph that was built for inference does not"
        )


def refuse_training_defaults(prepared: Prepared) -> None:
    """Refuse placeholders that tell a graph to train unless they are fed.

    Raises:
        UsageError: There are some.
    """
    flags = training_defaults(prepared.graph, [prepared.where(name).node for name in prepared.selection.tensors])
    if flags:
        raise UsageError(
            f"{', '.join(flags)} would tell the exported graph to train: that is its default",
            hint=f"say what it shall be: {' '.join(f'--set {name}=false' for name in flags)}",
        )  # fmt: skip


def _left(prepared: Prepared, whole: Graph) -> list[str]:
    """Return the batch normalisations that use the statistics of the batch and cannot be told not to."""
    outputs = [prepared.where(name).node for name in prepared.selection.tensors]
    return left_in_training(prepared.graph, whole, outputs)
