"""From a prepared model to one with variables and a Saver of its own: meta-graph, and saved-model in graph style."""

from __future__ import annotations

from dataclasses import replace

from tfthaw.conversion.freezing import settle_batch_norm
from tfthaw.conversion.options import Options
from tfthaw.conversion.prepared import Prepared, init_ops, variable_nodes
from tfthaw.conversion.selection import public_signatures
from tfthaw.conversion.values import plan_values
from tfthaw.errors import UsageError
from tfthaw.ir.composites import put_together
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Asset, Collection, Model
from tfthaw.ir.signatures import INIT_OP_SIGNATURE, Signature
from tfthaw.ir.variables import HANDLE_OPS, graph_variables
from tfthaw.passes.add_saver import SavedVariable, WithSaver, add_saver
from tfthaw.passes.asset_variables import name_assets
from tfthaw.restore.plan import Plan, plan_restore
from tfthaw.restore.saved_names import V1_RESTORE_OPS
from tfthaw.serde.meta_graphs import variable_def
from tfthaw.tensors import Tensor


def with_state(prepared: Prepared) -> tuple[Model, dict[str, Tensor]]:
    """Give the graph a Saver of its own and say which tensors its checkpoint must hold.

    Returns:
        The model, and the checkpoint's tensors by key.

    Raises:
        RestoreError: Variables have no value.
        UnsupportedError: The library's functions hold variables.
    """
    if prepared.options.optimizer == "keep":
        raise UsageError("a graph pruned to its outputs needs nothing of an optimizer")
    settle_batch_norm(prepared)
    plan = plan_values(prepared) if variable_nodes(prepared.graph) else Plan()
    matches = list(plan.matches.values())
    saved = [SavedVariable(match.variable, match.key, match.part) for match in matches]
    # a Saver without variables would make loaders look for a checkpoint that is not there
    added = add_saver(prepared.graph, saved) if saved else WithSaver(prepared.graph, None, {}, {})
    assets = _assets(prepared, added.graph)
    files = {TensorName.parse(asset.tensor).node: asset.filename for asset in assets}
    model = replace(
        prepared.model, graph=name_assets(added.graph, files),
        saver=added.saver, collections=_collections(prepared, added, plan), signatures=_signatures(prepared),
        assets=assets, object_graph=None,
    )  # fmt: skip
    return model, {match.key: match.whole for match in matches}


def with_current_saver(model: Model, *, path: str) -> tuple[Model, list[str]]:
    """Give a whole graph a new Saver where its own reads nothing but V1 checkpoints, which are no longer written.

    Args:
        model: The model, with its values.
        path: Where the values come from, for errors.

    Returns:
        The model, and what was done as notes.

    Raises:
        RestoreError: Values do not fit their variables.
    """
    if model.saver is None:
        return model, []
    index = GraphIndex(model.graph.nodes)
    restoring = index.reach([TensorName.parse(model.saver.restore_op).node])
    if not any(index.nodes[name].op in V1_RESTORE_OPS for name in restoring):
        return model, []
    plan = plan_restore(
        model.graph, graph_variables(model.graph.nodes, model.declared), model.values, declared=model.declared,
        restore_op=model.saver.restore_op, path=path,
    )  # fmt: skip
    plan.require_complete(allow_missing=["*"])  # what the checkpoint never held, the old Saver did not restore either
    saved = [SavedVariable(match.variable, match.key, match.part) for match in plan.matches.values()]
    if not saved:
        return model, []
    added = add_saver(model.graph, saved)
    note = "its Saver reads V1 checkpoints alone; a new one reads the checkpoint that was written"
    return replace(model, graph=added.graph, saver=added.saver), [note, *plan.notes]


def _signatures(prepared: Prepared) -> dict[str, Signature]:
    """Return the selected signatures, with the init op where it is said as a signature."""
    result = {key: put_together(signature) for key, signature in prepared.selection.signatures.items()}
    init = prepared.model.signatures.get(INIT_OP_SIGNATURE)
    if init is not None and prepared.options.to == "saved-model":
        result[INIT_OP_SIGNATURE] = init
    return result


def _assets(prepared: Prepared, graph: Graph) -> list[Asset]:
    kept = {node.name for node in graph.nodes}
    return [asset for asset in prepared.model.assets if TensorName.parse(asset.tensor).node in kept]


def _collections(prepared: Prepared, added: WithSaver, plan: Plan) -> dict[str, Collection]:
    """Return the collections of variables, and the init op."""
    index = GraphIndex(added.graph.nodes)
    trainable, every = [], []
    for variable in graph_variables(prepared.graph.nodes, prepared.model.declared):
        if variable.node not in plan.matches:
            continue
        data = variable_def(
            variable.node, initializer=added.assigns[variable.node], snapshot=added.snapshots[variable.node],
            is_resource=index.nodes[variable.node].op in HANDLE_OPS, trainable=bool(variable.trainable),
        )  # fmt: skip
        every.append(data)
        if variable.trainable:
            trainable.append(data)
    result = {}
    if every:
        result["variables"] = Collection("bytes", every)
    if trainable:
        result["trainable_variables"] = Collection("bytes", trainable)
    init = [name for name in init_ops(prepared.model) if name in index]
    if init and prepared.options.to == "saved-model" and INIT_OP_SIGNATURE not in prepared.model.signatures:
        result["saved_model_main_op"] = Collection("node", init)
    return result


def keeps_whole_graph(model: Model, options: Options) -> bool:
    """Whether a MetaGraph is written with all of its graph: the user chose nothing, and no signature does."""
    chosen = options.outputs or options.signature or options.set or public_signatures(model)
    return options.to == "meta-graph" and not chosen
