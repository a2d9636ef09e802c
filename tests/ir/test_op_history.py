"""The table of TensorFlow's ops: facts of its history, the sanity of every record, and TensorFlow's own registry."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.ir import op_history as module
from tfthaw.ir.attrs import AttrList, FunctionName, OpaqueAttr, Shape
from tfthaw.ir.op_history import (
    Argument,
    dtype_since,
    earliest_version,
    graph_version_of,
    op_history,
    package_of,
    unregistered,
    versions,
)
from tfthaw.proto.text import parse_text

# The table is of the builds with CUDA; the tests may run with one without.
GPU_ONLY = {"_CopyFromGpuToHost", "_CopyFromHostToGpu", "TRTEngineOp", "GetCalibrationDataOp",
            "CreateTRTResourceHandle", "InitializeTRTResource", "SerializeTRTResource"}  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
PYTHON_TYPES = {
    "string": bytes, "int": int, "float": float, "bool": bool, "type": DType, "shape": Shape, "func": FunctionName,
    "tensor": OpaqueAttr,
}  # fmt: skip


def every_op() -> list[str]:
    return list(module._table()[1])


# --- facts ------------------------------------------------------------------------------------------------------------


def test_versions_are_every_minor_release_in_order():
    places = [tuple(map(int, version.split("."))) for version in versions()]
    assert versions()[0] == "0.12"
    assert places == sorted(places)
    assert {(1, minor) for minor in range(16)} <= set(places)
    assert {(2, minor) for minor in range(22)} <= set(places)


@pytest.mark.parametrize(
    ("op", "since", "until"),
    [
        ("MatMul", "0.12", None),
        ("AddV2", "1.5", None),
        ("StatelessIf", "1.11", None),
        ("XlaCallModule", "2.10", None),
        ("BatchSvd", "0.12", None),
        ("Resampler", "1.3", "1.15"),
        ("TRTEngineOp", "1.7", "2.17"),
        ("_Arg", "0.12", None),
    ],
)
def test_since_and_until(op, since, until):
    history = op_history(op)
    assert history is not None
    assert (history.since, history.until) == (since, until)


def test_a_custom_op_has_no_history():
    assert op_history("MyCustomOp") is None
    assert op_history("") is None


def test_an_attr_that_came_later():
    history = op_history("Conv2D")
    assert [attr.name for attr in history.attrs] == [
        "T", "strides", "use_cudnn_on_gpu", "padding", "explicit_paddings", "data_format", "dilations",
    ]  # fmt: skip
    dilations = history.attr("dilations")
    assert (dilations.type, dilations.since, dilations.until) == ("list(int)", "1.5", None)
    assert dilations.default == AttrList("i", [1, 1, 1, 1])
    assert history.attr("explicit_paddings").default == AttrList("", [])
    assert history.attr("strides").default is None
    assert history.attr("nothing") is None


def test_a_default_that_changed():
    shape = op_history("Placeholder").attr("shape")
    assert shape.default == Shape(None)
    assert shape.default_in("1.1") == Shape(())
    assert shape.default_in("1.2.1") == Shape(None)
    assert shape.default_in("2.21.0-rc1") == Shape(None)


def test_no_default_before_the_attr():
    assert op_history("Fill").attr("index_type").default_in("1.5") is None
    assert op_history("Fill").attr("index_type").default_in("1.6") is DType.int32


def test_an_attr_that_went():
    attr = op_history("CollectiveReduce").attr("communication_hint")
    assert attr.default == b"auto"
    gone = op_history("PrefetchDataset").attr("legacy_autotune")
    assert gone.since > "1."
    assert gone.default is True


def test_allowed_values_with_the_version_of_each():
    padding = op_history("Conv2D").attr("padding")
    assert padding.allowed == ((b"SAME", "0.12"), (b"VALID", "0.12"), (b"EXPLICIT", "1.14"))
    assert (DType.bfloat16, "1.5") in op_history("Conv2D").attr("T").allowed
    assert op_history("Identity").attr("T").allowed == ()


def test_what_an_older_version_allows_and_a_newer_does_not_restrict():
    of_equal = op_history("Equal").attr("T")
    assert of_equal.allowed == ()
    assert of_equal.allowed_in("2.4") is None
    assert DType.uint32 not in of_equal.allowed_in("1.15")
    assert DType.float32 in of_equal.allowed_in("1.15")
    data_format = op_history("FusedBatchNorm").attr("data_format")
    assert data_format.allowed_in("1.11") is None
    assert data_format.allowed_in("1.12") == (b"NHWC", b"NCHW")


def test_ops_that_left_contrib():
    cell = op_history("LSTMBlockCell")
    assert (cell.contrib, cell.contrib_in[-1]) == (False, "1.14")
    assert "1.4" in cell.contrib_in


def test_attrs_that_came_back():
    of_loss = op_history("CTCLoss").attr("T")
    assert (of_loss.since, of_loss.until, of_loss.absent) == ("1.15", None, ("2.0",))
    assert [of_loss.is_in(version) for version in ("1.14", "1.15", "2.0", "2.1")] == [False, True, False, True]


def test_arguments_of_older_versions():
    stack = op_history("TensorListStack")
    before, after = stack.arguments_in("1.13"), stack.arguments_in("1.14.0")
    assert [argument.name for argument in before[0]] == ["input_handle"]
    assert [argument.name for argument in after[0]] == ["input_handle", "element_shape"]
    assert after == (stack.inputs, stack.outputs)


def test_graph_versions_and_element_types():
    assert (graph_version_of("1.4"), graph_version_of("1.15.0"), graph_version_of("2.21")) == (24, 134, 2474)
    assert (dtype_since(DType.float32), dtype_since(DType.uint32), dtype_since(DType.float8_e5m2)) == (
        "0.12", "1.5", "2.12",
    )  # fmt: skip


def test_arguments():
    concat = op_history("ConcatV2")
    assert concat.inputs == (
        Argument("values", type_attr="T", number_attr="N"),
        Argument("axis", type_attr="Tidx"),
    )
    assert concat.outputs == (Argument("output", type_attr="T"),)
    assert op_history("Assign").inputs[0] == Argument("ref", type_attr="T", is_ref=True)
    assert op_history("SaveV2").inputs[3] == Argument("tensors", type_list_attr="dtypes")
    assert op_history("SaveV2").inputs[0] == Argument("prefix", DType.string)
    assert op_history("ConcatOffset").outputs == (Argument("offset", type_attr="shape_type", number_attr="N"),)
    assert op_history("NoOp").outputs == ()


def test_state_contrib_gaps_and_deprecation():
    assert op_history("VarHandleOp").is_stateful
    assert not op_history("MatMul").is_stateful
    assert op_history("Resampler").contrib
    assert not op_history("LSTMBlockCell").contrib  # it was, and moved to the core
    assert op_history("ScanDataset").absent == ("1.13", "1.14")
    assert op_history("MatMul").absent == ()
    version, explanation = op_history("BatchSvd").deprecated
    assert version == 13
    assert "Svd" in explanation


# --- questions about a graph's ops ------------------------------------------------------------------------------------


def test_unregistered_are_custom_and_dropped_ops():
    assert unregistered(["MatMul", "MyOp", "Resampler", "_Arg", "MyOp", "A_function"]) == [
        "A_function", "MyOp", "Resampler",
    ]  # fmt: skip
    assert unregistered([]) == []


def test_earliest_version():
    assert earliest_version(["MatMul", "Placeholder"]) == ("0.12", [])
    assert earliest_version([]) == ("0.12", [])
    assert earliest_version(["MatMul", "AddV2", "StatelessIf", "While"])[0] == "1.11"
    assert earliest_version(["MatMul", "AddV2", "StatelessIf"]) == ("1.11", ["StatelessIf"])
    assert earliest_version(iter(["MyOp", "AddV2"])) == ("1.5", ["AddV2"])


def test_earliest_version_steps_over_a_gap():
    first = op_history("ScanDataset").since
    assert earliest_version(["ScanDataset"])[0] == first
    later = next(op for op in every_op() if op_history(op).since == "1.13" and op_history(op).until is None)
    assert earliest_version(["ScanDataset", later]) == ("1.15", ["ScanDataset"])


def test_no_version_has_ops_that_never_met():
    assert earliest_version(["Resampler", "XlaCallModule", "MatMul"]) == (None, ["Resampler", "XlaCallModule"])


@pytest.mark.parametrize(
    ("op", "package"),
    [
        ("SentencepieceOp", "tensorflow-text"),
        ("RegexSplitWithOffsets", "tensorflow-text"),
        ("TFText>WhitespaceTokenizeWithOffsetsV2", "tensorflow-text"),
        ("SimpleMLInferenceOpWithHandle", "tensorflow-decision-forests"),
        ("Addons>Resampler", "tensorflow-addons"),
        ("IO>DecodeWebP", "tensorflow-io"),
        ("ProdEnvMatA", "deepmd-kit"),
        ("HorovodAllreduce", "horovod"),
        ("MyOp", None),
        ("", None),
    ],
)
def test_package_of(op, package):
    assert package_of(op) == package


def test_no_op_of_the_newest_tensorflow_is_laid_to_a_package():
    left = {op for op in every_op() if package_of(op)}
    assert left == set(unregistered(left)) == {"PmfToQuantizedCdf", "RangeDecode", "RangeEncode"}  # of tf.contrib.coder


# --- every record -----------------------------------------------------------------------------------------------------


def test_every_record_is_consistent():
    known = versions()
    assert len(every_op()) > 2000
    for name in every_op():
        history = op_history(name)
        attrs = {attr.name: attr.type for attr in history.attrs}
        assert len(attrs) == len(history.attrs), name
        assert known.index(history.since) <= known.index(history.until or known[-1]), name
        for argument in history.inputs + history.outputs:
            kinds = [argument.dtype, argument.type_attr, argument.type_list_attr]
            assert sum(kind is not None for kind in kinds) == 1, (name, argument)
            assert argument.type_attr is None or attrs[argument.type_attr] == "type", (name, argument)
            assert argument.type_list_attr is None or attrs[argument.type_list_attr] == "list(type)", (name, argument)
            assert argument.number_attr is None or attrs[argument.number_attr] == "int", (name, argument)
        for attr in history.attrs:
            assert known.index(history.since) <= known.index(attr.since), (name, attr)
            values = [value for _, value in attr.defaults] + [value for value, _ in attr.allowed]
            assert all(value is None or has_type(value, attr.type) for value in values), (name, attr)


def has_type(value: Any, kind: str) -> bool:
    single = kind[5:-1] if kind.startswith("list(") else kind
    if isinstance(value, AttrList):
        return kind != single and all(has_type(item, single) for item in value.items)
    return type(value) is PYTHON_TYPES[single]


def test_answers_are_frozen_and_shared():
    assert op_history("MatMul") is op_history("MatMul")
    with pytest.raises(AttributeError):
        op_history("MatMul").since = "2.0"


# --- the tool that makes the table ------------------------------------------------------------------------------------

RELEASES = [
    """op { name: "Old" output_arg { name: "y" type: DT_FLOAT is_ref: true }
         deprecation { version: 7 explanation: "Use New" } }""",
    """op { name: "Op" is_stateful: true
         input_arg { name: "x" type_attr: "T" number_attr: "N" } input_arg { name: "rest" type_list_attr: "Ts" }
         attr { name: "N" type: "int" has_minimum: true minimum: 1 } attr { name: "Ts" type: "list(type)" }
         attr { name: "T" type: "type" allowed_values { list { type: DT_FLOAT type: DT_HALF } } }
         attr { name: "lost" type: "list(string)" default_value { list { s: "\\377" } } }
         attr { name: "mode" type: "string" default_value { s: "a" } } }
       op { name: "Gap" }""",
    """op { name: "Op" input_arg { name: "x" type_attr: "T" number_attr: "N" }
         attr { name: "N" type: "int" } attr { name: "mode" type: "string" }
         attr { name: "T" type: "type" allowed_values { list { type: DT_DOUBLE type: DT_FLOAT } } }
         attr { name: "rate" type: "float" default_value { f: 0.1 } }
         attr { name: "call" type: "func" default_value { func { name: "g" } } }
         attr { name: "shapes" type: "list(shape)"
                default_value { list { shape { dim { size: -1 } } shape { unknown_rank: true } } } }
         attr { name: "color" type: "tensor" default_value { tensor { dtype: DT_INT8 } } } }""",
    """op { name: "Op" input_arg { name: "x" type_attr: "T" number_attr: "N" }
         attr { name: "N" type: "int" } attr { name: "mode" type: "string" default_value { s: "b" } }
         attr { name: "T" type: "type" allowed_values { list { type: DT_DOUBLE type: DT_FLOAT } } } }
       op { name: "Gap" }""",
]


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_op_history", ROOT / "tools" / "make_op_history.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def small_table(tool, monkeypatch) -> Iterator[None]:
    op_lists = [parse_text(proto.message_class("tensorflow.OpList"), text) for text in RELEASES]
    lines = tool.fold([(op_list, {"Gap"} if number == 3 else set()) for number, op_list in enumerate(op_lists)])
    ops = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    monkeypatch.setattr(module, "_table", lambda: (("1.8", "1.9", "1.10", "2.0"), ops))
    module._decoded.cache_clear()
    yield
    module._decoded.cache_clear()


@pytest.mark.usefixtures("small_table")
def test_fold_and_read():
    old, op, gap = op_history("Old"), op_history("Op"), op_history("Gap")
    assert (old.since, old.until, old.deprecated) == ("1.8", "1.8", (7, "Use New"))
    assert old.outputs == (Argument("y", DType.float32, is_ref=True),)
    assert (gap.since, gap.until, gap.absent, gap.contrib) == ("1.9", None, ("1.10",), True)
    assert gap.contrib_in == ("2.0",)
    assert (op.since, op.until, op.is_stateful, op.contrib) == ("1.9", None, False, False)
    assert op.inputs == (Argument("x", type_attr="T", number_attr="N"),)
    assert [attr.name for attr in op.attrs] == ["N", "mode", "T", "rate", "call", "shapes", "color", "Ts", "lost"]
    assert op.attr("T").allowed == ((DType.float64, "1.10"), (DType.float32, "1.9"))
    mode = op.attr("mode")
    assert mode.defaults == (("1.9", b"a"), ("1.10", None), ("2.0", b"b"))
    defaults = [mode.default_in(version) for version in ("1.8", "1.9", "1.10", "2.0", "2.7")]
    assert defaults == [None, b"a", None, b"b", b"b"]
    assert [len(op.arguments_in(version)[0]) for version in ("1.9", "1.10", "2.0")] == [2, 1, 1]
    assert op.attr("T").allowed_in("1.9") == (DType.float32, DType.float16)
    assert [op.is_in(version) for version in ("1.8", "1.9.3", "2.0")] == [False, True, True]
    assert [mode.is_in("1.8"), gap.is_in("1.9"), gap.is_in("1.10")] == [False, True, False]
    lost = op.attr("lost")
    assert not lost.is_in("1.10")
    assert (lost.since, lost.until, lost.default) == ("1.9", "1.9", AttrList("s", [b"\xff"]))
    rate = op.attr("rate")
    assert (rate.since, rate.until) == ("1.10", "1.10")
    assert rate.default == proto.AttrValue(f=0.1).f  # the float32, not the decimal
    assert op.attr("call").default == FunctionName("g")
    assert op.attr("shapes").default == AttrList("shape", [Shape((None,)), Shape(None)])
    tensor = proto.parse(proto.AttrValue, op.attr("color").default.data).tensor
    assert tensor.dtype == DType.int8


@pytest.mark.usefixtures("small_table")
def test_questions_of_a_small_table():
    assert earliest_version(["Old", "Op"]) == (None, ["Old", "Op"])
    assert earliest_version(["Op", "Gap"]) == ("1.9", ["Gap", "Op"])
    assert unregistered(["Old", "Op"]) == ["Old"]


def test_fold_refuses_an_attr_that_changes_its_type(tool):
    texts = ['op { name: "Op" attr { name: "n" type: "KIND" } }'.replace("KIND", kind) for kind in ("int", "float")]
    op_lists = [parse_text(proto.message_class("tensorflow.OpList"), text) for text in texts]
    with pytest.raises(AssertionError, match="attr n changed its type"):
        tool.fold([(op_list, set()) for op_list in op_lists])


def test_the_tool_and_the_table_name_the_same_releases(tool):
    assert tuple(release.minor for release in tool.RELEASES) == versions()
    assert all(release.version.startswith(f"{release.minor}.") for release in tool.RELEASES)


def test_generated_wrappers(tool, tmp_path):
    for place, name in (("python", "Core"), ("contrib", "Core"), ("contrib", "Extra")):
        data = proto.message_class("tensorflow.OpList")(op=[{"name": name}]).SerializeToString()
        path = tmp_path / place / "ops" / f"gen_{name.lower()}_ops.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import nothing_that_is_there\n_op_def_lib = _InitOpDefLibrary({data!r})\n")
    (tmp_path / "python" / "ops" / "gen_new_ops.py").write_text("# carries nothing, as from TensorFlow 2.1 on\n")
    text = '_InitOpDefLibrary.op_list_ascii = """op {\n  name: "Ancient"\n}\n"""\n'
    (tmp_path / "python" / "ops" / "gen_ancient_ops.py").write_text(text)
    carried, core, contrib = tool.generated(tmp_path)
    assert sorted(carried) == ["Ancient", "Core", "Extra"]
    assert core == {"Core", "Ancient"}
    assert contrib == {"Extra"}


def test_fold_of_what_headers_state(tool, monkeypatch):
    facts = [{"graph_version": 27, "dtypes": [1, 2]}, {"graph_version": 38, "dtypes": [1, 2, 21]}]
    assert tool.fold_stated(facts) == "[[27, 38], [[1, 0], [2, 0], [21, 1]]]"


def test_stated_by_a_wheel(tool, tmp_path):
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        folder = "tensorflow/include/tensorflow/core"
        archive.writestr(f"{folder}/public/version.h", "#define TF_GRAPH_DEF_VERSION 2474  // Updated\n")
        archive.writestr(f"{folder}/framework/types.pb.h", "DT_FLOAT = 1,\n  DT_HALF = 19,\n  DT_FLOAT_REF = 101,\n")
    assert tool.stated(wheel) == {"graph_version": 2474, "dtypes": [1, 19]}


def test_header_of_the_shipped_table_is_reproducible():
    data = (ROOT / "src" / "tfthaw" / "ir" / "op_history.json.gz").read_bytes()
    assert data[4:8] == bytes(4)  # gzip's time stamp: the same table is the same bytes
    assert len(data) < 400_000


# --- TensorFlow's own registry ----------------------------------------------------------------------------------------


@pytest.mark.tf
def test_agrees_with_the_installed_tensorflow():
    import tensorflow as tf
    from tensorflow.python.framework import op_def_registry

    minor = ".".join(tf.__version__.split(".")[:2])
    assert minor in versions(), "run tools/make_op_history.py for this TensorFlow"
    checked = 0
    for name in every_op():
        history, defined = op_history(name), op_def_registry.get(name)
        is_there = history.until is None or versions().index(history.until) >= versions().index(minor)
        if defined is None:
            came_later = versions().index(history.since) > versions().index(minor)
            assert not is_there or came_later or minor in history.absent or name in GPU_ONLY, name
            continue
        checked += 1
        assert {attr.name for attr in defined.attr} <= {attr.name for attr in history.attrs}, name
        if minor != versions()[-1]:
            continue
        assert is_there, name
        assert [argument_of(arg) for arg in defined.input_arg] == list(history.inputs), name
        assert [argument_of(arg) for arg in defined.output_arg] == list(history.outputs), name
        assert defined.is_stateful == history.is_stateful, name
        for attr in defined.attr:
            expected = read_attr(attr.default_value) if attr.HasField("default_value") else None
            found = history.attr(attr.name)
            assert (found.type, found.default, found.until) == (attr.type, expected, None), (name, attr.name)
            allowed = read_attr(attr.allowed_values).items if attr.HasField("allowed_values") else []
            assert [value for value, _ in found.allowed] == allowed, (name, attr.name)
    assert checked > 1500


def argument_of(arg: Any) -> Argument:
    dtype = DType(arg.type) if arg.type else None
    texts = (arg.type_attr or None, arg.number_attr or None, arg.type_list_attr or None)
    return Argument(arg.name, dtype, *texts, arg.is_ref)


def read_attr(value: Any) -> Any:
    """Read TensorFlow's AttrValue as the serde does; tensors stay bytes in the table."""
    if value.HasField("tensor") or len(value.list.tensor):
        return OpaqueAttr(value.SerializeToString())
    from tfthaw.serde import attrs

    return attrs.AttrReader({}, careful=True).read(proto.parse(proto.AttrValue, value.SerializeToString()))
