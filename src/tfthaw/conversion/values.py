"""Where the variables of a prepared model take their values from."""

from __future__ import annotations

from collections.abc import Mapping

from tfthaw.conversion.prepared import LOCAL_INIT_COLLECTIONS, Prepared, init_ops, needed_variables, node_list
from tfthaw.ir.definitions import Definition, Definitions
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Saver
from tfthaw.ir.validation import require_consistent
from tfthaw.passes.inline_functions import inline_functions
from tfthaw.passes.prune import prune_library
from tfthaw.restore.averages import averages_of_optimizers, choose_averages
from tfthaw.restore.initial_values import initial_values, variables_of_assets
from tfthaw.restore.plan import Match, Plan, plan_restore
from tfthaw.serde.artifacts import Artifact
from tfthaw.serde.meta_graphs import global_variables
from tfthaw.tensors import Tensor


def plan_values(prepared: Prepared) -> Plan:
    """Plan where every variable of the graph takes its value from.

    Variables that no checkpoint holds and that the model's own init op sets to a constant take that constant.

    Raises:
        RestoreError: Variables have no value that fits; with all of them.
    """
    plan = plan_loosely(prepared)
    plan.require_complete(allow_missing=prepared.options.allow_missing)
    prepared.notes += plan.notes
    for match in plan.matches.values():
        if match.reason == "initial":
            prepared.notes.append(f"{match.key} is in no checkpoint; it has the value that loading the model gives it")
    if plan.missing:
        prepared.notes.append(f"left without value, as allowed: {', '.join(plan.missing)}")
    prepared.plan = plan
    return plan


def plan_loosely(prepared: Prepared) -> Plan:
    """Plan without judging whether the plan is complete."""
    model = prepared.model
    saving = saving_graph(model.saver, prepared.whole, prepared.described)
    plan = plan_restore(
        saving, needed_variables(prepared), prepared.values, declared=model.declared,
        restore_op=model.saver.restore_op if model.saver else None, renames=prepared.options.map,
        objects=prepared.objects, path=prepared.path,
    )  # fmt: skip
    _take_assigned(prepared, plan)
    if not plan.missing:
        return plan
    index, main = GraphIndex(prepared.whole.nodes), init_ops(model)
    roots = [name for key in LOCAL_INIT_COLLECTIONS for name in node_list(model.collections.get(key))]
    constants = initial_values(index, [*roots, *main])
    if not main:  # what a session runs besides, it runs before or without restoring: Savers have the other variables
        saved = global_variables(model.collections) | {
            variable.node for variable in needed_variables(prepared) if variable.trainable
        }
        constants = {node: value for node, value in constants.items() if node not in saved}
    for variable in needed_variables(prepared):
        if variable.name in plan.missing and variable.node in constants:
            plan.missing.remove(variable.name)
            value = constants[variable.node]
            plan.matches[variable.node] = Match(variable.node, variable.name, value, "initial", value)
    held = variables_of_assets(index, (TensorName.parse(asset.tensor) for asset in model.assets))
    for variable in needed_variables(prepared):
        if variable.name in plan.missing and variable.node in held:
            plan.missing.remove(variable.name)
    return plan


def _take_assigned(prepared: Prepared, plan: Plan) -> None:
    """Let variables have what initialisers give them that the user had run."""
    for variable in needed_variables(prepared):
        value = prepared.assigned.get(variable.node)
        if value is None:
            continue
        if variable.name in plan.missing:
            plan.missing.remove(variable.name)
        plan.matches[variable.node] = Match(variable.node, variable.name, value, "assigned", value)


def artifact_averages(
    artifact: Artifact, tensors: Mapping[str, Tensor], mode: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Use, drop or keep the moving averages among the tensors of an artifact; see `choose_averages`.

    Raises:
        RestoreError: There are none to use, or nothing says whose they are.
    """
    if mode == "keep" or artifact.checkpoint is None or not artifact.checkpoint.is_object_based:
        return choose_averages(tensors, mode)
    from tfthaw.serde.object_views import read_stored_graph  # only TensorFlow 2 has objects

    stored = read_stored_graph(artifact.checkpoint)
    averages = averages_of_optimizers(stored, path=artifact.path) if stored is not None else {}
    return choose_averages(tensors, mode, averages)


def saving_graph(saver: Saver | None, whole: Graph, described: Mapping[str, Definition]) -> Graph:
    """Return a graph whose restore nodes are in the open: where the Saver is a function, that is inlined.

    Args:
        saver: The Saver.
        whole: The whole graph.
        described: Ops that the source describes itself.
    """
    restore = TensorName.parse(saver.restore_op).node if saver is not None else ""
    index = GraphIndex(whole.nodes)
    if not whole.functions or restore not in index:
        return whole
    reached = index.reach([restore])
    taken = whole.with_nodes(node for node in whole.nodes if node.name in reached)
    graph = prune_library(taken, keep_registered=False)
    if not graph.functions:
        return whole
    require_consistent(graph)
    inlined = inline_functions(graph, Definitions(graph.functions, described), keep=[restore]).graph
    known = {node.name for node in inlined.nodes}
    return whole.with_nodes([*inlined.nodes, *(node for node in whole.nodes if node.name not in known)])
