"""Variables: the state of a model, as its graph declares it.

A v1 graph declares variables twice: as nodes (`VariableV2`, `VarHandleOp`, ...), and in collections that add what
nodes do not say (trainable, partitions). `graph_variables` joins the two.

Source: variable.proto and the op definitions of state_ops.cc and resource_variable_ops.cc of TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.nodes import Node

REF_VARIABLE_OPS = frozenset({"Variable", "VariableV2", "AutoReloadVariable"})
HANDLE_OPS = frozenset({"VarHandleOp"})
VARIABLE_OPS = REF_VARIABLE_OPS | HANDLE_OPS

_SLOT_SUFFIXES = {
    "Adam": "m", "Adam_1": "v", "AdaMax": "m", "AdaMax_1": "v", "Momentum": "momentum", "RMSProp": "rms",
    "RMSProp_1": "momentum", "RMSProp_2": "mg", "Adagrad": "accumulator", "AdagradDA": "gradient_accumulator",
    "AdagradDA_1": "gradient_squared_accumulator", "Adadelta": "accum", "Adadelta_1": "accum_update",
    "Ftrl": "accum", "Ftrl_1": "linear", "AdamW": "m", "AdamW_1": "v", "LAMB": "m", "LAMB_1": "v",
    "adam_m": "m", "adam_v": "v",
}  # fmt: skip
_OPTIMIZER_SCALARS = re.compile(r"(^|/)(beta[12]_power(_\d+)?|global_step)$")


@dataclass(frozen=True, slots=True)
class VariableDeclaration:
    """What a collection says of a variable.

    Attributes:
        node: The node that holds it.
        trainable: Whether an optimizer may change it.
        full_name: For one part of a partitioned variable: the name of the whole.
        full_shape: For one part: the shape of the whole.
        starts: For one part: where it begins in each dimension.
    """

    node: str
    trainable: bool = False
    full_name: str | None = None
    full_shape: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a graph.

    Attributes:
        name: Its node's name; for a resource variable the shared name where the node gives one.
        node: Its node's name.
        dtype: Its element type.
        shape: Its shape.
        is_resource: Whether the node gives a handle (TensorFlow 2 and `use_resource`) or a reference.
        trainable: Whether an optimizer may change it; None where the graph does not say.
        slot_of: For a slot variable: the variable that it belongs to.
        slot: For a slot variable: which slot of the optimizer it is.
    """

    name: str
    node: str
    dtype: DType
    shape: Shape
    is_resource: bool
    trainable: bool | None = None
    slot_of: str | None = None
    slot: str | None = None


def variable_name(node: Node) -> str:
    """Return the name that a variable's node is saved under unless a Saver says otherwise."""
    shared = node.text("shared_name") if node.op in HANDLE_OPS else ""
    # shared names that begin with "cd2c89b7" stand for "this very object" and are no names to save under
    return shared if shared and not shared.startswith("cd2c89b7") else node.name


def graph_variables(nodes: Iterable[Node], declared: Mapping[str, VariableDeclaration] | None = None) -> list[Variable]:
    """Return the variables of a graph, in the order of their nodes.

    Args:
        nodes: The nodes of the graph.
        declared: What the collections say, by node name; None where the graph has no collections.
    """
    holders = [node for node in nodes if node.op in VARIABLE_OPS]
    slots = slot_variables(variable_name(node) for node in holders)
    result = []
    for node in holders:
        name = variable_name(node)
        slot_of, slot = slots.get(name, (None, None))
        said = declared.get(node.name) if declared else None
        result.append(
            Variable(
                name=name,
                node=node.name,
                dtype=node.dtype("dtype") or DType.invalid,
                shape=node.shape() or Shape(None),
                is_resource=node.op in HANDLE_OPS,
                trainable=None if declared is None else bool(said and said.trainable),
                slot_of=slot_of,
                slot=slot,
            )
        )
    return result


def slot_variables(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Tell which names are slot variables of an optimizer.

    A v1 slot is named after its variable and its optimizer (`dense/kernel/Adam_1`); an object-based one has
    `.OPTIMIZER_SLOT/optimizer/m` in its key.

    Returns:
        slot's name -> (the variable's name, the slot's).
    """
    known = set(names)
    result = {}
    for name in known:
        if "/.OPTIMIZER_SLOT/" in name:
            owner, _, rest = name.partition("/.OPTIMIZER_SLOT/")
            parts = rest.split("/")
            attribute = "/.ATTRIBUTES/VARIABLE_VALUE" if rest.endswith("/.ATTRIBUTES/VARIABLE_VALUE") else ""
            result[name] = (owner + attribute, parts[1] if len(parts) > 1 else rest)
            continue
        owner, _, suffix = name.rpartition("/")
        slot = _SLOT_SUFFIXES.get(suffix)
        if not slot:
            continue
        # the optimizer may open a scope of its own in front: `training/dense/kernel/Adam`
        while owner and owner not in known:
            owner = owner.partition("/")[2]
        if owner:
            result[name] = (owner, slot)
    return result


def optimizer_keys(names: Iterable[str]) -> set[str]:
    """Return the names that hold the state of an optimizer: slots, their powers, iterations and hyper-parameters."""
    # an optimizer's list of the model's own weights is no state of it
    known = [name for name in names if "/_trainable_variables/" not in name]
    slots = slot_variables(known)
    return {
        name
        for name in known
        if name in slots
        or (_OPTIMIZER_SCALARS.search(name) and not name.endswith("global_step"))
        or name.startswith(("optimizer/", "_optimizer/", "optimizer_weights/"))
        or "/optimizer_weights/" in name
    }
