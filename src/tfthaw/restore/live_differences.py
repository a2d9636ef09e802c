"""How a checkpoint differs from the code that shall take its values, in a few lines for people.

It is read when a restore has failed: the code has other units than the trained model, one layer more, other names. What
is near is told, by shape and by name; nothing is concluded from it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.live_objects import ASIDE, TRAINED, LiveObjects, LiveVariable
from tfthaw.ir.object_graph import VALUE_KEY, TrackableObjectGraph
from tfthaw.ir.object_variables import find_slots
from tfthaw.restore.live_name_keys import is_default_name, names_of_models
from tfthaw.restore.live_variables import LiveMatches
from tfthaw.restore.live_walk import StoredView
from tfthaw.tensors import Tensor

_MOST_LINES = 6  # of each kind
_LEAVING_OUT = 3  # the Keras whose checkpoints lack layers in lists
_MOST_COMPARED = 2000  # names; difflib takes a millisecond for ten


def differences(objects: LiveObjects, matches: LiveMatches, values: Mapping[str, Tensor],
                stored: TrackableObjectGraph | None) -> list[str]:  # fmt: skip
    """Say how a checkpoint differs from live objects.

    Args:
        objects: The live objects.
        matches: What was found all the same.
        values: The checkpoint's tensors by key.
        stored: The checkpoint's object graph, or None.

    Returns:
        Sentences, the one that explains most first; none where everything fits and nothing is left over.
    """
    needed = {variable.node: variable for variable in objects.variables() if variable.node}
    names = _readable(values, stored, matches.root)
    misfits = {node: key for node, key in matches.keys.items()
               if node in needed and key in values and not needed[node].fits(values[key])}  # fmt: skip
    missing = {node: variable for node, variable in needed.items() if matches.keys.get(node) not in values}
    used = set(matches.keys.values())
    rest = {key: name for key, name in names.items() if key not in used}
    unused = set(matches.unused)
    if not misfits and not missing and not unused:
        return []
    if not misfits and not missing:
        rest = {key: name for key, name in rest.items() if key in unused}
    lines = _summary(needed, names, missing) if misfits or missing else []
    lines += _left_out(objects, missing, stored)
    lines += _other_sizes([(needed[node], values[key]) for node, key in misfits.items()])
    lines += _cut([_misfit(needed[node], key, values[key]) for node, key in misfits.items()], "other shapes")
    lines += _cut([_missing(variable, rest, values) for variable in missing.values()], "missing variables")
    lines += _cut([f"only in the checkpoint: {_stored(key, name, values[key])}" for key, name in rest.items()],
                  "that only the checkpoint has")  # fmt: skip
    return lines


def _readable(values: Mapping[str, Tensor], stored: TrackableObjectGraph | None, root: str | None) -> dict[str, str]:
    """Return the checkpoint's variables without what only training needs: key -> a name for people."""
    if stored is None:
        return {key: key for key in names_of_models(values) if not _is_state(key)}
    view = StoredView(stored)
    top = view.follow_path(root) if root is not None else None
    below = None if top is None else set(view.keys_below(top))
    said = {node: (key, name) for node, key, name in view.stored_variables()}
    slots = find_slots(stored.nodes, {node: name for node, (_, name) in said.items()})
    kept = {key: name for node, (key, name) in said.items() if key in values and node not in slots}
    kept = {key: key.removesuffix(VALUE_KEY) if not name or is_default_name(name) else name
            for key, name in kept.items()}  # fmt: skip
    return {key: name for key, name in kept.items() if (key in below if below is not None else not _is_state(key))}


def _is_state(key: str) -> bool:
    parts = key.removesuffix(VALUE_KEY).split("/")
    trained = "_trainable_variables" in parts  # an optimizer of Keras 3 may be the only one to hold a layer's variable
    return not trained and not ASIDE.isdisjoint(parts)


def _summary(needed: Mapping[str, LiveVariable], names: Mapping[str, str],
             missing: Mapping[str, LiveVariable]) -> list[str]:  # fmt: skip
    if not names:
        return ["the checkpoint holds no variables of a model, only what an optimizer keeps or nothing at all"]
    if len(missing) == len(needed):
        return [f"none of the {len(needed)} variables of the code is in the checkpoint, which has {len(names)}: it is "
                "of another model, or of a part of it that has no place in this one"]  # fmt: skip
    mine = _kinds(variable.label for variable in needed.values())
    theirs = _kinds(names.values())
    is_named = not any(kind.isdigit() for kind in theirs)  # files of Keras 3 number variables
    if len(needed) == len(names) and (mine == theirs or not is_named):
        return []
    more = [f"{abs(mine[kind] - theirs[kind])} {kind} {'more' if mine[kind] > theirs[kind] else 'fewer'}"
            for kind in sorted(mine.keys() | theirs.keys()) if mine[kind] != theirs[kind]]  # fmt: skip
    counted = f": {', '.join(more[:_MOST_LINES])}" if more and is_named else ""
    return [f"the code has {len(needed)} variables, the checkpoint {len(names)}{counted}"]


def _kinds(names: Iterable[str]) -> Counter[str]:
    return Counter(name.rpartition("/")[2].lstrip("_") for name in names)


def _left_out(objects: LiveObjects, missing: Mapping[str, LiveVariable],
              stored: TrackableObjectGraph | None) -> list[str]:  # fmt: skip
    """Explain variables that checkpoints of Keras 3 never hold."""
    if stored is None:
        return []
    view = StoredView(stored)
    seen, pending = {0}, [0] if objects.nodes else []
    while pending:
        for child in objects.nodes[pending.pop()].children.values():
            if child not in seen:
                seen.add(child)
                pending.append(child)
    reached = {item.variable.node for place, item in enumerate(objects.nodes)
               if place in seen and item.variable is not None}  # fmt: skip
    lost = [variable.label for node, variable in missing.items() if node not in reached]
    if objects.keras != _LEAVING_OUT or not lost or not (view.keras() == _LEAVING_OUT or len(lost) == len(missing)):
        return []
    where = f"{len(lost)} of them are in layers that the code keeps in lists or dicts, such as {lost[0]}"
    listed = objects.nodes[0].other_children.get(TRAINED) if objects.nodes else None
    built = len(objects.nodes[listed].other_children) if listed is not None else 0
    trained = max((len(each.keys) for each in view.trained_lists()), default=0)
    if 0 < built < trained:
        return [f"{where}: their values are in a list of the {trained} variables that were trained, and the code has "
                f"built {built} of these; call the whole model once before it is returned"]  # fmt: skip
    return [f"{where}: tf.train.Checkpoint of Keras 3 leaves these out, so their values were never saved; "
            "model.save_weights saves them"]  # fmt: skip


def _other_sizes(pairs: Sequence[tuple[LiveVariable, Tensor]]) -> list[str]:
    """Say it once where all shapes differ in the same way."""
    shapes = [(variable.shape.dims or (), tensor.shape) for variable, tensor in pairs]
    sizes = {size for one, other in shapes for size in zip(one, other, strict=False) if size[0] != size[1]}
    if len(pairs) < 2 or len(sizes) != 1 or any(len(one) != len(other) for one, other in shapes):
        return []
    mine, theirs = sizes.pop()
    return [f"where the code has the size {mine}, the checkpoint has {theirs}"]


def _misfit(variable: LiveVariable, key: str, tensor: Tensor) -> str:
    return (f"{variable.label}: the code has {_kind(variable.dtype, variable.shape)}, "
            f"the checkpoint {_kind(tensor.dtype, tensor.shape)} ({key.removesuffix(VALUE_KEY)!r})")  # fmt: skip


def _missing(variable: LiveVariable, rest: Mapping[str, str], values: Mapping[str, Tensor]) -> str:
    fitting = {key: name for key, name in rest.items() if variable.fits(values[key])}
    near = _nearest(variable.label, fitting or rest)
    text = f"no value: {variable.label} {_kind(variable.dtype, variable.shape)}"
    return f"{text}; nearest: {', '.join(_stored(key, rest[key], values[key]) for key in near)}" if near else text


def _nearest(name: str, rest: Mapping[str, str]) -> list[str]:
    """Return the one or two keys whose names are like a name, best first."""
    by_name: dict[str, str] = {}
    for key, said in list(rest.items())[:_MOST_COMPARED]:
        by_name.setdefault(said, key)
    found = difflib.get_close_matches(name, by_name, n=2, cutoff=0.5)
    return [by_name[each] for each in found]


def _stored(key: str, name: str, tensor: Tensor) -> str:
    path = key.removesuffix(VALUE_KEY)
    return f"{name} {_kind(tensor.dtype, tensor.shape)}" + (f" ({path!r})" if path != name else "")


def _kind(dtype: DType, shape: Shape | Sequence[int]) -> str:
    dims = shape.dims if isinstance(shape, Shape) else tuple(shape)
    if dims is None:
        return f"{dtype.name} of any shape"
    return f"{dtype.name}[{', '.join('?' if size is None else str(size) for size in dims)}]"


def _cut(lines: list[str], what: str) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[:_MOST_LINES], f"... and {len(lines) - _MOST_LINES} more {what}"]
