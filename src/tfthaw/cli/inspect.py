"""`tfthaw inspect`: what an artifact is, what is in it, who made it, what it can become."""

from __future__ import annotations

import argparse
from typing import Any

from tfthaw.cli.object_screen import show_objects
from tfthaw.cli.rendering import bad, good, heading, human_bytes, print_json, print_notes, print_table, shape_text
from tfthaw.inspection import Report, inspect
from tfthaw.serde.artifacts import open_artifact

EXAMPLES = """\
examples:
  tfthaw inspect saved_model/
  tfthaw inspect model.ckpt-1000 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this subcommand."""
    parser.add_argument("source", metavar="SRC", help="the artifact, in any spelling")
    parser.add_argument(
        "--tags", metavar="A,B", type=lambda text: text.split(","), help="the tag set of a SavedModel to look at"
    )
    parser.add_argument("--all", action="store_true", help="show every variable and op, not the first ones")


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status."""
    with open_artifact(options.source) as artifact:
        report = inspect(artifact, options.tags)
    if options.json:
        print_json(report.as_dict())
    else:
        _show(report, most=1 << 30 if options.all else 20, verbose=options.verbose)
    return 0


def _show(report: Report, most: int, *, verbose: bool) -> None:
    heading(f"{report.path}")
    facts = [report.format, human_bytes(report.bytes)]
    if report.keys:
        facts.append(f"keys are {'paths of an object graph' if report.keys == 'objects' else 'names'}")
    print("  " + ", ".join(facts))
    _show_producer(report.producer)
    if report.tag_sets:
        print("  tag sets: " + "; ".join(",".join(tags) or "(none)" for tags in report.tag_sets))
    if report.graph is not None:
        _show_graph(report, most)
    for key, signature in report.signatures.items():
        if not key.startswith("__"):  # what loaders use inside, nobody calls
            _show_signature(key, signature)
    if report.object_graph is not None:
        show_objects(report.object_graph, whole=verbose)
    if report.variables:
        _show_variables(report.variables, most)
    if report.assets:
        heading("assets")
        for name in report.assets:
            print(f"  {name}")
    heading("what it can become")
    print("  " + (", ".join(good(name) for name in report.can_become) or "nothing as it is"))
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in report.cannot_become:
        reasons.setdefault((item["missing"], item["cure"]), []).append(item["format"])
    for (missing, cure), names in reasons.items():
        print(f"  {bad('not')} {', '.join(names)}: missing is {missing}; {cure}")
    if report.notes:
        heading("notes")
        print_notes(report.notes)


def _show_producer(producer: dict[str, Any]) -> None:
    if producer.get("keras"):
        print(f"  made by Keras {producer['keras']}")
    if producer.get("tensorflow"):
        print(f"  made by TensorFlow {producer['tensorflow']}")
    if producer.get("graph"):
        print(f"  graph version {producer['graph']}, readable from {producer['min_consumer'] or 0} on")
    if producer.get("earliest"):
        because = ", ".join(producer.get("earliest_because") or [])
        print(f"  its ops are all there from TensorFlow {producer['earliest']} on{f' ({because})' if because else ''}")


def _show_graph(report: Report, most: int) -> None:
    graph = report.graph
    if graph is None:
        return
    heading("graph")
    kind = "no variables (frozen)" if graph.frozen else "with variables"
    flow = "" if graph.control_flow == "none" else f", control flow {graph.control_flow}"
    print(f"  {graph.nodes} nodes, {graph.functions} functions, {kind}{flow}")
    ops = sorted(graph.ops.items(), key=lambda item: (-item[1], item[0]))
    print("  " + ", ".join(f"{op} {count}" for op, count in ops[:most]) + (" ..." if len(ops) > most else ""))


def _show_signature(key: str, signature: dict[str, Any]) -> None:
    heading(f"signature {key} ({signature['method']})")
    rows = []
    for direction, part in (("in", "inputs"), ("out", "outputs")):
        for name, entry in signature[part].items():
            kind = (entry["dtype"] or "") + shape_text(entry["shape"])
            components = entry.get("components", {})
            rows.append((direction, name, entry["tensor"] or ("made of" if components else "(no tensor)"), kind))
            for component, inner in components.items():
                rows.append(("", f"{name}_{component}", inner["tensor"], inner["dtype"] + shape_text(inner["shape"])))
    print_table(("", "name", "tensor", "type"), rows)


def _show_variables(variables: list[dict[str, Any]], most: int) -> None:
    total = sum(item["bytes"] or 0 for item in variables)
    heading(f"variables: {len(variables)}, {human_bytes(total)}")
    paths = {item["name"]: item.get("path") or item["name"] for item in variables}
    rows = [
        (
            item.get("path") or item["name"], f"{item['dtype']}{shape_text(item['shape'])}",
            "?" if item["bytes"] is None else human_bytes(item["bytes"]),
            f"slot {item['slot']} of {paths.get(item['slot_of'], item['slot_of'])}" if item["slot"]
            else "trainable" if item["trainable"] else "",
        )
        for item in variables
    ]  # fmt: skip
    print_table(("name", "type", "size", ""), rows, right=(2,), most=most)
