"""The outputs of an inference graph: those of a detection model, by their names, or those that the user names.

Source: exporter.py of the object detection API (add_output_tensor_nodes): identity nodes of these names, listed in the
collection `inference_op`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tfthaw.conversion.prepared import node_list
from tfthaw.conversion.selection import public_signatures, rank_outputs
from tfthaw.errors import UsageError
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.signatures import DEFAULT_SIGNATURE
from tfthaw.ir.types import output_dtype
from tfthaw.passes.prune import require_tensors

OUTPUT_COLLECTION = "inference_op"
DETECTION_OUTPUTS = (
    "detection_boxes", "detection_scores", "detection_classes", "num_detections", "raw_detection_boxes",
    "raw_detection_scores", "detection_masks", "detection_keypoints", "detection_multiclass_scores",
    "detection_features", "detection_anchor_indices", "detection_keypoint_scores", "detection_boxes_strided",
)  # fmt: skip


@dataclass(frozen=True)
class InferenceOutputs:
    """What comes out of an inference graph.

    Attributes:
        model: The model, with a node for each name.
        named: result name -> the tensor.
        sources: result name -> the tensor of the source that it is.
        additional: Tensors that the frozen graph keeps besides.
        notes: How they were found.
    """

    model: Model
    named: dict[str, TensorName]
    sources: dict[str, TensorName]
    additional: list[TensorName] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def tensors(self) -> list[TensorName]:
        """Every tensor that must be computable."""
        return [*self.named.values(), *self.additional]


def choose_outputs(model: Model, named: Sequence[str], additional: Sequence[str]) -> InferenceOutputs:
    """Find the outputs of a model.

    Args:
        model: The model.
        named: What the user named: `NAME=TENSOR`, or a tensor whose node gives the name.
        additional: Nodes to keep besides.

    Raises:
        UsageError: Nothing says what the outputs are, or a name is taken.
        NotFoundError: A tensor that was named is not there.
    """
    index = GraphIndex(model.graph.nodes)
    notes: list[str] = []
    if named:
        wanted = dict(_named(text) for text in named)
        if len(wanted) < len(named):
            raise UsageError("two outputs would have one name", where="--output_tensors")
        require_tensors(index, wanted.values(), what="--output_tensors")
    else:
        wanted, notes = _known(model, index)
    kept = [TensorName.parse(text) for text in additional]
    require_tensors(index, kept, what="--additional_output_tensor_names")
    model, named_tensors = _with_nodes(model, index, wanted, kept)
    return InferenceOutputs(model, named_tensors, wanted, kept, notes)


def _named(text: str) -> tuple[str, TensorName]:
    name, equals, tensor = text.partition("=")
    found = TensorName.parse(tensor if equals else name)
    if not name or (equals and not tensor):
        raise UsageError(f"expected NAME=TENSOR, found {text!r}", where="--output_tensors")
    if equals:
        return name, found
    return (found.node if found.output == 0 else f"{found.node}_{found.output}").replace("/", "_"), found


def _known(model: Model, index: GraphIndex) -> tuple[dict[str, TensorName], list[str]]:
    """Return the outputs that the graph itself says: by its collection, else by their names."""
    listed = [name for name in node_list(model.collections.get(OUTPUT_COLLECTION)) if name in index]
    if listed:
        return {name.replace("/", "_"): TensorName(name, 0) for name in listed}, []
    found = {name: TensorName(name, 0) for name in DETECTION_OUTPUTS if name in index}
    if found:
        return found, [f"the outputs are the nodes named {', '.join(found)}"]
    signatures = public_signatures(model)
    if len(signatures) == 1 or DEFAULT_SIGNATURE in signatures:
        key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures))
        said = {name: TensorName.parse(entry.tensor) for name, entry in signatures[key].outputs.items() if entry.tensor}
        require_tensors(index, said.values(), what=f"signature {key}")
        return said, [f"the outputs are those of the signature {key}: {', '.join(said)}"]
    ends = [name for name in index.nodes if name.rpartition("/")[2] in DETECTION_OUTPUTS]
    likely = ends or [str(item.tensor) for item in rank_outputs(model.graph)]
    raise UsageError(
        "the graph has no outputs of a detection model (detection_boxes and its like): it was built to train alone",
        hint=f"name its outputs with --output_tensors NAME=TENSOR,...; likely ones: "
             f"{', '.join(likely[:6]) or 'none found'}; or give the code that builds the model with --code",
    )  # fmt: skip


def _with_nodes(
    model: Model, index: GraphIndex, wanted: dict[str, TensorName], kept: Sequence[TensorName]
) -> tuple[Model, dict[str, TensorName]]:
    """Give each output a node of its name."""
    added: list[Node] = []
    result: dict[str, TensorName] = {}
    needed: set[str] | None = None
    for name, tensor in wanted.items():
        own = TensorName(name, 0)
        if tensor == own or (name not in index and tensor.node.replace("/", "_") == name and tensor.output == 0):
            result[name] = tensor
            continue
        if name in index:
            needed = needed or index.reach([item.node for item in (*wanted.values(), *kept)])
            if name in needed:
                raise UsageError(f"the outputs need a node ({index.nodes[name].op}) that is called {name} already",
                                 where="--output_tensors", hint="give the output another name")  # fmt: skip
        dtype = output_dtype(index.nodes[tensor.node], tensor.output)
        if dtype is None:
            raise UsageError(f"the element type of {tensor} is not known, so it cannot be handed on as {name}",
                             where="--output_tensors", hint=f"name it as it is: {tensor}")  # fmt: skip
        added.append(Node(name, "Identity", [tensor.as_input()], "", {"T": dtype.base}))
        result[name] = own
    names = {node.name for node in added}
    nodes = [*(node for node in model.graph.nodes if node.name not in names), *added]
    return replace(model, graph=model.graph.with_nodes(nodes)), result
