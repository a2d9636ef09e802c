"""Older equivalents give the same bits: each rule on nodes that TensorFlow made, before and after, bits compared."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from older_judge import unreadable
from tfthaw import proto
from tfthaw.errors import UnsupportedError
from tfthaw.formats.wire import Contents
from tfthaw.ir.graph import TensorName
from tfthaw.passes.older_versions import for_version
from tfthaw.serde.graphs import graph_from_proto, graph_to_proto
from v1_sessions import plain_config, v1_control_flow

pytestmark = pytest.mark.tf

ODD = np.array([0.0, -0.0, 1.5, -2.25, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, 7.0, -1.0], np.float32)
OTHER = np.roll(ODD, 5)
RANDOM = np.random.default_rng(5)
IMAGE = RANDOM.standard_normal((2, 5, 6, 3), np.float32)


def graph_of(tf, build, feeds, v1_flow=False):
    """Return the graph that a function of placeholders builds, and the names of its outputs."""
    graph = tf.Graph()
    with graph.as_default(), v1_control_flow(tf) if v1_flow else contextlib.nullcontext():
        inputs = [tf.compat.v1.placeholder(array.dtype, [None] * array.ndim, name=name)
                  for name, array in feeds.items()]  # fmt: skip
        outputs = build(tf, *inputs)
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    definition = proto.parse(proto.GraphDef, graph.as_graph_def(add_shapes=True).SerializeToString())
    return graph_from_proto(definition), [output.name for output in outputs]


def run(tf, graph, outputs, feeds, init=()):
    message = graph_to_proto(graph, Contents())
    definition = tf.compat.v1.GraphDef.FromString(proto.serialize(message))
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(definition, name="")
        with tf.compat.v1.Session(config=plain_config(tf), graph=loaded) as session:
            session.run(list(init))
            return session.run(outputs, {f"{name}:0": array for name, array in feeds.items()})


def assert_same_bits(one, other):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    if one.dtype == object:
        assert one.tolist() == other.tolist()
        return
    if one.dtype.kind in "fc":  # which NaN it is, kernels do not promise even to themselves
        assert np.array_equal(np.isnan(one), np.isnan(other))
        one, other = np.where(np.isnan(one), 0, one), np.where(np.isnan(other), 0, other)
    assert one.tobytes() == other.tobytes()


def assert_replaced(tf, build, feeds, version, old, new, *, v1_flow=False, init=()):
    """Make a graph for an older version and return it: it says the same, and that version knows all of it."""
    graph, outputs = graph_of(tf, build, feeds, v1_flow)
    assert old in {node.op for node in graph.walk()}
    fitted = for_version(graph, version, fetched=map(TensorName.parse, outputs))
    ops = {node.op for node in fitted.graph.walk()}
    assert new in ops
    assert old not in ops
    assert unreadable(fitted.graph, version) == []
    assert any(f"{old} became {new}" in note for note in fitted.notes)
    before, after = run(tf, graph, outputs, feeds, init), run(tf, fitted.graph, outputs, feeds, init)
    for one, another in zip(before, after, strict=True):
        assert_same_bits(np.asarray(one), np.asarray(another))
    return fitted


def elementwise(op, dtype=np.float32):
    return {"x": ODD.astype(dtype)[:, None], "y": OTHER.astype(dtype)}, lambda tf, x, y: getattr(tf.raw_ops, op)(
        x=x, y=y
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("op", "new", "version"), [
    ("AddV2", "Add", "1.4"), ("DivNoNan", "Select", "1.10"), ("MulNoNan", "Select", "1.13"),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_elementwise(tf, op, new, version, dtype):
    feeds, build = elementwise(op, dtype)
    assert_replaced(tf, build, feeds, version, op, new)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", ["DivNoNan", "MulNoNan"])
@pytest.mark.parametrize("shapes", [((), (3,)), ((3,), ()), ((2, 1), (1, 3)), ((0, 2), (2,)), ((37,), (37,))])
def test_zero_where_broadcasts(tf, op, shapes):
    feeds = {name: RANDOM.integers(-1, 2, shape).astype("f4") for name, shape in zip("xy", shapes, strict=True)}
    build = lambda tf, x, y: getattr(tf.raw_ops, op)(x=x, y=y)  # noqa: E731
    assert_replaced(tf, build, feeds, "1.10", op, "Select")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("alpha", [0.2, 0.01, 0.0, 1.0, 2.5, -0.5])
def test_leaky_relu(tf, dtype, alpha):
    with np.errstate(over="ignore"):
        numbers = np.concatenate([ODD, RANDOM.standard_normal(200)]).astype(dtype)
    build = lambda tf, x: tf.raw_ops.LeakyRelu(features=x, alpha=alpha)  # noqa: E731
    assert_replaced(tf, build, {"x": numbers}, "1.12", "LeakyRelu", "Select")


@pytest.mark.parametrize("shapes", [
    ((3, 4), (3, 4), (3, 4)), ((), (3, 4), (3, 4)), ((3, 1), (4,), ()), ((4,), (3, 4), (3, 4)),
    ((2, 1, 1), (3, 1), (1, 4)),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["f4", "i8", "string"])
def test_select_v2(tf, shapes, kind):
    def build(tf, c, t, e):
        branches = [tf.strings.as_string(item) if kind == "string" else item for item in (t, e)]
        return tf.raw_ops.SelectV2(condition=c, t=branches[0], e=branches[1])

    feeds = {
        name: np.asarray(RANDOM.integers(0, top, shape)).astype(dtype)
        for name, shape, top, dtype in zip(
            "cte", shapes, (2, 9, 9), ("?", *2 * ["i4" if kind == "string" else kind]), strict=True
        )
    }
    assert_replaced(tf, build, feeds, "1.13", "SelectV2", "Select")


def test_select_v2_needs_no_broadcast_where_shapes_are_known(tf):
    def build(tf, x):
        known = tf.ensure_shape(x, [3])
        return tf.raw_ops.SelectV2(condition=known > tf.zeros([3]), t=known, e=tf.constant([1.0, 2.0, 3.0]))

    fitted = assert_replaced(tf, build, {"x": np.float32([1, -1, 0])}, "1.13", "SelectV2", "Select")

    assert "BroadcastTo" not in {node.op for node in fitted.graph.nodes}


def batch_matmuls(tf):
    """Compare batches of matrix products, without and with broadcasting, as far as versions know it."""
    x = RANDOM.standard_normal((2, 3, 4, 5)).astype("f4")
    for adjoint in (False, True):

        def build(tf, x, y, adjoint=adjoint):
            x, y = tf.ensure_shape(x, [2, 3, 4, 5]), tf.ensure_shape(y, [2, 3, 4, 5])
            return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_x=adjoint, adj_y=not adjoint)

        assert_replaced(tf, build, {"x": x, "y": x + 1}, "2.5", "BatchMatMulV3", "BatchMatMulV2")
        assert_replaced(tf, build, {"x": x, "y": x + 1}, "1.13", "BatchMatMulV3", "BatchMatMul")
    wide = lambda tf, x, y: tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32)  # noqa: E731
    feeds = {"x": x, "y": x[0, 0].T.copy()}
    assert_replaced(tf, wide, feeds, "1.14", "BatchMatMulV3", "BatchMatMulV2")


def test_batch_matmul():
    """Without oneDNN, which takes BatchMatMulV2 away from TensorFlow's own kernel, and V3 not."""
    code = "import tensorflow, test_older_versions_tensorflow as test; test.batch_matmuls(tensorflow)"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_batch_matmul_that_may_broadcast_is_refused(tf):
    build = lambda tf, x, y: tf.raw_ops.BatchMatMulV2(x=x, y=y)  # noqa: E731
    graph, _ = graph_of(tf, build, {"x": IMAGE, "y": IMAGE})
    with pytest.raises(UnsupportedError, match=r"BatchMatMulV2 is there .*; not replaced: it broadcasts"):
        for_version(graph, "1.13")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("version", ["1.4", "1.13"])
def test_fused_batch_norm(tf, training, version):
    def build(tf, x, s, o, m, v):
        if training:
            m = v = tf.constant([], tf.float32)
        normed = tf.raw_ops.FusedBatchNormV3(x=x, scale=s, offset=o, mean=m, variance=v, is_training=training)
        return normed.y, normed.batch_mean, normed.batch_variance

    feeds = {"x": IMAGE, **{name: np.abs(RANDOM.standard_normal(3)).astype("f4") for name in "somv"}}
    assert_replaced(tf, build, feeds, version, "FusedBatchNormV3", "FusedBatchNormV2")


@pytest.mark.parametrize("version", ["1.14", "2.1"])
def test_diagonals(tf, version):
    def build(tf, x, y):
        return tf.linalg.diag(x), tf.linalg.diag_part(y), tf.linalg.set_diag(y, x)

    feeds = {"x": RANDOM.standard_normal((2, 3)).astype("f4"), "y": RANDOM.standard_normal((2, 3, 3)).astype("f4")}
    fitted = assert_replaced(tf, build, feeds, version, "MatrixDiagV3", "MatrixDiag")
    assert {"MatrixDiagPart", "MatrixSetDiag"} <= {node.op for node in fitted.graph.nodes}


@pytest.mark.parametrize(("old", "version"), [("V5", "1.14"), ("V4", "1.10")])
def test_non_max_suppression(tf, old, version):
    boxes = RANDOM.random((40, 4)).astype("f4")
    boxes[:, 2:] += boxes[:, :2]

    def build(tf, boxes, scores):
        limits = {"max_output_size": 12, "iou_threshold": 0.4, "score_threshold": 0.1}
        asked = {"boxes": boxes, "scores": scores, **limits}
        if old == "V5":
            return tf.raw_ops.NonMaxSuppressionV5(**asked, soft_nms_sigma=0.0).selected_indices
        return tf.raw_ops.NonMaxSuppressionV4(**asked).selected_indices

    feeds = {"boxes": boxes, "scores": RANDOM.random(40).astype("f4")}
    assert_replaced(tf, build, feeds, version, f"NonMaxSuppression{old}", "NonMaxSuppressionV3")


def test_regular_expressions(tf):
    def build(tf, x):
        return tf.raw_ops.StaticRegexFullMatch(input=x, pattern="a.*"), tf.raw_ops.StaticRegexReplace(
            input=x, pattern="(b)", rewrite="<\\1>", replace_global=False
        )

    feeds = {"x": np.array([b"abb", b"b", b"", b"\xffa"], object)}
    with_strings = {"x": feeds["x"]}
    assert_replaced(tf, lambda tf, x: build(tf, x), with_strings, "1.10", "StaticRegexFullMatch", "RegexFullMatch")
    assert_replaced(tf, lambda tf, x: build(tf, x), with_strings, "1.10", "StaticRegexReplace", "RegexReplace")


def test_projective_transforms(tf):
    def build(tf, x):
        turn = tf.constant([[0.8, -0.3, 1.0, 0.2, 0.9, -0.5, 0.0, 0.0]])
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=x, transforms=turn, output_shape=[5, 6], fill_value=0.0, interpolation="BILINEAR"
        )

    assert_replaced(tf, build, {"x": IMAGE}, "2.3", "ImageProjectiveTransformV3", "ImageProjectiveTransformV2")
    assert_replaced(tf, build, {"x": IMAGE}, "1.11", "ImageProjectiveTransformV3", "ImageProjectiveTransformV2")


@pytest.mark.parametrize("given", [False, True])
def test_fake_quantization(tf, given):
    def build(tf, x):
        return tf.raw_ops.QuantizeAndDequantizeV4(input=x, input_min=-1.0, input_max=2.0, range_given=given)

    assert_replaced(tf, build, {"x": IMAGE}, "1.15", "QuantizeAndDequantizeV4", "QuantizeAndDequantizeV2")


def test_gathers_of_variables(tf):
    def build(tf, ids):
        variable = tf.compat.v1.get_variable("w", initializer=IMAGE[0], use_resource=True)
        tf.group(variable.initializer, name="init")
        return tf.raw_ops.ResourceGatherNd(resource=variable.handle, indices=ids, dtype=tf.float32)

    feeds = {"ids": np.int32([[0, 1], [4, 5]])}
    assert_replaced(tf, build, feeds, "1.13", "ResourceGatherNd", "GatherNd", init=["init"])


def test_stateless_control_flow(tf):
    def build(tf, x):
        grown = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 1.5), [0, x])[1]
        return tf.cond(tf.reduce_sum(grown) > 0, lambda: grown * 2.0, lambda: grown - 1.0)

    assert_replaced(tf, build, {"x": IMAGE}, "1.10", "StatelessIf", "If")
    assert_replaced(tf, build, {"x": IMAGE}, "1.10", "StatelessWhile", "While")


def test_in_a_loop_of_frames(tf):
    def build(tf, x):
        step = lambda i, y: (i + 1, tf.raw_ops.LeakyRelu(features=y - 1.0, alpha=0.3))  # noqa: E731
        return tf.compat.v1.while_loop(lambda i, y: i < 3, step, [0, x])[1]

    assert_replaced(tf, build, {"x": IMAGE}, "1.12", "LeakyRelu", "Select", v1_flow=True)


def test_in_functions(tf):
    def build(tf, x):
        @tf.function(input_signature=[tf.TensorSpec([None, 3])])
        def inner(x):
            normed = tf.raw_ops.LeakyRelu(features=x, alpha=0.3)
            matched = tf.raw_ops.StaticRegexReplace(input=tf.strings.as_string(normed), pattern="0", rewrite="x")
            return matched, tf.raw_ops.DivNoNan(x=normed, y=x), tf.linalg.diag(normed)

        return inner(x)

    feeds = {"x": RANDOM.standard_normal((4, 3)).astype("f4")}
    for version in ("1.11", "1.10"):
        assert_replaced(tf, build, feeds, version, "LeakyRelu", "Select")


def test_parsed_examples(tf):
    def example(values, word):
        features = {"a": tf.train.Feature(float_list=tf.train.FloatList(value=values))}
        if word:
            features["s"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[word]))
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    def build(tf, x):
        spec = {"a": tf.io.FixedLenFeature([2], tf.float32), "s": tf.io.VarLenFeature(tf.string)}
        parsed = tf.io.parse_example(tf.ensure_shape(x, [None]), spec)
        return parsed["a"], parsed["s"].indices, parsed["s"].values, parsed["s"].dense_shape

    feeds = {"x": np.array([example([1.0, 2.0], b"hi"), example([3.0, -0.0], b"")], object)}
    assert_replaced(tf, build, feeds, "1.15", "ParseExampleV2", "ParseExample")
