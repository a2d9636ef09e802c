"""Sparse and composite tensors in signatures, as the tensors that they are made of.

A signature may take or give a sparse tensor, a ragged one or another type of TensorFlow 2 as one argument; a graph has
only their components. `taken_apart` makes them arguments of their own, with the names under which TensorFlow 2
shows them when it loads such a signature; `put_together` undoes that.

    sparse `x`       x_indices, x_values, x_dense_shape
    composite `x`    x_component_0, x_component_1, ...   (of a ragged tensor: flat values, then row splits from outside)

Source: TensorInfo of meta_graph.proto, and the argument names of load_v1_in_v2.py of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from tfthaw.ir.signatures import Signature, SignatureTensor


def taken_apart(signature: Signature) -> Signature:
    """Return the signature with the components of its sparse and composite tensors as entries of their own."""
    return replace(signature, inputs=_apart(signature.inputs), outputs=_apart(signature.outputs))


def _apart(entries: Mapping[str, SignatureTensor]) -> dict[str, SignatureTensor]:
    result: dict[str, SignatureTensor] = {}
    for name, entry in entries.items():
        if not entry.components:
            result[name] = entry
            continue
        for part, component in entry.components.items():
            own = _free(f"{name}_{part}", {*entries, *result})
            result[own] = replace(component, whole=(name, entry))
    return result


def _free(wanted: str, taken: Collection[str]) -> str:
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def put_together(signature: Signature) -> Signature:
    """Return the signature with the sparse and composite tensors again whose components are all there."""
    return replace(signature, inputs=_together(signature.inputs), outputs=_together(signature.outputs))


def _together(entries: Mapping[str, SignatureTensor]) -> dict[str, SignatureTensor]:
    found: dict[str, int] = {}
    for entry in entries.values():
        if entry.whole is not None:
            found[entry.whole[0]] = found.get(entry.whole[0], 0) + 1
    result: dict[str, SignatureTensor] = {}
    for name, entry in entries.items():
        if entry.whole is not None and found[entry.whole[0]] == len(entry.whole[1].components):
            result[entry.whole[0]] = entry.whole[1]
        else:
            result[name] = entry
    return result
