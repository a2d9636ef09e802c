"""`tfthaw diff`: what differs between two artifacts: tensors, graph, signatures."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence

from tfthaw.cli.rendering import (
    bad,
    good,
    heading,
    human_bytes,
    print_json,
    print_notes,
    print_table,
    progress_bar,
    tensor_text,
)
from tfthaw.errors import UsageError
from tfthaw.ir.variables import optimizer_keys
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.verify.diff import Difference, diff
from tfthaw.verify.graph_differences import Differences
from tfthaw.verify.tensor_differences import Named, TensorChange, TensorDifferences

EXAMPLES = """\
examples:
  tfthaw diff run/model.ckpt-1000 run/model.ckpt-2000
  tfthaw diff saved_model/ frozen.pb --json

Tensors are compared bit for bit. Of those that differ: max abs is the largest |a - b|, max rel the largest
|a - b| / max(|a|, |b|), change how far the whole tensor moved (norm of b - a, over norm of a).
"""

_SAME, _DIFFERENT = 0, 1
_FIRST = 20
_FEW = 8
_CELL = 40
"""How many rows of a table are shown of what matters, and of what only shows that there is more; characters of a
cell."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this subcommand."""
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("a", metavar="A", help="the one artifact, in any spelling")
    parser.add_argument("b", metavar="B", help="the other")
    parser.add_argument("--tags", metavar="A,B", type=names, help="the tag set to take from a SavedModel")
    parser.add_argument("--tags-b", metavar="A,B", type=names, help="the tag set to take from B, where it is another")
    parser.add_argument("--all", action="store_true", help="show every difference, not the first ones")


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status."""
    with open_artifact(options.a) as a, open_artifact(options.b) as b:
        tags_a, tags_b = _tags(options, a, b)
        sizes = (a.bytes, b.bytes)
        with progress_bar("comparing", max(sizes)) as progress:
            difference = diff(a, b, tags_a=tags_a, tags_b=tags_b, progress=progress)
    if options.json:
        print_json(difference.as_dict())
    else:
        show(difference, sizes, most=1 << 30 if options.all else _FIRST)
    return _SAME if difference.same else _DIFFERENT


def _tags(options: argparse.Namespace, a: Artifact, b: Artifact) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Return the tag sets for A and B: those that were given, for those that are SavedModels."""
    has_tags = [artifact.located.format == "saved-model" for artifact in (a, b)]
    if (options.tags and not any(has_tags)) or (options.tags_b and not has_tags[1]):
        raise UsageError("tags choose a MetaGraph of a SavedModel, and there is none to choose from")
    return options.tags if has_tags[0] else None, (options.tags_b or options.tags) if has_tags[1] else None


def show(difference: Difference, sizes: tuple[int, int], most: int) -> None:
    """Print a difference for people: what was compared, the verdict on each part, then the parts that differ."""
    print()
    rows = zip("AB", difference.paths, difference.formats, map(human_bytes, sizes), strict=True)
    print_table(("", "artifact", "format", "size"), rows, right=(3,))
    heading(good("They are the same.") if difference.same else bad("They differ."))
    for title, verdict in _verdicts(difference):
        print(f"  {title:<12}{verdict}")
    if difference.tensors is not None:
        _show_tensors(difference, difference.tensors, most)
    if difference.graph is not None:
        _show_changes("nodes", difference.graph.nodes, most)
        _show_changed(f"constants that differ: {len(difference.constants.changed)}", difference.constants.changed, most)
        _show_functions(difference.graph.functions, most)
        for field, (a, b) in difference.graph.versions.items():
            heading(f"graph version, {field}: {a or 'not set'} -> {b or 'not set'}")
    if difference.signatures is not None:
        _show_changes("signatures", difference.signatures, most)
    if difference.assets is not None:
        _show_changes("assets", difference.assets, most)
    if difference.notes:
        heading("notes")
        print_notes(difference.notes)


def _verdicts(difference: Difference) -> Iterable[tuple[str, str]]:
    """Yield one line for each part that was compared."""
    if difference.tensors is not None:
        yield "tensors", _tensors_verdict(difference.tensors, len(difference.renamed))
    if difference.graph is not None:
        nodes = difference.graph.nodes
        if difference.graph.same and difference.constants.same:
            yield "graph", f"{good('same')}, {_count(nodes.equal, 'node')}"
        else:
            parts = [_counts(nodes, "nodes"), _counts(difference.graph.functions, "functions")]
            if difference.constants.changed:
                parts.append(f"{_count(len(difference.constants.changed), 'constant')} with another value")
            if difference.graph.versions:
                parts.append("another version")
            yield "graph", bad("; ".join(part for part in parts if part))
    for title, part in (("signatures", difference.signatures), ("assets", difference.assets)):
        if part is None or (part.same and not part.equal):
            continue
        yield title, f"{good('same')}, {part.equal}" if part.same else bad(_counts(part))
    if difference.object_graph_is_same is not None:
        yield "objects", good("same object graph") if difference.object_graph_is_same else bad("another object graph")


def _tensors_verdict(tensors: TensorDifferences, renamed: int) -> str:
    total = f"{_count(len(tensors.equal), 'tensor')}, {human_bytes(tensors.equal_bytes)}, bit for bit"
    if tensors.same and not renamed:
        return f"{good('same')}, {total}"
    parts = (
        (len(tensors.changed), "differ"), (len(tensors.equal), "equal"), (renamed, "renamed"),
        (len(tensors.only_in_a), "only in A"), (len(tensors.only_in_b), "only in B"),
    )  # fmt: skip
    return bad(", ".join(f"{count} {what}" for count, what in parts if count))


def _counts(part: Differences, noun: str = "") -> str:
    """Return the counts of what differs in a part: `nodes: 2 differ, 1 only in B`; empty where nothing does."""
    counts = ((len(part.changed), "differ"), (len(part.only_in_a), "only in A"), (len(part.only_in_b), "only in B"))
    if part.same:
        return ""
    text = ", ".join(f"{count} {what}" for count, what in (*counts, (part.equal, "equal")) if count)
    return f"{noun}: {text}" if noun else text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _show_tensors(difference: Difference, tensors: TensorDifferences, most: int) -> None:
    """Show the tensors that differ, the optimizer's state apart: it always does, and nobody looks for it."""
    names = {*tensors.equal, *(change.name for change in tensors.changed), *tensors.only_in_a, *tensors.only_in_b}
    state = optimizer_keys(names)
    weights = [change for change in tensors.changed if change.name not in state]
    slots = [change for change in tensors.changed if change.name in state]
    _show_changed(f"tensors that differ: {len(weights)}", weights, most)
    _show_changed(f"optimizer's state that differs: {len(slots)}", slots, min(most, _FEW) if weights else most)
    for title, named in (("A", tensors.only_in_a), ("B", tensors.only_in_b)):
        _show_alone(title, named, state, most)
    if difference.renamed:
        heading(f"renamed, with equal content: {len(difference.renamed)}")
        rows = [(pair.a, pair.b, tensor_text(pair.dtype, pair.shape)) for pair in difference.renamed]
        print_table(("A", "B", "type"), rows, most=most)
    if difference.undecided:
        heading("equal content that proves nothing, so they were not paired")
        groups = [(_first(group.a), _first(group.b), group.reason) for group in difference.undecided]
        print_table(("A", "B", "why"), groups, most=min(most, _FEW))


def _show_changed(title: str, changes: Sequence[TensorChange], most: int) -> None:
    """Show changed tensors: those of another type or shape first, then the ones that moved most."""
    if not changes:
        return
    heading(title)
    order = sorted(changes, key=lambda item: (item.is_of_one_kind, -(item.change or 0)))
    rows = [(item.name, _kinds(item), *_numbers(item)) for item in order]
    print_table(("name", "type", "elements", "max abs", "max rel", "change"), rows, right=(2, 3, 4, 5), most=most)


def _kinds(change: TensorChange) -> str:
    a, b = (tensor_text(dtype, shape) for dtype, shape in zip(change.dtypes, change.shapes, strict=True))
    return a if a == b else f"{a} -> {b}"


def _numbers(change: TensorChange) -> tuple[str, str, str, str]:
    if change.different is None:
        return "", "", "", ""
    count = "all" if change.different == change.elements else f"{change.different} of {change.elements}"
    if change.not_finite:
        count += f" ({change.not_finite} not finite)"
    if change.max_abs is None:
        return count, "", "", ""
    moved = "" if change.change is None else f"{change.change:.2%}" if change.change < 10 else f"x {change.change:.0f}"
    return count, f"{change.max_abs:.3g}", f"{change.max_rel:.3g}", moved


def _show_alone(title: str, tensors: Mapping[str, Named], state: set[str], most: int) -> None:
    """Show the tensors that only one side has: weights, and the optimizer's state shortly."""
    slots = [name for name in tensors if name in state]
    weights = [name for name in tensors if name not in state]
    few = min(most, _FEW) if weights else most
    for what, names, shown in (("tensors", weights, most), ("optimizer's state", slots, few)):
        if names:
            heading(f"{what} only in {title}: {len(names)}")
            rows = [(name, tensor_text(tensors[name].tensor.dtype, tensors[name].tensor.shape)) for name in names]
            print_table(("name", "type"), rows, most=shown)


def _show_changes(title: str, part: Differences, most: int) -> None:
    """Show nodes, functions, signatures or assets that differ; what differs alike, together."""
    if part.changed:
        heading(f"{title} that differ: {len(part.changed)}")
        alike: dict[tuple[str, str, str], list[str]] = {}
        for change in part.changed:
            for key, (a, b) in change.what.items():
                if "op" not in change.what or not key.startswith("attr "):  # another op has other attrs, of course
                    alike.setdefault((key, a, b), []).append(change.name)
        rows = [(key, _short(a), _short(b), _first(names)) for (key, a, b), names in alike.items()]
        print_table(("what", "A", "B", "where"), rows, most=most)
    _show_names(title, part, most)


def _show_functions(part: Differences, most: int) -> None:
    """Show functions that differ; of their nodes, how many do."""
    if part.changed:
        heading(f"functions that differ: {len(part.changed)}")
        rows = []
        for change in part.changed:
            nodes = {key.partition(":")[0] for key in change.what if key.startswith("node ")}
            parts = [key for key in change.what if not key.startswith("node ")]
            rows.append((change.name, ", ".join([*parts, *([_count(len(nodes), "node")] if nodes else [])])))
        print_table(("name", "what"), rows, most=most)
    _show_names("functions", part, most)


def _show_names(title: str, part: Differences, most: int) -> None:
    for side, names in (("A", part.only_in_a), ("B", part.only_in_b)):
        if names:
            heading(f"{title} only in {side}: {len(names)}")
            print_table(("name", "op" if any(names.values()) else ""), names.items(), most=min(most, _FEW))


def _short(text: str) -> str:
    return text if len(text) <= _CELL else f"{text[: _CELL - 4]} ..."


def _first(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
