"""Live objects: the Python objects of a model that code built, and which of its variables the traced graph has.

It is to live objects what `TrackableObjectGraph` is to a checkpoint: objects are known by their position, the root is
at 0, children are edges with names, cycles are legal. It holds no TensorFlow and no values, so it passes from a process
to another as JSON.

Source: trackable_view.py of tensorflow/python/checkpoint (what a child is called); the `_trackable_children` of Keras 2
and Keras 3 (what each of them calls it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.tensors import Tensor

ASIDE = frozenset({
    "optimizer", "_optimizer", "save_counter", "metrics", "_metrics", "keras_api", "signatures", "loss_tracker",
    "_loss_tracker", "compiled_metrics", "_compile_metrics", "seed_generator", "_seed_generator", "_random_generator",
})  # fmt: skip
"""Children that are no part of what a model computes."""

TRAINED = "_trainable_variables"
"""Under which optimizers of Keras 3 list the variables that they train."""

LAYERS, VARIABLES = "layers", "vars"
"""What HDF5 files call the list of a model's layers, named by class there, and that of a layer's variables."""

FILE_NAMES = frozenset({TRAINED, LAYERS, VARIABLES})
"""Names among `other_children` that list what others hold, and that no checkpoint of TensorFlow has."""


@dataclass(frozen=True, slots=True)
class LiveVariable:
    """A variable of a live model.

    Attributes:
        node: Its node in the traced graph; empty where no output reaches it.
        names: The names under which a checkpoint by names may hold it, best first: the variable's own, then those that
            another Keras would give it.
        dtype: Its element type.
        shape: Its shape; dims may be unknown.
        is_trainable: Whether training changes it.
        is_numbered: Whether TensorFlow may have put a number behind its name, as for equally named ones of a graph.
    """

    node: str
    names: tuple[str, ...]
    dtype: DType
    shape: Shape
    is_trainable: bool = True
    is_numbered: bool = False

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.names[0] if self.names else self.node

    def fits(self, tensor: Tensor) -> bool:
        """Whether a value has its type and shape."""
        dims = self.shape.dims
        if tensor.dtype is not self.dtype.base:
            return False
        return dims is None or (len(dims) == len(tensor.shape) and all(
            size is None or size == actual for size, actual in zip(dims, tensor.shape, strict=True)
        ))  # fmt: skip


@dataclass(slots=True)
class LiveObject:
    """An object of a live model.

    Attributes:
        children: name -> position of the child, as `tf.train.Checkpoint` calls it in this process.
        other_children: name -> position, as another Keras calls the same child (`kernel` for `_kernel`,
            `layer_with_weights-0`, `blocks`) and as HDF5 files call it (`layers`, `dense_1` in a list, `vars`); never a
            name that `children` has.
        variable: What it is, where it is a variable.
        class_name: The Python class, for messages.
        is_inner: Whether it is an object that other checkpoints of the same model do not have: the `_functional` of a
            Sequential of Keras 3, or a root that is a list, dict or plain object of Python's.
        is_built: Whether it has all of its variables; a Keras layer that nothing called has none yet.
        name: What a Keras layer is called.
        saves_itself: Whether its class says itself what Keras files hold of it.
    """

    children: dict[str, int] = field(default_factory=dict)
    other_children: dict[str, int] = field(default_factory=dict)
    variable: LiveVariable | None = None
    class_name: str = ""
    is_inner: bool = False
    is_built: bool = True
    name: str = ""
    saves_itself: bool = False


@dataclass(slots=True)
class LiveObjects:
    """The objects of a live model.

    Attributes:
        nodes: The objects; the root, which is what the code returned, comes first. Empty for graphs of TensorFlow 1.
        loose: Variables that the outputs reach and no object holds.
        keras: Which Keras made the root: 2, 3, or 0 where it is no Keras model.
        config: The Keras configuration of the root (`class_name`, `config`), where it has one.
    """

    nodes: list[LiveObject] = field(default_factory=list)
    loose: list[LiveVariable] = field(default_factory=list)
    keras: int = 0
    config: Mapping[str, Any] | None = None

    def variables(self) -> list[LiveVariable]:
        """Return every variable, those of objects first."""
        return [item.variable for item in self.nodes if item.variable is not None] + self.loose

    def model_places(self, start: int = 0) -> dict[int, None]:
        """Return the positions of all that is below an object, apart from what only training needs; nearest first."""
        found = {start: None} if self.nodes else {}
        for place in (waiting := list(found)):
            item = self.nodes[place]
            for name, child in (*item.children.items(), *item.other_children.items()):
                if name not in ASIDE and child not in found:
                    found[child] = None
                    waiting.append(child)
        return found

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "nodes": [
                {
                    "children": item.children, "other_children": item.other_children,
                    "variable": None if item.variable is None else _variable_json(item.variable),
                    "class_name": item.class_name, "is_inner": item.is_inner, "is_built": item.is_built,
                    "name": item.name, "saves_itself": item.saves_itself,
                }
                for item in self.nodes
            ],
            "loose": [_variable_json(variable) for variable in self.loose],
            "keras": self.keras, "config": self.config,
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LiveObjects:
        """Return what `as_json` gave."""
        nodes = [
            LiveObject(
                item["children"], item["other_children"],
                None if item["variable"] is None else _variable(item["variable"]), item["class_name"], item["is_inner"],
                item["is_built"], item["name"], item["saves_itself"],
            )
            for item in document["nodes"]
        ]  # fmt: skip
        loose = [_variable(item) for item in document["loose"]]
        return cls(nodes, loose, document["keras"], document["config"])


def _variable_json(variable: LiveVariable) -> dict[str, Any]:
    dims = variable.shape.dims
    return {
        "node": variable.node, "names": list(variable.names), "dtype": variable.dtype.name,
        "shape": None if dims is None else list(dims), "trainable": variable.is_trainable,
        "numbered": variable.is_numbered,
    }  # fmt: skip


def _variable(document: Mapping[str, Any]) -> LiveVariable:
    dims = document["shape"]
    return LiveVariable(
        document["node"], tuple(document["names"]), DType[document["dtype"]],
        Shape(None if dims is None else tuple(dims)), document["trainable"],
        document["numbered"],
    )  # fmt: skip
