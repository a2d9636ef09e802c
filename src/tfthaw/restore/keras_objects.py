"""The object graph under which `tf.train.Checkpoint(model=model)` finds the variables of a Keras model.

Only what the configuration explains is in it. Every layer is an object, with or without variables, so that
`assert_consumed` and `assert_existing_objects_matched` of a restore hold; so is the counter of `Checkpoint.save`.
Of Keras 2 the model's attributes are the root's as well, so that `model.load_weights` takes the same checkpoint.

Source: checkpoint.py and restore.py of TensorFlow's `tensorflow/python/checkpoint`; `_trackable_children` of Keras.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from tfthaw.errors import UnsupportedError
from tfthaw.ir.object_graph import VALUE_KEY, Child, SerializedTensor, TrackableObject, TrackableObjectGraph
from tfthaw.restore.keras_layouts import Place, Slot, layer_names, walk, weight_order
from tfthaw.restore.keras_tree import KerasLayer, Path

SAVE_COUNTER_KEY = f"save_counter{VALUE_KEY}"
"""What `tf.train.Checkpoint` counts its savings under."""

_ROOT, _MODEL = 0, 1


@dataclass
class KerasObjects:
    """The objects of a Keras model, and where a checkpoint keeps their values.

    Attributes:
        graph: The object graph.
        slots: Each variable's checkpoint key.
        optimizer: The checkpoint keys of the optimizer's variables, in its own order.
    """

    graph: TrackableObjectGraph
    slots: dict[Slot, str] = field(default_factory=dict)
    optimizer: list[str] = field(default_factory=list)


def keras_objects(tree: KerasLayer, generation: int, optimizer: int = 0) -> KerasObjects:
    """Return the objects of a model.

    Args:
        tree: The model's layers, read for the same generation.
        generation: 3 for Keras 3, 2 for Keras 2 and tf_keras.
        optimizer: How many variables the optimizer has.

    Raises:
        UnsupportedError: The checkpoints of this Keras do not hold some of its layers.
    """
    maker = _Maker()
    maker.node()
    maker.node()
    maker.edge(_ROOT, "model", _MODEL)
    result = KerasObjects(TrackableObjectGraph(maker.objects))
    nodes: dict[Place, tuple[int, str]] = {(): (_MODEL, "model")}
    for place, layer in walk(tree):
        node, path = nodes[place]
        if generation >= 3 and layer.class_name == "Sequential":
            maker.follow(node, ("_functional", "_operations", "0"))  # its input
        for position, weight in enumerate(layer.weights):
            key = f"{path}/{weight.attributes[0]}{VALUE_KEY}"
            variable = maker.variable(key, f"{layer.name}/{weight.name}")
            for attribute in weight.attributes:
                maker.edge(node, attribute, variable)
            result.slots[Slot(place, position)] = key
        for position, item in enumerate(layer.sublayers):
            inner = (*place, position)
            if not item.objects and weight_order(item.layer):
                _refuse_lists(tree)
            child = maker.follow(node, item.objects[0]) if item.objects else maker.node()
            for alias in item.objects[1:]:
                maker.edge(node, alias[0], child)
            nodes[inner] = child, "/".join((path, *(item.objects[0] if item.objects else ("",))))
    if optimizer:
        result.optimizer = _add_optimizer(maker, optimizer)
    if generation < 3:
        maker.share(_MODEL, _ROOT)
    maker.edge(_ROOT, "save_counter", maker.variable(SAVE_COUNTER_KEY, "save_counter"))
    return result


def _refuse_lists(tree: KerasLayer) -> None:
    problems = [
        f"{layer_names(tree, (*place, position))}: {len(weight_order(item.layer))} variables"
        for place, layer in walk(tree)
        for position, item in enumerate(layer.sublayers)
        if not item.objects and weight_order(item.layer)
    ]
    raise UnsupportedError(
        "object-based checkpoints of Keras 3 leave out layers that are in lists, so that they could not be restored",
        problems=problems, hint="write keras-weights, which has them",
    )  # fmt: skip


def _add_optimizer(maker: _Maker, count: int) -> list[str]:
    owner = maker.follow(_MODEL, ("optimizer", "_variables"))
    keys = [f"model/optimizer/_variables/{position}{VALUE_KEY}" for position in range(count)]
    for position, key in enumerate(keys):
        maker.edge(owner, str(position), maker.variable(key, f"optimizer/{position}"))
    return keys


def without_values(graph: TrackableObjectGraph, keys: Collection[str]) -> TrackableObjectGraph:
    """Return an object graph that names no value but those of some checkpoint keys."""
    return replace(graph, nodes=[
        replace(node, attributes=[item for item in node.attributes if item.checkpoint_key in keys])
        for node in graph.nodes
    ])  # fmt: skip


class _Maker:
    """Makes the objects of a graph."""

    def __init__(self) -> None:
        self.objects: list[TrackableObject] = []
        self._children: list[list[Child]] = []

    def node(self, values: Sequence[SerializedTensor] = ()) -> int:
        """Add an object and return its number."""
        children: list[Child] = []
        self._children.append(children)
        self.objects.append(TrackableObject(children, list(values)))
        return len(self.objects) - 1

    def variable(self, key: str, name: str) -> int:
        """Add a variable."""
        return self.node([SerializedTensor("VARIABLE_VALUE", name, key)])

    def edge(self, parent: int, name: str, child: int) -> None:
        """Make an object an attribute of another one."""
        self._children[parent].append(Child(child, name))

    def share(self, source: int, target: int) -> None:
        """Give an object all attributes of another one."""
        self._children[target].extend(self._children[source])

    def follow(self, node: int, path: Path) -> int:
        """Return the object at the end of a path; what is missing on the way is made."""
        for name in path:
            found = next((child.node for child in self._children[node] if child.name == name), None)
            if found is None:
                found = self.node()
                self.edge(node, name, found)
            node = found
        return node
