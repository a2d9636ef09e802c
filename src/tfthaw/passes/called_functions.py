"""Called functions: what inlining must know of a function before it puts it anywhere.

This is analysis: it changes nothing.

Source: function.cc (PruneFunctionGraph) and function.proto of TensorFlow: what runs when a function is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfthaw.dtypes import DType
from tfthaw.errors import StructureError, UnsupportedError
from tfthaw.ir.attrs import Attr, FunctionName
from tfthaw.ir.definitions import Definitions, dtypes_of
from tfthaw.ir.function_bodies import ARGUMENT_OP, Body, open_body
from tfthaw.ir.functions import Function
from tfthaw.ir.nodes import Node
from tfthaw.passes.carriers import HANDLE_READS

CALL_OPS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_PURE = frozenset({"VarHandleOp", "HashTableV2", "Placeholder", ARGUMENT_OP})
"""Ops that count as stateful, and of which it does not matter when they run."""
_NO_EFFECT = HANDLE_READS | _PURE
"""Ops that nobody misses when nothing takes what they give."""


def called_function(node: Node, definitions: Definitions) -> FunctionName | None:
    """Return the function that a node calls, with the attrs that it gives; None for a node that is no call."""
    if node.op in definitions.functions:
        return FunctionName(node.op, node.attrs)
    if node.op in CALL_OPS:
        target = node.attrs.get("f")
        if isinstance(target, FunctionName):
            return target
    return None


@dataclass(slots=True)
class Callee:
    """What is known of a function before it is put anywhere.

    Attributes:
        body: Its body.
        dtypes: The element types of what it gives.
        listed: The nodes that have run when a `PartitionedCall` has: its control outputs.
        stateful: The nodes that have side effects, or whose place among side effects matters.
        waited: Nodes that others in the body wait for.
        has_effect: Whether something in it does more than to compute a value.
    """

    body: Body
    dtypes: list[DType]
    listed: list[str]
    stateful: list[str]
    waited: set[str]
    has_effect: bool

    def controls(self, call: Node) -> list[str]:
        """Return the nodes of the body that have run when a call has.

        A `PartitionedCall` runs what the function lists and what its results need; where it has neither, and where a
        node is named after the function, whatever has side effects runs.
        """
        if call.op in CALL_OPS and (self.listed or self.body.returns):
            return self.listed
        return list(dict.fromkeys([*self.listed, *self.stateful]))


class CalledFunctions:
    """What is known of the functions of one library.

    Args:
        definitions: What the ops of the graph take and give.
    """

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self._callees: dict[str, Callee] = {}
        self._stateful: dict[frozenset[str], set[str]] = {}

    def callee(self, called: FunctionName, node: Node) -> Callee:
        """Return what is known of the function that a node calls.

        Raises:
            StructureError: It is not in the library, or contradicts itself.
            UnsupportedError: It cannot be inlined.
        """
        function = self.definitions.functions.get(called.name)
        if function is None:
            raise StructureError(f"it calls {called.name!r}, which is not in the library", where=f"node {node.name!r}")
        if function.signature:  # made for several types: each call may mean another
            return self._described(function, called.attrs)
        if function.name not in self._callees:
            self._callees[function.name] = self._described(function, {})
        return self._callees[function.name]

    def _described(self, function: Function, attrs: Mapping[str, Attr]) -> Callee:
        body = open_body(function, self.definitions, attrs)
        waited = {text[1:] for node in body.nodes for text in node.inputs if text[:1] == "^"}
        listed = list(dict.fromkeys(body.controls.values()))
        stateful = [node.name for node in body.nodes if node.op != ARGUMENT_OP and self.may_wait(node)]
        gradients = [node.name for node in body.nodes if node.op == "SymbolicGradient"]
        if gradients:
            raise UnsupportedError(
                "it computes gradients of a function symbolically, which only TensorFlow's runtime can",
                where=f"function {function.name!r}", problems=gradients,
                hint="choose outputs that need no gradients",
            )  # fmt: skip
        dtypes = dtypes_of(function.results, attrs)
        if dtypes is None or len(dtypes) != len(body.returns):
            raise StructureError("nothing says the types of what it gives", where=f"function {function.name!r}")
        waited.update(listed, stateful)
        return Callee(body, dtypes, listed, stateful, waited, self.has_effect(function.name))

    def may_wait(self, node: Node) -> bool:
        """Whether it matters when a node runs: it, or a function that it names, reads or writes something."""
        called = [node.op] if node.op in self.definitions.functions else node.called()
        if not called:
            return self.definitions.is_stateful(node)
        return any(self._has(name, _PURE) for name in called)

    def has_effect(self, name: str) -> bool:
        """Whether a call of a function does more than to compute values."""
        return self._has(name, _NO_EFFECT)

    def _has(self, name: str, ignored: frozenset[str]) -> bool:
        """Whether a function, or one that it names, has stateful nodes of other ops than those that are ignored."""
        if ignored not in self._stateful:
            self._stateful[ignored] = self._with_state(ignored)
        return name in self._stateful[ignored]

    def _with_state(self, ignored: frozenset[str]) -> set[str]:
        """Return the functions that have such nodes: in their own bodies, or in those of functions that they name."""
        functions = self.definitions.functions
        named_by: dict[str, list[str]] = {}
        found = set()
        for function in functions.values():
            for node in function.nodes:
                called = [node.op] if node.op in functions else node.called()
                for name in called:
                    named_by.setdefault(name, []).append(function.name)
                if not called and node.op not in ignored and self.definitions.is_stateful(node):
                    found.add(function.name)
        waiting = list(found)
        while waiting:
            for name in named_by.get(waiting.pop(), ()):
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return found

    def inlined_size(self, nodes: Iterable[Node]) -> int:
        """Return how many nodes come out when every call among some nodes is inlined, and those inside of them."""
        sizes: dict[str, int] = {}
        nodes = list(nodes)
        waiting = [name for node in nodes if (name := self._target(node))]
        while waiting:
            name = waiting[-1]
            body = self.definitions.functions[name].nodes
            inner = [each for node in body if (each := self._target(node))]
            if name not in sizes:
                sizes[name] = 0  # being counted; a circle of calls, which validation refuses, ends here
                waiting += [each for each in inner if each not in sizes]
                continue
            waiting.pop()
            if not sizes[name]:
                sizes[name] = len(body) + 1 + sum(sizes[each] for each in inner)
        return len(nodes) + sum(sizes[name] for node in nodes if (name := self._target(node)))

    def _target(self, node: Node) -> str | None:
        """Return the name of the function that a node calls, where it is in the library."""
        called = called_function(node, self.definitions)
        return called.name if called is not None and called.name in self.definitions.functions else None
