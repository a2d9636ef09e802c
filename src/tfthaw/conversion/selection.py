"""Which tensors of a graph go in and come out: by signature, by name, or ranked for a user who does not know."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tfthaw.dtypes import DType
from tfthaw.errors import NotFoundError, StructureError, UsageError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.composites import taken_apart
from tfthaw.ir.graph import Graph, GraphIndex, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import op_history
from tfthaw.ir.signatures import (
    DEFAULT_SIGNATURE,
    INIT_OP_SIGNATURE,
    TRAIN_OP_SIGNATURE,
    Signature,
    SignatureTensor,
)
from tfthaw.ir.types import output_dtype
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.passes.prune import PLACEHOLDER_OPS, free_name, require_tensors

_INTERNAL_SIGNATURES = (INIT_OP_SIGNATURE, TRAIN_OP_SIGNATURE)
_NEVER_OUTPUTS = frozenset({
    "Const", "Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "NoOp", "Assert", "Print", "PrintV2", "Assign",
    "AssignVariableOp", "AssignAdd", "AssignSub", "AssignAddVariableOp", "AssignSubVariableOp", "SaveV2",
    "SaveSlices", "Save", "RestoreV2", "RestoreSlice", "Restore", "VariableV2", "Variable", "VarHandleOp",
    "ReadVariableOp", "MergeV2Checkpoints", "ShardedFilename", "HashTable", "HashTableV2", "VarIsInitializedOp",
    "IsVariableInitialized", "ScalarSummary", "HistogramSummary", "ImageSummary", "MergeSummary", "TensorSummary",
    "TensorSummaryV2", "StringJoin",
})  # fmt: skip
_LIKELY_OUTPUTS = re.compile(
    "softmax|sigmoid|prediction|probabilities|output|logits|prob|detection|embedding|scores|classes|argmax",
    re.IGNORECASE,
)
_OPTIMIZER_OPS = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply")
_TRAINING_SCOPES = (
    "gradients",
    "save",
    "save_1",
    "report_uninitialized",
    "init",
    "train",
    "adam",
    "optimizer",
    "training",
)


@dataclass(frozen=True)
class Selection:
    """What goes in and what comes out.

    Attributes:
        signatures: The signatures to write, by key.
        inputs: What the user calls each input -> its tensor.
        outputs: What the user calls each output -> its tensor.
    """

    signatures: dict[str, Signature]
    inputs: dict[str, TensorName]
    outputs: dict[str, TensorName]

    @property
    def tensors(self) -> list[TensorName]:
        """Every tensor that must be computable: the outputs of all signatures."""
        names = dict.fromkeys(self.outputs.values())
        for signature in self.signatures.values():
            names.update(dict.fromkeys(TensorName.parse(entry.tensor) for entry in signature.outputs.values()))
        return list(names)

    @property
    def feeds(self) -> list[TensorName]:
        """Every tensor that is fed: the inputs of all signatures."""
        names = dict.fromkeys(self.inputs.values())
        for signature in self.signatures.values():
            names.update(dict.fromkeys(TensorName.parse(entry.tensor) for entry in signature.inputs.values()))
        return list(names)

    def without_inputs(self, nodes: Collection[str]) -> Selection:
        """Return the selection without the inputs that the named nodes give, which have a value of their own now."""
        signatures = {
            key: replace(
                signature,
                inputs={
                    name: entry
                    for name, entry in signature.inputs.items()
                    if TensorName.parse(entry.tensor).node not in nodes
                },
            )
            for key, signature in self.signatures.items()
        }
        inputs = {name: tensor for name, tensor in self.inputs.items() if tensor.node not in nodes}
        return Selection(signatures, inputs, self.outputs)


def public_signatures(model: Model) -> dict[str, Signature]:
    """Return the signatures that a user calls, without those that loaders use inside."""
    return {key: value for key, value in model.signatures.items() if key not in _INTERNAL_SIGNATURES}


def select(
    model: Model, *, signatures: Sequence[str] = (), inputs: Sequence[str], outputs: Sequence[str], every: bool
) -> Selection:
    """Choose what goes in and what comes out.

    Args:
        model: The model.
        signatures: The signatures that the user named, each a key or `NEW=OLD`.
        inputs: The tensors that the user named as inputs.
        outputs: The tensors that the user named as outputs.
        every: Whether all signatures are wanted where the user named none.

    Raises:
        NotFoundError: No such signature or node.
        UsageError: Nothing says what the outputs are, or several signatures could be meant.
    """
    if outputs:
        return _by_names(model, inputs, outputs, is_written=every)
    known = public_signatures(model)
    if signatures:
        chosen = _chosen(known, signatures)
        if len(chosen) > 1 and not every:
            raise UsageError("this format has room for one signature", hint="choose one with --signature")
        return _by_signatures(chosen)
    if every and known:
        return _by_signatures(known)
    if DEFAULT_SIGNATURE in known:
        return _by_signatures({DEFAULT_SIGNATURE: known[DEFAULT_SIGNATURE]})
    if len(known) == 1:
        return _by_signatures(known)
    if known:
        raise UsageError(f"several signatures could be meant: {', '.join(known)}", hint="choose one with --signature")
    ranked = [str(item.tensor) for item in rank_outputs(model.graph)[:5]]
    raise UsageError(
        "nothing says what the outputs are: there is no signature",
        hint=f"name them with --outputs; likely ones: {', '.join(ranked) or 'none found'}; --list-outputs shows more",
    )


def _chosen(known: Mapping[str, Signature], names: Sequence[str]) -> dict[str, Signature]:
    """Return the signatures that a user named, by the keys that they shall have.

    Raises:
        NotFoundError: There is no such signature.
        UsageError: Two would have one key.
    """
    chosen: dict[str, Signature] = {}
    for name in names:
        new, equals, old = (name, "", name) if name in known else name.partition("=")
        old = old if equals else new
        if old not in known:
            raise NotFoundError.named("signature", old, known)
        if not new or new in chosen:
            raise UsageError(f"--signature {name}: " + (f"two would be called {new}" if new else "it needs a name"))
        chosen[new] = known[old]
    return chosen


def _by_signatures(signatures: Mapping[str, Signature]) -> Selection:
    """Select by signatures; a name that another signature has for another tensor gets the signature's key in front.

    Sparse and composite tensors are selected as their components.
    """
    signatures = {key: taken_apart(signature) for key, signature in signatures.items()}
    odd = [
        f"{key}: {name}"
        for key, signature in signatures.items()
        for name, entry in (signature.inputs | signature.outputs).items()
        if not entry.tensor
    ]
    if odd:
        raise StructureError("the signature does not say which tensors these are", problems=odd)
    inputs: dict[str, TensorName] = {}
    outputs: dict[str, TensorName] = {}
    for part, found in (("inputs", inputs), ("outputs", outputs)):
        entries = [(key, name, TensorName.parse(entry.tensor)) for key, signature in signatures.items()
                   for name, entry in getattr(signature, part).items()]  # fmt: skip
        meant: dict[str, set[TensorName]] = {}
        for _, name, tensor in entries:
            meant.setdefault(name, set()).add(tensor)
        found.update((name if len(meant[name]) == 1 else f"{key}/{name}", tensor) for key, name, tensor in entries)
    return Selection(dict(signatures), inputs, outputs)


def _by_names(model: Model, inputs: Sequence[str], outputs: Sequence[str], *, is_written: bool) -> Selection:
    index = GraphIndex(model.graph.nodes)
    wanted = {name: TensorName.parse(name) for name in outputs}
    require_tensors(index, wanted.values(), what="--outputs")
    fed = {name: TensorName.parse(name) for name in inputs}
    require_tensors(index, fed.values(), what="--inputs")
    if not inputs:
        reached = index.reach([name.node for name in wanted.values()])
        fed = {
            f"{node.name}:0": TensorName(node.name, 0)
            for node in model.graph.nodes
            if node.name in reached and node.op in PLACEHOLDER_OPS and node.op != "PlaceholderWithDefault"
        }
    signature = Signature(
        inputs=_arguments(index, fed, is_written=is_written), outputs=_arguments(index, wanted, is_written=is_written)
    )
    return Selection({DEFAULT_SIGNATURE: signature}, fed, wanted)


def _arguments(
    index: GraphIndex, tensors: Mapping[str, TensorName], *, is_written: bool
) -> dict[str, SignatureTensor]:
    """Return tensors by their names as signature arguments.

    Args:
        index: The graph.
        tensors: What the user calls each of them -> the tensor.
        is_written: Whether the format has signatures; in others their names are seen by nobody.

    Raises:
        UsageError: Two tensors would have one name.
    """
    found: dict[str, SignatureTensor] = {}
    for name, tensor in tensors.items():
        argument, described = _argument(name), _described(index, tensor)
        if not is_written:
            argument = free_name(found, argument)
        other = found.setdefault(argument, described)
        if other.tensor != described.tensor:
            raise UsageError(
                f"{other.tensor} and {described.tensor} would both be {argument!r} in the signature",
                hint="convert them one at a time",
            )
    return found


def _argument(name: str) -> str:
    """Return a tensor's name as a signature argument: `a/b:0` is `a_b`."""
    return name.removesuffix(":0").replace("/", "_").replace(":", "_")


def _described(index: GraphIndex, name: TensorName) -> SignatureTensor:
    node = index.nodes[name.node]
    dtype = output_dtype(node, name.output) or DType.invalid
    shape = node.shape() if node.op in PLACEHOLDER_OPS else None
    return SignatureTensor(str(name), dtype.base, shape or Shape(None))


def with_own_types(selection: Selection, graph: Graph) -> tuple[Selection, list[str]]:
    """Return a selection whose signatures say the element types that their tensors have, and what was wrong as notes.

    Nothing checks a signature when it is written, and TensorFlow 1 never looked.
    """
    index = GraphIndex(graph.nodes)
    notes = []
    signatures = {}
    for key, signature in selection.signatures.items():
        parts = []
        for entries in (signature.inputs, signature.outputs):
            part = dict(entries)
            for name, entry in entries.items():
                tensor = TensorName.parse(entry.tensor)
                node = index.nodes.get(tensor.node)
                dtype = output_dtype(node, tensor.output) if node is not None and entry.tensor else None
                if dtype is not None and dtype.base is not entry.dtype.base:
                    part[name] = replace(entry, dtype=dtype.base)
                    said, own = entry.dtype.base.name, dtype.base.name
                    notes.append(f"signature {key} says that {name} is {said}; {entry.tensor} is {own}")
            parts.append(part)
        signatures[key] = replace(signature, inputs=parts[0], outputs=parts[1])
    return replace(selection, signatures=signatures), notes


@dataclass(frozen=True)
class Candidate:
    """A tensor that may be an output.

    Attributes:
        tensor: The tensor.
        op: Its node's op.
        score: Higher is likelier.
        reason: Why it may be one.
    """

    tensor: TensorName
    op: str
    score: int
    reason: str


def rank_outputs(graph: Graph) -> list[Candidate]:
    """Rank the tensors of a graph that may be its outputs, the likeliest first.

    What nothing else uses comes first, then what only training uses; names and ops that tell of predictions count for
    more.
    """
    index = GraphIndex(graph.nodes)
    fed = [node.name for node in graph.nodes if node.op in PLACEHOLDER_OPS]
    from_inputs = index.descend(fed)
    found = []
    for node in graph.nodes:
        if node.op in _NEVER_OUTPUTS or node.op.startswith(_OPTIMIZER_OPS):
            continue
        if _is_training(node.name) or _has_no_output(node.op) or _is_plumbing(index, node):
            continue
        likely = _LIKELY_OUTPUTS.search(node.name, node.name.rfind("/") + 1)
        users = [user for user, position in index.consumers(node.name) if not user.inputs[position].startswith("^")]
        model_users = [user for user in users if not _is_training(user.name)]
        if model_users:
            if not likely or node.name not in from_inputs:
                continue
            score, reason = 20, f"named like an output ({likely[0].lower()})"
        elif users:
            score, reason = 40, "only training uses it"
        elif index.consumers(node.name) and not likely:
            continue  # others wait for it and nothing takes its value: the pivots of conds and loops are like that
        else:
            score, reason = 50, "nothing uses it"
        if node.name in from_inputs:
            score, reason = score + 30, f"{reason}, computed from the inputs"
        if _LIKELY_OUTPUTS.search(node.name) or _LIKELY_OUTPUTS.search(node.op):
            score += 10
        found.append(Candidate(TensorName(node.name, 0), node.op, score, reason))
    return sorted(found, key=lambda item: -item.score)


def _is_training(name: str) -> bool:
    return name.partition("/")[0].lower() in _TRAINING_SCOPES or "/gradients/" in name


def _is_plumbing(index: GraphIndex, node: Node) -> bool:
    """Whether a node only reads a variable, or is the pivot of a cond."""
    if node.op != "Identity" or not node.inputs:
        return False
    source = index.producer(node.inputs[0])
    return source is not None and source.op in VARIABLE_OPS | {"Switch", "RefSwitch"}


def _has_no_output(op: str) -> bool:
    history = op_history(op)
    return history is not None and not history.outputs
