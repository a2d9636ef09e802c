"""`tfthaw export-inference-graph`: the two export scripts of the object detection API, flag for flag.

With `--trained_checkpoint_prefix` it is `export_inference_graph.py` (TensorFlow 1), with `--trained_checkpoint_dir`
`exporter_main_v2.py` (TensorFlow 2). Here are the flags, and what is printed; what they mean is in
`tfthaw.drop_ins.inference_graph` and `tfthaw.drop_ins.inference_module`.

Source: export_inference_graph.py and exporter_main_v2.py of the object detection API, and absl's spellings of flags
(`--flag=value`, `--flag value`, `-flag`, `--noflag`).
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfthaw.cli.rendering import good, heading, human_bytes, print_json, print_notes, progress_bar
from tfthaw.drop_ins.inference_graph import export_inference_graph
from tfthaw.drop_ins.inference_module import export_inference_module
from tfthaw.drop_ins.inference_options import INPUT_TYPES, InferenceOptions, read_input_shape
from tfthaw.drop_ins.inference_result import InferenceExport
from tfthaw.errors import UsageError

EXAMPLES = """\
examples:
  tfthaw export-inference-graph --input_type image_tensor --pipeline_config_path pipeline.config \\
      --trained_checkpoint_prefix train/model.ckpt-1000 --output_directory exported/
  tfthaw export-inference-graph --input_type image_tensor --pipeline_config_path pipeline.config \\
      --trained_checkpoint_dir train/ --output_directory exported/ --code model.py:build_model
"""

_TRUE, _FALSE = ("true", "t", "1", "yes", "y"), ("false", "f", "0", "no", "n")
_ARTIFACTS = 3  # that hold the weights; each is written and read back
_ABSL_FLAGS = ("log_dir", "stderrthreshold", "verbosity", "logtostderr", "alsologtostderr", "showprefixforinfo")
_NEGATIVE_SIZES = re.compile(r"^-\d+([.,].*)?$")  # `-1,300,300,3` is a value and no flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this subcommand."""
    parser._negative_number_matcher = _NEGATIVE_SIZES
    shared = parser.add_argument_group("flags of both scripts")
    _text(shared, "input_type", f"what is fed: {', '.join(INPUT_TYPES)} (default: image_tensor)", "TYPE")
    _text(shared, "pipeline_config_path", "the pipeline.config of the model", "FILE")
    _text(shared, "output_directory", "the directory to write", "DIR")
    _text(shared, "config_override", "protobuf text that is merged into the config", "TEXT")
    _switch(shared, "use_side_inputs", "whether --side_input_* declare further inputs of --code")
    _text(shared, "side_input_shapes", "their shapes: `1,2/1` for two of them", "SHAPES")
    _text(shared, "side_input_types", "their types: string, integer or float, between commas", "TYPES")
    _text(shared, "side_input_names", "their names, between commas", "NAMES")
    first = parser.add_argument_group("flags of export_inference_graph.py (TensorFlow 1)")
    _text(first, "trained_checkpoint_prefix", "the checkpoint, such as train/model.ckpt-1000", "CKPT")
    _text(first, "input_shape", "the shape of the images: `1,300,300,3`; -1 or None for unknown sizes", "SIZES")
    _switch(first, "write_inference_graph", "also write the graph as text (inference_graph.pbtxt)")
    _text(first, "additional_output_tensor_names", "nodes that the frozen graph keeps besides the outputs", "A,B")
    second = parser.add_argument_group("flags of exporter_main_v2.py (TensorFlow 2)")
    _text(second, "trained_checkpoint_dir", "the directory whose latest checkpoint to take", "DIR")
    own = parser.add_argument_group("flags that the scripts do not have")
    _text(own, "meta_graph", "the training run's graph (default: the .meta beside the checkpoint)", "FILE")
    _text(own, "code", "the model's Python, instead of a graph", "MODULE:CALLABLE")
    own.add_argument("--input", metavar="NAME:DTYPE[DIMS]", action="append", default=[],
                     help="for --code where the model does not say what it takes")  # fmt: skip
    _text(own, "input_tensor", "where to cut the graph: the batch of images (default: where its pipeline ends)", "NAME")
    _text(own, "output_tensors", "the outputs: `name=tensor` or `tensor`, between commas", "A,B")
    own.add_argument("--set", metavar="NODE=VALUE", action="append", default=[],
                     help="replace a placeholder by a constant")  # fmt: skip
    own.add_argument("--batch_norm", "--batch-norm", choices=("inference", "keep"), default="inference",
                     help="batch normalisation that was left in training mode (default: inference)")  # fmt: skip
    own.add_argument("--allow_missing", "--allow-missing", metavar="GLOB", action="append", default=[],
                     help="variables that may lack a moving average, or a value")  # fmt: skip
    own.add_argument("--verify", choices=("weights", "outputs"), help="what to prove (weights are always proved)")
    own.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    for name in _ABSL_FLAGS:  # every absl script takes them, and they change nothing here
        own.add_argument(f"--{name}", f"--no{name}", nargs="?", help=argparse.SUPPRESS)


def _text(group: argparse._ArgumentGroup, name: str, said: str, metavar: str) -> None:
    group.add_argument(f"--{name}", metavar=metavar, help=said)
    others = {f"-{name}", f"--{name.replace('_', '-')}"} - {f"--{name}"}
    group.add_argument(*sorted(others), dest=name, help=argparse.SUPPRESS)


def _switch(group: argparse._ArgumentGroup, name: str, said: str) -> None:
    dashed = name.replace("_", "-")
    group.add_argument(f"--{name}", metavar="true|false", nargs="?", const=True, default=False, type=_flag, help=said)
    group.add_argument(f"-{name}", f"--{dashed}", dest=name, nargs="?", const=True, default=False, type=_flag,
                       help=argparse.SUPPRESS)  # fmt: skip
    group.add_argument(f"--no{name}", f"-no{name}", f"--no{dashed}", dest=name, action="store_false", default=False,
                       help=argparse.SUPPRESS)  # fmt: skip


def _flag(text: str) -> bool:
    word = text.lower()
    if word not in (*_TRUE, *_FALSE):
        raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")
    return word in _TRUE


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status."""
    chosen = read_options(options)
    export = export_inference_graph if chosen.trained_checkpoint_dir is None else export_inference_module
    with progress_bar("exporting", 2 * _ARTIFACTS * _bytes_of(chosen.trained_checkpoint_prefix)) as progress:
        result = export(replace(chosen, progress=progress))
    if options.json:
        print_json(result.as_dict())
    else:
        _show(result)
    return 0


def _bytes_of(prefix: str | None) -> int:
    """Return about how many bytes a checkpoint has, for a progress bar."""
    if prefix is None:
        return 0
    path = Path(prefix)
    files = path.parent.glob("*") if path.parent.is_dir() else ()
    return sum(file.stat().st_size for file in files if file.name.startswith(f"{path.name}.data") and file.is_file())


def read_options(options: argparse.Namespace) -> InferenceOptions:
    """Return the options that the flags say.

    Raises:
        UsageError: One is missing that the scripts require, or they contradict each other.
    """
    missing = [f"--{name}" for name in ("pipeline_config_path", "output_directory") if getattr(options, name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given")
    return InferenceOptions(
        pipeline_config_path=options.pipeline_config_path,
        output_directory=options.output_directory,
        trained_checkpoint_prefix=options.trained_checkpoint_prefix,
        trained_checkpoint_dir=options.trained_checkpoint_dir,
        input_type=options.input_type or "image_tensor",
        input_shape=read_input_shape(options.input_shape) if options.input_shape else None,
        config_override=options.config_override or "",
        write_inference_graph=options.write_inference_graph,
        additional_output_tensor_names=_names(options.additional_output_tensor_names),
        meta_graph=options.meta_graph,
        code=options.code,
        input=[*options.input, *_side_inputs(options)],
        input_tensor=options.input_tensor,
        output_tensors=_names(options.output_tensors),
        set=dict(_setting(text) for text in options.set),
        batch_norm=options.batch_norm,
        allow_missing=options.allow_missing,
        verify=options.verify,
        overwrite=options.overwrite,
    )


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _setting(text: str) -> tuple[str, Any]:
    """Read NODE=VALUE; the value is JSON, or else a string."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"expected NODE=VALUE, found {text!r}", where="--set")
    try:
        return name, json.loads(value.lower() if value in ("True", "False") else value)
    except ValueError:
        return name, value


def _side_inputs(options: argparse.Namespace) -> list[str]:
    """Return the side inputs as declarations of what code takes."""
    if not options.use_side_inputs:
        return []
    types = {"string": "string", "integer": "int32", "float": "float32"}
    names, kinds = _names(options.side_input_names), _names(options.side_input_types)
    shapes = [shape.strip() for shape in (options.side_input_shapes or "").split("/") if shape.strip()]
    if not len(names) == len(kinds) == len(shapes):
        raise UsageError(
            f"side inputs have {len(names)} names, {len(kinds)} types and {len(shapes)} shapes; one of each is needed "
            f"for each", where="--use_side_inputs",
        )  # fmt: skip
    unknown = [kind for kind in kinds if kind not in types]
    if unknown:
        raise UsageError(f"{unknown[0]!r} in --side_input_types is none of {', '.join(types)}")
    return [
        f"{name}:{types[kind]}[{','.join('?' if size is None else str(size) for size in read_input_shape(shape))}]"
        for name, kind, shape in zip(names, kinds, shapes, strict=True)
    ]


def _show(result: InferenceExport) -> None:
    proof = result.verified
    heading(f"{result.path}  ({result.layout}, {human_bytes(result.bytes)}, {result.seconds:.2f} s)")
    for name in result.files:
        print(f"  {name}")
    for title, names in (("inputs", result.inputs), ("outputs", result.outputs)):
        print(f"  {title}: " + ", ".join(f"{name} -> {tensor}" for name, tensor in names.items()))
    weights = proof.weights
    print(f"  weights: {good('proved')}, {weights.compared} tensors, {human_bytes(weights.bytes)}, bit for bit")
    if proof.outputs.done:
        print(f"  outputs: {good('proved')} with {proof.outputs.runtime}, largest difference "
              f"{proof.outputs.max_abs:.3g}")  # fmt: skip
    else:
        print(f"  outputs: not compared ({proof.outputs.why_not})")
    print_notes(result.notes)
