"""What functions do with the variables that they are given.

Control flow hands variables to functions (the branches of If and Case, the condition and body of While), and a function
hands them on to others. For every argument this finds out, once for each function, whether it is read or written were
it a variable, and which results may be that very tensor. This is analysis: it changes nothing.

Source: functional_ops.cc of TensorFlow (what the ops hand to which function).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfthaw.dtypes import DType
from tfthaw.errors import LimitError, UnsupportedError
from tfthaw.ir.attrs import Attr, AttrList, FunctionName
from tfthaw.ir.definitions import Definitions
from tfthaw.ir.function_bodies import ARGUMENT_OP, open_body
from tfthaw.ir.graph import GraphIndex
from tfthaw.ir.nodes import Node
from tfthaw.ir.variables import VARIABLE_OPS
from tfthaw.limits import DEFAULT_LIMITS
from tfthaw.passes.called_functions import called_function
from tfthaw.passes.carriers import HandedIn, find_carriers

IF_OPS = frozenset({"If", "StatelessIf"})
CASE_OPS = frozenset({"Case", "StatelessCase"})
WHILE_OPS = frozenset({"While", "StatelessWhile"})


@dataclass(frozen=True, slots=True)
class Handing:
    """One function that a node hands its inputs to.

    Attributes:
        function: The function.
        first: The position of the node's input that is its first argument.
        gives: Whether its results are the node's outputs.
    """

    function: FunctionName
    first: int
    gives: bool = True


@dataclass(slots=True)
class ArgumentUses:
    """What a function does with its arguments.

    Attributes:
        reads: Arguments that it reads, were they variables.
        writes: Arguments that it writes.
        returned: argument -> the results that may be that very tensor.
        problems: argument -> why nothing is known of what becomes of it.
    """

    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    returned: dict[int, set[int]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


def handings(node: Node, definitions: Definitions) -> list[Handing] | None:
    """Return the functions that a node hands its inputs to; None where it hands them to none, or nobody knows how."""
    called = called_function(node, definitions)
    if called is not None:
        found = [Handing(called, 0)]
    elif node.op in IF_OPS:
        found = [Handing(name, 1) for name in _functions(node, "then_branch", "else_branch")]
    elif node.op in CASE_OPS:
        found = [Handing(name, 1) for name in _functions(node, "branches")]
    elif node.op in WHILE_OPS:
        bodies = _functions(node, "body")
        found = [
            *(Handing(name, 0, gives=False) for name in _functions(node, "cond")),
            *(Handing(n, 0) for n in bodies),
        ]
    else:
        return None
    return found if all(each.function.name in definitions.functions for each in found) else None


def _functions(node: Node, *attrs: str) -> list[FunctionName]:
    found: list[FunctionName] = []
    for name in attrs:
        value = node.attrs.get(name)
        items = value.items if isinstance(value, AttrList) else [value]
        found += [item for item in items if isinstance(item, FunctionName)]
    return found


class FunctionUses:
    """What the functions of one library do with variables; implements `tfthaw.passes.carriers.Functions`.

    Args:
        definitions: What the ops of the graph take and give.
    """

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self._known: dict[str, ArgumentUses] = {}
        self._under_way: list[str] = []

    def handed_in(self, node: Node, position: int) -> HandedIn | None:
        """Return what becomes of a node's input; None for a node that hands nothing to functions.

        Args:
            node: The node.
            position: Which of its inputs.
        """
        targets = handings(node, self.definitions)
        if targets is None:
            return None
        reads = writes = False
        outputs = {position} if node.op in WHILE_OPS else set()  # a loop may run no times at all
        for target in targets:
            place = position - target.first
            if place < 0:
                continue  # the condition of If and the index of Case go nowhere
            uses = self.of(target.function)
            if place in uses.problems:
                return HandedIn(problem=uses.problems[place])
            reads, writes = reads or place in uses.reads, writes or place in uses.writes
            if target.gives:
                outputs |= uses.returned.get(place, set())
        return HandedIn(reads, writes, tuple(sorted(outputs)))

    def of(self, function: FunctionName) -> ArgumentUses:
        """Return what a function does with its arguments.

        Raises:
            LimitError: Functions nest too deep.
        """
        if function.name in self._known:
            return self._known[function.name]
        if function.name in self._under_way or len(self._under_way) > DEFAULT_LIMITS.max_depth:
            raise LimitError(f"functions nest deeper than {DEFAULT_LIMITS.max_depth}", where=function.name)
        self._under_way.append(function.name)
        try:
            found = self._of(function.name, function.attrs)
        finally:
            self._under_way.pop()
        if not self.definitions.functions[function.name].signature:  # else each caller may mean another
            self._known[function.name] = found
        return found

    def _of(self, name: str, attrs: Mapping[str, Attr]) -> ArgumentUses:
        function = self.definitions.functions[name]
        uses = ArgumentUses()
        try:
            body = open_body(function, self.definitions, attrs)
        except UnsupportedError as error:
            uses.problems = dict.fromkeys(range(len(function.arguments)), f"{name}: {error.message}")
            return uses
        index = GraphIndex(body.nodes)
        places = {argument: place for place, argument in enumerate(body.arguments)}
        handles = [node.name for node in body.nodes if node.op == ARGUMENT_OP and node.dtype("T") is DType.resource]
        carriers = find_carriers(index, set(index.nodes), self, handles)
        for found, used in ((carriers.reads, uses.reads), (carriers.writes, uses.writes)):
            used.update(places[variable] for variables in found.values() for variable in variables)
        for node, variables in carriers.calls.items():
            said = carriers.problems.get(node, f"{node} ({index.nodes[node].op}) hands it to a function")
            uses.problems.update((places[variable], f"{name}: {said}") for variable in variables)
        for result, tensor in enumerate(body.returns):
            if tensor in carriers.tensors:
                for variable in carriers.mixed.get(tensor.node, {carriers.tensors[tensor]}):
                    uses.returned.setdefault(places[variable], set()).add(result)
        own = [node.name for node in body.nodes if node.op in VARIABLE_OPS]
        if own:
            said = f"{name} holds variables of its own: {', '.join(own)}"
            uses.problems.update((place, said) for place in range(len(body.arguments)))
        return uses
