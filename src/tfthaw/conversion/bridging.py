"""The last step before a graph is written: make it readable by the TensorFlow that it is for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tfthaw import proto
from tfthaw.conversion.options import Options
from tfthaw.ir.graph import TensorName
from tfthaw.ir.model import Model
from tfthaw.serde.described_ops import described_ops


def bridge(model: Model, options: Options, fetched: Iterable[TensorName]) -> tuple[Model, list[str]]:
    """Fit a model's graph to the version of TensorFlow that was asked for, and strip its attrs where asked.

    Args:
        model: The model as it is to be written.
        options: What the user asked for.
        fetched: Tensors of the graph that are used from outside, those of its signatures apart.

    Returns:
        The model, and what was done as notes.

    Raises:
        UnsupportedError: That version cannot read the graph, or nobody knows the default of an attr; with every reason.
    """
    if options.for_tf is None and not options.strip_attrs:
        return model, []
    from tfthaw.passes.older_versions import for_version  # only here: they know much, and most graphs need neither
    from tfthaw.passes.strip_attrs import strip_attrs

    described = described_ops(model.opaque or b"", model.payloads)
    notes: list[str] = []
    if options.for_tf is not None:
        used = [TensorName.parse(entry.tensor) for item in model.signatures.values() for entry in item.outputs.values()]
        fitted = for_version(model.graph, options.for_tf, described, [*fetched, *used])
        model = replace(model, graph=fitted.graph)
        notes += fitted.notes
    if options.strip_attrs:
        stripped = strip_attrs(model.graph, described)
        model = replace(model, graph=stripped.graph)
        if model.opaque is not None:  # a MetaGraph says so of itself; messages merge by being joined
            said = proto.MetaGraphDef()
            said.meta_info_def.stripped_default_attrs = True
            model = replace(model, opaque=model.opaque + proto.serialize(said))
        count = sum(stripped.dropped.values())
        notes.append(f"dropped {count} attrs that were at their default" if count else "no attr was at its default")
    return model, notes
