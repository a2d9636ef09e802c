"""Readability: what a version of TensorFlow does not understand of a node.

A version refuses a graph with an op that it does not register, with an attr that its definition of the op lacks, even
at its default, with a value that it does not allow, with an element type that it has no number for, and with more
inputs than the op took. This module judges nodes one by one, and says what would have to be dropped or spelled out.
It changes nothing, and it knows no kernels: an op that is registered may still lack one for an element type.

Source: graph_constructor.cc, node_def_util.cc (ValidateNodeDef) and op_def_util.cc of TensorFlow, and its op
definitions (`tfthaw.ir.op_history`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tfthaw.dtypes import REF_OFFSET, DType
from tfthaw.ir.attrs import Attr, AttrList, AttrPlaceholder, FunctionName
from tfthaw.ir.definitions import Definition, Span, spans
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import OpHistory, dtype_since, op_history, versions

OLDEST = "1.4"
"""The oldest version of TensorFlow that a graph can be made for."""

# Attrs that say how something is run or what is known of it, never what comes out.
_ADVICE = {
    "If": ("output_shapes",), "StatelessIf": ("output_shapes",),
    "Case": ("output_shapes",), "StatelessCase": ("output_shapes",),
    "While": ("output_shapes", "parallel_iterations"), "StatelessWhile": ("output_shapes", "parallel_iterations"),
    "PartitionedCall": ("config", "config_proto"), "StatefulPartitionedCall": ("config", "config_proto"),
    "MatMul": ("grad_a", "grad_b"), "BatchMatMul": ("grad_x", "grad_y"), "BatchMatMulV2": ("grad_x", "grad_y"),
    "BatchMatMulV3": ("grad_x", "grad_y"), "VarHandleOp": ("debug_name",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing of a node that a version does not understand.

    Attributes:
        text: What it is, without the node's name, so that equal ones can be counted.
        since: The first later version that understands it, or None where none does.
    """

    text: str
    since: str | None


@dataclass(slots=True)
class Reading:
    """How a version reads a node.

    Attributes:
        dropped: Attrs that the version does not know and that say nothing there: at their default, or mere advice.
        added: Attrs that the node leaves out and for which the version has no default or another one.
        obstacles: What it does not understand.
    """

    dropped: list[str] = field(default_factory=list)
    added: dict[str, Attr] = field(default_factory=dict)
    obstacles: list[Obstacle] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _KnownAttr:
    """An attr of an op as one version sees it: whether it has it, what it allows, and what leaving it out means."""

    is_known: bool
    allowed: tuple[Attr, ...] | None
    meaning_of_absence: Attr | None


def read_node(node: Node, version: str, described: Mapping[str, Definition]) -> Reading:
    """Return how a version of TensorFlow reads a node.

    Args:
        node: The node; its op is no function of the graph's library.
        version: The version, as `major.minor`.
        described: Ops as the producer of the graph describes them: they tell the defaults of attrs that came later
            than the table.

    Returns:
        The reading; of an op that no TensorFlow knows nothing is said.
    """
    reading = Reading()
    history = op_history(node.op)
    if history is None:
        return reading
    if not history.is_in(version):
        since = _first_after(version, history.is_in)
        reading.obstacles.append(Obstacle(_lacks(node.op, history, version), since))
        return reading
    known, fill = _in_version(node.op, version)
    for name, value in node.attrs.items():
        if name.startswith("_"):
            continue
        attr = known.get(name)
        if attr is None:
            _read_unknown(node, name, value, described, reading)
        elif not attr.is_known:
            if same_attr(value, attr.meaning_of_absence) or name in _ADVICE.get(node.op, ()):
                reading.dropped.append(name)
            else:
                reading.obstacles.append(_attr_obstacle(history, name, value, version))
        else:
            reading.obstacles += _value_obstacles(history, name, value, attr.allowed, version)
    for name, default in fill.items():
        if name not in node.attrs:
            reading.added[name] = default
    reading.obstacles += _input_obstacles(node, history, version)
    return reading


def _read_unknown(node: Node, name: str, value: Attr, described: Mapping[str, Definition], reading: Reading) -> None:
    """Judge an attr that no version of the table knows."""
    if same_attr(value, default_of_producer(node.op, name, described)):
        reading.dropped.append(name)
        return
    text = f"the attr {name!r} of {node.op} is none of any TensorFlow up to {versions()[-1]}"
    told = "has another value" if node.op in described else "has nobody say its default"
    reading.obstacles.append(Obstacle(f"{text} and {told}", None))


def default_of_producer(op: str, attr: str, described: Mapping[str, Definition]) -> Attr | None:
    """Return the default that the producer of a graph says an attr has, or None where it says none."""
    definition = described.get(op)
    return None if definition is None else definition.defaults.get(attr)


def unknown_attrs(node: Node) -> list[str]:
    """Return the attrs of a node that no version of the table knows, of ops that some version knows."""
    history = op_history(node.op)
    if history is None:
        return []
    known = {attr.name for attr in history.attrs}
    return [name for name in node.attrs if not name.startswith("_") and name not in known]


def same_attr(value: Attr, default: Attr | None) -> bool:
    """Whether an attr has a value, told apart by kind as well (1 is neither true nor 1.0)."""
    if default is None or type(value) is not type(default):
        return False
    if isinstance(value, AttrList) and isinstance(default, AttrList):
        if value.opaque or default.opaque or len(value.items) != len(default.items):
            return False
        return all(same_attr(one, other) for one, other in zip(value.items, default.items, strict=True))
    if isinstance(value, FunctionName) and isinstance(default, FunctionName):
        plain = not (value.attrs or value.opaque or default.attrs or default.opaque)
        return plain and value.name == default.name
    return value == default


@lru_cache(maxsize=4096)
def _in_version(op: str, version: str) -> tuple[dict[str, _KnownAttr], dict[str, Attr]]:
    """Return the attrs of an op as a version sees them, and those that a node must not leave out there."""
    history = op_history(op)
    known: dict[str, _KnownAttr] = {}
    fill: dict[str, Attr] = {}
    for attr in history.attrs if history is not None else ():
        first = attr.defaults[0][1] if attr.defaults else None
        is_known = attr.is_in(version)
        # an attr comes with the default that means what the op did before
        known[attr.name] = _KnownAttr(is_known, attr.allowed_in(version) if is_known else None, first)
        default = attr.default_in(version) if is_known else None
        if is_known and attr.default is not None and not same_attr(attr.default, default):
            fill[attr.name] = attr.default
    return known, fill


def _lacks(op: str, history: OpHistory, version: str) -> str:
    if history.until is not None and _place(history.until) < _place(version):
        return f"{op} was there up to TensorFlow {history.until}"
    return f"{op} is there from TensorFlow {history.since} on"


def _attr_obstacle(history: OpHistory, name: str, value: Attr, version: str) -> Obstacle:
    attr = history.attr(name)
    assert attr is not None  # the caller found it there
    since = _first_after(version, attr.is_in)
    if since is None:
        return Obstacle(f"{history.name} had the attr {name!r} up to TensorFlow {attr.until}", None)
    return Obstacle(f"{history.name} takes {name}={shown(value)} from TensorFlow {since} on", since)


def _value_obstacles(
    history: OpHistory, name: str, value: Attr, allowed: tuple[Attr, ...] | None, version: str
) -> Iterator[Obstacle]:
    items = value.items if isinstance(value, AttrList) else [value]
    for item in items:
        if isinstance(item, AttrPlaceholder):
            continue  # the caller of the function says it
        if allowed is not None and item not in allowed:
            attr = history.attr(name)
            assert attr is not None  # it restricts its values
            since = _first_after(
                version,
                lambda later: attr.is_in(later) and _allows(attr.allowed_in(later), item),  # noqa: B023
            )
            yield Obstacle(
                f"{history.name} takes {name}={shown(item)} from TensorFlow {since} on" if since is not None
                else f"{history.name} takes no {name}={shown(item)}", since,
            )  # fmt: skip
        elif isinstance(item, DType) and item is not DType.invalid:
            known_since = dtype_since(DType(item.value % REF_OFFSET))
            if known_since is None or _place(known_since) > _place(version):
                said = f"from TensorFlow {known_since} on" if known_since else "in no TensorFlow of the table"
                yield Obstacle(f"the element type {item.name} is there {said}", known_since)


def _input_obstacles(node: Node, history: OpHistory, version: str) -> Iterator[Obstacle]:
    """Yield what is wrong where the op took or gave another number of tensors once."""
    if not history.earlier:
        return
    defaults = {attr.name: attr.default for attr in history.attrs if attr.default is not None}

    def counts(of: str) -> tuple[int | None, int | None]:
        inputs, outputs = (spans(part, node.attrs, defaults) for part in history.arguments_in(of))
        return _total(inputs), _total(outputs)

    newest = versions()[-1] if history.until is None else history.until
    takes = sum(1 for text in node.inputs if not text.startswith("^"))
    now = (takes, counts(newest)[1])
    if counts(version) != now:
        since = _first_after(version, lambda later: history.is_in(later) and counts(later) == now)
        said = f"from TensorFlow {since} on" if since is not None else "in no later TensorFlow"
        yield Obstacle(f"{node.op} has as many inputs and outputs {said}", since)


def _total(found: list[Span] | None) -> int | None:
    return None if found is None else sum(span.count for span in found)


def _allows(allowed: tuple[Attr, ...] | None, value: Attr) -> bool:
    return allowed is None or value in allowed


def _first_after(version: str, holds: Callable[[str], bool]) -> str | None:
    """Return the first version after one for which something holds."""
    known = versions()
    later = known[known.index(version) + 1 :]
    return next((candidate for candidate in later if holds(candidate)), None)


def _place(version: str) -> int:
    return versions().index(version)


def shown(value: Attr) -> str:
    """Return an attr's value as people write it, cut where it is long."""
    if isinstance(value, DType):
        return value.name
    if isinstance(value, bytes):
        text = value[:100].decode(errors="replace")
    elif isinstance(value, AttrList):
        text = f"[{', '.join(shown(item) for item in value.items[:8])}{', ...' if len(value.items) > 8 else ''}]"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, int | float):
        text = str(value)
    else:
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
