"""What differs between two artifacts: tensors, graph, signatures, assets.

Tensors are a checkpoint's, a weights file's, those beside a graph, or the weights among a frozen graph's constants;
each of these compares with each other. Graphs, signatures and assets are compared where both artifacts carry a graph.
Not compared are collections, the object graph in a SavedModel's message, Keras' JSON of layers, and debug info.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tfthaw._files import Progress, SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY
from tfthaw.ir.model import Asset, Model
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.tensors import Tensor
from tfthaw.verify.graph_differences import (
    Differences,
    GraphDifferences,
    compare_graphs,
    compare_signatures,
    compare_texts,
    constants_of,
)
from tfthaw.verify.renames import Rename, Undecided, find_renames
from tfthaw.verify.tensor_differences import Named, TensorDifferences, compare

__all__ = ["Difference", "diff"]


@dataclass(frozen=True)
class Difference:
    """What differs between artifacts A and B.

    Attributes:
        paths: Both paths, as given.
        formats: Both formats.
        tensors: Of the tensors by name; None where an artifact carries none. What was renamed is not in its `only_in_a`
            and `only_in_b`; what is undecided is.
        renamed: Tensors of equal content under another name; those that changed names with each other too.
        undecided: Tensors whose content is equal and proves nothing.
        graph: Of the graphs; None where an artifact carries none.
        constants: Of the values of the graphs' constants that are no weights.
        signatures: Of the signatures; None where an artifact carries no graph.
        assets: Of the asset files; None where an artifact carries no graph.
        object_graph_is_same: Whether two object-based checkpoints have the same object graph; None where not both do.
        notes: What was not compared, one sentence each.
    """

    paths: tuple[str, str]
    formats: tuple[str, str]
    tensors: TensorDifferences | None = None
    renamed: tuple[Rename, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    graph: GraphDifferences | None = None
    constants: TensorDifferences = field(default_factory=TensorDifferences)
    signatures: Differences | None = None
    assets: Differences | None = None
    object_graph_is_same: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs of what was compared."""
        parts = (self.tensors, self.graph, self.signatures, self.assets, self.constants)
        return (
            all(part is None or part.same for part in parts)
            and not self.renamed
            and self.object_graph_is_same is not False
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as `diff --json` prints it."""
        a, b = ({"path": path, "format": name} for path, name in zip(self.paths, self.formats, strict=True))
        return {
            "same": self.same,
            "a": a,
            "b": b,
            "tensors": None if self.tensors is None else {
                **_tensors_dict(self.tensors),
                "renamed": [pair.as_dict() for pair in self.renamed],
                "undecided": [group.as_dict() for group in self.undecided],
            },
            "graph": None if self.graph is None else {
                "same": self.graph.same and self.constants.same,
                "nodes": self.graph.nodes.as_dict(),
                "constants": _tensors_dict(self.constants),
                "functions": self.graph.functions.as_dict(),
                "versions": {key: {"a": x, "b": y} for key, (x, y) in self.graph.versions.items()},
            },
            "signatures": None if self.signatures is None else self.signatures.as_dict(),
            "assets": None if self.assets is None else self.assets.as_dict(),
            "object_graph_is_same": self.object_graph_is_same,
            "notes": list(self.notes),
        }  # fmt: skip


def _tensors_dict(tensors: TensorDifferences) -> dict[str, Any]:
    return {
        "equal": len(tensors.equal), "equal_bytes": tensors.equal_bytes,
        "changed": [change.as_dict() for change in tensors.changed],
        "only_in_a": [_described(named) for named in tensors.only_in_a.values()],
        "only_in_b": [_described(named) for named in tensors.only_in_b.values()],
    }  # fmt: skip


def _described(named: Named) -> dict[str, Any]:
    return {"name": named.name, "dtype": named.tensor.dtype.name, "shape": list(named.tensor.shape)}


class _Side:
    """One of the two artifacts, as far as it is compared."""

    def __init__(self, artifact: Artifact, tags: Sequence[str] | None) -> None:
        self.artifact = artifact
        self.tags = tags

    @cached_property
    def model(self) -> Model:
        """The graph with what surrounds it."""
        return self.artifact.model(self.tags)

    @cached_property
    def constants(self) -> dict[str, Named]:
        """The constants of the main graph."""
        return self._named(constants_of(self.model)) if self.artifact.has_graph else {}

    @cached_property
    def tensors(self) -> dict[str, Named] | None:
        """The tensors, without the object graph; None where there is a graph whose values are elsewhere."""
        variables = self._named({k: v for k, v in self.artifact.variables.items() if k != OBJECT_GRAPH_KEY})
        if variables or not self.artifact.has_graph:
            return variables
        if any(node.op in VARIABLE_OPS for node in self.model.graph.walk()):
            return None
        # scalars and what is no floating number are structure; weights are those that are neither
        return {
            name: named for name, named in self.constants.items() if named.tensor.dtype.is_float and named.tensor.shape
        }

    @property
    def object_graph(self) -> bytes | None:
        """The object graph of an object-based checkpoint."""
        if OBJECT_GRAPH_KEY not in self.artifact.variables:
            return None
        tensor = Named(OBJECT_GRAPH_KEY, self.artifact.variables[OBJECT_GRAPH_KEY], self.artifact.path)
        return b"".join(tensor.strings()) if tensor.tensor.dtype is DType.string else None

    def _named(self, tensors: Mapping[str, Tensor]) -> dict[str, Named]:
        return {name: Named(name, tensor, self.artifact.path) for name, tensor in tensors.items()}


def diff(
    a: Artifact | str | os.PathLike[str],
    b: Artifact | str | os.PathLike[str],
    *,
    tags_a: Sequence[str] | None = None,
    tags_b: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Difference:
    """Compare two artifacts.

    Memory stays bounded: every tensor is compared as a stream. One pass reads both sides; tensors that differ, and
    those that have no partner of their name, are read once more.

    Args:
        a: The one artifact, or its path.
        b: The other.
        tags_a: The tag set of the MetaGraph to take, where A is a SavedModel.
        tags_b: The same for B.
        progress: Called with the number of bytes just compared, of one side.

    Raises:
        UnsupportedError: There is nothing that both carry.
        TfthawError: One of them cannot be read.
    """
    with contextlib.ExitStack() as opened:
        sides = [
            artifact if isinstance(artifact, Artifact) else opened.enter_context(open_artifact(artifact))
            for artifact in (a, b)
        ]
        return _diff(_Side(sides[0], tags_a), _Side(sides[1], tags_b), progress)


def _diff(one: _Side, other: _Side, progress: Progress | None) -> Difference:
    a, b = one.artifact, other.artifact
    notes: list[str] = []
    both_graphs = a.has_graph and b.has_graph
    found = _compare_tensors(one, other, notes, progress)
    if found is None and not both_graphs:
        raise UnsupportedError(
            f"there is nothing that both have: {a.path} is {a.format}, {b.path} is {b.format}",
            problems=notes,
            hint="compare artifacts that both have values, or both have a graph",
        )
    tensors, renamed, undecided = found or (None, [], [])
    result: dict[str, Any] = {}
    if both_graphs:
        result = _compare_models(one, other, tensors)
    elif a.has_graph or b.has_graph:
        notes.append(f"only {'A' if a.has_graph else 'B'} has a graph, so graphs and signatures were not compared")
    return Difference(
        paths=(a.path, b.path), formats=(a.format, b.format), notes=tuple(notes),
        tensors=tensors, renamed=tuple(renamed), undecided=tuple(undecided),
        object_graph_is_same=_compare_object_graphs(one, other), **result,
    )  # fmt: skip


def _compare_tensors(
    one: _Side, other: _Side, notes: list[str], progress: Progress | None
) -> tuple[TensorDifferences, list[Rename], list[Undecided]] | None:
    """Compare tensors by name, then find out which were renamed."""
    a, b = one.tensors, other.tensors
    for name, side in (("A", a), ("B", b)):
        if side is None:
            notes.append(f"{name} is a graph without the values of its variables, so tensors were not compared")
    if a is None or b is None:
        return None
    # a variable on one side may be a constant on the other, of any type and shape
    left = a | {name: one.constants[name] for name in b if name not in a and name in one.constants}
    right = b | {name: other.constants[name] for name in a if name not in b and name in other.constants}
    found = compare(left, right, progress)
    swapped = _swapped(found, left, right)
    changed = tuple(change for change in found.changed if change.name not in {pair.a for pair in swapped})
    renamed, undecided = find_renames(found.only_in_a, found.only_in_b)
    from_a, from_b = {pair.a for pair in renamed}, {pair.b for pair in renamed}
    tensors = TensorDifferences(
        found.equal, found.equal_bytes, changed,
        {name: named for name, named in found.only_in_a.items() if name not in from_a},
        {name: named for name, named in found.only_in_b.items() if name not in from_b},
    )  # fmt: skip
    renamed += swapped
    return tensors, renamed, undecided


def _swapped(found: TensorDifferences, left: Mapping[str, Named], right: Mapping[str, Named]) -> list[Rename]:
    """Return the tensors that changed names with each other: a list that was saved in another order."""
    names = {change.name for change in found.changed}
    pairs, _ = find_renames({name: left[name] for name in names}, {name: right[name] for name in names})
    while pairs:
        # all of them must be told on both sides: a name that is told on one alone has new content on the other
        told = {pair.a for pair in pairs} & {pair.b for pair in pairs}
        kept = [pair for pair in pairs if pair.a in told and pair.b in told]
        if len(kept) == len(pairs):
            break
        pairs = kept
    return pairs


def _compare_models(one: _Side, other: _Side, tensors: TensorDifferences | None) -> dict[str, Any]:
    """Compare graphs, the constants that were not compared as tensors, signatures and assets."""
    done: set[str] = set()
    if tensors is not None:
        done = {*(one.tensors or {}), *(other.tensors or {})}
    shared = [name for name in one.constants if name in other.constants and name not in done]
    assets = [{asset.filename: _content(asset) for asset in side.model.assets} for side in (one, other)]
    return {
        "graph": compare_graphs(one.model.graph, other.model.graph),
        "constants": compare(
            {name: one.constants[name] for name in shared}, {name: other.constants[name] for name in shared}
        ),
        "signatures": compare_signatures(one.model.signatures, other.model.signatures),
        "assets": compare_texts(*assets, what="content"),
    }


def _compare_object_graphs(one: _Side, other: _Side) -> bool | None:
    a, b = one.object_graph, other.object_graph
    return None if a is None or b is None else a == b


def _content(asset: Asset) -> str:
    """Return what tells the content of an asset file."""
    if asset.source is None or not asset.source.is_file():
        return "missing"
    digest = hashlib.blake2b(digest_size=8)
    with SourceFile(asset.source) as source:
        for chunk in source.slice().chunks():
            digest.update(chunk.data)
        return f"{source.size} bytes, content {digest.hexdigest()}"
