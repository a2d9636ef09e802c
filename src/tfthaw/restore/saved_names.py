"""Under which key a graph saves each of its variables, read from the graph's own restore nodes.

A Saver may save a variable under any key and save parts of variables, so the names of nodes are evidence and the
restore nodes are proof: `Assign(variable, RestoreV2(prefix, names, slices):i)` says that names[i] fills the variable.

They prove it of the checkpoints that this Saver writes. A graph may have several, and restore nodes that belong to no
Saver: initialisers that start a training from another model's values.

Source: io_ops.cc (Restore, RestoreSlice, RestoreV2), saver.py and checkpoint_ops.cc of TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tfthaw.dtypes import DType
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import VARIABLE_OPS

_ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
_RESTORE_OPS = frozenset({"RestoreV2", "RestoreSlice", "Restore"})
V1_RESTORE_OPS = frozenset({"Restore", "RestoreSlice"})
"""Ops that read V1 checkpoints and no others."""

_RESTORE_ALL = re.compile(r"(.*/)?restore_all(_\d+)?")  # every Saver has called it so, always
_PASS_THROUGH = frozenset({"Identity", "Reshape", "Cast"})


@dataclass(frozen=True, slots=True)
class SavedAs:
    """Where a variable's value is in a checkpoint.

    Attributes:
        key: The checkpoint key.
        full_shape: For a part of a partitioned variable: the shape of the whole; else None.
        starts: For a part: where it begins in each dimension.
        lengths: For a part: its own shape.
        computed_by: The op that makes the variable's value of what is restored, where it is not that value itself;
            else empty. The key is empty then.
    """

    key: str
    full_shape: tuple[int, ...] | None = None
    starts: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    computed_by: str = ""

    @property
    def spec(self) -> str:
        """The Saver's `shape_and_slice` text, or an empty one for a whole variable."""
        if self.full_shape is None:
            return ""
        extents = [f"{start},{length}" for start, length in zip(self.starts, self.lengths, strict=True)]
        return " ".join([*map(str, self.full_shape), ":".join(extents)])


def what_savers_say(
    index: GraphIndex, restore_op: str | None, keys: Collection[str]
) -> tuple[dict[str, list[SavedAs]], bool]:
    """Return where the Savers of a graph say that the values of its variables are in a checkpoint.

    Args:
        index: The graph.
        restore_op: The node that the Saver runs, where it is known which one wrote the checkpoint.
        keys: The checkpoint's keys. Where no restore op is known, the Savers count that save just these; or else those
            all of whose keys are there.

    Returns:
        variable's node -> where its value is, once for each Saver that says it otherwise; and whether it is known that
        one of them wrote the checkpoint.
    """
    if restore_op and TensorName.parse(restore_op).node in index:
        return {variable: [said] for variable, said in saved_names(index, restore_op).items()}, True
    every = [saved_names(index, name) for name, node in index.nodes.items()
             if node.op == "NoOp" and _RESTORE_ALL.fullmatch(name)]  # fmt: skip
    there = set(keys)
    wrote = [names for names in every if names and {said.key for said in names.values()} == there]
    likely = wrote or [names for names in every if {said.key for said in names.values()} <= there]
    result: dict[str, list[SavedAs]] = {}
    for names in likely:
        for variable, said in names.items():
            if said not in result.setdefault(variable, []):
                result[variable].append(said)
    return result, bool(wrote)


def saved_names(index: GraphIndex, restore_op: str) -> dict[str, SavedAs]:
    """Return under which key a graph's Saver restores each variable.

    Args:
        index: The graph.
        restore_op: The node that the Saver runs.

    Returns:
        variable's node name -> where its value is.
    """
    result: dict[str, SavedAs] = {}
    reached = index.reach([TensorName.parse(restore_op).node])
    for node in index.nodes.values():
        if node.name not in reached or node.op not in _ASSIGN_OPS or len(node.inputs) < 2:
            continue
        variable = _variable_of(index, node.inputs[0])
        if variable is None or variable in result:
            continue
        saved = _restored(index, node.inputs[1]) or _computed(index, node.inputs[1])
        if saved is not None:
            result[variable] = saved
    return result


def _variable_of(index: GraphIndex, text: str) -> str | None:
    """Return the variable's node that an Assign writes to."""
    node = index.producer(text)
    for _ in range(8):  # as many as `_restored` follows; a circle ends too
        if node is None or node.op not in ("RefIdentity", "Identity") or not node.inputs:
            break
        node = index.producer(node.inputs[0])
    return node.name if node is not None and node.op in VARIABLE_OPS else None


def _restored(index: GraphIndex, text: str) -> SavedAs | None:
    """Return what a restore node gives at one of its outputs, or None where the value comes from elsewhere."""
    name = TensorName.parse(text)
    for _ in range(8):  # a few casts and reshapes at the most stand between restore and assign
        node = index.nodes.get(name.node)
        if node is None:
            return None
        if node.op == "RestoreV2" and len(node.inputs) >= 3:
            return _entry(_strings(index, node.inputs[1]), _strings(index, node.inputs[2]), name.output)
        if node.op == "RestoreSlice" and len(node.inputs) >= 3:
            return _entry(_strings(index, node.inputs[1]), _strings(index, node.inputs[2]), 0)
        if node.op == "Restore" and len(node.inputs) >= 2:
            return _entry(_strings(index, node.inputs[1]), [b""], 0)
        if node.op not in _PASS_THROUGH or not node.inputs:
            return None
        name = TensorName.parse(node.inputs[0])
    return None


def _computed(index: GraphIndex, text: str) -> SavedAs | None:
    """Return what to say of a value that a Saver computes from what it restores; None where it restores nothing."""
    node = index.producer(text)
    if node is None or node.op in _RESTORE_OPS:
        return None
    if all(index.nodes[name].op not in _RESTORE_OPS for name in index.reach([node.name])):
        return None
    return SavedAs("", computed_by=f"{node.op} ({node.name})")


def _entry(names: list[bytes], slices: list[bytes], position: int) -> SavedAs | None:
    if position >= len(names):
        return None
    key = names[position].decode(errors="replace")
    spec = slices[position].decode(errors="replace") if position < len(slices) else ""
    return SavedAs(key) if not spec else parse_slice_spec(key, spec)


def parse_slice_spec(key: str, spec: str) -> SavedAs | None:
    """Read a Saver's `shape_and_slice` text: the whole's sizes, then one `start,length` or `-` a dimension.

    `"10 20 0,5:-"` is rows 0 to 4 of a [10, 20] tensor. Returns None where the text is none.
    """
    sizes = spec.split()
    parts = sizes.pop().split(":") if sizes else []
    if not sizes or len(parts) != len(sizes) or not all(_is_number(size) for size in sizes):
        return None
    shape = tuple(int(size) for size in sizes)
    starts, lengths = [], []
    for size, part in zip(shape, parts, strict=True):
        start, comma, length = part.partition(",")
        if part == "-":
            starts.append(0)
            lengths.append(size)
        elif comma and _is_number(start) and _is_number(length):
            starts.append(int(start))
            lengths.append(int(length))
        else:
            return None
    return SavedAs(key, shape, tuple(starts), tuple(lengths))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20  # more digits than any size of a tensor


def _strings(index: GraphIndex, text: str) -> list[bytes]:
    """Return the strings of a Const, or nothing where it is none."""
    node: Node | None = index.producer(text)
    tensor = node.tensor() if node is not None and node.op == "Const" else None
    if tensor is None or tensor.dtype is not DType.string:
        return []
    return _flat(tensor.numpy().reshape(-1))


def _flat(values: Iterable[bytes]) -> list[bytes]:
    return [bytes(value) for value in values]
