"""`tfthaw freeze-graph`: TensorFlow's `freeze_graph`, flag for flag, without TensorFlow.

Here are the flags with the spellings that TensorFlow's script and its forebears took, and what is printed. What the
flags mean is in `tfthaw.drop_ins.freeze_graph`.

Source: tensorflow/python/tools/freeze_graph.py (argparse, then absl for what it leaves), from 1.0 to 2.21.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tfthaw.cli.rendering import good, heading, human_bytes, print_json, print_notes, progress_bar
from tfthaw.drop_ins.freeze_graph import FrozenGraph, freeze_graph
from tfthaw.drop_ins.freeze_graph_sources import FreezeFlags, read_flag
from tfthaw.errors import UsageError

EXAMPLES = """\
examples:
  tfthaw freeze-graph --input_graph=graph.pbtxt --input_checkpoint=model.ckpt-1000 \\
      --output_graph=frozen.pb --output_node_names=softmax
  tfthaw freeze-graph --input_saved_model_dir=saved/ --output_graph=frozen.pb --output_node_names=softmax
"""

_TEXTS = {
    "input_graph": ("FILE", "the GraphDef, text or binary"),
    "input_saver": ("FILE", "a SaverDef whose restore op fills the variables, text or binary"),
    "input_checkpoint": ("CKPT", "the checkpoint, in any spelling"),
    "output_graph": ("FILE", "the GraphDef to write; a file that is there is replaced"),
    "output_node_names": ("A,B", "the nodes to compute; all that they need is kept"),
    "initializer_nodes": ("A,B", "nodes to run after restoring; constants that they assign are taken"),
    "variable_names_whitelist": ("A,B", "the variables that become constants (default: all)"),
    "input_meta_graph": ("FILE", "the MetaGraphDef (.meta), text or binary"),
    "input_saved_model_dir": ("DIR", "the SavedModel; it has graph and values"),
    "saved_model_tags": ("A,B", "the tag set of its MetaGraph (default: serve)"),
}
_UNUSED = {
    "restore_op_name": "the script does not use it, nor does this",
    "filename_tensor_name": "the script does not use it, nor does this",
}
_ABSL_FLAGS = ("log_dir", "stderrthreshold", "verbosity")
_ABSL_SWITCHES = ("logtostderr", "alsologtostderr", "showprefixforinfo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this subcommand; `--input_graph` may be spelled `--input-graph`."""
    for name, (metavar, said) in _TEXTS.items():
        default = "serve" if name == "saved_model_tags" else ""
        # the oldest script took --input_meta_graph for a switch
        count = {"nargs": "?", "const": "true"} if name == "input_meta_graph" else {}
        parser.add_argument(*_spelled(name), dest=name, metavar=metavar, default=default, help=said, **count)  # type: ignore[arg-type]
    parser.add_argument(*_spelled("variable_names_denylist"), *_spelled("variable_names_blacklist"), metavar="A,B",
                        dest="variable_names_denylist", default="", help="variables that stay variables")  # fmt: skip
    parser.add_argument(*_spelled("checkpoint_version"), dest="checkpoint_version", type=int, default=2, metavar="1|2",
                        help="taken and checked; the checkpoint itself says which it is")  # fmt: skip
    _add_switch(parser, "clear_devices", True, "whether nodes no longer ask for a machine (default: true)")
    _add_switch(parser, "input_binary", False, "taken; the content of a file says whether it is text")
    for name, said in _UNUSED.items():
        parser.add_argument(*_spelled(name), dest=name, metavar="NAME", default="", help=said)
    for name in _ABSL_FLAGS:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for name in _ABSL_SWITCHES:
        parser.add_argument(f"--{name}", f"--no{name}", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--verify", choices=("weights", "outputs"), default="weights",
                        help="what to prove (weights are always proved; outputs needs a runtime)")  # fmt: skip


def _spelled(name: str) -> list[str]:
    dashes = name.replace("_", "-")
    return [f"--{name}"] if dashes == name else [f"--{name}", f"--{dashes}"]


def _add_switch(parser: argparse.ArgumentParser, name: str, default: bool, said: str) -> None:
    parser.add_argument(*_spelled(name), dest=name, nargs="?", const=True, default=default, type=_flag,
                        metavar="true|false", help=said)  # fmt: skip
    negated = [f"--no{text.removeprefix('--')}" for text in _spelled(name)]
    parser.add_argument(*negated, dest=name, action="store_false", default=default, help=argparse.SUPPRESS)


def _flag(text: str) -> bool:
    try:
        return read_flag(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status."""
    chosen = {name: getattr(options, name) for name in FreezeFlags.__dataclass_fields__}
    flags = FreezeFlags(**chosen)
    with progress_bar("freezing", 2 * _bytes_of(flags)) as progress:
        frozen = freeze_graph(flags, verify=options.verify, progress=progress)
    if options.json:
        print_json(frozen.as_dict())
    else:
        _show(flags, frozen)
    return 0


def _bytes_of(flags: FreezeFlags) -> int:
    """Return about how many bytes there are to do, for a progress bar."""
    path = Path(flags.input_saved_model_dir or flags.input_checkpoint or ".")
    files = path.rglob("*") if flags.input_saved_model_dir else path.parent.glob("*")
    name = "" if flags.input_saved_model_dir else path.name
    return sum(file.stat().st_size for file in files if file.name.startswith(name) and file.is_file())


def _show(flags: FreezeFlags, frozen: FrozenGraph) -> None:
    """Print what TensorFlow's script prints, where it prints it, and then what was proved."""
    result = frozen.result
    if flags.meta_graph and not flags.input_saved_model_dir:
        print(f"Loaded meta graph file '{flags.meta_graph}")
    print(f"Froze {result.variables} variables.", file=sys.stderr)
    print(f"Converted {result.variables} variables to const ops.", file=sys.stderr)
    print(f"{frozen.nodes} ops in the final graph.")
    heading(f"{result.path}  ({result.format}, {human_bytes(result.bytes)}, {result.seconds:.2f} s)")
    weights = result.verified.weights
    print(f"  weights: {good('proved')}, {weights.compared} tensors, {human_bytes(weights.bytes)}, bit for bit")
    outputs = result.verified.outputs
    if outputs.done:
        print(f"  outputs: {good('proved')} with {outputs.runtime}, largest difference {outputs.max_abs:.3g}")
    else:
        print(f"  outputs: not compared ({outputs.why_not})")
    print_notes(result.notes)
