"""Strip attrs that are at their default, and put them back."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphs import FLOAT, Unchanged, by_name, function, graph, library, node
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.attrs import AttrList, AttrPlaceholder, FunctionName, OpaqueAttr, Shape
from tfthaw.ir.definitions import Definition
from tfthaw.ir.graph import Node
from tfthaw.ir.op_history import AttrHistory, OpHistory, op_history
from tfthaw.passes import strip_attrs as strip_attrs_module
from tfthaw.passes.strip_attrs import strip_attrs

NONE = AttrList("", [])


def conv(**attrs):
    return node("c", "Conv2D", "x", "w", strides=AttrList("i", [1, 1, 1, 1]), padding=b"SAME", **attrs)


def test_what_is_at_its_default_goes():
    before = conv(
        explicit_paddings=NONE,
        data_format=b"NHWC",
        use_cudnn_on_gpu=False,
        dilations=AttrList("i", [1, 1, 1, 1]),
        _class=AttrList("s", [b"loc:@x"]),
    )
    with Unchanged(graph(before)) as argument:
        stripped = strip_attrs(argument)

    assert set(by_name(stripped.graph)["c"].attrs) == {"T", "strides", "padding", "use_cudnn_on_gpu", "_class"}
    assert stripped.dropped == {"Conv2D.explicit_paddings": 1, "Conv2D.data_format": 1, "Conv2D.dilations": 1}


def test_library_functions_are_stripped_and_their_calls_are_not():
    inner = node("y", "MatMul", "x", "x", transpose_a=False, transpose_b=True)
    held = function("f", {"x": FLOAT}, [inner], {"y": ("y:product:0", FLOAT)})
    call = Node("call", "f", ["x"], attrs={"transpose_a": False})

    stripped = strip_attrs(library([call], held))

    assert set(stripped.graph.functions[0].nodes[0].attrs) == {"T", "transpose_b"}
    assert stripped.graph.nodes == [call]


def test_kinds_are_told_apart():
    attrs = {"keep_dims": 0, "Tidx": DType.int32}  # the default of keep_dims is false, and no number
    assert set(strip_attrs(graph(node("s", "Sum", "x", "i", **attrs))).graph.nodes[0].attrs) == {"T", "keep_dims"}


def test_placeholders_of_functions_stay():
    inner = node("s", "Sum", "x", "i", keep_dims=AttrPlaceholder("keep"))
    held = function("f", {"x": FLOAT, "i": DType.int32}, [inner], {"y": ("s:output:0", FLOAT)})
    assert "keep_dims" in strip_attrs(library([], held)).graph.functions[0].nodes[0].attrs


def test_unknown_attrs_are_refused_all_at_once():
    nodes = [node("a", "MatMul", "x", "x", turbo=True), conv(turbo=b"on")]
    held = function("f", {"x": FLOAT}, [node("b", "Neg", "x", fast=1)], {"y": ("b:y:0", FLOAT)})
    with pytest.raises(UnsupportedError, match="no TensorFlow up to") as caught:
        strip_attrs(library(nodes, held))
    assert caught.value.problems == (
        "a (MatMul): turbo=true, whose default nobody tells",
        "c (Conv2D): turbo=on, whose default nobody tells",
        "in f: b (Neg): fast=1, whose default nobody tells",
    )
    assert "SavedModel or .meta" in caught.value.hint


def test_unknown_attrs_go_at_the_default_that_their_producer_tells():
    told = {"MatMul": Definition((), (), False, {"turbo": False})}
    assert "turbo" not in strip_attrs(graph(node("a", "MatMul", "x", "x", turbo=False)), told).graph.nodes[0].attrs
    with pytest.raises(UnsupportedError, match=r"a \(MatMul\): turbo=true, which is not its default, false"):
        strip_attrs(graph(node("a", "MatMul", "x", "x", turbo=True)), told)


def test_custom_ops_keep_what_nobody_tells_of():
    before = [node("a", "MyOp", "x", speed=1, mode=b"m")]
    assert strip_attrs(graph(*before)).graph.nodes == before
    told = {"MyOp": Definition((), (), False, {"speed": 1})}
    assert set(strip_attrs(graph(*before), told).graph.nodes[0].attrs) == {"T", "mode"}


def test_lists_and_functions_and_shapes():
    assert set(
        strip_attrs(graph(node("p", "Placeholder", T=None, dtype=FLOAT, shape=Shape(None)))).graph.nodes[0].attrs
    ) == {"dtype"}
    branch = FunctionName("")
    attrs = {"then_branch": branch, "else_branch": branch, "output_shapes": NONE}
    assert "then_branch" in strip_attrs(graph(node("i", "If", "c", T=None, **attrs))).graph.nodes[0].attrs


def filled(found):
    """Add the defaults of the newest version, as TensorFlow does when it takes a graph in."""
    defaults = {attr.name: attr.default for attr in op_history(found.op).attrs if attr.default is not None}
    present = {attr.name for attr in op_history(found.op).attrs if attr.until is None}
    return {name: value for name, value in (defaults | dict(found.attrs)).items() if name in present}


OPS = [
    "Conv2D",
    "FusedBatchNormV3",
    "MatMul",
    "Sum",
    "StridedSlice",
    "VarHandleOp",
    "ResizeBilinear",
    "LeakyRelu",
    "While",
]
VALUES = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 0.5]), st.sampled_from([b"", b"NHWC", b"x"]),
    st.sampled_from([DType.float32, DType.int32, DType.int64]), st.sampled_from([NONE, AttrList("i", [1, 1, 1, 1])]),
    st.sampled_from([Shape(None), Shape(())]), st.just(OpaqueAttr(b"")),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_stripped_and_filled_again_is_the_same(data):
    op = data.draw(st.sampled_from(OPS))
    attrs = {}
    for attr in op_history(op).attrs:
        choices = [VALUES] if attr.default is None else [st.just(attr.default), VALUES]
        if attr.until is None and data.draw(st.booleans()):
            attrs[attr.name] = data.draw(st.one_of(*choices))
    before = Node("n", op, attrs=attrs)

    (after,) = strip_attrs(graph(before)).graph.nodes

    again, whole = filled(after), filled(before)
    assert again == whole
    assert {name: type(value) for name, value in again.items()} == {name: type(whole[name]) for name in again}
    assert after.attrs.items() <= before.attrs.items()


def test_attrs_whose_default_changed_stay(monkeypatch):
    changing = AttrHistory("rate", "int", 2, "1.4", None, (("1.4", 1), ("1.9", 2)), ())
    steady = AttrHistory("mode", "int", 1, "1.4", None, (("1.4", 1),), ())
    without = AttrHistory("size", "int", 1, "1.4", None, (("1.4", None), ("1.9", 1)), ())
    history = OpHistory("Op", "1.4", None, (changing, steady, without), (), (), False, False)
    monkeypatch.setattr(strip_attrs_module, "op_history", lambda name: history)
    strip_attrs_module._agreed_defaults.cache_clear()

    stripped = strip_attrs(graph(node("a", "Op", T=None, rate=2, mode=1, size=1)))

    assert stripped.graph.nodes[0].attrs == {"rate": 2, "size": 1}
    strip_attrs_module._agreed_defaults.cache_clear()
