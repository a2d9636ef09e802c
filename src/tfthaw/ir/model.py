"""Models: a graph with what surrounds it.

`Model` is the unit that passes transform and that exporters write: one MetaGraph's worth of graph, signatures,
collections, saver and assets. `values` are the tensors of the checkpoint that belongs to it, by checkpoint key.

Source: meta_graph.proto and saver.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tfthaw.ir.graph import Graph
from tfthaw.ir.object_graph import ObjectGraph
from tfthaw.ir.signatures import Signature
from tfthaw.ir.variables import VariableDeclaration
from tfthaw.tensors import Tensor


@dataclass(slots=True)
class Collection:
    """One collection of a MetaGraph.

    Attributes:
        kind: `node`, `bytes`, `int64`, `float`, or `opaque` for what is none of these (or empty).
        items: Node names, bytes or numbers; for `opaque` nothing.
        opaque: The bytes of an opaque collection.
    """

    kind: str
    items: list[str] | list[bytes] | list[int] | list[float]
    opaque: bytes = b""


@dataclass(slots=True)
class Saver:
    """How a graph saves and restores itself.

    Attributes:
        filename_tensor: The tensor that takes the checkpoint's prefix.
        save_tensor: The tensor to fetch in order to save.
        restore_op: The node to run in order to restore.
        version: 0 legacy, 1 for V1 checkpoints, 2 for V2.
        opaque: Everything else (how many checkpoints to keep, unknown fields).
    """

    filename_tensor: str
    save_tensor: str
    restore_op: str
    version: int = 2
    opaque: bytes = b""


@dataclass(slots=True)
class Asset:
    """A file that a model needs, such as a vocabulary.

    Attributes:
        tensor: The tensor that takes the file's path.
        filename: The path inside `assets/`.
        source: The file itself, or None where it is not there.
        opaque: Fields that this version does not know.
    """

    tensor: str
    filename: str
    source: Path | None = None
    opaque: bytes = b""


@dataclass(slots=True)
class Producer:
    """Who wrote an artifact, as far as it says.

    Attributes:
        tensorflow: The version of TensorFlow, or None.
        git: Its git description, or None.
        graph: The version of the graph format, or None.
        min_consumer: The lowest graph version that may read it, or None.
    """

    tensorflow: str | None = None
    git: str | None = None
    graph: int | None = None
    min_consumer: int | None = None


@dataclass(slots=True)
class Model:
    """One MetaGraph, in meaning.

    Attributes:
        graph: The graph.
        signatures: Signatures by key.
        collections: Collections by name.
        saver: The saver, or None.
        assets: The asset files.
        tags: The tag set.
        producer: Who wrote it.
        declared: What the variable collections say, by node name; None where there are none.
        object_graph: The objects of TensorFlow 2, or None.
        values: The tensors of its checkpoint by key; empty where there is none.
        opaque: Everything else of the MetaGraph (stripped op list, unknown fields); None where the graph came alone.
        payloads: Big values that opaque bytes anywhere in the model only stand for, by token.
        notes: What was guessed, skipped or defaulted on the way, one sentence each.
    """

    graph: Graph
    signatures: dict[str, Signature] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    saver: Saver | None = None
    assets: list[Asset] = field(default_factory=list)
    tags: tuple[str, ...] = ()
    producer: Producer = field(default_factory=Producer)
    declared: dict[str, VariableDeclaration] | None = None
    object_graph: ObjectGraph | None = None
    values: Mapping[str, Tensor] = field(default_factory=dict)
    opaque: bytes | None = None
    payloads: Mapping[bytes, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
