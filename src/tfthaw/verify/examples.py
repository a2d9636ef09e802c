"""A `tf.train.Example` that a graph can parse: serving graphs of TensorFlow 1 take their input as such bytes.

Every dense feature that a graph asks for is in it, with one value; sparse and ragged features may be empty.

    Example   1: Features   1: entry* { 1: name, 2: Feature { 1: bytes list | 2: float list | 3: int64 list } }

Source: example.proto and feature.proto of TensorFlow, and the op definitions of parsing_ops.cc.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

from tfthaw.dtypes import DType
from tfthaw.formats.varint import encode_varint
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node

_BYTES = 2  # the wire type of messages and strings
_MAX_VALUES = 1 << 20


def serialized_example(graph: Graph) -> bytes | None:
    """Return an Example with every dense feature that nodes of a graph and of its functions parse.

    Args:
        graph: The graph.

    Returns:
        The bytes, or None where nothing in it parses examples.
    """
    features: dict[bytes, tuple[DType, int]] = {}
    found = False
    for nodes in (graph.nodes, *(function.nodes for function in graph.functions)):
        parsers = [node for node in nodes if node.op in _KEYS]
        if parsers:
            found = True
            known = {node.name: node for node in nodes}
            for node in parsers:
                features.update(_dense_features(node, known))
    if not found:
        return None
    entries = b"".join(_field(1, _field(1, name) + _field(2, _feature(*kind))) for name, kind in features.items())
    return _field(1, entries)


def _dense_features(node: Node, known: Mapping[str, Node]) -> Iterator[tuple[bytes, tuple[DType, int]]]:
    """Yield the dense features of one parsing node: name, element type, and how many values."""
    dtypes, shapes = node.attrs.get("Tdense"), node.attrs.get("dense_shapes")
    if not isinstance(dtypes, AttrList) or not isinstance(shapes, AttrList):
        return
    for name, dtype, shape in zip(_KEYS[node.op](node, known), dtypes.items, shapes.items, strict=False):
        if isinstance(dtype, DType) and isinstance(shape, Shape):
            yield name, (dtype, min(math.prod(1 if size is None else size for size in shape.dims or ()), _MAX_VALUES))


def _keys_of_inputs(node: Node, known: Mapping[str, Node]) -> list[bytes]:
    """Return the dense keys of a ParseExample: inputs of their own, behind those of sparse features."""
    sparse, dense = node.attrs.get("Nsparse", 0), node.attrs.get("Ndense", 0)
    if not isinstance(sparse, int) or not isinstance(dense, int):
        return []
    return [key for text in node.inputs[2 + sparse : 2 + sparse + dense] for key in _strings(text, known)[:1]]


def _keys_of_vector(node: Node, known: Mapping[str, Node]) -> list[bytes]:
    """Return the dense keys of a ParseExampleV2: one input."""
    return _strings(node.inputs[3], known) if len(node.inputs) > 3 else []


def _keys_of_attr(node: Node, known: Mapping[str, Node]) -> list[bytes]:
    """Return the dense keys of a ParseSingleExample: an attr."""
    del known
    keys = node.attrs.get("dense_keys")
    return [key for key in keys.items if isinstance(key, bytes)] if isinstance(keys, AttrList) else []


_KEYS = {"ParseExample": _keys_of_inputs, "ParseExampleV2": _keys_of_vector, "ParseSingleExample": _keys_of_attr}


def _strings(text: str, known: Mapping[str, Node]) -> list[bytes]:
    node = known.get(text.partition(":")[0])
    tensor = node.tensor() if node is not None and node.op == "Const" else None
    return [] if tensor is None or tensor.dtype is not DType.string else list(tensor.numpy().reshape(-1))


def _feature(dtype: DType, count: int) -> bytes:
    """Return a feature of so many equal values."""
    if dtype is DType.string:
        return _field(1, _field(1, b"tfthaw") * count)
    if dtype is DType.float32:
        return _field(2, _field(1, struct.pack("<f", 0.5) * count))
    return _field(3, _field(1, encode_varint(1) * count))


def _field(number: int, content: bytes) -> bytes:
    return encode_varint(number << 3 | _BYTES) + encode_varint(len(content)) + content
