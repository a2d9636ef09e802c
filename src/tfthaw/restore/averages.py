"""Moving averages of variables in a checkpoint: which value is the average of which variable.

A checkpoint by names has them as shadow variables, `dense/kernel/ExponentialMovingAverage`. An optimizer of Keras with
`use_ema` keeps a list of them: beside the list of the variables in Keras 3, and with the variables' names in Keras 2.

Source: moving_averages.py of TensorFlow; `BaseOptimizer.build` of Keras 3; `Optimizer.build` of Keras 2.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfthaw.errors import RestoreError
from tfthaw.ir.live_objects import TRAINED
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.restore.keras_layouts import ObjectView
from tfthaw.tensors import Tensor

EMA_SUFFIX = "/ExponentialMovingAverage"
_LIST = "_model_variables_moving_average"
_IN_NAMES = "/average/"


def named_averages(values: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the averages of a checkpoint by names: the average's key -> the variable's."""
    return {key: key[: -len(EMA_SUFFIX)] for key in values if key.endswith(EMA_SUFFIX)}


def averages_of_optimizers(stored: TrackableObjectGraph, *, path: str | None = None) -> dict[str, str]:
    """Return the averages that optimizers keep in an object-based checkpoint: the average's key -> the variable's.

    Args:
        stored: The object graph.
        path: The checkpoint, for the error.

    Raises:
        RestoreError: Nothing says whose averages they are.
    """
    view = ObjectView(stored)
    keys = {view.name(node): key for node in range(len(stored.nodes)) if (key := view.key(node)) is not None}
    found: dict[str, str] = {}
    for node in range(len(stored.nodes)):
        parts = view.children(node)
        if _LIST not in parts:
            continue
        averages, trained = view.children(parts[_LIST]), view.children(parts[TRAINED]) if TRAINED in parts else {}
        for number, average in averages.items():
            mine = view.key(average)
            name = view.name(average).partition(_IN_NAMES)[2]
            whose = view.key(trained[number]) if number in trained else keys.get(name)
            if mine is None or whose is None or (trained and len(trained) != len(averages)):
                raise RestoreError(
                    "an optimizer keeps moving averages, and nothing says whose they are",
                    mismatched=[view.name(average) or str(mine)], path=path, hint="leave --ema out, or give a map",
                )  # fmt: skip
            found[mine] = whose
    return found


def choose_averages(
    values: Mapping[str, Tensor], mode: str, averages: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Use, drop or keep the moving averages of a checkpoint.

    Args:
        values: The checkpoint's tensors by key.
        mode: `use`: variables take their average, and the averages are gone; `drop`: the averages are gone; `keep`: as
            is.
        averages: The average's key -> the variable's; None for what the names say.

    Returns:
        The tensors by key, and what was done as notes.

    Raises:
        RestoreError: There are none to use.
    """
    shadows = {key: name for key, name in (averages or named_averages(values)).items() if key in values}
    if mode == "keep":
        return dict(values), []
    if not shadows and mode == "use":
        raise RestoreError("--ema use: the checkpoint holds no moving averages", hint="leave --ema out")
    result = {key: tensor for key, tensor in values.items() if key not in shadows}
    if mode == "use":
        for key, name in shadows.items():
            result[name] = values[key]
        return result, [f"{len(shadows)} variables take their moving average as value"]
    return result, [f"{len(shadows)} moving averages were left out"]
