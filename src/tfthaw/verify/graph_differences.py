"""How two graphs and their signatures differ.

Nodes and functions are compared by name, and in meaning: the order of nodes and of control inputs counts for nothing,
`a` and `a:0` are one input. The values of constants are tensors and are compared as such (`constants_of` lists them).
Debug info is left out.

TensorFlow 2 numbers the functions that it traces (`__inference_call_1234`), anew in each process. Functions of one stem
that have the same body, or that are the only ones left, are taken for each other; then they are compared all the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.errors import TfthawError
from tfthaw.ir.attrs import Attr, AttrList, AttrPlaceholder, FunctionName, OpaqueAttr, Shape
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph, TensorName, control_inputs, data_inputs
from tfthaw.ir.model import Model
from tfthaw.ir.nodes import Node
from tfthaw.ir.signatures import Signature, SignatureTensor
from tfthaw.serde.tensors import ProtoTensor
from tfthaw.tensors import Tensor

_TRACE_NUMBER = re.compile(r"_\d+(?=$|_)")
_TEXT_LENGTH = 100

Naming = Callable[[str], str]
"""What to call a function of the library, so that both sides call it the same."""


@dataclass(frozen=True)
class Change:
    """Something that both sides have and that is not the same.

    Attributes:
        name: Its name; for functions with two names, `a -> b`.
        what: What differs (`op`, `inputs`, `attr T`, ...) -> how it is in A and in B, for people.
    """

    name: str
    what: dict[str, tuple[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """Return it as `diff --json` prints it."""
        return {"name": self.name, "what": {key: {"a": a, "b": b} for key, (a, b) in self.what.items()}}


@dataclass(frozen=True)
class Differences:
    """What comparing named things found.

    Attributes:
        equal: How many are the same.
        only_in_a: Names that B does not have -> their op, for nodes; else empty.
        only_in_b: Names that A does not have, likewise.
        changed: What both have and is not the same.
        renamed: name in A -> name in B, of what is the same but for the name.
    """

    equal: int
    only_in_a: Mapping[str, str]
    only_in_b: Mapping[str, str]
    changed: tuple[Change, ...]
    renamed: Mapping[str, str]

    @property
    def same(self) -> bool:
        """Whether there is no difference; a trace number is none."""
        return not (self.only_in_a or self.only_in_b or self.changed)

    def as_dict(self) -> dict[str, Any]:
        """Return it as `diff --json` prints it."""
        return {
            "equal": self.equal, "only_in_a": _named(self.only_in_a), "only_in_b": _named(self.only_in_b),
            "changed": [change.as_dict() for change in self.changed],
            "renamed": [{"a": a, "b": b} for a, b in self.renamed.items()],
        }  # fmt: skip


def _named(names: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "op": op} if op else {"name": name} for name, op in names.items()]


@dataclass(frozen=True)
class GraphDifferences:
    """What comparing two graphs found.

    Attributes:
        nodes: Of the nodes of the main graphs.
        functions: Of the functions of the libraries.
        versions: `producer` and `min_consumer` where they differ -> in A and in B.
    """

    nodes: Differences
    functions: Differences
    versions: dict[str, tuple[int, int]]

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return self.nodes.same and self.functions.same and not self.versions


def compare_graphs(a: Graph, b: Graph) -> GraphDifferences:
    """Compare two graphs; the values of constants are left to who compares tensors.

    Raises:
        TfthawError: A tensor in a function cannot be read.
    """
    pairs = _pair_functions(a, b)
    here: Naming = lambda name: pairs.get(name, name)  # noqa: E731
    there: Naming = lambda name: name  # noqa: E731
    nodes = _compare(_by_name(a.nodes), _by_name(b.nodes), lambda x, y: _node_changes(x, y, here, there, main=True))
    others = {function.name: function for function in b.functions}
    functions = _compare(
        {pairs.get(item.name, item.name): item for item in a.functions}, others,
        lambda x, y: _function_changes(x, y, here, there),
    )  # fmt: skip
    backwards = {other: one for one, other in pairs.items()}
    changed = {change.name for change in functions.changed}
    functions = Differences(
        functions.equal, functions.only_in_a, functions.only_in_b,
        tuple(
            Change(f"{backwards[item.name]} -> {item.name}" if item.name in backwards else item.name, item.what)
            for item in functions.changed
        ),
        {one: other for one, other in pairs.items() if other not in changed},
    )  # fmt: skip
    return GraphDifferences(nodes, functions, _versions(a, b))


def compare_signatures(a: Mapping[str, Signature], b: Mapping[str, Signature]) -> Differences:
    """Compare the signatures of two models: their methods, and tensor, type and shape of each argument."""
    return _compare(dict(a), dict(b), _signature_changes)


def compare_texts(a: Mapping[str, str], b: Mapping[str, str], *, what: str) -> Differences:
    """Compare named texts, each of which tells all that is known of a thing."""
    return _compare(a, b, lambda one, other: {} if one == other else {what: (one, other)})


def constants_of(model: Model) -> dict[str, Tensor]:
    """Return the values of the constants of a main graph, by node name."""
    named = _by_name(model.graph.nodes)
    return {name: value for name, node in named.items() if node.op == "Const" and (value := node.tensor()) is not None}


def _compare(
    a: Mapping[str, Any], b: Mapping[str, Any], changes: Callable[[Any, Any], dict[str, tuple[str, str]]]
) -> Differences:
    found = [Change(name, changes(item, b[name])) for name, item in a.items() if name in b]
    changed = tuple(change for change in found if change.what)
    return Differences(
        equal=len(found) - len(changed),
        only_in_a={name: _op(item) for name, item in a.items() if name not in b},
        only_in_b={name: _op(item) for name, item in b.items() if name not in a},
        changed=changed, renamed={},
    )  # fmt: skip


def _op(item: object) -> str:
    return item.op if isinstance(item, Node) else ""


def _by_name(nodes: Iterable[Node]) -> dict[str, Node]:
    """Return nodes by name; in an invalid graph, the second of a name is `name (2)`."""
    result: dict[str, Node] = {}
    seen: dict[str, int] = {}
    for node in nodes:
        seen[node.name] = count = seen.get(node.name, 0) + 1
        result[node.name if count == 1 else f"{node.name} ({count})"] = node
    return result


def _node_changes(one: Node, other: Node, here: Naming, there: Naming, *, main: bool) -> dict[str, tuple[str, str]]:
    """Return what differs between two nodes.

    Args:
        one: The node of A.
        other: The node of B.
        here: The naming of A's functions.
        there: The naming of B's functions.
        main: Whether they are in the main graph, where the values of constants are compared elsewhere.
    """
    what: dict[str, tuple[str, str]] = {}
    if here(one.op) != there(other.op):
        what["op"] = (one.op, other.op)
    if _links(one) != _links(other):
        what["inputs"] = _link_texts(one.inputs, other.inputs)
    if one.device != other.device:
        what["device"] = (one.device, other.device)
    as_tensor = main and one.op == other.op == "Const"
    for name in sorted(one.attrs.keys() | other.attrs.keys()):
        if as_tensor and name == "value" and one.tensor() is not None and other.tensor() is not None:
            continue
        x, y = one.attrs.get(name), other.attrs.get(name)
        if x is None or y is None or not _is_same(x, y, here, there):
            what[f"attr {name}"] = (_attr_text(x), _attr_text(y))
    return what


def _links(node: Node) -> tuple[list[TensorName], set[str]]:
    return [TensorName.parse(text) for text in data_inputs(node)], set(control_inputs(node))


def _link_texts(one: list[str], other: list[str]) -> tuple[str, str]:
    """Return the inputs that only one of two nodes has, or all of them where only their order differs."""
    a, b = [text for text in one if text not in other], [text for text in other if text not in one]
    return _text(", ".join(a or ([] if b else one))), _text(", ".join(b or ([] if a else other)))


def _function_changes(one: Function, other: Function, here: Naming, there: Naming) -> dict[str, tuple[str, str]]:
    what: dict[str, tuple[str, str]] = {}
    if _outside(one) != _outside(other):
        what["signature"] = (_arguments(one), _arguments(other))
    x, y = (
        {key: TensorName.parse(text) for key, text in function.returns.items()} for function in (one, other)
    )  # fmt: skip
    if x != y:
        what["returns"] = (_text(str(one.returns)), _text(str(other.returns)))
    if one.control_returns != other.control_returns:
        what["control returns"] = (_text(str(one.control_returns)), _text(str(other.control_returns)))
    for name in sorted(one.attrs.keys() | other.attrs.keys()):
        left, right = one.attrs.get(name), other.attrs.get(name)
        if left is None or right is None or not _is_same(left, right, here, there):
            what[f"attr {name}"] = (_attr_text(left), _attr_text(right))
    nodes = _compare(
        _by_name(one.nodes), _by_name(other.nodes), lambda n, m: _node_changes(n, m, here, there, main=False)
    )
    for name in nodes.only_in_a:
        what[f"node {name}"] = ("there", "missing")
    for name in nodes.only_in_b:
        what[f"node {name}"] = ("missing", "there")
    for change in nodes.changed:
        for key, sides in change.what.items():
            what[f"node {change.name}: {key}"] = sides
    return what


def _outside(function: Function) -> tuple[object, ...]:
    """Return what a function's signature says, without its name."""
    arguments, results = tuple(function.arguments), tuple(function.results)
    return arguments, results, tuple(function.control_returns), function.is_stateful, function.signature


def _arguments(function: Function) -> str:
    return _text(f"({', '.join(function.inputs)}) -> ({', '.join(function.outputs)})")


def _pair_functions(a: Graph, b: Graph) -> dict[str, str]:
    """Return which function of A is which of B where their names differ in trace numbers alone."""
    names_a, names_b = {item.name for item in a.functions}, {item.name for item in b.functions}
    left_a = [item for item in a.functions if item.name not in names_b]
    left_b = [item for item in b.functions if item.name not in names_a]
    pairs: dict[str, str] = {}
    by_stem: Callable[[Function], Any] = lambda item: _stem(item.name)  # noqa: E731
    by_body: Callable[[Function], Any] = lambda item: (_stem(item.name), _body(item))  # noqa: E731
    for key in (by_body, by_stem):
        found: dict[Any, tuple[list[str], list[str]]] = {}
        for side, functions in enumerate((left_a, left_b)):
            for function in functions:
                found.setdefault(key(function), ([], []))[side].append(function.name)
        for one, other in found.values():
            # of functions with one body it does not matter which is which
            if len(one) == len(other) and (len(one) == 1 or key is by_body):
                pairs.update(zip(sorted(one), sorted(other), strict=True))
        taken = set(pairs.values())
        left_a = [item for item in left_a if item.name not in pairs]
        left_b = [item for item in left_b if item.name not in taken]
    return pairs


def _stem(name: str) -> str:
    """Return a function's name without the numbers of its traces."""
    return _TRACE_NUMBER.sub("", name)


def _body(function: Function) -> bytes:
    """Return a digest of all that a function does, blind to the trace numbers of the functions that it calls."""
    digest = hashlib.blake2b(repr(_outside(function)).encode())
    for node in function.nodes:
        attrs = sorted((name, _canonical(value, _stem)) for name, value in node.attrs.items())
        digest.update(repr((node.name, _stem(node.op), node.inputs, node.device, attrs)).encode())
    return digest.digest()


def _is_same(one: Attr, other: Attr, here: Naming, there: Naming) -> bool:
    return bool(_canonical(one, here) == _canonical(other, there))


def _canonical(attr: Attr, naming: Naming) -> Any:
    """Return an attr as plain values that are equal exactly where the attrs mean the same."""
    if isinstance(attr, Tensor):
        return ("tensor", int(attr.dtype), attr.shape, _digest(attr))
    if isinstance(attr, FunctionName):
        inner = sorted((name, _canonical(value, naming)) for name, value in attr.attrs.items())
        return ("function", naming(attr.name), inner)
    if isinstance(attr, AttrList):
        return ("list", attr.kind, [_canonical(item, naming) for item in attr.items])
    if isinstance(attr, Shape):
        return ("shape", attr.dims)
    if isinstance(attr, AttrPlaceholder):
        return ("placeholder", attr.name)
    if isinstance(attr, OpaqueAttr):
        return ("opaque", attr.data)
    if isinstance(attr, DType):
        return ("type", int(attr))
    return (type(attr).__name__, repr(attr))  # by repr, since nan is not nan


def _digest(tensor: Tensor) -> bytes:
    """Return a digest of a tensor's values, or of its message where it has none that can be read."""
    digest = hashlib.blake2b(digest_size=32)
    try:
        if tensor.dtype is DType.string:
            for value in tensor.numpy().reshape(-1).tolist():
                digest.update(len(value).to_bytes(8, "little") + value)
        else:
            for chunk in tensor.chunks():
                digest.update(chunk.data)
    except TfthawError:
        if not isinstance(tensor, ProtoTensor):
            raise
        digest.update(proto.serialize(tensor.message))
    return digest.digest()


def _attr_text(attr: Attr | None) -> str:
    """Return an attr for people, short."""
    if attr is None:
        return "(not set)"
    if isinstance(attr, bytes):
        return _text(repr(attr.decode(errors="backslashreplace")))
    if isinstance(attr, DType):
        return attr.name
    if isinstance(attr, Shape):
        return "?" if attr.dims is None else f"[{', '.join('?' if size is None else str(size) for size in attr.dims)}]"
    if isinstance(attr, Tensor):
        return f"{attr.dtype.name}{list(attr.shape)}"
    if isinstance(attr, FunctionName):
        return attr.name
    if isinstance(attr, AttrList):
        return _text(f"[{', '.join(_attr_text(item) for item in attr.items[:_TEXT_LENGTH])}]")
    if isinstance(attr, OpaqueAttr):
        return f"{len(attr.data)} bytes of an unknown kind"
    return attr.name if isinstance(attr, AttrPlaceholder) else str(attr)


def _text(text: str) -> str:
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]} ..."


def _versions(a: Graph, b: Graph) -> dict[str, tuple[int, int]]:
    result = {}
    for field in ("producer", "min_consumer"):
        x, y = (getattr(graph.versions, field) if graph.versions else 0 for graph in (a, b))
        if x != y:
            result[field] = (x, y)
    return result


def _signature_changes(one: Signature, other: Signature) -> dict[str, tuple[str, str]]:
    what: dict[str, tuple[str, str]] = {}
    if one.method != other.method:
        what["method"] = (one.method, other.method)
    for part, x, y in (("input", one.inputs, other.inputs), ("output", one.outputs, other.outputs)):
        for name in sorted(x.keys() | y.keys()):
            left, right = x.get(name), y.get(name)
            if left is None or right is None or _entry(left) != _entry(right):
                what[f"{part} {name}"] = (_entry_text(left), _entry_text(right))
    if one.opaque != other.opaque:
        what["default values"] = (f"{len(one.opaque)} bytes", f"{len(other.opaque)} bytes")
    return what


def _entry(entry: SignatureTensor) -> tuple[Any, ...]:
    return entry.tensor, int(entry.dtype), entry.shape and entry.shape.dims, entry.shape is None, entry.opaque


def _entry_text(entry: SignatureTensor | None) -> str:
    if entry is None:
        return "(not there)"
    shape = "" if entry.shape is None else _attr_text(entry.shape)
    return f"{entry.tensor or '(composite)'} {entry.dtype.name}{shape}"
