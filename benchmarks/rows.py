"""What is measured, and what it must reach. Adding a row here is all that a new comparison needs."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import inputs
from benchmarks.measure import ROOT, Command, python

OUTPUTS = ROOT / "bench-out" / "outputs"


@dataclass(frozen=True)
class Bars:
    """The promises of one row; None where there is none.

    Attributes:
        ratios: Reference's name -> the largest share of its time that we may take. N times its rate is 1/N of its time.
        seconds: The longest time.
        rss_mb: The largest peak of resident memory, MB.
    """

    ratios: dict[str, float]
    seconds: float | None = None
    rss_mb: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What `--only` matches.
        work: The work, in words.
        source: The input, by its name in `inputs`.
        ours: The command that is judged.
        references: What it is compared with, by a short name.
        bars: What it must reach.
    """

    name: str
    work: str
    source: str
    ours: Command
    references: dict[str, Command]
    bars: Bars


def rows() -> list[Row]:
    """Return every row, cheap ones first."""
    return [*_listing(), *_reading(), *_large_graph(), *_gib_model(), *_functions(), *_code()]


def _listing() -> list[Row]:
    two, ten = inputs.prefix("variables-2000"), inputs.prefix("variables-10000")
    tool = "tensorflow.python.tools.inspect_checkpoint"
    return [
        Row("inspect", "inspect a checkpoint of 2,000 variables", "variables-2000",
            _tfthaw("inspect", two),
            {"inspect_checkpoint": Command("inspect_checkpoint", python("-m", tool, f"--file_name={two}"))},
            Bars({"inspect_checkpoint": 1 / 10}, rss_mb=60)),
        Row("open", "open an index of 10,000 variables, in process", "variables-10000",
            _in_process("tfthaw-open", ten), {"reader": _in_process("tensorflow-open", ten)}, Bars({"reader": 3})),
        Row("list", "open it and get every shape, in process", "variables-10000",
            _in_process("tfthaw-list", ten), {"load": _in_process("tensorflow-list", ten)}, Bars({"load": 3})),
    ]  # fmt: skip


def _reading() -> list[Row]:
    gib = inputs.prefix("model-1gib")
    reference = {"get_tensor": _in_process("tensorflow-read", gib)}
    return [
        Row("read", "read every tensor of 1 GiB, CRC checked, in process", "model-1gib",
            _in_process("tfthaw-read", gib), reference, Bars({"get_tensor": 1})),
        Row("read-unchecked", "the same without CRC, in process", "model-1gib",
            _in_process("tfthaw-read-unchecked", gib), reference, Bars({"get_tensor": 1 / 2})),
    ]  # fmt: skip


def _large_graph() -> list[Row]:
    source = inputs.prefix("nodes-20000")
    return [
        Row("inspect-graph", "inspect a graph of 20,000 nodes", "nodes-20000",
            _tfthaw("inspect", _meta(source)), {}, Bars({}, seconds=1)),
        Row("freeze-graph", "prune and freeze a graph of 20,000 nodes", "nodes-20000",
            _convert(source, "large.pb", "frozen-graph"),
            {"freeze_graph": _freeze_graph(source, "large-by-tensorflow.pb")}, Bars({}, seconds=4)),
    ]  # fmt: skip


def _gib_model() -> list[Row]:
    source = inputs.prefix("model-1gib")
    return [
        Row("freeze", "1 GiB model of 64 variables -> frozen graph, weights proved", "model-1gib",
            _convert(source, "frozen.pb", "frozen-graph"),
            {"freeze_graph": _freeze_graph(source, "frozen-by-tensorflow.pb"), "cp + sync": _copy(source)},
            Bars({"freeze_graph": 1 / 10, "cp + sync": 4}, rss_mb=150)),
        Row("saved-model", "1 GiB model -> SavedModel of TensorFlow 2, weights proved", "model-1gib",
            _convert(source, "saved", "saved-model"),
            {"cp + sync": _copy(source)}, Bars({"cp + sync": 5}, rss_mb=200)),
        Row("safetensors", "1 GiB model -> safetensors, weights proved", "model-1gib",
            _convert(source, "weights.safetensors", "safetensors"),
            {"cp + sync": _copy(source)}, Bars({"cp + sync": 5}, rss_mb=150)),
    ]  # fmt: skip


def _functions() -> list[Row]:
    gib, many = inputs.prefix("saved-model-1gib"), inputs.prefix("functions-500")
    return [
        Row("inline", "inline and freeze 20,000 nodes in 500 functions", "functions-500",
            _convert_saved(many, "inlined.pb"),
            {"convert_variables_v2": _constants_v2(many, "inlined-by-tensorflow.pb")}, Bars({}, seconds=6)),
        Row("freeze-saved-model", "1 GiB SavedModel of TensorFlow 2 -> frozen graph, proved", "saved-model-1gib",
            _convert_saved(gib, "frozen-v2.pb"),
            {"convert_variables_v2": _constants_v2(gib, "frozen-v2-by-tensorflow.pb")},
            Bars({"convert_variables_v2": 1 / 20}, rss_mb=200)),
    ]  # fmt: skip


def _code() -> list[Row]:
    """Return the rows from code and a checkpoint: start, import and the building of the model count for both sides."""
    source = inputs.prefix("vgg")
    return [
        Row("vgg-saved-model", "code of VGG16 and 528 MiB checkpoint -> SavedModel, weights proved", "vgg",
            _convert_code(source, "vgg-saved", "saved-model"),
            {"model.export": _keras_export("export", source, "vgg-by-keras")}, Bars({"model.export": 1.5})),
        Row("vgg-proved", "the same, outputs proved too", "vgg",
            _convert_code(source, "vgg-proved", "saved-model", "outputs"),
            {"model.export": _keras_export("export", source, "vgg-by-keras")}, Bars({"model.export": 1.5})),
        Row("vgg-freeze", "code of VGG16 and 528 MiB checkpoint -> frozen graph, weights proved", "vgg",
            _convert_code(source, "vgg.pb", "frozen-graph"),
            {"convert_variables_v2": _keras_export("freeze", source, "vgg-by-tensorflow.pb")},
            Bars({"convert_variables_v2": 1 / 5})),
    ]  # fmt: skip


def _convert_code(source: Path, name: str, target: str, verify: str = "weights") -> Command:
    code = f"{Path(__file__).with_name('vgg.py')}:build_model"
    return _tfthaw("convert", source, OUTPUTS / name, "--to", target, "--code", code, "--verify", verify,
                   output=OUTPUTS / name)  # fmt: skip


def _keras_export(work: str, source: Path, name: str) -> Command:
    titles = {"export": "build, restore, model.export", "freeze": "build, restore, convert_variables_to_constants_v2"}
    return Command(titles[work], python("-m", "benchmarks.keras_export", work, source, OUTPUTS / name), OUTPUTS / name)


def _convert_saved(source: Path, name: str) -> Command:
    return _tfthaw("convert", source, OUTPUTS / name, "--to", "frozen-graph", "--verify", "weights",
                   output=OUTPUTS / name)  # fmt: skip


def _constants_v2(source: Path, name: str) -> Command:
    argv = python("-m", "benchmarks.constants_v2", source, OUTPUTS / name)
    return Command("convert_variables_to_constants_v2", argv, OUTPUTS / name)


def _meta(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.meta")


def _tfthaw(command: str, *argv: str | Path, output: Path | None = None) -> Command:
    return Command(f"tfthaw {command}", python("-m", "tfthaw", command, *argv), output)


def _convert(prefix: Path, name: str, target: str) -> Command:
    outputs = [] if target == "safetensors" else ["--outputs", inputs.OUTPUT_NODE]
    return _tfthaw("convert", _meta(prefix), OUTPUTS / name, "--to", target, *outputs, "--verify", "weights",
                   output=OUTPUTS / name)  # fmt: skip


def _in_process(work: str, prefix: Path) -> Command:
    return Command(work, python("-m", "benchmarks.in_process", work, prefix), in_process=True)


def _freeze_graph(prefix: Path, name: str) -> Command:
    argv = python("-m", "tensorflow.python.tools.freeze_graph", f"--input_meta_graph={_meta(prefix)}",
                  f"--input_checkpoint={prefix}", "--input_binary=true", f"--output_node_names={inputs.OUTPUT_NODE}",
                  f"--output_graph={OUTPUTS / name}")  # fmt: skip
    return Command("freeze_graph", argv, OUTPUTS / name)


def _copy(prefix: Path) -> Command:
    source, copy = f"{prefix}.data-00000-of-00001", OUTPUTS / "copy"
    return Command("cp + sync", ("sh", "-c", 'cp "$0" "$1" && sync "$1"', source, str(copy)), copy)
