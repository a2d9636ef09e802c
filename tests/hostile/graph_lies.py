"""Graphs that decode and cannot be meant: cycles, chains, broken nodes, absurd constants, deep nesting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from judge import Case
from seeds import I32, OUTPUTS, F, add, frozen_graph, meta_graph, signed, tensor_proto, variable_graph, write_checkpoint

from tfthaw import proto
from tfthaw.dtypes import DType

GRAPH_FORMATS = ("frozen-graph", "saved-model")


def _node(graph: Any, name: str) -> Any:
    return next(node for node in graph.node if node.name == name)


def _cyclic(graph: Any) -> None:
    _node(graph, "MatMul").input[0] = "softmax"


def _itself(graph: Any) -> None:
    _node(graph, "MatMul").input[0] = "MatMul"


def _two_of_a_name(graph: Any) -> None:
    add(graph, "b", "Const", dtype=F, value=np.ones(3, np.float32))


def _chain(graph: Any) -> None:
    for number in range(100_000):
        add(graph, f"c{number}", "Identity", f"c{number - 1}" if number else "logits", T=F)
    _node(graph, "softmax").input[0] = "c99999"


def _wide(graph: Any) -> None:
    node = add(graph, "pack", "Pack", *(["b"] * 100_000), T=F, N=100_000, axis=0)
    node.input.append("^w")
    _node(graph, "softmax").input.append("^pack")


def _function(graph: Any, name: str, calls: str) -> None:
    function = graph.library.function.add()
    function.signature.name = name
    for part, argument in ((function.signature.input_arg, "a"), (function.signature.output_arg, "r")):
        part.add(name=argument, type=int(F))
    add(function, "call", "PartitionedCall", "a", Tin=[F], Tout=[F], f=calls)
    function.ret["r"] = "call:output:0"


def _functions_in_a_ring(graph: Any) -> None:
    _function(graph, "one", "two")
    _function(graph, "two", "one")
    add(graph, "ring", "PartitionedCall", "b", Tin=[F], Tout=[F], f="one")
    _node(graph, "logits").input[1] = "ring"


def _function_of_itself(graph: Any) -> None:
    _function(graph, "one", "one")
    add(graph, "ring", "one", "b")
    _node(graph, "logits").input[1] = "ring"


def _many_functions(graph: Any) -> None:
    for number in range(3000):
        _function(graph, f"f{number}", f"f{number + 1}")
    add(graph, "ring", "PartitionedCall", "b", Tin=[F], Tout=[F], f="f0")
    _node(graph, "logits").input[1] = "ring"


def _loop_without_next(graph: Any) -> None:
    add(graph, "enter", "Enter", "b", T=F, frame_name=b"f", is_constant=False, parallel_iterations=10)
    add(graph, "merge", "Merge", "enter", "body", T=F, N=2)
    add(graph, "body", "Identity", "merge", T=F)
    _node(graph, "logits").input[1] = "body"


def _ring_of_switches(graph: Any) -> None:
    add(graph, "p", "Const", dtype=DType.bool, value=np.array(True))
    add(graph, "switch", "Switch", "merge", "p", T=F)
    add(graph, "merge", "Merge", "switch", "switch:1", T=F, N=2)
    _node(graph, "logits").input[1] = "merge"


def _absurd_splat(graph: Any) -> None:
    tensor = _node(graph, "b").attr["value"].tensor
    tensor.ClearField("tensor_content")
    del tensor.tensor_shape.dim[:]
    tensor.tensor_shape.dim.add(size=1 << 40)
    tensor.float_val.append(1.0)


def _large_splat(graph: Any) -> None:
    _absurd_splat(graph)
    _node(graph, "b").attr["value"].tensor.tensor_shape.dim[0].size = 1 << 28


def _set_shape(*sizes: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        shape = _node(graph, "b").attr["value"].tensor.tensor_shape
        del shape.dim[:]
        for size in sizes:
            shape.dim.add(size=size)

    return change


def _set_type(number: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        _node(graph, "b").attr["value"].tensor.dtype = number
        _node(graph, "b").attr["dtype"].type = number

    return change


def _types_that_differ(graph: Any) -> None:
    _node(graph, "b").attr["dtype"].type = int(I32)


def _without_attrs(graph: Any) -> None:
    for node in graph.node:
        node.attr.clear()


def _without_inputs(graph: Any) -> None:
    for node in graph.node:
        del node.input[:]


def _odd_inputs(graph: Any) -> None:
    _node(graph, "logits").input.extend(
        ["", "^", ":", "b:", ":0", "b:-1", "b:99999999999999999999", "^^b", "b:x", "\u202e"]
    )


def _unnamed(graph: Any) -> None:
    _node(graph, "b").name = ""


def _many_empty_nodes(graph: Any) -> None:
    graph.MergeFromString(b"\x0a\x00" * 2_500_000)


def _unknown_types_in_attrs(graph: Any) -> None:
    _node(graph, "MatMul").attr["T"].type = 9999
    _node(graph, "softmax").attr["T"].i = 7
    _node(graph, "x").attr["dtype"].s = b"float"
    _node(graph, "x").attr["shape"].tensor.CopyFrom(tensor_proto(np.zeros(2, np.float32)))


def _deep_lists(graph: Any) -> None:
    value = _node(graph, "MatMul").attr["_deep"]
    for _ in range(30):
        value = value.list.func.add(name="f").attr["_deep"]


def _nul_names(graph: Any) -> None:
    _node(graph, "b").name = "b\0"
    _node(graph, "logits").input[1] = "b\0"


FROZEN: dict[str, Callable[[Any], None]] = {
    "cycle": _cyclic,
    "input-is-itself": _itself,
    "two-nodes-of-one-name": _two_of_a_name,
    "chain-of-100000": _chain,
    "wide-100000": _wide,
    "functions-in-a-ring": _functions_in_a_ring,
    "function-of-itself": _function_of_itself,
    "3000-functions": _many_functions,
    "loop-without-next-iteration": _loop_without_next,
    "ring-of-switches": _ring_of_switches,
    "splat-4-tb": _absurd_splat,
    "splat-1-gb": _large_splat,
    "shape-negative": _set_shape(-5),
    "shape-overflow": _set_shape(1 << 62, 1 << 62),
    "shape-of-300": _set_shape(*[1] * 300),
    "shape-min": _set_shape(-(1 << 63)),
    "shape-zero-and-huge": _set_shape(0, 1 << 62),
    "shape-too-large": _set_shape(4),
    "type-unknown": _set_type(9999),
    "type-none": _set_type(0),
    "type-negative": _set_type(-1),
    "type-ref": _set_type(101),
    "type-variant": _set_type(21),
    "type-resource": _set_type(20),
    "type-string": _set_type(7),
    "type-int4": _set_type(29),
    "type-half": _set_type(19),
    "types-that-differ": _types_that_differ,
    "no-attrs": _without_attrs,
    "no-inputs": _without_inputs,
    "odd-inputs": _odd_inputs,
    "unnamed-node": _unnamed,
    "empty-nodes-5-mb": _many_empty_nodes,
    "odd-attrs": _unknown_types_in_attrs,
    "deep-lists": _deep_lists,
    "nul-names": _nul_names,
}
MUST_FAIL = {
    "cycle",
    "input-is-itself",
    "two-nodes-of-one-name",
    "shape-negative",
    "shape-overflow",
    "shape-min",
    "splat-4-tb",
    "no-inputs",
    "odd-inputs",
    "loop-without-next-iteration",
    "ring-of-switches",
}


def _saver_ring(graph: Any) -> None:
    _node(graph, "save/Assign_0").input[1] = "save/Assign_0"


def _reads_in_a_ring(graph: Any) -> None:
    add(graph, "ring", "RefIdentity", "ring", T=F)
    _node(graph, "save/Assign_0").input[0] = "ring"


def _bare_variables(graph: Any) -> None:
    for name in ("w", "b"):
        _node(graph, name).attr.clear()


def _assign_without_inputs(graph: Any) -> None:
    for node in graph.node:
        if node.op in ("Assign", "SaveV2", "RestoreV2", "Identity"):
            del node.input[:]


def _handles_in_a_ring(graph: Any) -> None:
    add(graph, "h", "VarHandleOp", dtype=F, shape=(3,))
    add(graph, "merge", "Merge", "h", "next", T=DType.resource, N=2)
    add(graph, "next", "NextIteration", "merge", T=DType.resource)
    add(graph, "value", "ReadVariableOp", "merge", dtype=F)
    _node(graph, "logits").input[1] = "value"


def _bare_resource_ops(graph: Any) -> None:
    add(graph, "h", "VarHandleOp", dtype=F, shape=(3,))
    for op in (
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "VarIsInitializedOp",
        "ReadVariableOp",
        "AssignAddVariableOp",
        "AssignVariableOp",
    ):
        add(graph, f"bare{op}", op, "h")
        _node(graph, "softmax").input.append(f"^bare{op}")


def _bare_tables(graph: Any) -> None:
    add(graph, "table", "HashTableV2")
    add(graph, "find", "LookupTableFindV2", "table")
    add(graph, "init", "InitializeTableV2", "table")
    _node(graph, "softmax").input.append("^find")


def _bare_batch_norm(graph: Any) -> None:
    add(graph, "norm", "FusedBatchNormV3", is_training=True)
    _node(graph, "softmax").input.append("^norm")


def _other_types(graph: Any) -> None:
    _node(graph, "w").attr["dtype"].type = int(I32)


def _bare_flow(graph: Any) -> None:
    for op in (
        "Switch",
        "Merge",
        "Enter",
        "Exit",
        "NextIteration",
        "RefSwitch",
        "RefMerge",
        "RefEnter",
        "LoopCond",
        "If",
        "While",
        "StatefulPartitionedCall",
        "PlaceholderWithDefault",
    ):
        add(graph, f"bare{op}", op)
        _node(graph, "softmax").input.append(f"^bare{op}")


WITH_VARIABLES: dict[str, Callable[[Any], None]] = {
    "saver-ring": _saver_ring,
    "ring-of-references": _reads_in_a_ring,
    "bare-variables": _bare_variables,
    "bare-assigns": _assign_without_inputs,
    "ring-of-handles": _handles_in_a_ring,
    "bare-resource-ops": _bare_resource_ops,
    "bare-tables": _bare_tables,
    "bare-batch-norm": _bare_batch_norm,
    "variable-of-another-type": _other_types,
    "bare-flow": _bare_flow,
}


def lying_graphs(folder: Path) -> Iterator[Case]:
    """Yield GraphDefs and MetaGraphs that decode and cannot be meant."""
    for name, change in FROZEN.items():
        graph = frozen_graph()
        change(graph)
        case = _case(folder, f"graph-{name}", graph.SerializeToString(), must_fail=name in MUST_FAIL)
        # 100,000 nodes are no lie: they take their two kilobytes and forty microseconds each
        yield replace(case, allowance=2, formats=("frozen-graph",)) if "100000" in name else case
    for name, change in WITH_VARIABLES.items():
        graph = variable_graph()
        change(graph)
        write_checkpoint(folder / f"meta-{name}")
        path = folder / f"meta-{name}" / "model.meta"
        path.write_bytes(meta_graph(graph).SerializeToString())
        options = (*OUTPUTS, "--batch-norm", "inference") if "norm" in name else OUTPUTS
        yield Case(
            f"meta-{name}",
            str(path),
            must_fail=name.startswith("bare-") or name == "variable-of-another-type",
            options=options,
            formats=("frozen-graph", "saved-model"),
        )


def _case(folder: Path, name: str, data: bytes, *, file: str = "graph.pb", must_fail: bool = False) -> Case:
    (folder / name).mkdir()
    path = folder / name / file
    path.write_bytes(data)
    return Case(name, str(path), must_fail=must_fail, options=OUTPUTS, formats=GRAPH_FORMATS)


def lying_messages(folder: Path) -> Iterator[Case]:
    """Yield bytes and texts that nest for ever, or claim what they do not have."""
    deep = b""
    for _ in range(5000):
        deep = b"\x0a" + _varint(len(deep)) + deep  # AttrValue.list.func.attr ... as far as lengths go
    yield _case(folder, "nested-5000", b"\x0a" + _varint(len(deep)) + deep, must_fail=True)
    yield _case(folder, "groups-100000", b"\x0b" * 100_000, must_fail=True)
    yield _case(
        folder, "length-past-end", b"\x0a\xff\xff\xff\xff\x07" + frozen_graph().SerializeToString(), must_fail=True
    )
    text = "node { attr { value { list { " + "func { attr { value { list { " * 3000
    yield _case(folder, "text-nested-3000", text.encode(), file="graph.pbtxt", must_fail=True)
    yield _case(folder, "text-open", b'node { name: "a" op: "', file="graph.pbtxt", must_fail=True)
    yield _case(
        folder,
        "text-numbers",
        b'node { name: "a" op: "Const" attr { key: "value" value { tensor { dtype: DT_FLOAT '
        b"tensor_shape { dim { size: 99999999999999999999 } } } } } }",
        file="graph.pbtxt",
        must_fail=True,
    )
    yield _case(folder, "text-bytes", b'node { name: "a\xff" }', file="graph.pbtxt", must_fail=True)
    for name, outputs in (
        ("no-such-node", "gone:0"),
        ("no-such-output", "softmax:7"),
        ("control", "^softmax"),
        ("empty", ""),
        ("odd", "softmax:x"),
        ("huge", "softmax:99999999999999999999"),
        ("negative", "softmax:-1"),
    ):
        write_checkpoint(folder / f"signature-{name}")
        path = folder / f"signature-{name}" / "model.meta"
        path.write_bytes(signed(meta_graph(), y=outputs).SerializeToString())
        yield Case(
            f"signature-{name}", str(path), must_fail=True, formats=("frozen-graph", "saved-model", "meta-graph")
        )
    meta = meta_graph()
    meta.collection_def["variables"].bytes_list.value.extend([b"\xff\xff", b"", b"\x0a\x05w:0"])
    meta.collection_def["saved_model_main_op"].node_list.value.append("gone")
    write_checkpoint(folder / "odd-collections")
    (folder / "odd-collections" / "model.meta").write_bytes(meta.SerializeToString())
    yield Case(
        "odd-collections", str(folder / "odd-collections" / "model.meta"), options=OUTPUTS, formats=GRAPH_FORMATS
    )
    many = proto.SavedModel(saved_model_schema_version=1)
    for _ in range(1000):
        many.meta_graphs.add().meta_info_def.tags.append("serve")
    yield _case(folder, "1000-meta-graphs", many.SerializeToString(), file="saved_model.pb", must_fail=True)


def _varint(number: int) -> bytes:
    data = b""
    while number > 0x7F:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])
