"""Calls by attr: calls of functions by their op become PartitionedCalls that name the function in an attr.

TensorFlow 1 wrote a call as a node whose op is the function (`Defun`). Sessions run that wherever it stands; the loader
of TensorFlow 2 reads one function after the other and then does not find what an op of that name calls in turn.

    before                             after
    call = Dense(x, w)                 call = PartitionedCall(x, w), f = Dense
    y    = Relu(call:product:0)        y    = Relu(call:output:0)

Source: functional_ops.cc of TensorFlow, and function_def_to_graph.py, which is what reads functions in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Attr, AttrList, FunctionName
from tfthaw.ir.definitions import Definitions, dtypes_of
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node


def call_by_attr(graph: Graph) -> Graph:
    """Return a graph whose nodes, and those of its functions, call functions by attr.

    What is made for several types stays as it is inside of functions that are too, and so do calls whose lists of
    results are taken as a whole.
    """
    definitions = Definitions(graph.functions)
    if not any(node.op in definitions.functions for node in graph.walk()):
        return graph
    changed = graph.with_nodes(_called(node, definitions) or node for node in graph.nodes)
    return replace(changed, functions=[_with_calls_by_attr(each, definitions) for each in graph.functions])


def _with_calls_by_attr(function: Function, definitions: Definitions) -> Function:
    """Return a function whose nodes call by attr, and what takes their results spelled anew."""
    spelled: dict[str, str] = {}
    called: dict[str, Node] = {}
    whole = {text for text in _taken(function) if text.count(":") == 1}
    for node in function.nodes:
        new = _called(node, definitions)
        spans = definitions.output_spans(node) if new is not None else None
        if new is None or spans is None:
            continue
        if any(f"{node.name}:{span.name}" in whole for span in spans if span.count != 1):
            continue
        called[node.name] = new
        for span in spans:
            spelled[f"{node.name}:{span.name}"] = f"{node.name}:output:{span.first}"
            for position in range(span.count):
                spelled[f"{node.name}:{span.name}:{position}"] = f"{node.name}:output:{span.first + position}"
    if not called:
        return function
    nodes = []
    for node in function.nodes:
        now = called.get(node.name, node)
        nodes.append(replace(now, inputs=[spelled.get(text, text) for text in now.inputs]))
    returns = {result: spelled.get(text, text) for result, text in function.returns.items()}
    return replace(function, nodes=nodes, returns=returns)


def _taken(function: Function) -> Iterable[str]:
    """Yield the spellings of everything that is taken in a function."""
    for node in function.nodes:
        yield from node.inputs
    yield from function.returns.values()


def _called(node: Node, definitions: Definitions) -> Node | None:
    """Return a node that calls a function by its op as one that calls it by attr; None for every other."""
    function = definitions.functions.get(node.op)
    if function is None:
        return None
    takes, gives = dtypes_of(function.arguments, node.attrs), dtypes_of(function.results, node.attrs)
    if takes is None or gives is None:
        return None
    given: Mapping[str, Attr] = {name: value for name, value in node.attrs.items() if not name.startswith("_")}
    attrs: dict[str, Attr] = {name: value for name, value in node.attrs.items() if name.startswith("_")}
    attrs["f"] = FunctionName(node.op, given)
    attrs["Tin"], attrs["Tout"] = _types(takes), _types(gives)
    return replace(node, op="StatefulPartitionedCall" if function.is_stateful else "PartitionedCall", attrs=attrs)


def _types(dtypes: Iterable[DType]) -> AttrList:
    items: list[Attr] = list(dtypes)
    return AttrList("type" if items else "", items)
