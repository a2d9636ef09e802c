"""The main graph of a SavedModel whose signatures are functions: inputs, calls, outputs, and the init op.

Inputs and outputs keep the names that their tensors have in the source, as far as these are free.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfthaw.conversion.prepared import Prepared
from tfthaw.dtypes import DType
from tfthaw.export.saved_model_objects import BuiltObjects
from tfthaw.ir.graph import TensorName
from tfthaw.ir.model import Collection
from tfthaw.ir.nodes import Node
from tfthaw.passes.add_saver import WithSaver
from tfthaw.passes.functions_from_graph import MadeFunction, Taken, call_node
from tfthaw.passes.prune import PLACEHOLDER_OPS, free_name
from tfthaw.serde.meta_graphs import variable_def


class MainGraph:
    """A main graph that is being built.

    Attributes:
        nodes: Its nodes so far, without those that functions capture.

    Args:
        prepared: The model; it learns where its tensors are.
        captured: The nodes that functions capture, whose names are taken.
    """

    def __init__(self, prepared: Prepared, captured: Sequence[str]) -> None:
        self.nodes: list[Node] = []
        self._prepared = prepared
        self._before = dict(prepared.fed)  # where tensors are in the graph that functions are made of
        self._taken = set(captured)
        self._sources = {node.name for node in prepared.whole.nodes}
        self._fed: dict[TensorName, TensorName] = {}  # tensor of that graph -> the placeholder in the new one
        self._placed: set[TensorName] = set()  # outputs that have a name in the new graph

    def add_input(self, tensor: str, taken: Taken, source: Node, spare: str) -> TensorName:
        """Add the placeholder for a tensor that is fed; signatures that share a tensor share the placeholder.

        Args:
            tensor: The tensor in the artifact.
            taken: The tensor in the graph that functions are made of.
            source: The node that gives it there.
            spare: A name for the placeholder, where the node's does not do.
        """
        if taken.tensor not in self._fed:
            self._fed[taken.tensor] = self._placeholder(taken, source, spare)
        placed = self._prepared.fed[TensorName.parse(tensor)] = self._fed[taken.tensor]
        return placed

    def _placeholder(self, taken: Taken, source: Node, spare: str) -> TensorName:
        wanted = source.name if taken.tensor.output == 0 else spare
        name = free_name(self._taken, wanted)
        self._taken.add(name)
        if source.op in PLACEHOLDER_OPS and source.op != "PlaceholderWithDefault" and name == source.name:
            self.nodes.append(source)
            return taken.tensor
        self.nodes.append(Node(name, "Placeholder", [], "", {"dtype": taken.dtype, "shape": taken.shape}))
        if source.op not in PLACEHOLDER_OPS:
            self._prepared.notes.append(f"{taken.tensor} was no placeholder; it is fed as {name}:0 now")
        return TensorName(name, 0)

    def add_output(self, tensor: str, given: TensorName, dtype: DType) -> TensorName:
        """Give what a call gives the name that the tensor has in the artifact, where that is free.

        Args:
            tensor: The tensor in the artifact.
            given: What the call gives.
            dtype: Its element type.
        """
        source = TensorName.parse(tensor)
        name = free_name(self._taken, source.node if source.output == 0 else f"{source.node}_{source.output}")
        self._taken.add(name)
        self.nodes.append(Node(name, "Identity", [given.as_input()], "", {"T": dtype}))
        if source not in self._placed and self._before.get(source, source) not in self._fed:
            self._placed.add(source)
            self._prepared.fed[source] = TensorName(name, 0)
        return TensorName(name, 0)

    def add_call(self, name: str, made: MadeFunction, fed: Sequence[str] = ()) -> str:
        """Add the call of a function and return its name."""
        full = free_name(self._taken | self._sources, name)
        self._taken.add(full)
        self.nodes.append(call_node(full, made, [*fed, *made.captures]))
        return full

    def add_init_op(self, calls: Sequence[str]) -> str:
        """Add the node that loaders run, which waits for calls, and return its name."""
        name = free_name(self._taken, "init")
        self._taken.add(name)
        self.nodes.append(Node(name, "NoOp", [f"^{call}" for call in calls]))
        return name


def main_collections(built: BuiltObjects, added: WithSaver, init: str) -> dict[str, Collection]:
    """Return what sessions find by collections: the init op and the variables."""
    every, trainable = [], []
    for node, variable in built.variables.items():
        data = variable_def(
            node, initializer=added.assigns[node], snapshot=added.snapshots[node], is_resource=True,
            trainable=variable.trainable,
        )  # fmt: skip
        every.append(data)
        trainable += [data] if variable.trainable else []
    found = {"saved_model_main_op": Collection("node", [init])}
    if every:
        found["variables"] = Collection("bytes", every)
    if trainable:
        found["trainable_variables"] = Collection("bytes", trainable)
    return found
