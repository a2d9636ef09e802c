"""Judges, by the table of ops alone, whether a version of TensorFlow knows every op, attr and value of a graph."""

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import AttrList, AttrPlaceholder
from tfthaw.ir.definitions import spans
from tfthaw.ir.op_history import dtype_since, op_history, versions


def unreadable(graph, version):
    """Return what the version does not know, as `node: what`; nothing for a graph that it reads."""
    library = {function.name for function in graph.functions}
    return [
        f"{node.name}: {problem}"
        for node in graph.walk()
        if node.op not in library
        for problem in _problems(node, version)
    ]


def _problems(node, version):
    history = op_history(node.op)
    if history is None or not history.is_in(version):
        yield f"no op {node.op}"
        return
    here = {attr.name: attr for attr in history.attrs if attr.is_in(version)}
    for name, value in node.attrs.items():
        if name.startswith("_"):
            continue
        if name not in here:
            yield f"no attr {name}"
            continue
        allowed = here[name].allowed_in(version)
        for item in value.items if isinstance(value, AttrList) else [value]:
            if isinstance(item, AttrPlaceholder):
                continue
            if allowed is not None and item not in allowed:
                yield f"{name} is {item}"
            if isinstance(item, DType) and versions().index(dtype_since(item)) > versions().index(version):
                yield f"{name} is {item}"
    for name, attr in here.items():
        if name not in node.attrs and attr.default_in(version) is None:
            yield f"without {name}"
    inputs, _ = history.arguments_in(version)
    expected = spans(inputs, node.attrs, {name: attr.default_in(version) for name, attr in here.items()})
    if sum(span.count for span in expected) != sum(not text.startswith("^") for text in node.inputs):
        yield "another number of inputs"
