"""Which variables train, and what they are called, from whoever says it: object graph, collections, or nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tfthaw.ir.variables import Variable, optimizer_keys, slot_variables
from tfthaw.restore.plan import Plan
from tfthaw.serde.object_views import Objects

_STATISTICS = re.compile(
    r"(^|/)(moving_(mean|variance|average|avg|var)|running_(mean|var)|ExponentialMovingAverage|global_step|"
    r"renorm_(mean|stddev)(_weight)?|local_step|biased|metrics?)(_\d+)?(/|$)"
)


@dataclass(slots=True)
class Trainability:
    """What is known of the variables of a model.

    Attributes:
        trainable: variable's node -> whether an optimizer may change it.
        names: variable's node -> its readable path, where the source has an object graph.
        notes: What was guessed, one sentence each.
    """

    trainable: dict[str, bool] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def trainability(
    variables: Iterable[Variable], plan: Plan, objects: Objects | None, places: Mapping[str, int] | None = None
) -> Trainability:
    """Tell which variables train.

    The object graph says it, else the collections. Where neither does, floating variables train that are no state of
    an optimizer and no moving statistics by their names, and a note says so.

    Args:
        variables: The variables.
        plan: Where they take their values from.
        objects: The objects of the source.
        places: variable's node -> its object, as far as that is known; for others the key of the value tells.
    """
    result = Trainability()
    described = objects.variables if objects is not None else []
    known = {item.key: item for item in described if item.key is not None}
    by_place = {item.node: item for item in described}
    every = list(variables)
    names = [variable.name for variable in every]
    state = {*optimizer_keys(names), *slot_variables(names)}
    guessed: list[str] = []
    frozen: list[str] = []
    for variable in every:
        match = plan.matches.get(variable.node)
        told = by_place.get((places or {}).get(variable.node, -1))
        if told is None and match is not None:
            told = known.get(match.key)
        if told is not None and told.path:
            result.names[variable.node] = told.path
        if match is not None and match.reason == "initial":
            result.trainable[variable.node] = False
        elif told is not None and told.trainable is not None:
            result.trainable[variable.node] = told.trainable
        elif variable.trainable is not None:
            result.trainable[variable.node] = variable.trainable
        else:
            trains = variable.dtype.is_float and variable.name not in state and not _STATISTICS.search(variable.name)
            result.trainable[variable.node] = trains
            (guessed if trains else frozen).append(variable.name)
    if guessed or frozen:
        kept = f"; not {_few(frozen)}" if frozen else ""
        result.notes.append(
            f"nothing says which variables train: {len(guessed)} do, being floating and by their names no statistics"
            f"{kept}"
        )
    return result


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
