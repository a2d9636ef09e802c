"""Older equivalents: what a node can be for a TensorFlow that does not know its op yet.

An equivalent counts only where it gives the same bits: TensorFlow computes both with the same kernel, or the new op is
made of steps that round nothing (copies, comparisons, choices) around the one that does. Each rule names the op that it
replaces and says, where it cannot, why not. Tests run every rule under TensorFlow and compare bits. (With oneDNN a
TensorFlow of today computes BatchMatMulV2 but not V3 by another library than its own; an older one does what it does.)

    op                                          equivalent                          why it is exact
    AddV2                                       Add                                 one kernel
    BatchMatMulV3, BatchMatMulV2                BatchMatMulV2, BatchMatMul          one kernel; no broadcasting
    FusedBatchNormV3                            FusedBatchNormV2                    one kernel
    MatrixDiag, DiagPart, SetDiag V2 and V3     without V2, V3                      main diagonal alone: copies
    NonMaxSuppressionV5, V4                     NonMaxSuppressionV3                 one kernel; hard suppression
    StatelessIf, StatelessWhile, StatelessCase  If, While, Case                     one kernel
    StaticRegexFullMatch, StaticRegexReplace    RegexFullMatch, RegexReplace        one library; the pattern a constant
    ImageProjectiveTransformV3                  ImageProjectiveTransformV2          one kernel; filled with zeros
    QuantizeAndDequantizeV4                     QuantizeAndDequantizeV2             one kernel; gradients alone differ
    ParseExampleV2                              ParseExample                        one parser; nothing ragged
    ResourceGatherNd                            GatherNd of ReadVariableOp          copies
    SelectV2                                    Select, of BroadcastTo              copies
    LeakyRelu                                   Select(x > 0, x, alpha * x)         its definition
    DivNoNan, MulNoNan                          Select(y == 0, 0, x / y) ...        their definition
    DisableCopyOnRead                           NoOp                                how memory is shared, no value

Source: the op and kernel registrations of TensorFlow (batch_matmul_op.h, fused_batch_norm_op.cc, matrix_diag_op.cc,
non_max_suppression_op.cc, functional_ops.cc, cwise_ops.h, relu_op_functor.h, image_ops.cc,
parsing_ops.cc).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Attr, AttrList
from tfthaw.ir.nodes import Node
from tfthaw.passes.scopes import Scope, is_zero


@dataclass(frozen=True, slots=True)
class Replacement:
    """What takes the place of a node.

    Attributes:
        node: The node of the same name; its outputs stand where those of the old one stood.
        added: Nodes that it needs.
    """

    node: Node
    added: tuple[Node, ...] = ()


Rule = Callable[[Node, Scope], "Replacement | str"]
"""Returns the replacement of a node in a scope, or why there is none, as the end of a sentence."""


_OPEN = "its element type is left to the callers of its function"


def _data(node: Node) -> list[str]:
    return [text for text in node.inputs if text[:1] != "^"]


def _controls(node: Node) -> list[str]:
    return [text for text in node.inputs if text[:1] == "^"]


def _as(node: Node, op: str, inputs: list[str] | None = None, *, without: Collection[str] = (), **attrs: Attr) -> Node:
    """Return a node as another op, with other data inputs and attrs where said."""
    kept = {name: value for name, value in node.attrs.items() if name not in without}
    data = _data(node) if inputs is None else inputs
    return Node(node.name, op, [*data, *_controls(node)], node.device, {**kept, **attrs}, node.opaque)


def _marks(node: Node) -> dict[str, Attr]:
    """Return the attrs of a node that are of no op (`_class`, `_output_shapes`)."""
    return {name: value for name, value in node.attrs.items() if name.startswith("_")}


def _dtype(node: Node) -> DType | None:
    """Return the element type of a node, None where the caller of its function says it."""
    value = node.attrs.get("T", DType.float32)  # the default of the ops that are asked for it
    return value if isinstance(value, DType) else None


def _same_kernel(op: str, outputs: int | None = None) -> Rule:
    """Return the rule for an op whose older twin takes and gives the same."""

    def rule(node: Node, scope: Scope) -> Replacement | str:
        if outputs is not None and not scope.uses_only(node, outputs):
            return f"its outputs after the first {outputs} are used"
        return Replacement(_as(node, op))

    return rule


def _batch_matmul_v3(node: Node, scope: Scope) -> Replacement | str:
    dtypes = {node.dtype(name) for name in ("Ta", "Tb", "Tout")}
    (dtype,) = dtypes if len(dtypes) == 1 else (None,)
    if dtype is None:
        return "its element types differ"
    without = ("Ta", "Tb", "Tout", "grad_x", "grad_y")
    return Replacement(_as(node, "BatchMatMulV2", without=without, T=dtype))


def _batch_matmul_v2(node: Node, scope: Scope) -> Replacement | str:
    shapes = [shape.dims if shape is not None else None for shape in map(scope.shape, _data(node))]
    if len(shapes) != 2 or shapes[0] is None or shapes[1] is None:
        return "the shapes are not known, so it may broadcast"
    one, other = shapes[0][:-2], shapes[1][:-2]
    if len(shapes[0]) != len(shapes[1]) or one != other or None in one:
        return "it broadcasts, or the shapes do not tell that it does not"
    return Replacement(_as(node, "BatchMatMul", without=("grad_x", "grad_y")))


def _fused_batch_norm_v3(node: Node, scope: Scope) -> Replacement | str:
    if not scope.uses_only(node, 5):
        return "its sixth output is used"
    if node.attrs.get("data_format") in (b"NDHWC", b"NCDHW"):
        return "it normalises volumes"
    return Replacement(_as(node, "FusedBatchNormV2"))


def _main_diagonal(op: str, kept: int, *, pads: bool = False, sizes: bool = False) -> Rule:
    """Return the rule for an op on diagonals whose older twin knows the main diagonal alone.

    Args:
        op: The older op.
        kept: How many inputs it takes; then comes the number of the diagonal.
        pads: Whether the last input fills what is no diagonal.
        sizes: Whether two inputs say the size of the result.
    """

    def rule(node: Node, scope: Scope) -> Replacement | str:
        data = _data(node)
        diagonal = scope.value(data[kept])
        if diagonal is None or diagonal.any():
            return "nothing says that it is about the main diagonal alone"
        values = [scope.value(text) for text in data[kept + 1 : kept + 3]] if sizes else []
        if any(value is None or (value != -1).any() for value in values):
            return "it says the size of its result"
        if pads and not is_zero(scope.value(data[-1])):
            return "it fills with something that is not known to be zero"
        return Replacement(_as(node, op, data[:kept], without=("align",)))

    return rule


def _non_max_suppression_v5(node: Node, scope: Scope) -> Replacement | str:
    if not is_zero(scope.value(_data(node)[5])):
        return "nothing says that its suppression is not soft"
    if not scope.uses_only(node, 1) or node.attrs.get("pad_to_max_output_size", False):
        return "it pads, or its outputs after the first are used"
    dtype = _dtype(node)
    if dtype is None:
        return _OPEN
    inputs = _data(node)[:5]
    return Replacement(_as(node, "NonMaxSuppressionV3", inputs, without=("pad_to_max_output_size",), T_threshold=dtype))


def _non_max_suppression_v4(node: Node, scope: Scope) -> Replacement | str:
    if not scope.uses_only(node, 1) or node.attrs.get("pad_to_max_output_size", False):
        return "it pads, or its outputs after the first are used"
    return Replacement(_as(node, "NonMaxSuppressionV3", without=("pad_to_max_output_size",)))


def _static_regex(op: str, texts: tuple[str, ...]) -> Rule:
    """Return the rule for an op that has in attrs what its older twin takes as inputs."""

    def rule(node: Node, scope: Scope) -> Replacement | str:
        constants = []
        for name in texts:
            value = node.attrs.get(name)
            if not isinstance(value, bytes):
                return f"its {name} is not known"
            array = np.empty((), object)
            array[()] = value
            constants.append(scope.constant(node, name, array, DType.string))
        inputs = [*_data(node), *(scope.output(constant) for constant in constants)]
        return Replacement(_as(node, op, inputs, without=texts), tuple(constants))

    return rule


def _image_projective_transform_v3(node: Node, scope: Scope) -> Replacement | str:
    if not is_zero(scope.value(_data(node)[3])):
        return "it fills with something that is not known to be zero"
    return Replacement(_as(node, "ImageProjectiveTransformV2", _data(node)[:3]))


def _resource_gather_nd(node: Node, scope: Scope) -> Replacement | str:
    dtype = node.attrs["dtype"]
    variable, indices = _data(node)
    name = scope.new_name(node, "read")
    read = Node(name, "ReadVariableOp", [variable, *_controls(node)], node.device, {"dtype": dtype})
    attrs = {**_marks(node), "Tparams": dtype, "Tindices": node.attrs["Tindices"]}
    inputs = [scope.output(read), indices, *_controls(node)]
    return Replacement(Node(node.name, "GatherNd", inputs, node.device, attrs, node.opaque), (read,))


def _no_op(node: Node, scope: Scope) -> Replacement | str:
    return Replacement(Node(node.name, "NoOp", _controls(node), node.device, _marks(node), node.opaque))


def _parse_example_v2(node: Node, scope: Scope) -> Replacement | str:
    ragged = [node.attrs.get(name) for name in ("ragged_value_types", "ragged_split_types")]
    if not all(isinstance(value, AttrList) and not value.items for value in ragged):
        return "it gives ragged tensors"
    serialized, names, sparse_keys, dense_keys, _, *defaults = _data(node)
    shape = scope.shape(serialized)
    if shape is None or shape.dims is None or len(shape.dims) != 1:
        return "nothing says that it takes a vector of examples"
    keys: list[list[Node]] = []
    for kind, text in (("sparse_key", sparse_keys), ("dense_key", dense_keys)):
        value = scope.value(text)
        if value is None or value.ndim != 1 or value.dtype != object:
            return "the names of the features are no constants"
        keys.append([scope.constant(node, kind, np.array(key, object), DType.string) for key in value])
    texts = [scope.output(constant) for part in keys for constant in part]
    without = ("num_sparse", "ragged_value_types", "ragged_split_types")
    replaced = _as(node, "ParseExample", [serialized, names, *texts, *defaults], without=without,
                   Nsparse=len(keys[0]), Ndense=len(keys[1]))  # fmt: skip
    return Replacement(replaced, (*keys[0], *keys[1]))


class _Steps:
    """Small nodes that are added for one node, each in terms of those before."""

    def __init__(self, node: Node, scope: Scope) -> None:
        self.node = node
        self.scope = scope
        self.made: list[Node] = []

    def add(self, purpose: str, op: str, *inputs: str, **attrs: Attr) -> str:
        """Add a node and return its output."""
        name = self.scope.new_name(self.node, purpose)
        made = Node(name, op, list(inputs), self.node.device, attrs)
        self.made.append(made)
        return self.scope.output(made)

    def select(self, condition: str, chosen: str, other: str, dtype: Attr) -> Replacement:
        """Return the replacement of the node by a choice."""
        inputs = [condition, chosen, other, *_controls(self.node)]
        attrs = {**_marks(self.node), "T": dtype}
        last = Node(self.node.name, "Select", inputs, self.node.device, attrs, self.node.opaque)
        return Replacement(last, tuple(self.made))


def _select_v2(node: Node, scope: Scope) -> Replacement | str:
    data, dtype = _data(node), node.attrs["T"]
    shapes = [shape if shape is not None and shape.is_static else None for shape in map(scope.shape, data)]
    steps = _Steps(node, scope)
    if None not in shapes:
        condition, chosen, other = (shape.dims for shape in shapes if shape is not None)
        if chosen == other and condition in ((), chosen):
            return steps.select(data[0], data[1], data[2], dtype)
    types = [DType.bool, dtype, dtype]
    sizes = [
        steps.add(f"shape_{place}", "Shape", text, T=of, out_type=DType.int32)
        for place, (text, of) in enumerate(zip(data, types, strict=True))
    ]
    both = steps.add("branches", "BroadcastArgs", sizes[1], sizes[2], T=DType.int32)
    every = steps.add("broadcast", "BroadcastArgs", sizes[0], both, T=DType.int32)
    wide = [
        steps.add(f"wide_{place}", "BroadcastTo", text, every, T=of, Tidx=DType.int32)
        for place, (text, of) in enumerate(zip(data, types, strict=True))
    ]
    return steps.select(wide[0], wide[1], wide[2], dtype)


def _leaky_relu(node: Node, scope: Scope) -> Replacement | str:
    dtype, alpha = _dtype(node), node.attrs.get("alpha", 0.2)
    if dtype is None:
        return _OPEN
    if not dtype.is_float or not isinstance(alpha, float):
        return "it says no slope, or is of no floating type"
    (features,) = _data(node)
    steps = _Steps(node, scope)
    # the attr is a float32, whatever the features are
    slope = scope.constant(node, "alpha", np.float32(alpha).astype(dtype.numpy), dtype)
    steps.made.append(slope)
    zeros = steps.add("zeros", "ZerosLike", features, T=dtype)
    positive = steps.add("positive", "Greater", features, zeros, T=dtype)
    leak = steps.add("leak", "Mul", features, scope.output(slope), T=dtype)
    return steps.select(positive, features, leak, dtype)


def _zero_where(op: str) -> Rule:
    """Return the rule for an op that is another one, but zero where its second input is zero."""

    def rule(node: Node, scope: Scope) -> Replacement | str:
        data, dtype = _data(node), _dtype(node)
        if dtype is None:
            return _OPEN
        if not dtype.is_float:
            return "of complex numbers it divides in another way than RealDiv"
        steps = _Steps(node, scope)
        result = steps.add("plain", op, *data, T=dtype)
        zeros = steps.add("zeros", "ZerosLike", result, T=dtype)
        none = steps.add("zero", "ZerosLike", data[1], T=dtype)
        is_none = steps.add("is_zero", "Equal", data[1], none, T=dtype)
        # nowhere true, and as large as the other input, so that the choice is as large as the result
        blank = steps.add("blank", "ZerosLike", data[0], T=dtype)
        never = steps.add("never", "NotEqual", blank, blank, T=dtype)
        everywhere = steps.add("everywhere", "LogicalOr", is_none, never)
        return steps.select(everywhere, zeros, result, dtype)

    return rule


RULES: Mapping[str, Rule] = {
    "AddV2": _same_kernel("Add"),
    "BatchMatMulV3": _batch_matmul_v3,
    "BatchMatMulV2": _batch_matmul_v2,
    "FusedBatchNormV3": _fused_batch_norm_v3,
    "MatrixDiagV3": _main_diagonal("MatrixDiag", 1, pads=True, sizes=True),
    "MatrixDiagV2": _main_diagonal("MatrixDiag", 1, pads=True, sizes=True),
    "MatrixDiagPartV3": _main_diagonal("MatrixDiagPart", 1),
    "MatrixDiagPartV2": _main_diagonal("MatrixDiagPart", 1),
    "MatrixSetDiagV3": _main_diagonal("MatrixSetDiag", 2),
    "MatrixSetDiagV2": _main_diagonal("MatrixSetDiag", 2),
    "NonMaxSuppressionV5": _non_max_suppression_v5,
    "NonMaxSuppressionV4": _non_max_suppression_v4,
    "StatelessIf": _same_kernel("If"),
    "StatelessWhile": _same_kernel("While"),
    "StatelessCase": _same_kernel("Case"),
    "StaticRegexFullMatch": _static_regex("RegexFullMatch", ("pattern",)),
    "StaticRegexReplace": _static_regex("RegexReplace", ("pattern", "rewrite")),
    "ImageProjectiveTransformV3": _image_projective_transform_v3,
    "QuantizeAndDequantizeV4": _same_kernel("QuantizeAndDequantizeV2"),
    "ParseExampleV2": _parse_example_v2,
    "ResourceGatherNd": _resource_gather_nd,
    "SelectV2": _select_v2,
    "LeakyRelu": _leaky_relu,
    "DivNoNan": _zero_where("RealDiv"),
    "MulNoNan": _zero_where("Mul"),
    "DisableCopyOnRead": _no_op,
}
"""op -> the rule that replaces a node of it."""

NO_EQUIVALENT: Mapping[str, str] = {
    "Einsum": "MatMul and Mul would add in another order",
    "BroadcastTo": "no older op copies elements of every type alike",
    "ClipByValue": "Minimum and Maximum treat NaN in another way",
    "ExtractGlimpseV2": "ExtractGlimpse looks at other places",
    "EnsureShape": "no older op checks a shape and keeps it",
    "Xdivy": "it keeps the sign of zeros here and there, and no older op does",
    "Xlogy": "Log and Mul round in another way than it does",
    "PartitionedCall": "frozen-graph and meta-graph inline calls",
    "StatefulPartitionedCall": "frozen-graph and meta-graph inline calls",
    "If": "older control flow (Switch, Merge) runs nodes one by one and is not made from functions",
    "While": "older control flow (Enter, Exit) runs nodes one by one and is not made from functions",
    "StringLower": "older versions have no case folding",
    "StringUpper": "older versions have no case folding",
}
"""op -> why nothing older is exactly it, of ops that people meet."""
