"""What initialiser nodes do that a user had run after restoring: which variables they give which value.

Running a node after a restore may set what the checkpoint does not hold, which is what it is for; or set a variable on
purpose, such as a switch from training to inference. Both are done here where the value is a constant. It may also put
back the value that a variable began with, which undoes the restore: then the frozen graph would hold a model that was
never trained, and that is refused.

Source: session.run of `--initializer_nodes` in tensorflow/python/tools/freeze_graph.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfthaw.conversion.prepared import Prepared, needed_variables
from tfthaw.conversion.values import plan_loosely
from tfthaw.errors import NotFoundError, UnsupportedError
from tfthaw.ir.graph import GraphIndex
from tfthaw.ir.variables import Variable
from tfthaw.passes.carriers import find_carriers
from tfthaw.passes.function_uses import FunctionUses
from tfthaw.restore.initial_values import initial_values
from tfthaw.restore.plan import Plan
from tfthaw.tensors import Tensor


def assigned_by(prepared: Prepared, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the values that initialiser nodes give to the variables that the model needs.

    Args:
        prepared: The model; notes say what each variable has now.
        names: The nodes that are run.

    Returns:
        variable's node -> its value.

    Raises:
        NotFoundError: There is no such node.
        UnsupportedError: A restored value would be replaced by an initial one or by what nobody can tell; with each.
    """
    index = GraphIndex(prepared.whole.nodes)
    for name in names:
        if name not in index:
            raise NotFoundError.named("node", name, index.nodes, where="--initializer_nodes")
    constants = initial_values(index, names)
    carriers = find_carriers(index, index.reach(names), FunctionUses(prepared.definitions))
    writers: dict[str, list[str]] = {}
    for touching in (carriers.writes, carriers.calls):
        for writer, written in touching.items():
            for node in written:
                writers.setdefault(node, []).append(writer)
    plan = plan_loosely(prepared)
    problems = []
    assigned: dict[str, Tensor] = {}
    for variable in needed_variables(prepared):
        if variable.node not in writers:
            continue
        value = constants.get(variable.node)
        is_restored = _is_restored(plan, variable)
        if value is None and not is_restored:
            continue  # it is missing then, which is told with all others
        why = _objection(variable, value, writers[variable.node], is_restored=is_restored)
        if why or value is None:
            problems.append(why)
            continue
        assigned[variable.node] = value
        instead = " instead of that of the checkpoint" if is_restored else ", which the checkpoint does not hold"
        prepared.notes.append(f"{variable.name} has the value that {writers[variable.node][0]} gives it{instead}")
    if problems:
        raise UnsupportedError(
            f"running {', '.join(names)} would undo the restore", problems=problems, path=prepared.path,
            hint="leave --initializer_nodes out (lookup tables fill themselves in what is written), or name the nodes "
            "that set only what the checkpoint does not hold",
        )  # fmt: skip
    return assigned


def _is_restored(plan: Plan, variable: Variable) -> bool:
    match = plan.matches.get(variable.node)
    return match is not None and match.reason != "initial"


def _objection(variable: Variable, value: Tensor | None, writers: Sequence[str], *, is_restored: bool) -> str:
    """Return why a variable may not take what a node gives it, or an empty text."""
    if value is None:
        return f"{variable.name} would be set by {', '.join(writers)} to what is no constant"
    if is_restored and f"{variable.node}/Assign" in writers:
        return f"{variable.name} would get back its initial value from {variable.node}/Assign"
    dims = variable.shape.dims
    fits = dims is None or (
        len(dims) == len(value.shape)
        and all(size is None or size == actual for size, actual in zip(dims, value.shape, strict=True))
    )
    if not fits or value.dtype is not variable.dtype.base:
        return f"{variable.name} would be set to {value.dtype.name}{list(value.shape)}, which does not fit it"
    return ""
