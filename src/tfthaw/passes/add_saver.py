"""Add a Saver: the nodes that write a graph's variables to a checkpoint and read them back.

The nodes are those that `tf.compat.v1.train.Saver` adds, so that `import_meta_graph` + `Saver.restore`, SavedModel
loaders and C++ servers find what they expect. A part of a partitioned variable is saved as that part of its whole.

Source: saver.py of TensorFlow and the op definitions of io_ops.cc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Attr, AttrList, Shape
from tfthaw.ir.graph import Graph, GraphIndex
from tfthaw.ir.model import Saver
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import HANDLE_OPS
from tfthaw.passes.prune import free_name
from tfthaw.tensors import ArrayTensor


@dataclass(frozen=True, slots=True)
class SavedVariable:
    """A variable and where its value lies in the checkpoint.

    Attributes:
        node: The variable's node.
        key: The checkpoint key.
        part: For a part of a partitioned variable: the Saver's `shape_and_slice` text; else empty.
    """

    node: str
    key: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class WithSaver:
    """What the pass did.

    Attributes:
        graph: The graph with the Saver's nodes behind its own.
        saver: Where to find them; None where there are no variables to save.
        assigns: variable's node -> the node that restores it.
        snapshots: variable's node -> the tensor that reads it.
    """

    graph: Graph
    saver: Saver | None
    assigns: dict[str, str]
    snapshots: dict[str, str]


OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The key under which an object-based checkpoint has its object graph."""


def add_saver(
    graph: Graph, variables: Sequence[SavedVariable], *, scope: str = "save", object_graph: bytes | None = None
) -> WithSaver:
    """Add a Saver for variables.

    Args:
        graph: A graph that holds the variables' nodes; any older Saver's nodes stay as they are.
        variables: What to save, and under which keys; at least one where there is no object graph, as SaveV2 refuses to
            be empty.
        scope: The name scope of the new nodes; a number is added where it is taken.
        object_graph: The object graph that is saved along, so that what is saved is an object-based checkpoint.
    """
    index = GraphIndex(graph.nodes)
    scopes = {name.partition("/")[0] for name in index.nodes}
    build = _Building(index, free_name(scopes, scope))
    saver = build.saver(variables, object_graph)
    return WithSaver(replace(graph, nodes=[*graph.nodes, *build.nodes]), saver, build.assigns, build.snapshots)


class _Building:
    """The nodes of one Saver."""

    def __init__(self, index: GraphIndex, scope: str) -> None:
        self.index = index
        self.scope = scope
        self.nodes: list[Node] = []
        self.assigns: dict[str, str] = {}
        self.snapshots: dict[str, str] = {}

    def add(self, name: str, op: str, inputs: Sequence[str], attrs: dict[str, Attr], *, scoped: bool = True) -> str:
        """Add a node and return its name."""
        full = f"{self.scope}/{name}" if scoped else free_name(self.index.nodes, name)
        self.nodes.append(Node(full, op, list(inputs), "", attrs))
        return full

    def constant(self, name: str, value: object, dtype: DType) -> str:
        """Add a Const and return its name."""
        array = np.array(value, object if dtype is DType.string else dtype.numpy)
        return self.add(name, "Const", [], {"dtype": dtype, "value": ArrayTensor(array, dtype)})

    def saver(self, variables: Sequence[SavedVariable], object_graph: bytes | None) -> Saver:
        """Add every node of the Saver."""
        string: dict[str, Attr] = {"dtype": DType.string, "shape": Shape(())}
        default = self.constant("filename/input", b"model", DType.string)
        filename = self.add("filename", "PlaceholderWithDefault", [default], dict(string))
        prefix = self.add("Const", "PlaceholderWithDefault", [filename], dict(string))
        save = self._save(prefix, variables, object_graph)
        colocated = AttrList("s", [f"loc:@{prefix}".encode()])
        done = self.add(
            "control_dependency", "Identity", [prefix, f"^{save}"], {"T": DType.string, "_class": colocated}
        )
        if variables:
            self._restore(prefix, variables)
        restore = self.add("restore_all", "NoOp", [f"^{name}" for name in self.assigns.values()], {})
        return Saver(f"{prefix}:0", f"{done}:0", restore)

    def _save(self, prefix: str, variables: Sequence[SavedVariable], object_graph: bytes | None) -> str:
        names = [item.key.encode() for item in variables]
        parts = [item.part.encode() for item in variables]
        dtypes: list[Attr] = [self._dtype(item.node) for item in variables]
        values = [self._snapshot(item.node) for item in variables]
        if object_graph is not None:
            names.append(OBJECT_GRAPH_KEY.encode())
            parts.append(b"")
            dtypes.append(DType.string)
            values.append(self.constant("object_graph", object_graph, DType.string))
        return self.add("SaveV2", "SaveV2", [
            prefix, self.constant("SaveV2/tensor_names", names, DType.string),
            self.constant("SaveV2/shape_and_slices", parts, DType.string), *values,
        ], {"dtypes": AttrList("type", dtypes)})  # fmt: skip

    def _restore(self, prefix: str, variables: Sequence[SavedVariable]) -> None:
        """Add the nodes that give every variable its value."""
        names = [item.key.encode() for item in variables]
        parts = [item.part.encode() for item in variables]
        restored = self.add("RestoreV2", "RestoreV2", [
            prefix, self.constant("RestoreV2/tensor_names", names, DType.string),
            self.constant("RestoreV2/shape_and_slices", parts, DType.string),
        ], {"dtypes": AttrList("type", [self._dtype(item.node) for item in variables])})  # fmt: skip
        for position, item in enumerate(variables):
            source = restored if position == 0 else f"{restored}:{position}"
            self.assigns[item.node] = self._assign(item.node, source, position)

    def _dtype(self, node: str) -> DType:
        return self.index.nodes[node].dtype("dtype") or DType.invalid

    def _snapshot(self, node: str) -> str:
        """Return the tensor that reads a variable, making the node if there is none."""
        is_handle = self.index.nodes[node].op in HANDLE_OPS
        wanted = "ReadVariableOp" if is_handle else "Identity"
        for user, position in self.index.consumers(node):
            outside_frames = len(user.inputs) == 1  # control inputs may tie a read to a branch or a loop
            if user.op == wanted and position == 0 and outside_frames and user.inputs[0] in (node, f"{node}:0"):
                self.snapshots[node] = f"{user.name}:0"
                break
        else:
            attrs: dict[str, Attr] = {"dtype" if is_handle else "T": self._dtype(node)}
            if not is_handle:
                attrs["_class"] = AttrList("s", [f"loc:@{node}".encode()])
            name = f"{node}/Read/ReadVariableOp" if is_handle else f"{node}/read"
            self.snapshots[node] = f"{self.add(name, wanted, [node], attrs, scoped=False)}:0"
        return self.snapshots[node].removesuffix(":0") if is_handle else node

    def _assign(self, node: str, source: str, position: int) -> str:
        number = f"_{position}" if position else ""
        dtype = self._dtype(node)
        if self.index.nodes[node].op in HANDLE_OPS:
            value = self.add(f"Identity{number}", "Identity", [source], {"T": dtype})
            return self.add(f"AssignVariableOp{number}", "AssignVariableOp", [node, value], {"dtype": dtype})
        attrs: dict[str, Attr] = {
            "T": dtype, "use_locking": True, "validate_shape": True, "_class": AttrList("s", [f"loc:@{node}".encode()]),
        }  # fmt: skip
        return self.add(f"Assign{number}", "Assign", [node, source], attrs)
