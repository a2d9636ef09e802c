"""The names under which a checkpoint by names may hold a variable of a Keras model.

Which models a name begins with depends on the Keras, and on whether a model was built before or while it was called:

    | model                    | Keras 2                    | Keras 3                   |
    | ------------------------ | -------------------------- | ------------------------- |
    | Sequential               | `dense/kernel`             | `sequential/dense/kernel` |
    | Sequential in a model    | `dense/kernel`             | `inner/dense/kernel`      |
    | functional               | `dense/kernel`             | `dense/kernel`            |
    | subclassed               | `my_model/dense/kernel`    | `my_model/dense/kernel`   |

A layer that another one wraps, or builds by hand, is in the names of Keras 3 alone: `time_distributed/dense/kernel`.
Numbers at the end of a name are never changed: `dense_1` is another layer than `dense`.

Source: `name_scope` of the layers of Keras 2; `path` of the variables of Keras 3; rnn layers of TensorFlow 1, which
have no cells in names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CELL = re.compile(r"/[a-z_]*(?:lstm|gru|simple_rnn)_cell(?:_\d+)?/(?=[^/]+$)")


def possible_names(own: Sequence[str], models: Sequence[str], owner: str = "", layer: str = "") -> tuple[str, ...]:
    """Return every name that a variable may go by, best first.

    Args:
        own: The names that it has in this process.
        models: The names of the models that hold it, outermost first.
        owner: The class of the layer that has it.
        layer: The name of that layer.
    """
    names = list(own)
    for name in own:
        names += _without(name, models)
    for name in own:
        names += _within(name, models)
    if "depthwise" in owner.lower():
        names += list(_other_leaf(names))
    names += [_CELL.sub("/", name) for name in names]
    names += [other for name in names if (other := _without_layer(name, layer))]
    return tuple(dict.fromkeys(names))


def _without(name: str, models: Sequence[str]) -> list[str]:
    """Return a name without the first one, two, ... of the models that it begins with."""
    parts, result = name.split("/"), []
    while len(parts) > 2 and parts[0] in models:  # `kernel` alone would be any layer's
        parts = parts[1:]
        result.append("/".join(parts))
    return result


def _within(name: str, models: Sequence[str]) -> list[str]:
    """Return a name with the innermost one, two, ... of the models in front that it does not begin with."""
    first = name.partition("/")[0]
    outer = list(models[: models.index(first)]) if first in models else list(models)
    return ["/".join([*outer[start:], name]) for start in range(len(outer) - 1, -1, -1)]


def _without_layer(name: str, layer: str) -> str:
    """Return a name without the layer that has the variable, or with it where it is without.

    A layer that another one builds by hand, or wraps, is not in the names of Keras 2.
    """
    parts = name.split("/")
    if not layer or len(parts) < 2 or (len(parts) == 2 and parts[0] == layer):
        return ""
    return "/".join([*parts[:-2], parts[-1]] if parts[-2] == layer else [*parts[:-1], layer, parts[-1]])


def _other_leaf(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        head, slash, leaf = name.rpartition("/")
        if leaf in ("kernel", "depthwise_kernel"):
            yield f"{head}{slash}{'depthwise_kernel' if leaf == 'kernel' else 'kernel'}"
