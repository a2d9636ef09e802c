"""Whether the functions that a graph reaches can be meant, and are called as they are made.

TensorFlow finds most of this when it instantiates a function, one thing at a time; a function that calls itself ends
its process. Here every problem is found before anything is built on the library. What nothing calls may be as broken as
it likes. A function for several types is judged once for each set of attrs that it is called with.

Source: function.cc (FunctionInstantiationHelper) and functional_ops.cc of TensorFlow.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tfthaw.dtypes import DType
from tfthaw.errors import StructureError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr, AttrList, FunctionName
from tfthaw.ir.calls import Call, calls_of, has_placeholders
from tfthaw.ir.cycles import cycle_text, cycles
from tfthaw.ir.definitions import Definitions, Span, spans
from tfthaw.ir.element_types import OutputTypes, dtype_within, each_dtype
from tfthaw.ir.function_bodies import bound_attrs
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph, TensorName
from tfthaw.ir.node_validation import MERGE_OPS, NEXT_OPS, attr_problems, name_problems
from tfthaw.ir.nodes import Node
from tfthaw.tensors import Tensor

_MOST_VARIANTS = 100  # sets of attrs that one function is judged for; a library of TensorFlow's has one or two

_SMALL_BYTES = 1 << 20  # beyond that, two constants are one only where they are the same object
_LOWERED = "_lower_using_switch_merge"  # TensorFlow then makes v1 control flow of it, which is stricter

_DTypeOf = Callable[[str], "DType | None"]


def function_problems(graph: Graph, definitions: Definitions) -> Iterator[str]:
    """Yield what is wrong with the functions that the main graph reaches, and with their calls.

    Args:
        graph: The graph; problems of its own nodes apart from calls are not looked for.
        definitions: What its ops take and give.
    """
    if not graph.functions and not any(True for node in graph.nodes for _ in calls_of(node, ())):
        return
    reached = reached_functions(graph.nodes, definitions.functions)
    yield from _same_names(graph.functions, reached)
    yield from recursions(reached)
    yield from _Library(definitions, reached).problems(graph.nodes)


def reached_functions(nodes: Iterable[Node], library: Mapping[str, Function]) -> dict[str, tuple[Function, list[str]]]:
    """Return the functions that nodes call, directly or not, each with the names of those that it calls itself."""
    found: dict[str, tuple[Function, list[str]]] = {}
    waiting = [call.function for node in nodes for call in calls_of(node, library)]
    while waiting:
        name = waiting.pop()
        if name in found or name not in library:
            continue
        function = library[name]
        called = list(dict.fromkeys(call.function for node in function.nodes for call in calls_of(node, library)))
        found[name] = (function, called)
        waiting += called
    return found


def recursions(reached: Mapping[str, tuple[Function, list[str]]]) -> Iterator[str]:
    """Yield functions that call themselves, directly or through others."""
    for cycle in cycles({name: called for name, (_, called) in reached.items()}):
        yield f"a function calls itself without end: {cycle_text(cycle, '->')}"


def _same_names(functions: Iterable[Function], reached: Mapping[str, object]) -> Iterator[str]:
    by_name: dict[str, list[Function]] = {}
    for function in functions:
        if function.name in reached:
            by_name.setdefault(function.name, []).append(function)
    for name, found in by_name.items():
        if len(found) > 1 and any(not _is_same(found[0], other) for other in found[1:]):
            yield f"{len(found)} different functions have the name {name!r}"


def _is_same(one: Function, other: Function) -> bool:
    """Whether two functions are equal, as far as that shows without reading values: TensorFlow takes equal ones."""
    if len(one.nodes) != len(other.nodes):
        return False
    plain = [[replace(node, attrs={}) for node in function.nodes] for function in (one, other)]
    attrs = [[_key(node.attrs) for node in function.nodes] for function in (one, other)]
    return plain[0] == plain[1] and attrs[0] == attrs[1] and replace(one, nodes=[]) == replace(other, nodes=[])


def _key(value: object) -> Hashable:
    """Return what two attrs, or sets of them, have in common when they mean the same."""
    if isinstance(value, Mapping):
        return tuple((name, _key(value[name])) for name in sorted(value))
    if isinstance(value, AttrList):
        return (value.kind, tuple(map(_key, value.items)))
    if isinstance(value, FunctionName):
        return (value.name, _key(value.attrs))
    if isinstance(value, Tensor):
        same = b"".join(bytes(chunk) for chunk in value.chunks()) if value.nbytes <= _SMALL_BYTES else id(value)
        return (value.dtype, value.shape, same)
    return value if isinstance(value, Hashable) else repr(value)


class _Library:
    """The functions that a graph reaches, and which of them were judged for which attrs."""

    def __init__(self, definitions: Definitions, reached: Mapping[str, tuple[Function, list[str]]]) -> None:
        self.definitions = definitions
        self.functions = definitions.functions
        self.is_generic = {name: has_placeholders(function.nodes) for name, (function, _) in reached.items()}
        self._judged: dict[str, set[Hashable]] = {name: set() for name in reached}
        self._waiting: deque[tuple[Function, Mapping[str, Attr]]] = deque()
        self.types = OutputTypes(definitions)

    def problems(self, nodes: Sequence[Node]) -> Iterator[str]:
        """Yield what is wrong with the calls that nodes of a main graph make, then with every function reached."""
        known = {node.name: node for node in nodes}

        def dtype_of(text: str) -> DType | None:
            name = TensorName.parse(text)
            return self.types.find(known[name.node], name.output) if name.node in known else None

        for node in nodes:
            for problem in self.call_problems(node, dtype_of):
                yield f"{node.name} ({node.op}): {problem}"
        while self._waiting:
            function, attrs = self._waiting.popleft()
            for problem in _Body(self, function, attrs).problems():
                yield f"function {function.name!r}: {problem}"

    def call_problems(self, node: Node, dtype_of: _DTypeOf) -> Iterator[str]:
        """Yield what is wrong with the calls of a node, and let the called functions be judged."""
        is_call = False
        for call in calls_of(node, self.functions):
            is_call = True
            function = self.functions.get(call.function)
            if function is None:
                yield f"it calls {call.function!r}, which is not in the library"
                continue
            yield from _type_problems(call, function, is_lowered=node.attrs.get(_LOWERED) is True)
            yield from self._enter(function, call.attrs)
        definition = self.definitions.find(node.op) if is_call else None
        if definition is not None:
            inputs = [text for text in node.inputs if text[:1] != "^"]
            types = each_dtype(definition.inputs, node.attrs, definition.defaults)
            for position, (text, expected) in enumerate(zip(inputs, types, strict=False)):
                found = dtype_of(text)
                if not _agree(expected, found):
                    yield f"input {position}, {text!r}, is {_name(found)}, it takes {_name(expected)}"

    def _enter(self, function: Function, attrs: Mapping[str, Attr]) -> Iterator[str]:
        """Note that a function must be judged for attrs that it is called with."""
        judged = self._judged[function.name]
        key = _key(attrs) if self.is_generic[function.name] or _is_open(function) else ()
        if key in judged or len(judged) > _MOST_VARIANTS:
            return
        judged.add(key)
        if len(judged) > _MOST_VARIANTS:
            yield f"{function.name!r} is called with more than {_MOST_VARIANTS} different sets of attrs"
        else:
            self._waiting.append((function, attrs))


def _is_open(function: Function) -> bool:
    """Whether the caller's attrs say what a function takes or gives."""
    return any(
        item.type_attr or item.number_attr or item.type_list_attr for item in (*function.arguments, *function.results)
    )


def _agree(one: DType | None, other: DType | None) -> bool:
    return one is None or other is None or one.base is other.base


def _name(dtype: DType | None) -> str:
    return "of an unknown type" if dtype is None else dtype.name


def _type_problems(call: Call, function: Function, *, is_lowered: bool) -> Iterator[str]:
    """Yield where a function takes or gives something else than its caller says."""
    name = f"{call.function!r}" if call.attr is None else f"{call.attr} {call.function!r}"
    given = _total(function.arguments, call.attrs)
    if given is None or _total(function.results, call.attrs) is None:
        yield f"it calls {name} without the attrs that say how many tensors that takes and gives"
        return
    for verb, listed, arguments in (
        ("takes", call.takes, function.arguments),
        ("gives", [None] if call.is_condition else call.gives, function.results),
    ):
        count = _total(arguments, call.attrs)
        if listed is None:
            continue
        if count != len(listed):
            yield f"{name} {verb} {count} tensors, its caller {'expects' if verb == 'gives' else 'has'} {len(listed)}"
            continue
        types = each_dtype(arguments, call.attrs, {})
        for position, (found, expected) in enumerate(zip(types, listed, strict=True)):
            if not _agree(found, expected):
                has = "expects" if verb == "gives" else "has"
                yield f"{name} {verb} {_name(found)} at position {position}, its caller {has} {_name(expected)}"
    if call.is_condition and is_lowered:
        found = next(each_dtype(function.results, call.attrs, {}), None)
        if not _agree(found, DType.bool):
            yield f"{name} gives {_name(found)}, a condition must give bool"


def _total(arguments: Sequence[Argument], attrs: Mapping[str, Attr]) -> int | None:
    found = spans(arguments, attrs)
    return None if found is None else sum(span.count for span in found)


class _Body:
    """One function with the attrs that it is called with."""

    def __init__(self, library: _Library, function: Function, attrs: Mapping[str, Attr]) -> None:
        self.library = library
        self.function = function
        self.attrs = attrs
        self.is_generic = library.is_generic[function.name]
        self.arguments: dict[str, tuple[Argument, Span]] = {}
        self.nodes: dict[str, Node] = {}
        self.outputs: dict[str, dict[str, Span] | None] = {}
        self.needs: dict[str, set[str]] = {}
        self.read: dict[str, tuple[int | None, str, str]] = {}

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the function, one sentence each."""
        function = self.function
        for name, count in Counter(function.inputs).items():
            if count > 1 or not name:
                yield f"{count} arguments have the name {name!r}"
        taken = spans(function.arguments, self.attrs)
        if taken is None or spans(function.results, self.attrs) is None:
            return  # said of its caller
        self.arguments = {span.name: (item, span) for item, span in zip(function.arguments, taken, strict=True)}
        yield from name_problems(function.nodes)
        for node in function.nodes:
            self.nodes[node.name] = node
            if self.is_generic:
                try:
                    attrs = bound_attrs(node.attrs, self.attrs, where=function.name)
                    self.nodes[node.name] = replace(node, attrs=attrs)
                except StructureError as error:
                    yield f"{node.name} ({node.op}): {error.message}"
            if node.name in self.arguments and self.arguments[node.name][1].count == 1:
                yield f"{node.name} ({node.op}): an argument has that name too"
        for node in self.nodes.values():
            for problem in self._node_problems(node):
                yield f"{node.name} ({node.op}): {problem}"
        yield from self._return_problems()
        yield from waiting_problems(self.needs, {name: node.op for name, node in self.nodes.items()}, self.arguments)

    def _node_problems(self, node: Node) -> Iterator[str]:
        problems = list(attr_problems(node)) if node.op not in self.library.functions else []
        yield from problems
        needs = self.needs[node.name] = set()
        data: int | None = 0
        after_control = False
        for position, text in enumerate(node.inputs):
            if text[:1] == "^":
                after_control = True
                needs.add(text[1:])
                if text[1:] not in self.nodes and text[1:] not in self.arguments:
                    yield f"input {position}, {text!r}, names neither a node nor an argument"
                continue
            if after_control:
                yield f"input {position}, {text!r}, comes after a control input"
            count, source, problem = self._tensor(text)
            if problem:
                yield f"input {position}, {problem}"
            needs.add(source)
            data = None if data is None or count is None or problem else data + count
        if problems:
            return  # what its attrs should count cannot be counted
        definition = self.library.definitions.find(node.op)
        taken = spans(definition.inputs, node.attrs, definition.defaults) if definition is not None else None
        if taken is not None and data is not None and data != sum(span.count for span in taken):
            yield f"it has {data} inputs, its op takes {sum(span.count for span in taken)}"
            return
        yield from self.library.call_problems(node, self._dtype)

    def _tensor(self, text: str) -> tuple[int | None, str, str]:
        """Return how many tensors a spelling stands for (None: nobody knows), whose they are, and what is wrong."""
        found = self.read.get(text)
        if found is None:
            base, _, rest = text.partition(":")
            if base in self.arguments and (not rest or rest.isdigit()):
                found = self._part(text, self.arguments[base][1], rest, base)
            elif base not in self.nodes or not rest:
                found = (None, "", f"{text!r}, names neither an argument nor an output of a node")
            else:
                found = self._output(text, base, rest)
            self.read[text] = found
        return found

    def _output(self, text: str, base: str, rest: str) -> tuple[int | None, str, str]:
        output, _, index = rest.partition(":")
        if base not in self.outputs:
            every = self.library.definitions.output_spans(self.nodes[base])
            self.outputs[base] = None if every is None else {span.name: span for span in every}
        spans_by_name = self.outputs[base]
        if spans_by_name is None:
            return (1 if index else None, base, "")
        if output not in spans_by_name:
            return (None, base, f"{text!r}, names an output that {self.nodes[base].op} does not have")
        return self._part(text, spans_by_name[output], index, base)

    @staticmethod
    def _part(text: str, span: Span, index: str, base: str) -> tuple[int | None, str, str]:
        """Judge an index into the tensors that an argument or an output stands for."""
        if not index:
            return (span.count, base, "")
        inside = index.isascii() and index.isdigit() and len(index) < 10 and int(index) < span.count
        return (1, base, "" if inside else f"{text!r}, names a tensor beyond the {span.count} that there are")

    def _dtype(self, text: str) -> DType | None:
        """Return the element type of the first tensor that a spelling stands for."""
        count, base, problem = self._tensor(text)
        if problem or not count:
            return None
        parts = text.split(":")
        index = int(parts[-1]) if parts[-1].isdigit() else 0
        if base in self.arguments and len(parts) <= 2:
            return dtype_within(self.arguments[base][0], index, self.attrs, {})
        named = self.outputs[base]
        return None if named is None else self.library.types.find(self.nodes[base], named[parts[1]].first + index)

    def _return_problems(self) -> Iterator[str]:
        results = self.function.results
        for result, span in zip(results, spans(results, self.attrs) or (), strict=False):
            text = self.function.returns.get(span.name)
            if text is None:
                yield f"nothing gives its result {span.name!r}"
                continue
            count, _, problem = self._tensor(text)
            if problem:
                yield f"result {span.name!r}, {problem}"
            elif count is not None and count != span.count:
                yield f"result {span.name!r} is {span.count} tensors, {text!r} stands for {count}"
            elif span.count:
                expected, found = dtype_within(result, 0, self.attrs, {}), self._dtype(text)
                if not _agree(expected, found):
                    yield f"result {span.name!r} is {_name(expected)}, {text!r} gives {_name(found)}"
        for name, node in self.function.control_returns.items():
            if node not in self.nodes:
                yield f"control output {name!r} waits for {node!r}, which is no node of it"


def waiting_problems(
    needs: Mapping[str, Collection[str]], ops: Mapping[str, str], given: Iterable[str] = ()
) -> Iterator[str]:
    """Yield cycles that no loop explains; the only way back is from a NextIteration to a Merge.

    Args:
        needs: node -> the nodes that must run before it.
        ops: node -> its op.
        given: What is there before any node runs.
    """
    done = set(given)
    ahead: dict[str, Collection[str]] = {}
    for name, every in needs.items():  # most graphs are written in order, so that little is left
        is_merge = ops[name] in MERGE_OPS
        sources = [source for source in every if ops.get(source) not in NEXT_OPS] if is_merge else every
        if done.issuperset(sources):
            done.add(name)
        else:
            ahead[name] = sources
    for cycle in cycles(ahead):
        yield f"nodes wait for each other without a loop: {cycle_text(cycle, '<-')}"
