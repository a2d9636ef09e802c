"""Placeholders that outputs need and that are no input: what needs them could never run.

Source: TensorFlow refuses such signatures when it loads them (load_v1_in_v2.py).
"""

from __future__ import annotations

from tfthaw.conversion.prepared import Prepared
from tfthaw.errors import StructureError, UsageError
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.nodes import Node
from tfthaw.ir.signatures import Signature
from tfthaw.ir.structured_text import shape_text
from tfthaw.passes.prune import PLACEHOLDER_OPS

_MOST_NAMES = 5
_FED_OPS = PLACEHOLDER_OPS - {"PlaceholderWithDefault"}


def refuse_unfed(prepared: Prepared) -> None:
    """Refuse signatures whose outputs depend on placeholders that are no input of theirs.

    A placeholder inside of a v1 cond may lie in a branch that never runs; a note tells of it.

    Raises:
        StructureError: A signature of the artifact is so; with all of them, and with all placeholders.
        UsageError: The inputs that the user named are not all that his outputs need.
    """
    index = GraphIndex(prepared.graph.nodes)
    needed: dict[str, dict[str, list[str]]] = {}
    for key, signature in prepared.selection.signatures.items():
        for name, outputs in _unfed(prepared, index, signature).items():
            needed.setdefault(name, {})[key] = outputs
    for name in [name for name in needed if _is_conditional(index, name)]:
        del needed[name]
        prepared.notes.append(f"{name} is no input, and a branch of a cond needs it; --set gives it a value")
    if not needed:
        return
    settings = " ".join(f"--set {name}=VALUE" for name in needed)
    problems = []
    for name, by_key in needed.items():
        for key, outputs in by_key.items():
            of = "" if prepared.options.outputs else f" of {key}"
            problems.append(f"{_described(index.nodes[name])} is needed by {_listed(outputs)}{of}")
    if prepared.options.outputs:
        raise UsageError(
            f"the outputs need placeholders that are no input: {'; '.join(problems)}",
            hint=f"name them with --inputs too, or give them a value: {settings}",
        )
    refused = {key for by_key in needed.values() for key in by_key}
    others = [key for key in prepared.selection.signatures if key not in refused]
    another = f"; or take another --signature: {', '.join(others)}" if others else ""
    raise StructureError(
        "outputs depend on placeholders that are no input of their signature, so they could never run",
        problems=problems, hint=f"give them a value: {settings}{another}",
    )  # fmt: skip


def _unfed(prepared: Prepared, index: GraphIndex, signature: Signature) -> dict[str, list[str]]:
    """Return the placeholders that a signature needs and does not feed, each with the outputs that need it."""
    fed = {prepared.where(TensorName.parse(entry.tensor)).node for entry in signature.inputs.values()}
    known = [name for name, node in index.nodes.items() if node.op in _FED_OPS and name not in fed]
    if not known:
        return {}
    outputs = {name: prepared.where(TensorName.parse(entry.tensor)).node for name, entry in signature.outputs.items()}
    reached = index.reach(outputs.values(), stop=fed)
    unfed: dict[str, list[str]] = {name: [] for name in known if name in reached}
    for output, node_name in outputs.items() if unfed else ():
        for name in unfed.keys() & index.reach([node_name], stop=fed):
            unfed[name].append(output)
    return unfed


def _is_conditional(index: GraphIndex, name: str) -> bool:
    """Whether a placeholder runs only when a branch of a v1 cond does."""
    return any(index.nodes[source].op in ("Switch", "RefSwitch") for source in index.reach([name]))


def _described(node: Node) -> str:
    dtype = node.dtype("dtype")
    return f"{node.name} ({dtype.name if dtype else 'of no type'}{shape_text(node.shape())})"


def _listed(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
