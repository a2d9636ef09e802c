"""Order: which reads of a variable see a value that a write left.

A read sees a write when it runs after it. A v1 reference makes that hard to tell: `Identity(variable)` copies nothing,
so whatever uses its output later sees writes in between. This follows the buffer to all who use it. A read of a
resource variable takes its value at once.

A write on one side of a cond is never seen by what runs only on the other side.

Source: the kernels of dense_update_ops.cc (writes in place), identity_op.cc and control_flow_ops.cc (no copies), and
resource_variable_ops.cc (copies before it writes what is shared), of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection

from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.variables import REF_VARIABLE_OPS
from tfthaw.passes.carriers import REF_PASS_THROUGH, Carriers

_SWITCHES = frozenset({"Switch", "RefSwitch"})
_MERGES = frozenset({"Merge", "RefMerge"})
_LOOPS = frozenset({"NextIteration", "RefNextIteration", "LoopCond"})

SHARING_OPS = (
    frozenset(REF_PASS_THROUGH)
    | frozenset(REF_PASS_THROUGH.values())
    | {
        "IdentityN", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "EnsureShape", "Print",
        "PlaceholderWithDefault", "Reshape", "Squeeze", "ExpandDims", "Bitcast", "Cast", "Transpose", "BroadcastTo",
        "Slice", "StridedSlice", "Split", "SplitV", "Unpack", "Pack", "Concat", "ConcatV2",
    }
)  # fmt: skip
"""Ops whose output may be the very buffer of an input."""


def reads_after(
    index: GraphIndex, carriers: Carriers, write: str, needed: Collection[str], outputs: Collection[TensorName] = ()
) -> list[str]:
    """Return the nodes that see what a write left in a variable, sorted by name.

    Args:
        index: The graph.
        carriers: Where its variables are.
        write: The node that writes.
        needed: The nodes that count.
        outputs: Tensors that are taken when everything has run.
    """
    variables = carriers.writes[write]
    later = index.descend([write]).intersection(needed)
    sides = cond_sides(index, write)
    users = {name for name, read in carriers.reads.items() if read & variables}
    shared = _shared(index, carriers, write, sides)
    users |= {node.name for tensor in shared for node, position in index.consumers(tensor.node)
              if TensorName.parse(node.inputs[position]) == tensor}  # fmt: skip
    seen = {name for name in users & later if not never_both(cond_sides(index, name), sides)}
    seen |= {name.node for name in outputs if name in shared}
    return sorted(seen - {write})


def _shared(index: GraphIndex, carriers: Carriers, write: str, sides: set[TensorName]) -> set[TensorName]:
    """Return the tensors that are the buffer of a written v1 variable, on the side of conds that the write is on."""
    variables = {name for name in carriers.writes[write] if index.nodes[name].op in REF_VARIABLE_OPS}
    found = {TensorName(name, 0) for name in variables}
    waiting = list(found)
    while waiting:
        tensor = waiting.pop()
        for node, position in index.consumers(tensor.node):
            if node.op not in SHARING_OPS or TensorName.parse(node.inputs[position]) != tensor:
                continue
            for output in _outputs_used(index, node.name):
                if output not in found and not never_both(_side(index, output), sides):
                    found.add(output)
                    waiting.append(output)
    return found


def _outputs_used(index: GraphIndex, name: str) -> set[TensorName]:
    used = {TensorName.parse(node.inputs[position]) for node, position in index.consumers(name)}
    return {tensor for tensor in used if not tensor.is_control} | {TensorName(name, 0)}


def cond_sides(index: GraphIndex, name: str) -> set[TensorName]:
    """Return the sides of conds that a node runs on, each as its predicate with the switch's output (0 false, 1 true).

    In a loop a node runs many times and on either side, so there is none.
    """
    if any(index.nodes[above].op in _LOOPS for above in index.reach([name])):
        return set()
    found: set[TensorName] = set()
    seen = {name}
    waiting = [name]
    while waiting:
        for text in index.nodes[waiting.pop()].inputs:
            tensor = TensorName.parse(text)
            found |= _side(index, tensor)
            node = index.nodes.get(tensor.node)
            if node is not None and node.op not in _MERGES and node.name not in seen:
                seen.add(node.name)
                waiting.append(node.name)
    return found


def _side(index: GraphIndex, tensor: TensorName) -> set[TensorName]:
    """Return the side of a cond that a tensor is on because a switch gives it."""
    node = index.nodes.get(tensor.node)
    if node is None or node.op not in _SWITCHES or tensor.is_control or len(node.inputs) < 2:
        return set()
    predicate = TensorName.parse(node.inputs[1])
    seen = {predicate}
    while True:
        producer = index.nodes.get(predicate.node)
        if producer is None or producer.op not in (*_SWITCHES, "Identity") or not producer.inputs:
            break
        predicate = TensorName.parse(producer.inputs[0])
        if predicate in seen:
            break
        seen.add(predicate)
    return {TensorName(f"{predicate.node}:{predicate.output}", tensor.output)}


def never_both(one: set[TensorName], other: set[TensorName]) -> bool:
    """Whether two nodes are on different sides of a cond, so that never both of them run."""
    return any(TensorName(side.node, 1 - side.output) in other for side in one)
