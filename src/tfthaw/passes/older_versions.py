"""Make a graph readable by an older TensorFlow, or say everything that stands in the way.

Attrs that the version does not know go where they say nothing; ops that it does not know are replaced where an older
one gives the same bits (`tfthaw.passes.older_equivalents`); whatever is left is named, all at once, with the first
version that reads it. The graph then says that it was written for that version.

Source: graph_constructor.cc and versions.h of TensorFlow (how an importer judges GraphDef.versions).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import Attr
from tfthaw.ir.definitions import Definition, Definitions, spans
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph, TensorName, Versions
from tfthaw.ir.nodes import Node
from tfthaw.ir.op_history import graph_version_of, minor_of, op_history, versions
from tfthaw.ir.readability import Obstacle, read_node
from tfthaw.passes.dependency_order import in_dependency_order
from tfthaw.passes.older_equivalents import NO_EQUIVALENT, RULES
from tfthaw.passes.scopes import Scope
from tfthaw.passes.strip_attrs import without_attrs

_FIRST_TO_IMPORT_IN_ANY_ORDER = "1.8"
_NAMED = 3  # nodes of a problem that are named


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the pass did.

    Attributes:
        graph: The graph.
        notes: What was dropped, spelled out and replaced, and what could not be judged; one sentence each.
    """

    graph: Graph
    notes: tuple[str, ...]


def for_version(
    graph: Graph,
    version: str,
    described: Mapping[str, Definition] | None = None,
    fetched: Iterable[TensorName] = (),
) -> Fitted:
    """Make a graph readable by a version of TensorFlow.

    Args:
        graph: The graph.
        version: The version, such as `1.15` or `2.4.1`; one of the table.
        described: Ops as the producer of the graph describes them.
        fetched: Tensors of the main graph that are used from outside.

    Raises:
        UnsupportedError: The version cannot read all of it; with every problem, and the first version that can.
    """
    fitting = _Fitting(minor_of(version), described or {}, Definitions(graph.functions, described))
    found = fitting.versions(graph.versions)
    nodes = fitting.nodes(Scope(graph.nodes, fitting.definitions, fetched=fetched), graph.nodes, "")
    functions = [fitting.function(function) for function in graph.functions]
    fitting.refuse(graph)
    if versions().index(fitting.version) < versions().index(_FIRST_TO_IMPORT_IN_ANY_ORDER):
        nodes = in_dependency_order(nodes)
    return Fitted(replace(graph, nodes=nodes, functions=functions, versions=found), tuple(fitting.notes()))


@dataclass(slots=True)
class _Outcome:
    """What became of one node.

    Attributes:
        nodes: What takes its place; the last has its name.
        dropped: `op.attr` of dropped attrs.
        added: `op.attr` of attrs that were spelled out.
        obstacles: What stands in the way.
        why: Why it was not replaced, or nothing.
    """

    nodes: list[Node]
    dropped: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    why: str = ""


class _Fitting:
    """One graph on its way to one version."""

    def __init__(self, version: str, described: Mapping[str, Definition], definitions: Definitions) -> None:
        self.version = version
        self.described = described
        self.definitions = definitions
        self.producer = graph_version_of(version)
        self.problems: dict[tuple[Obstacle, str], list[str]] = {}
        self.dropped: Counter[str] = Counter()
        self.added: Counter[str] = Counter()
        self.replaced: Counter[tuple[str, str]] = Counter()
        self.custom: Counter[str] = Counter()
        self.contrib: Counter[str] = Counter()
        self.said: list[str] = []

    def versions(self, before: Versions | None) -> Versions | None:
        """Return what the graph says of its versions afterwards."""
        reads = graph_version_of(self.version)
        self.producer = min(before.producer, reads) if before is not None else 0
        if before is None:
            return None
        if before.min_consumer > reads:
            text = f"the graph says that versions of GraphDef below {before.min_consumer} must not read it"
            self._problem(Obstacle(text, self._first_reading(before.min_consumer)), "", f"it reads up to {reads}")
        if reads in before.bad_consumers:
            self._problem(Obstacle(f"the graph says that version {reads} of GraphDef must not read it", None), "", "")
        if self.producer != before.producer:
            self.said.append(
                f"GraphDef producer {before.producer} became {self.producer}, which TensorFlow {self.version} writes; "
                f"min_consumer stays {before.min_consumer}"
            )
        return replace(before, producer=self.producer)

    def _first_reading(self, graph_version: int) -> str | None:
        later = versions()[versions().index(self.version) + 1 :]
        return next((version for version in later if graph_version_of(version) >= graph_version), None)

    def nodes(self, scope: Scope, nodes: Iterable[Node], where: str) -> list[Node]:
        """Return nodes as the version reads them."""
        result = []
        for node in nodes:
            if node.op in self.definitions.functions:
                result.append(node)
                continue
            outcome = self._fit(node, scope)
            for obstacle in outcome.obstacles:
                self._problem(obstacle, f"{where}{node.name}", outcome.why)
            self.dropped.update(outcome.dropped)
            self.added.update(outcome.added)
            last = outcome.nodes[-1]
            if last.op != node.op:
                self.replaced[node.op, last.op] += 1
            history = op_history(last.op)
            if history is None:
                self.custom[node.op] += 1
            elif self.version in history.contrib_in:
                self.contrib[last.op] += 1
            result += outcome.nodes
        return result

    def function(self, function: Function) -> Function:
        """Return a function as the version reads it."""
        scope = Scope(function.nodes, self.definitions, function)
        nodes = self.nodes(scope, function.nodes, f"in {function.name}: ")
        renamed = self._renamed_outputs(function.nodes, nodes)
        if renamed:
            nodes = [replace(node, inputs=[renamed.get(text, text) for text in node.inputs]) for node in nodes]
        returns = {name: renamed.get(text, text) for name, text in function.returns.items()}
        return replace(function, nodes=nodes, returns=returns)

    def _renamed_outputs(self, before: Iterable[Node], after: Iterable[Node]) -> dict[str, str]:
        """Return the spellings of outputs that have another name in the op that took a node's place."""
        now = {node.name: node for node in after}
        renamed = {}
        for node in before:
            if now[node.name].op == node.op:
                continue
            pairs = zip(self._spellings(node), self._spellings(now[node.name]), strict=False)
            renamed.update({old: new for old, new in pairs if old != new})
        return renamed

    def _spellings(self, node: Node) -> list[str]:
        spans = self.definitions.output_spans(node) or []
        return [f"{node.name}:{span.name}:{position}" for span in spans for position in range(span.count)]

    def _fit(self, node: Node, scope: Scope) -> _Outcome:
        """Return what becomes of one node; replacements are fitted in turn."""
        reading = read_node(node, self.version, self.described)
        outcome = _Outcome(
            [_fitted(node, reading.dropped, reading.added)],
            [f"{node.op}.{name}" for name in reading.dropped],
            [f"{node.op}.{name}" for name in reading.added],
            reading.obstacles or self._deprecation(node),
        )
        if not outcome.obstacles:
            return outcome
        rule = RULES.get(node.op)
        if rule is None or not self._is_complete(node):
            outcome.why = NO_EQUIVALENT.get(node.op, "")
            return outcome
        replacement = rule(node, scope)
        if isinstance(replacement, str):
            outcome.why = replacement
            return outcome
        parts = [self._fit(each, scope) for each in (*replacement.added, replacement.node)]
        missing = [part for part in parts if part.obstacles]
        if missing:
            outcome.why = missing[0].why or f"its equivalent needs more: {missing[0].obstacles[0].text}"
            return outcome
        return _Outcome(
            [each for part in parts for each in part.nodes],
            [name for part in parts for name in part.dropped],
            [name for part in parts for name in part.added],
        )

    def _is_complete(self, node: Node) -> bool:
        """Whether a node has the inputs and attrs that its op asks for, so that a rule may take them for granted."""
        history = op_history(node.op)
        if history is None:
            return False
        if any(attr.default is None and attr.name not in node.attrs for attr in history.attrs if attr.until is None):
            return False
        found = self.definitions.find(node.op)
        expected = None if found is None else spans(found.inputs, node.attrs, found.defaults)
        data = sum(1 for text in node.inputs if text[:1] != "^")
        return expected is not None and data == sum(span.count for span in expected)

    def _deprecation(self, node: Node) -> list[Obstacle]:
        history = op_history(node.op)
        if history is None or history.deprecated is None or history.deprecated[0] > self.producer:
            return []
        since, explanation = history.deprecated
        return [Obstacle(f"{node.op} is refused from version {since} of GraphDef on ({explanation})", None)]

    def _problem(self, obstacle: Obstacle, name: str, why: str) -> None:
        self.problems.setdefault((obstacle, why), []).append(name)

    def refuse(self, graph: Graph) -> None:
        """Refuse the graph where something stands in the way."""
        if not self.problems:
            return
        names = {name for found in self.problems.values() for name in found if name}
        lines = [_line(obstacle, why, found) for (obstacle, why), found in self.problems.items()]
        first = self._first_that_reads(graph)
        hint = f"TensorFlow {first} is the first that reads it all: --for-tf {first}" if first else None
        raise UnsupportedError(
            f"TensorFlow {self.version} cannot read {len(names)} of the graph's nodes" if names
            else f"TensorFlow {self.version} cannot read the graph",
            problems=lines, hint=hint or "no TensorFlow that is known reads it all",
        )  # fmt: skip

    def _first_that_reads(self, graph: Graph) -> str | None:
        """Return the first later version to which the graph as it is says nothing new."""
        needed = [obstacle.since for obstacle, _ in self.problems]
        order = versions()
        if None in needed:
            return None
        first = max(order.index(since) for since in needed if since is not None)
        ops = {node.op for node in graph.walk()} - self.definitions.functions.keys()
        histories = [history for history in map(op_history, ops) if history is not None]
        return order[first] if all(history.is_in(order[first]) for history in histories) else None

    def notes(self) -> list[str]:
        """Return what was done, one sentence each."""
        notes = [f"{count} {old} became {new} for TensorFlow {self.version}, which computes the same"
                 for (old, new), count in sorted(self.replaced.items())]  # fmt: skip
        if self.dropped:
            notes.append(f"dropped attrs that TensorFlow {self.version} does not know and that change nothing: "
                         f"{_counted(self.dropped)}")  # fmt: skip
        if self.added:
            notes.append(f"spelled out attrs that TensorFlow {self.version} would read otherwise: "
                         f"{_counted(self.added)}")  # fmt: skip
        if self.custom:
            notes.append(f"ops that no TensorFlow brings were not judged: {_counted(self.custom)}")
        if self.contrib:
            notes.append(
                f"modules of tf.contrib, which TensorFlow {self.version} must import first, have "
                f"{_counted(self.contrib)}"
            )
        return [*notes, *self.said]


def _fitted(node: Node, dropped: list[str], added: Mapping[str, Attr]) -> Node:
    stripped = without_attrs(node, dropped)
    return replace(stripped, attrs={**stripped.attrs, **added}) if added else stripped


def _line(obstacle: Obstacle, why: str, names: list[str]) -> str:
    """Return one problem as a line: what it is, why nothing was done about it, and which nodes have it."""
    named = [name for name in names if name]
    if not named:
        return f"{obstacle.text}; {why}" if why else obstacle.text
    reason = f"; not replaced: {why}" if why else ""
    count = "1 node" if len(named) == 1 else f"{len(named)} nodes"
    return f"{obstacle.text}{reason}: {count}: {', '.join(named[:_NAMED])}{', ...' if len(named) > _NAMED else ''}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
