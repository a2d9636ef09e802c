"""Moving averages as the values of an inference graph.

Every trainable variable that the graph needs takes the average that the checkpoint holds of it; other variables (the
statistics of batch normalisation, the global step) keep their value unless they have an average too.

Source: exporter.py of the object detection API (replace_variable_values_with_moving_averages), and
`ExponentialMovingAverage.variables_to_restore` of TensorFlow, which asks for the average of every trainable variable.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from tfthaw.errors import RestoreError
from tfthaw.ir.variables import Variable
from tfthaw.restore.averages import EMA_SUFFIX, choose_averages
from tfthaw.restore.plan import Match
from tfthaw.tensors import Tensor


def averaged_values(values: Mapping[str, Tensor], *, path: str) -> dict[str, Tensor]:
    """Return the values of a checkpoint with moving averages in the place of variables.

    Args:
        values: The checkpoint's tensors by key.
        path: The checkpoint, for the error.

    Raises:
        RestoreError: It holds no moving averages.
    """
    if not any(key.endswith(EMA_SUFFIX) for key in values):
        raise RestoreError(
            "the config says eval_config.use_moving_averages, and the checkpoint holds no moving averages", path=path,
            hint="give the checkpoint that the training wrote, or --config_override "
                 "'eval_config { use_moving_averages: false }'",
        )  # fmt: skip
    averaged, _ = choose_averages(values, "use")
    return averaged


def refuse_missing_averages(
    variables: Iterable[Variable], values: Mapping[str, Tensor], *, allowed: Sequence[str], path: str
) -> list[str]:
    """Refuse trainable variables that the checkpoint holds no average of.

    Args:
        variables: The variables that the graph needs.
        values: The checkpoint's own tensors by key.
        allowed: Patterns of variables that may keep their own value.
        path: The checkpoint, for the error.

    Returns:
        What was done, as notes.

    Raises:
        RestoreError: With all of them.
    """
    needed = list(variables)
    averaged = [variable for variable in needed if variable.name + EMA_SUFFIX in values]
    own = [variable for variable in needed if variable.name + EMA_SUFFIX not in values]
    missing = [
        variable.name + EMA_SUFFIX for variable in own
        if variable.trainable and not any(fnmatch.fnmatchcase(variable.name, glob) for glob in allowed)
    ]  # fmt: skip
    if missing:
        raise RestoreError(
            f"{len(missing)} trainable variables have no moving average", missing=missing, path=path,
            hint="give the checkpoint that belongs to this graph, or name with --allow_missing what may keep its own "
                 "value",
        )  # fmt: skip
    notes = [f"{len(averaged)} variables take their moving average as value"]
    if own:
        names = ", ".join(variable.name for variable in own[:3]) + (" ..." if len(own) > 3 else "")
        notes.append(f"{len(own)} variables have no moving average and keep their value: {names}")
    return notes


def refuse_averages(matches: Iterable[Match], *, path: str) -> None:
    """Refuse averages that the config does not ask for, where the Saver of an evaluation graph reads them.

    Args:
        matches: Which variable takes which value.
        path: The checkpoint, for the error.

    Raises:
        RestoreError: Some take an average.
    """
    averages = [match.key for match in matches if match.key.endswith(EMA_SUFFIX)]
    if averages:
        raise RestoreError(
            f"the graph's Saver reads moving averages into {len(averages)} variables ({averages[0]}), and the config "
            f"says that none are used", path=path,
            hint="--config_override 'eval_config { use_moving_averages: true }' uses them; the .meta of the training "
                 "run has the last values",
        )  # fmt: skip


def unused_averages(values: Mapping[str, Tensor]) -> list[str]:
    """Return the note that a checkpoint holds moving averages which nobody asked for."""
    count = sum(key.endswith(EMA_SUFFIX) for key in values)
    if not count:
        return []
    return [f"the checkpoint holds {count} moving averages, and eval_config.use_moving_averages is not set: variables "
            f"have their last value"]  # fmt: skip
