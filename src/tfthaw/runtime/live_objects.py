"""Live objects as data: what `tf.train.Checkpoint` would see of the objects that code built, without running anything.

It asks each object for its parts as TensorFlow's checkpoints do, so the paths here are those of a checkpoint that this
process would write. Beside them it notes what the other Keras calls the same parts (see `LiveObject.other_children`):

    | part                               | Keras 2                          | Keras 3                              |
    | ---------------------------------- | -------------------------------- | ------------------------------------ |
    | layers of a model that lists them  | `layer_with_weights-1`           | `_functional/_operations/3`          |
    | first variable of many layers      | `kernel`                         | `_kernel`                            |
    | the one of a depthwise convolution | `depthwise_kernel`               | `kernel`                             |
    | layers in a Python list or dict    | `blocks/0`                       | not at all                           |

and what HDF5 files of either call them: `layers/dense_1/vars/0`, where layers in lists are named by their class.

It restores nothing, and knows nothing of checkpoints. A plain Python object, list or dict may be the root; the objects
and variables that it holds are its parts then, one level deep.

Source: trackable_view.py of tensorflow/python/checkpoint; `_trackable_children` and `Functional` of Keras 2;
tracking.py, layer.py and functional.py of Keras 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.live_objects import ASIDE, LAYERS, TRAINED, VARIABLES, LiveObject, LiveObjects, LiveVariable
from tfthaw.restore.keras_tree import snake_case
from tfthaw.runtime.keras_models import keras_generation
from tfthaw.runtime.live_names import possible_names

_DISTRIBUTED = frozenset({"DistributedValues", "ShardedVariable", "ShardedVariableMixin", "PartitionedVariable",
                          "TPUEmbeddingVariable", "CachingVariable"})  # fmt: skip
_CONTAINERS = (list, tuple, dict)

# attributes in which layers of Keras 3 keep books about what other attributes hold
_BOOKS = frozenset({
    "_trainable_variables", "_non_trainable_variables", "_layers", "_metrics", "_seed_generators", "_tracked",
    "_inbound_nodes", "_outbound_nodes", "_losses", "_losses_override", "call_signature_parameters", "_operations",
    "_operations_by_depth", "_nodes", "_nodes_by_depth", "_inputs", "_outputs", "_call_has_context_arg",
    "_compiled_trainable_state",
})  # fmt: skip
_TRACKING = "_self_"  # what TensorFlow itself keeps on an object


def collect_objects(root: object, node_of: Mapping[int, str]) -> LiveObjects:
    """Return the objects below a root, and which of its variables the traced graph has.

    Nothing is built or called: variables that do not exist yet are not there.

    Args:
        root: A Keras model or layer, a `tf.Module`, another trackable, or a list, dict or plain object of such.
        node_of: id of a `tf.Variable` -> its node in the traced graph.

    Raises:
        UnsupportedError: A variable is spread over devices, or TensorFlow's checkpoints cannot hold an object.
    """
    import tensorflow as tf

    return _Collector(tf, node_of).collect(root)


def live_variable(variable: Any, node: str = "") -> LiveVariable:
    """Return what is known of a `tf.Variable` or a `keras.Variable` apart from any object that holds it.

    Args:
        variable: The variable.
        node: Its node in the traced graph.
    """
    return _described(variable, node, [], None)


class _Collector:
    """Walks live objects breadth first, as `tf.train.Checkpoint` does."""

    def __init__(self, tf: Any, node_of: Mapping[int, str]) -> None:
        self._tf = tf
        self._node_of = node_of
        self._trackable = _trackable_class(tf)
        self._places: dict[int, int] = {}
        self._values: list[Any] = []  # also keeps the ids of temporary objects theirs
        self._parents: dict[int, int] = {}
        self._objects: list[LiveObject] = []

    def collect(self, root: object) -> LiveObjects:
        """Return the objects below a root."""
        if isinstance(root, _CONTAINERS) or not isinstance(root, self._trackable):
            parts = _items(root) if isinstance(root, _CONTAINERS) else vars(root) if hasattr(root, "__dict__") else {}
            top = self._add(root, None)
            self._objects[top].is_inner = True
            self._link(top, {name: value for name, value in parts.items() if self._is_part(value)})
        else:
            self._add(root, None)
        position = 0
        while position < len(self._objects):
            self._visit(position)
            position += 1
        for place in range(len(self._objects)):
            self._name_for_files(place)
        listed = [place for place, value in enumerate(self._values) if self._layers_of(value) is not None]
        for place in reversed(listed):  # inner models first, since outer ones ask whether these have variables
            self._number(place)
        self._list_trained(root)
        return LiveObjects(self._objects, [], keras_generation(root), _config(root))

    def _add(self, value: Any, parent: int | None) -> int:
        """Return the place of an object, which is made where it is new."""
        known = self._places.get(id(value))
        if known is not None:
            return known
        place = self._places[id(value)] = len(self._objects)
        self._values.append(value)
        if parent is not None:
            self._parents[place] = parent
        variable = self._variable(value, place)
        made = LiveObject(variable=variable, class_name=type(value).__name__)
        if keras_generation(value):
            made.is_built, made.name = bool(getattr(value, "built", True)), str(getattr(value, "name", ""))
            made.saves_itself = not all(_is_of_keras(value, name) for name in _FILE_METHODS)
        self._objects.append(made)
        return place

    def _visit(self, place: int) -> None:
        """Add the parts of an object."""
        value, item = self._values[place], self._objects[place]
        if item.variable is not None or not isinstance(value, self._trackable):
            if item.variable is None and isinstance(value, _CONTAINERS) and self._parents.get(place) is not None:
                self._link(place, {name: part for name, part in _items(value).items() if self._is_part(part)})
            return
        self._link(place, self._children(value))
        generation = keras_generation(value)
        if not generation:
            return
        own = {name: child for name, child in item.children.items() if self._objects[child].variable is not None}
        is_depthwise = "depthwise" in item.class_name.lower()
        for name, child in own.items():
            for other in _other_spellings(name, generation, is_depthwise):
                if other not in item.children:
                    item.other_children.setdefault(other, child)
        if generation == 3:
            for name, part in self._untracked(value):
                if name not in item.children:
                    item.other_children.setdefault(name, self._add(part, place))

    def _children(self, value: Any) -> dict[str, Any]:
        """Return what TensorFlow's checkpoints take for the parts of an object."""
        try:
            found: dict[str, Any] = self._tf.train.TrackableView.children(value)
        except (ValueError, TypeError, NotImplementedError) as error:  # a list that was changed behind its wrapper
            said = str(error).partition("\n")[0][:300]
            raise UnsupportedError(
                f"checkpoints of TensorFlow cannot hold this {type(value).__name__}: {said}",
                hint="items of lists and dicts in a model may be added, never replaced or taken away",
            ) from error
        return found

    def _link(self, place: int, parts: Mapping[str, Any]) -> None:
        """Make objects the children of another one."""
        item = self._objects[place]
        for name, part in parts.items():
            child = item.children[name] = self._add(part, place)
            if name == "_functional" and "Sequential" in _class_names(self._values[place]):
                self._objects[child].is_inner = True

    def _untracked(self, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield the lists and dicts of a layer of Keras 3 that hold layers or variables."""
        for name, part in vars(value).items():
            if name in _BOOKS or name.startswith(_TRACKING) or not isinstance(part, _CONTAINERS):
                continue
            if self._is_part(part):
                yield name, part

    def _is_part(self, value: Any) -> bool:
        """Whether a value is an object of the model, or a container with one in it."""
        pending, seen = [value], set()
        while pending:
            here = pending.pop()
            if isinstance(here, _CONTAINERS):
                if id(here) not in seen:
                    seen.add(id(here))
                    pending += _items(here).values()
            elif isinstance(here, self._trackable):
                return True
        return False

    def _name_for_files(self, place: int) -> None:
        """Give the parts of a layer or a list the names that HDF5 files have for them."""
        value = self._values[place]
        if isinstance(value, _CONTAINERS):
            self._alias(place, _by_class(_items(value).values()))
        generation = keras_generation(value)
        if not generation:
            return
        layers = getattr(value, "layers", None)
        if isinstance(layers, (list, tuple)):
            self._alias_list(place, LAYERS, _by_class(layers))
        own = {str(number): each for number, each in enumerate(_own_variables(value, generation))}
        special = {name: getattr(value, name) for name in _SAVED_BY_NAME if getattr(value, name, None) is not None}
        self._alias_list(place, VARIABLES, {**own, **special})

    def _alias(self, place: int, parts: Mapping[str, Any]) -> None:
        """Add other names of objects that are known."""
        item = self._objects[place]
        for name, part in parts.items():
            known = self._places.get(id(part))
            if known is not None and name not in item.children:
                item.other_children.setdefault(name, known)

    def _alias_list(self, place: int, name: str, parts: Mapping[str, Any]) -> None:
        """Add a list that exists in files alone."""
        item = self._objects[place]
        if parts and name not in item.children and name not in item.other_children:
            item.other_children[name] = len(self._objects)
            self._objects.append(LiveObject(class_name="list"))
            self._values.append(None)
            self._alias(item.other_children[name], parts)

    def _layers_of(self, value: Any) -> list[Any] | None:
        """Return the layers of a Keras model that lists them in a fixed order."""
        kinds = _class_names(value)
        if not keras_generation(value) or not kinds & {"Sequential", "Functional"}:
            return None
        listed = getattr(value, "layers", None)
        return list(listed) if isinstance(listed, (list, tuple)) else None

    def _number(self, place: int) -> None:
        """Give the layers with variables of a model the names that Keras 2 has for them."""
        item, number = self._objects[place], 0
        for layer in self._layers_of(self._values[place]) or ():
            child = self._places.get(id(layer))
            if child is None or not self._has_variables(child):
                continue
            name = f"layer_with_weights-{number}"
            if name not in item.children:
                item.other_children[name] = child
            number += 1

    def _has_variables(self, place: int) -> bool:
        pending, seen = [place], {place}
        while pending:
            item = self._objects[pending.pop()]
            if item.variable is not None:
                return True
            for name, child in (*item.children.items(), *item.other_children.items()):
                if name not in ASIDE and child not in seen:
                    seen.add(child)
                    pending.append(child)
        return False

    def _list_trained(self, root: object) -> None:
        """Note the order in which optimizers of Keras 3 keep what they train."""
        if not keras_generation(root):
            return
        try:
            trained = list(getattr(root, "trainable_variables", ()))
        except ValueError:  # a model of Keras 2 that is not built
            return
        if all(id(variable) in self._places for variable in trained):
            self._alias_list(0, TRAINED, {str(number): variable for number, variable in enumerate(trained)})

    def _variable(self, value: Any, place: int) -> LiveVariable | None:
        """Return a variable as data, or None where an object is none."""
        kinds = _class_names(value)
        if kinds & _DISTRIBUTED:
            raise UnsupportedError(
                f"{getattr(value, 'name', 'a variable')} is a {type(value).__name__}, which is spread over devices",
                hint="build the model outside of any tf.distribute strategy",
            )
        if isinstance(value, self._tf.Variable):
            held = value
        elif _is_keras_variable(value):
            held = value.value
        else:
            return None
        # mixed precision in Keras 2 wraps the variable that functions capture
        node = self._node_of.get(id(held)) or self._node_of.get(id(getattr(held, "_variable", None)), "")
        ancestors: list[str] = []
        owner = None
        parent = self._parents.get(place)
        while parent is not None:
            above = self._values[parent]
            if keras_generation(above):
                owner = above if owner is None else owner
                if "Model" in _class_names(above):
                    ancestors.append(str(getattr(above, "name", "")))
            parent = self._parents.get(parent)
        return _described(value, node, ancestors[::-1], owner)


_FILE_METHODS = ("save_own_variables", "load_own_variables")
_SAVED_BY_NAME = ("idf_weights",)  # of lookup layers


def _is_of_keras(value: Any, name: str) -> bool:
    """Whether a method is one that Keras itself brings."""
    module = str(getattr(getattr(type(value), name, None), "__module__", ""))
    return module.partition(".")[0] in ("keras", "tf_keras", "")


def _own_variables(value: Any, generation: int) -> list[Any]:
    """Return the variables of a layer in the order of Keras files, of which quantized layers have one of their own."""
    order = getattr(value, "variable_serialization_spec", None)
    mode = getattr(value, "quantization_mode", None)
    if mode is not None and isinstance(order, Mapping) and mode in order:
        named = (getattr(value, f"_{name}" if name == "kernel" else name, None) for name in order[mode])
        return [each for each in named if each is not None]
    kind = "variables" if generation == 3 else "weights"
    lists = [getattr(value, f"{prefix}_{kind}", None) or () for prefix in ("_trainable", "_non_trainable")]
    return [*lists[0], *lists[1]]


def _described(value: Any, node: str, models: list[str], owner: Any) -> LiveVariable:
    held = value.value if _is_keras_variable(value) else value
    own = [str(getattr(value, "path", "")), str(getattr(held, "name", "")).partition(":")[0]]
    dtype = getattr(held.dtype, "base_dtype", held.dtype)
    dims = held.shape.as_list() if held.shape.rank is not None else None
    layer = ("", "") if owner is None else (type(owner).__name__, str(getattr(owner, "name", "")))
    names = possible_names([name for name in dict.fromkeys(own) if name], models, *layer)
    return LiveVariable(node, names, DType[dtype.name], Shape(None if dims is None else tuple(dims)),
                        bool(getattr(value, "trainable", True)))  # fmt: skip


def _is_keras_variable(value: Any) -> bool:
    """Whether an object is a `keras.Variable` of Keras 3."""
    return any(kind.__name__ == "Variable" and kind.__module__.split(".")[0] == "keras" for kind in type(value).__mro__)


def _class_names(value: Any) -> set[str]:
    return {kind.__name__ for kind in type(value).__mro__}


def _trackable_class(tf: Any) -> type:
    """Return the class of all that a checkpoint can hold; TensorFlow has no public name for it."""
    kind = next(kind for kind in tf.Module.__mro__ if kind.__name__ == "Trackable")
    assert isinstance(kind, type)
    return kind


def _items(container: Any) -> dict[str, Any]:
    """Return the items of a list, tuple or dict under the names that checkpoints give them."""
    if isinstance(container, dict):
        return {str(name): value for name, value in container.items()}
    return {str(number): value for number, value in enumerate(container)}


def _by_class(parts: Iterable[Any]) -> dict[str, Any]:
    """Return the items of a list under the names of HDF5 files: their class, numbered where it comes again."""
    seen: dict[str, int] = {}
    result = {}
    for part in parts:
        if isinstance(part, _CONTAINERS):
            name = "container"
        elif keras_generation(part):
            name = snake_case(type(part).__name__)
        else:
            continue
        number = seen[name] = seen.get(name, -1) + 1
        result[f"{name}_{number}" if number else name] = part
    return result


def _other_spellings(name: str, generation: int, is_depthwise: bool) -> list[str]:
    """Return what the other Keras calls the variable that is the attribute `name` here."""
    plain = name.lstrip("_")
    if is_depthwise and plain in ("kernel", "depthwise_kernel"):
        return [other for other in ("kernel", "_kernel", "depthwise_kernel") if other != name]
    return [plain] if generation == 3 and plain != name else [f"_{plain}"] if plain == name else [plain]


def _config(root: object) -> Mapping[str, Any] | None:
    """Return the Keras configuration of a model that has one."""
    if not keras_generation(root) or "Model" not in _class_names(root) or not hasattr(root, "to_json"):
        return None
    try:
        document = json.loads(root.to_json())
    except Exception:  # noqa: BLE001  # `get_config` is the user's own code; a model need not have a configuration
        return None
    is_config = isinstance(document, dict) and isinstance(document.get("class_name"), str)
    return document if is_config and isinstance(document.get("config"), dict) else None
