"""Libraries that decode and cannot be meant: functions without end, calls that do not fit, absurd depths and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from judge import Case
from seeds import I32, OUTPUTS, F, add, add_function, frozen_graph

from tfthaw.dtypes import DType

FORMATS = ("frozen-graph", "saved-model")


def _called(graph: Any, name: str) -> None:
    """Let the output need a call of a function."""
    add(graph, "call", "PartitionedCall", "b", Tin=[F], Tout=[F], f=name)
    next(node for node in graph.node if node.name == "logits").input[1] = "call"


def _one(graph: Any, name: str = "f", gives: str = "x") -> Any:
    """Add a function of one tensor."""
    return add_function(graph, name, {"x": F}, {"y": F}, y=gives)


def _itself_in_a_branch(graph: Any) -> None:
    function = _one(graph, gives="if:output:0")
    add(function, "yes", "Const", dtype=DType.bool, value=np.array(True))
    types = {"Tcond": DType.bool, "Tin": [F], "Tout": [F]}
    add(function, "if", "If", "yes:output:0", "x", then_branch="f", else_branch="f", **types)
    _called(graph, "f")


def _itself_in_a_loop(graph: Any) -> None:
    add(_one(graph, gives="while:output:0"), "while", "While", "x", T=[F], cond="again", body="f")
    again = add_function(graph, "again", {"x": F}, {"more": DType.bool}, more="less:z:0")
    add(again, "less", "Less", "x", "x", T=F)
    _called(graph, "f")


def _itself_as_an_attr(graph: Any) -> None:
    """A function that calls what its caller names, which names it."""
    function = _one(graph, gives="call:output:0")
    call = add(function, "call", "PartitionedCall", "x", Tin=[F], Tout=[F])
    call.attr["f"].func.name = "f"
    call.attr["f"].func.attr["g"].func.name = "f"
    _called(graph, "f")


def _types_without_end(graph: Any) -> None:
    """Each call names more types than the last: no two calls of the function are the same."""
    function = _one(graph, gives="call:y:0")
    call = add(function, "call", "f", "x")
    call.attr["T"].func.name = "f"
    call.attr["T"].func.attr["T"].placeholder = "T"
    _called(graph, "f")


def _chain(length: int, bottom: str, letters: int = 1) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        node = "c" * letters
        for number in range(length):
            function = _one(graph, f"f{number}", f"{node}:output:0")
            if number + 1 < length:
                add(function, node, "PartitionedCall", "x", Tin=[F], Tout=[F], f=f"f{number + 1}")
            else:
                add(function, node, bottom, "x", *["x"] * (bottom == "Print"), T=F, U=[F])
        _called(graph, "f0")

    return change


def _twice_each(depth: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        for number in range(depth):
            function = _one(graph, f"f{number}", "d:output:0" if number + 1 < depth else "x")
            if number + 1 < depth:
                for node, source in (("c", "x"), ("d", "c:output:0")):
                    add(function, node, "PartitionedCall", source, Tin=[F], Tout=[F], f=f"f{number + 1}")
        _called(graph, "f0")

    return change


def _branches_deep(depth: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        types = {"Tcond": DType.bool, "Tin": [F], "Tout": [F]}
        for number in range(depth):
            function = _one(graph, f"f{number}", "if:output:0" if number + 1 < depth else "x")
            if number + 1 < depth:
                add(function, "yes", "Const", dtype=DType.bool, value=np.array(True))
                both = {"then_branch": f"f{number + 1}", "else_branch": f"f{number + 1}"}
                add(function, "if", "If", "yes:output:0", "x", **both, **types)
        _called(graph, "f0")

    return change


def _many(graph: Any) -> None:
    for number in range(30_000):
        _one(graph, f"f{number}")


def _many_of_one_name(graph: Any) -> None:
    for number in range(5000):
        add(_one(graph, gives="n:y:0"), "n", "Neg" if number else "Abs", "x", T=F)
    _called(graph, "f")


def _wide(takes: int, gives: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        given = {f"r{number}": F for number in range(gives)}
        add_function(graph, "f", {f"a{number}": F for number in range(takes)}, given, **dict.fromkeys(given, "a0"))
        add(graph, "call", "f", *["b"] * takes)
        next(node for node in graph.node if node.name == "logits").input[1] = "call"

    return change


def _claims(**attrs: int) -> Callable[[Any], None]:
    """A function of as many tensors as an attr claims."""

    def change(graph: Any) -> None:
        function = add_function(graph, "f", {"x": F}, {"y": F}, y="n:output:0")
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            argument.number_attr = "N"
        function.signature.attr.add(name="N", type="int")
        node = add(function, "n", "Pack", "x", T=F)
        node.attr["N"].placeholder = "N"
        call = add(graph, "call", "f", "b")
        for name, number in attrs.items():
            call.attr[name].i = number
        next(node for node in graph.node if node.name == "logits").input[1] = "call"

    return change


def _odd_spellings(graph: Any) -> None:
    function = _one(graph, gives="n:y:99999999999999999999")
    odd = ("", "^", ":", "x:", ":0", "x:-1", "x:0:0", "n:y:0:0", "^^x", "n::0", "\u202e")
    add(function, "n", "AddN", *odd, T=F, N=len(odd))
    _called(graph, "f")


def _empty_functions(graph: Any) -> None:
    for _ in range(1000):
        graph.library.function.add()
    graph.library.gradient.add(function_name="", gradient_func="")
    _called(graph, "")


def _nothing_said(graph: Any) -> None:
    graph.library.function.add().signature.name = "f"
    for op in ("PartitionedCall", "If", "While", "Case", "StatelessWhile", "For", "RemoteCall", "f"):
        add(graph, f"bare{op}", op, "b", f="f", cond="f", body="f", then_branch="f", else_branch="f")
        next(node for node in graph.node if node.name == "softmax").input.append(f"^bare{op}")


def _other_types(graph: Any) -> None:
    function = add_function(graph, "f", {"x": I32}, {"y": I32}, y="x")
    function.attr["odd"].placeholder = "odd"
    _called(graph, "f")


LIBRARIES: dict[str, Callable[[Any], None]] = {
    "itself-in-a-branch": _itself_in_a_branch,
    "itself-in-a-loop": _itself_in_a_loop,
    "itself-as-an-attr": _itself_as_an_attr,
    "types-without-end": _types_without_end,
    "chain-of-10000-calls": _chain(10_000, "Neg"),
    "chain-of-10000-calls-to-an-effect": _chain(10_000, "Print"),
    "chain-of-calls-of-long-names": _chain(5000, "Neg", 100),
    "twice-each-40-deep": _twice_each(40),
    "branches-3000-deep": _branches_deep(3000),
    "30000-functions": _many,
    "5000-of-one-name": _many_of_one_name,
    "takes-20000": _wide(20_000, 1),
    "gives-20000": _wide(1, 20_000),
    "claims-two-milliards": _claims(N=2**31 - 1),
    "claims-less-than-nothing": _claims(N=-1),
    "claims-without-number": _claims(),
    "odd-spellings": _odd_spellings,
    "empty-functions": _empty_functions,
    "nothing-said": _nothing_said,
    "other-types": _other_types,
}
FIT = {
    "chain-of-10000-calls", "chain-of-10000-calls-to-an-effect", "chain-of-calls-of-long-names", "branches-3000-deep",
    "30000-functions", "takes-20000", "gives-20000",
}  # fmt: skip


def lying_libraries(folder: Path) -> Iterator[Case]:
    """Yield GraphDefs whose library decodes and cannot be meant, or is as large as it claims."""
    for name, change in LIBRARIES.items():
        graph = frozen_graph()
        change(graph)
        (folder / name).mkdir()
        path = folder / name / "graph.pb"
        path.write_bytes(graph.SerializeToString())
        # only where it is inlined is the one small function for each level as much as it says
        formats = ("frozen-graph",) if name in FIT or name == "twice-each-40-deep" else FORMATS
        # what is there is no lie: a function takes its two kilobytes and fifty microseconds
        yield Case(name, str(path), name not in FIT, OUTPUTS, formats, 2 if "0000" in name else 1)
