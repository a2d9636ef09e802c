"""Plans: which checkpoint key fills which variable, and what stands in the way.

A plan is made without reading a value; applying it is mechanical. Matching here is by what the graph's own Saver says,
then by exact name. Nothing is guessed.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tfthaw.errors import RestoreError, StructureError
from tfthaw.ir.graph import Graph, GraphIndex
from tfthaw.ir.variables import Variable, VariableDeclaration
from tfthaw.restore.averages import EMA_SUFFIX
from tfthaw.restore.saved_names import SavedAs, what_savers_say
from tfthaw.tensors import Tensor, slice_tensor


@dataclass(frozen=True, slots=True)
class Match:
    """One variable and the value that fills it.

    Attributes:
        variable: The variable's node.
        key: The checkpoint key.
        tensor: The value; of a partitioned variable the part that belongs here.
        reason: Why this key: `map`, `saver`, `object` (the object graphs say so), `name`, `partition`, `initial` (the
            graph's own init op sets it) or `assigned` (an initialiser that the user had run sets it).
        whole: What the checkpoint has under the key.
        part: For a part of a partitioned variable: the Saver's text for it, such as `10 20 0,5:-`; else empty.
    """

    variable: str
    key: str
    tensor: Tensor
    reason: str
    whole: Tensor
    part: str = ""


@dataclass(slots=True)
class Plan:
    """Which value fills which variable.

    Attributes:
        matches: variable's node -> its match.
        missing: Variables for which there is no value, by name.
        unused: Checkpoint keys that fill no variable.
        mismatched: Variables whose value has another dtype or shape, as sentences.
        notes: What was not as the Saver has it.
        path: The checkpoint, for errors.
    """

    matches: dict[str, Match] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    path: str | None = None

    def require_complete(self, *, allow_missing: Sequence[str] = ()) -> None:
        """Refuse a plan that leaves variables without their value.

        Args:
            allow_missing: Patterns (`*`, `?`) of variables that may stay without one.

        Raises:
            RestoreError: With everything that is missing or does not fit.
        """
        missing = [name for name in self.missing if not any(fnmatch.fnmatchcase(name, glob) for glob in allow_missing)]
        if missing or self.mismatched:
            wrong = len(missing) + len(self.mismatched)
            raise RestoreError(
                f"{wrong} of {len(self.matches) + wrong} variables have no value that fits",
                missing=missing, unused=self.unused if missing else (), mismatched=self.mismatched, path=self.path,
                hint="give the checkpoint that belongs to this graph, or name what may stay out with --allow-missing",
            )  # fmt: skip


def plan_restore(
    graph: Graph,
    variables: Iterable[Variable],
    values: Mapping[str, Tensor],
    *,
    declared: Mapping[str, VariableDeclaration] | None = None,
    restore_op: str | None = None,
    renames: Mapping[str, str] | None = None,
    objects: Mapping[str, str] | None = None,
    path: str | None = None,
) -> Plan:
    """Plan how the variables of a graph take their values.

    Args:
        graph: The whole graph, Saver included.
        variables: The variables that need a value.
        values: The checkpoint's tensors by key.
        declared: What the graph's collections say of its variables.
        restore_op: The node that the graph's Saver runs to restore.
        renames: checkpoint key -> variable, as a map file gives it; it wins over everything else.
        objects: variable's node -> checkpoint key, as the object graphs of model and checkpoint say.
        path: The checkpoint, for errors.
    """
    saved, is_writer = what_savers_say(GraphIndex(graph.nodes), restore_op, values.keys())
    given = {variable: key for key, variable in (renames or {}).items()}
    plan = Plan(path=path)
    for variable in variables:
        said = None
        if not {variable.name, variable.node} & given.keys():
            said, problem = _of_savers(variable, saved.get(variable.node, []), values, is_writer=is_writer)
            if problem:
                plan.mismatched.append(problem)
                continue
        if said is not None and said.computed_by:
            plan.mismatched.append(
                f"value: {variable.name} is computed by {said.computed_by} from what the Saver restores; "
                f"a map may say which key holds the value itself"
            )
            continue
        wanted = given.get(variable.name) or given.get(variable.node)
        if wanted is not None and wanted not in values:
            plan.mismatched.append(f"map: {variable.name} shall take {wanted!r}, which the checkpoint does not have")
            continue
        declaration = (declared or {}).get(variable.node)
        match = _match(variable, values, said, declaration, given=given, objects=objects or {})
        if match is None:
            plan.missing.append(variable.name)
            continue
        if said is not None and match.reason not in ("saver", "map", "object"):
            plan.notes.append(
                f"{variable.name} took the value of {match.key!r}; {said.key!r}, which its Saver restores, is not there"
            )
        problem = _misfit(variable, match)
        if problem:
            plan.mismatched.append(problem)
        else:
            plan.matches[variable.node] = match
    used = {match.key for match in plan.matches.values()}
    plan.unused = [key for key in values if key not in used]
    return plan


def _of_savers(
    variable: Variable, said: Sequence[SavedAs], values: Mapping[str, Tensor], *, is_writer: bool
) -> tuple[SavedAs | None, str | None]:
    """Return what counts of what Savers say of a variable; or what is wrong, where they contradict each other.

    A Saver of which nobody knows whether it wrote the checkpoint, and the variable's own name, are worth the same.
    """
    own = next((name for name in (variable.name, variable.node) if name in values), None)
    keys = [each.key for each in said]
    if not is_writer and own is not None and (not said or own in keys):
        return None, None
    others = " or ".join(map(repr, keys))
    if not is_writer and own is not None:
        which = "--ema use or --ema drop" if keys == [own + EMA_SUFFIX] else "a map"
        return None, (f"saver: {variable.name} is {others} by a Saver of the graph that did not write the checkpoint, "
                      f"and {own!r} by its name; {which} says which it is")  # fmt: skip
    if len(said) > 1:
        return None, f"saver: {variable.name} is {others} by different Savers of the graph; a map says which it is"
    return (said[0] if said else None), None


def _match(
    variable: Variable,
    values: Mapping[str, Tensor],
    saved: SavedAs | None,
    declared: VariableDeclaration | None,
    *,
    given: Mapping[str, str],
    objects: Mapping[str, str],
) -> Match | None:
    """Find the value of one variable: by map file, by Saver, by object, by name, as part of a whole."""
    key = given.get(variable.name) or given.get(variable.node)
    if key is not None and key in values:
        return Match(variable.node, key, values[key], "map", values[key])
    if saved is not None and saved.key in values:
        return _taken(variable, saved.key, values[saved.key], saved, "saver")
    key = objects.get(variable.node)
    if key is not None and key in values:
        return Match(variable.node, key, values[key], "object", values[key])
    for name in (variable.name, variable.node):
        if name in values:
            return Match(variable.node, name, values[name], "name", values[name])
    full_name = declared.full_name if declared is not None else None
    if declared is not None and full_name is not None and full_name in values and variable.shape.dims is not None:
        whole = values[full_name]
        lengths = tuple(size or 0 for size in variable.shape.dims)
        if whole.shape == declared.full_shape and len(declared.starts) == len(lengths):
            part = SavedAs(full_name, whole.shape, declared.starts, lengths)
            return _taken(variable, full_name, whole, part, "partition")
    return None


def _taken(variable: Variable, key: str, whole: Tensor, saved: SavedAs, reason: str) -> Match:
    """Return the match of a variable with a tensor or with its own part of one."""
    if saved.full_shape is None or saved.full_shape != whole.shape:
        return Match(variable.node, key, whole, reason, whole)
    try:
        part = slice_tensor(whole, saved.starts, saved.lengths)
    except StructureError:  # the whole's shape will not fit the variable, and that is said
        return Match(variable.node, key, whole, reason, whole)
    return Match(variable.node, key, part, reason, whole, saved.spec)


def _misfit(variable: Variable, match: Match) -> str | None:
    """Return what does not fit between a variable and its value, or None."""
    tensor = match.tensor
    if tensor.dtype is not variable.dtype.base:
        return (
            f"dtype: {variable.name} is {variable.dtype.base.name}, "
            f"the checkpoint has {tensor.dtype.name} under {match.key!r}"
        )
    dims = variable.shape.dims
    fits = dims is None or (
        len(dims) == len(tensor.shape)
        and all(size is None or size == actual for size, actual in zip(dims, tensor.shape, strict=True))
    )
    if not fits:
        wanted = ["?" if size is None else size for size in dims or ()]
        return f"shape: {variable.name} is {wanted}, the checkpoint has {list(tensor.shape)} under {match.key!r}"
    return None
