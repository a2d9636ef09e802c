"""`tfthaw convert`: any artifact into any format it can become, proved."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tfthaw.cli.rendering import (
    good,
    heading,
    human_bytes,
    print_json,
    print_notes,
    print_table,
    progress_bar,
)
from tfthaw.conversion.converting import convert
from tfthaw.conversion.options import Options
from tfthaw.conversion.result import ConversionResult
from tfthaw.conversion.selection import rank_outputs
from tfthaw.errors import NotFoundError, UsageError
from tfthaw.formats.names import WRITABLE_FORMATS
from tfthaw.serde.artifacts import Artifact, open_artifact

EXAMPLES = """\
examples:
  tfthaw convert model.ckpt-1000.meta frozen.pb --to frozen-graph --outputs softmax
  tfthaw convert ckpt-1000 saved_model/ --to saved-model --code train.py:build_model
"""

_OPTIONS = (
    "to", "checkpoint", "checkpoint_root", "code", "input",
    "tags", "signature", "inputs", "outputs", "map", "ema", "optimizer", "allow_missing",
    "allow_unused", "set", "dtype", "verify", "style", "batch_norm", "unfreeze", "keys", "strip_attrs",
    "for_tf", "overwrite",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this subcommand."""
    names = lambda text: [name for name in text.split(",") if name]  # noqa: E731
    parser.add_argument(
        "source", metavar="SRC", nargs="?", help="the artifact, in any spelling; with --code, the checkpoint"
    )
    parser.add_argument(
        "destination", metavar="DST", nargs="?", help="the file, directory or checkpoint prefix to write"
    )
    parser.add_argument("--to", metavar="F", choices=WRITABLE_FORMATS, help=f"one of: {', '.join(WRITABLE_FORMATS)}")
    parser.add_argument("--checkpoint", metavar="CKPT", help="take the values from here")
    parser.add_argument("--checkpoint-root", metavar="NAME",
                        help="which object of the checkpoint is the model, where several could be")  # fmt: skip
    parser.add_argument("--code", metavar="MODULE:CALLABLE",
                        help="the model's Python (FILE.py:CALLABLE too); needs TensorFlow")  # fmt: skip
    parser.add_argument("--input", metavar="NAME:DTYPE[DIMS]", action="append", default=[],
                        help="what the code takes, where it does not say, such as 'x:float32[?,784]'")  # fmt: skip
    parser.add_argument(
        "--tags", metavar="A,B", type=names, help="the tag set of the MetaGraph to take from a SavedModel"
    )
    parser.add_argument("--signature", metavar="KEY", action="append",
                        help="the signature to take; NEW=OLD gives it a new key; with --code, NEW=METHOD or "
                             "NEW=MODULE:FUNCTION; may be given often")  # fmt: skip
    parser.add_argument("--inputs", metavar="A,B", type=names, default=[], help="tensors to feed (`a` is `a:0`)")
    parser.add_argument("--outputs", metavar="A,B", type=names, default=[], help="tensors to compute (`a` is `a:0`)")
    parser.add_argument("--list-outputs", action="store_true", help="rank the tensors that may be outputs, and stop")
    parser.add_argument("--map", metavar="FILE", help="TOML: checkpoint key -> variable")
    parser.add_argument(
        "--ema", choices=("use", "drop", "keep"), default="keep", help="moving averages (default: keep)"
    )
    parser.add_argument("--optimizer", choices=("drop", "keep"),
                        help="slot variables (default: keep for checkpoints, drop elsewhere)")  # fmt: skip
    parser.add_argument("--allow-missing", metavar="GLOB", action="append", default=[],
                        help="variables that may stay without value")  # fmt: skip
    parser.add_argument("--allow-unused", metavar="GLOB", action="append", default=[],
                        help="checkpoint keys that a map, or the model that code gives, may leave out")  # fmt: skip
    parser.add_argument("--set", metavar="NODE=VALUE", action="append", default=[], type=_read_setting,
                        help="replace a placeholder by a constant")  # fmt: skip
    parser.add_argument("--strip-attrs", action="store_true", help="drop attrs that are at their default")
    parser.add_argument("--for-tf", metavar="VERSION",
                        help="make the graph readable by an older TensorFlow, such as 1.15")  # fmt: skip
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), help="cast floating weights (weights formats)")
    parser.add_argument("--batch-norm", choices=("keep", "inference"), default="keep",
                        help="batch normalisation that was left in training mode (default: keep)")  # fmt: skip
    parser.add_argument("--verify", choices=("weights", "outputs"), help="what to prove (weights are always proved)")
    parser.add_argument("--style", choices=("v1", "v2"), default="v2", help="how a SavedModel is written")
    parser.add_argument("--unfreeze", action="store_true",
                        help="make variables of large floating constants (saved-model)")  # fmt: skip
    parser.add_argument("--keys", choices=("names", "objects"),
                        help="how a checkpoint names its values (default: as the source does)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what is at DST")


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status."""
    if options.source is None and (options.code is None or not options.list_outputs):
        raise UsageError("SRC and DST say what to read and what to write")
    if options.list_outputs:
        return _list_outputs(options)
    if options.code is not None and options.destination is None:  # the checkpoint is given by --checkpoint
        options.source, options.destination = None, options.source
    if options.destination is None or options.to is None:
        raise UsageError("DST and --to say what to write", hint=f"--to takes one of: {', '.join(WRITABLE_FORMATS)}")
    chosen: dict[str, Any] = {name: getattr(options, name) for name in _OPTIONS}
    chosen["map"] = {} if options.map is None else _read_map(options.map)
    chosen["set"] = dict(options.set)
    # what is written and what is read back for the proof
    work = 2 * max(_bytes_of(options.source), _bytes_of(options.checkpoint))
    with progress_bar(f"to {options.to}", work) as progress:
        result = convert(options.source, options.destination, progress=progress, **chosen)
    if options.json:
        print_json(result.as_dict())
    else:
        _show(result)
    return 0


def _bytes_of(path: str | None) -> int:
    if path is None:
        return 0
    with open_artifact(path) as artifact:
        return artifact.bytes


def _show(result: ConversionResult) -> None:
    proof = result.verified
    heading(f"{result.path}  ({result.format}, {human_bytes(result.bytes)}, {result.seconds:.2f} s)")
    for title, names in (("inputs", result.inputs), ("outputs", result.outputs)):
        if names:
            print(
                f"  {title}: "
                + ", ".join(name if name == tensor else f"{name} -> {tensor}" for name, tensor in names.items())
            )
    weights = proof.weights
    print(f"  weights: {good('proved')}, {weights.compared} tensors, {human_bytes(weights.bytes)}, bit for bit")
    if proof.outputs.done:
        print(
            f"  outputs: {good('proved')} with {proof.outputs.runtime}, largest difference {proof.outputs.max_abs:.3g}"
        )
    else:
        print(f"  outputs: not compared ({proof.outputs.why_not})")
    print_notes(result.notes)


def _list_outputs(options: argparse.Namespace) -> int:
    from tfthaw.conversion.from_code import traced_artifact  # only here: it knows of runtimes

    opened: AbstractContextManager[Artifact] = (
        open_artifact(options.source) if options.code is None
        else traced_artifact(Options(to="graph-def", code=options.code, input=options.input))
    )  # fmt: skip
    with opened as artifact:
        candidates = rank_outputs(artifact.model(options.tags).graph)
    if options.json:
        print_json(
            [
                {"tensor": str(item.tensor), "op": item.op, "score": item.score, "reason": item.reason}
                for item in candidates
            ]
        )
        return 0
    print_table(("tensor", "op", "why"), [(str(item.tensor), item.op, item.reason) for item in candidates], most=25)
    return 0


def _read_map(path: str) -> dict[str, str]:
    """Read a map file: TOML, `"checkpoint key" = "variable"`, on top or under `[map]`."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError(f"the map cannot be read: {error.strerror}", path=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the map is no TOML: {error}", path=path) from error
    entries = document.get("map", document)
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise UsageError('a map has lines of the form "checkpoint key" = "variable"', path=path)
    return dict(entries)


def _read_setting(text: str) -> tuple[str, object]:
    """Read NODE=VALUE; the value is JSON, or else a string."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NODE=VALUE, found {text!r}")
    try:
        return name, json.loads(value.lower() if value in ("True", "False") else value)
    except ValueError:
        return name, value
