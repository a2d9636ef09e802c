"""What loading a model does besides restoring it: filling tables, and giving local variables their values.

In the style of TensorFlow 2 each table has a function that fills it, and local variables have their values in the
checkpoint. An init op that does more than these two things has no counterpart there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tfthaw.conversion.prepared import Prepared, init_ops
from tfthaw.errors import UnsupportedError
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.validation import require_consistent
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.passes.after_writes import writes
from tfthaw.passes.asset_variables import resolve_asset_variables
from tfthaw.passes.inline_functions import inline_functions
from tfthaw.passes.prune import prune_library
from tfthaw.passes.tables import FILLING_OPS, TABLE_OPS, fillers
from tfthaw.restore.plan import Plan

_HARMLESS = VARIABLE_OPS | TABLE_OPS | FILLING_OPS | {
    "ReadVariableOp", "VarIsInitializedOp", "IsVariableInitialized", "Placeholder", "NoOp", "VariableShape",
}  # fmt: skip
_RANDOM = ("Random", "Truncated", "Stateless", "ParameterizedTruncatedNormal", "Multinomial")
_ASSIGNMENTS = frozenset({"Assign", "AssignVariableOp"})


@dataclass(frozen=True, slots=True)
class Fillers:
    """What fills the tables of a model.

    Attributes:
        chosen: table -> the nodes that fill it; a table that the model itself fills each time it runs has none.
        nodes: These nodes and all that they need.
        index: The whole graph, with what the init op calls in the open.
        init: The nodes that loading the model runs.
    """

    chosen: dict[str, tuple[str, ...]]
    nodes: list[Node]
    index: GraphIndex
    init: list[str]


def find_fillers(prepared: Prepared, within: Collection[str], assets: Collection[TensorName]) -> Fillers:
    """Find what fills the tables that a model needs.

    Args:
        prepared: The model.
        within: The nodes that the model needs.
        assets: The tensors that loaders feed with the paths of assets.

    Raises:
        UnsupportedError: A table may be filled by one of several nodes; with every such table.
    """
    init = init_ops(prepared.model)
    graph = resolve_asset_variables(_opened(prepared, init), assets)
    index = GraphIndex(graph.nodes)
    collected = prepared.model.collections.get("table_initializer")
    roots = [*init, *(str(name) for name in collected.items if collected.kind == "node")] if collected else init
    wanted = index.reach([TensorName.parse(name).node for name in roots])
    tables = [name for name in within if name in index and index.nodes[name].op in TABLE_OPS]
    chosen: dict[str, tuple[str, ...]] = {}
    problems = []
    for table, nodes in sorted(fillers(index, tables).items()):
        names = list(dict.fromkeys(node.name for node in nodes))
        if any(name in within for name in names):
            continue
        names = [name for name in names if name in wanted] or names
        if len(names) > 1:
            problems.append(f"{table} may be filled by any of {', '.join(names)}")
        if not names:
            prepared.notes.append(f"nothing in the graph fills the lookup table {table}, as in the source")
        chosen[table] = tuple(names)
    if problems:
        raise UnsupportedError(
            "which node fills a lookup table is not clear", problems=problems,
            hint="choose outputs that do not need them, or keep the graph as it is: --style v1",
        )  # fmt: skip
    cone = index.reach([name for names in chosen.values() for name in names])
    return Fillers(chosen, [node for node in index.nodes.values() if node.name in cone], index, init)


def _opened(prepared: Prepared, init: list[str]) -> Graph:
    """Return the whole graph, with what the init op calls inlined."""
    whole = prepared.whole
    if not whole.functions or not init:
        return whole
    index = GraphIndex(whole.nodes)
    reached = index.reach(init)
    graph = prune_library(whole.with_nodes(node for node in whole.nodes if node.name in reached))
    if not graph.functions:
        return whole
    require_consistent(graph)
    inlined = inline_functions(graph, Definitions(graph.functions, prepared.described), keep=init).graph
    known = {node.name for node in inlined.nodes}
    rest = [node for node in whole.nodes if node.name not in known]
    return replace(whole, nodes=[*inlined.nodes, *rest])


def require_plain_init(prepared: Prepared, found: Fillers, plan: Plan) -> None:
    """Refuse an init op that does more than fill tables and set variables.

    An init op that sets variables which the checkpoint holds as well would undo each restore. The checkpoint's values
    are taken, as for every other format, and a note says so.

    Args:
        prepared: The model, reduced to what it needs.
        found: What fills its tables.
        plan: Where its variables take their values from.

    Raises:
        UnsupportedError: With every node that does something else.
    """
    definitions = Definitions(prepared.whole.functions, prepared.described)
    kept = {node.name for node in prepared.graph.nodes}
    problems, undone = [], []
    for name in sorted(found.index.reach(found.init)):
        node = found.index.nodes[name]
        if node.op in _ASSIGNMENTS and node.inputs:
            target = TensorName.parse(node.inputs[0]).node
            match = plan.matches.get(target)
            if target in kept and match is not None and match.reason != "initial":
                undone.append(target)
        elif node.op in _HARMLESS or node.op.startswith(_RANDOM):
            continue
        elif definitions.is_stateful(node) or (writes(node) and TensorName.parse(node.inputs[0]).node in kept):
            problems.append(f"{name} ({node.op})")
    if problems:
        raise UnsupportedError(
            "loading the model does what a SavedModel of TensorFlow 2 cannot do", problems=problems,
            hint="keep its init op as it is: --style v1",
        )  # fmt: skip
    if undone:
        prepared.notes.append(
            f"the init op of the source sets {', '.join(undone)} anew after each restore; what was written keeps the "
            "values of the checkpoint"
        )
