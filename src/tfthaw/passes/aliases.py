"""Aliases: who would see a variable change under its hands, and who would no longer.

`Identity` of a v1 reference copies nothing: what uses its output sees every write that ran before that use, also one
that ran after the Identity. A read of a resource variable takes the value at once. This finds the uses where the two
differ: those that come after a write while the read that they depend on does not.

In a loop, "after" counts iterations: what comes after a write in its own iteration must read after it in that one.

Source: executor.cc of TensorFlow (a reference is looked up when its user starts), and as `tfthaw.passes.order`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.passes.order import SHARING_OPS, cond_sides, never_both
from tfthaw.passes.references import References

_BACK_EDGES = frozenset({"NextIteration", "RefNextIteration"})
_SHAPE_ONLY = frozenset({"Shape", "ShapeN", "Size", "Rank"})

# they keep a tensor, and what they give leads to who takes it out again
_KEEPING = frozenset({
    "TensorArrayWrite", "TensorArrayWriteV2", "TensorArrayWriteV3", "TensorListSetItem", "TensorListPushBack",
})  # fmt: skip


_MOST_ITERATIONS = 8
_EVER = 1 << 30


@dataclass(frozen=True, slots=True)
class Read:
    """Where the value of a reference is taken.

    Attributes:
        user: The node that takes it; where the reference itself is fetched, the reference's own node.
        reference: The tensor whose value it is.
        waits: The nodes that have run when a read of a resource variable takes the value.
    """

    user: str
    reference: TensorName
    waits: tuple[str, ...]


class Aliases:
    """The uses of references in one graph, against the writes in it."""

    def __init__(self, index: GraphIndex, references: References) -> None:
        self.index = index
        self.references = references
        self.writers = references.writers()
        self._later: dict[str, dict[str, int]] = {}

    def later(self, write: str) -> dict[str, int]:
        """Return every node that comes after a write -> how many iterations later at the earliest."""
        if write not in self._later:
            self._later[write] = _distances(self.index, write)
        return self._later[write]

    def after_writes(self, reference: TensorName, names: Iterable[str]) -> list[str]:
        """Return those of the named nodes that write what a reference stands for, or come after a write of it."""
        writes = [write for state in self.references.states_of(reference) for write in self.writers.get(state, ())]
        if not writes:
            return []
        return [name for name in names if any(name == write or name in self.later(write) for write in writes)]

    def late_uses(self, reads: Sequence[Read], runs: Iterable[Collection[TensorName]]) -> list[str]:
        """Return the uses that would see another value, one sentence each.

        Args:
            reads: Where values are taken.
            runs: The tensors that are fetched in each run; a run without any is one in which every node counts.
        """
        problems: dict[tuple[str, str], str] = {}
        for outputs in runs:
            needed = self.index.reach([name.node for name in outputs]) if outputs else set(self.index.nodes)
            for read in reads:
                if read.user in needed:
                    problems |= self._late_uses(read, needed, outputs)
        return [problems[key] for key in sorted(problems)]

    def _late_uses(self, read: Read, needed: set[str], outputs: Collection[TensorName]) -> dict[tuple[str, str], str]:
        """Return the uses of what was read that would see another value, in one run."""
        states = self.references.states_of(read.reference)
        writes = sorted({write for state in states for write in self.writers.get(state, ())} & needed)
        if not writes:
            return {}
        problems = {}
        users, sharing = self._users(read)
        fetched = sorted(name.node for name in outputs if name.node in sharing)
        for write in writes:
            for user in sorted(self._late(read, write, users)):
                if user in needed:
                    problems[user, write] = self._sentence(user, read, write, "runs after")
            if self._reached(read, write) is None:
                for user in fetched:
                    problems[user, write] = self._sentence(user, read, write, "is fetched after")
        return problems

    def _sentence(self, user: str, read: Read, write: str, how: str) -> str:
        variables = " or ".join(sorted(self.references.tensors[read.reference]))
        through = "" if user == read.user else f" through {read.user}"
        return (
            f"{user} ({self.index.nodes[user].op}) takes the value of {variables}{through}, and {how} "
            f"{write} ({self.index.nodes[write].op}), which writes it"
        )

    def _users(self, read: Read) -> tuple[dict[str, int], set[str]]:
        """Return who takes the buffer that was read, how many iterations later at most, and who gives it as output."""
        if read.user == read.reference.node:
            return {}, {read.user}
        users = {read.user: 0}
        sharing: set[str] = set()
        waiting = [read.user]
        while waiting:
            node = self.index.nodes[waiting.pop()]
            if node.op not in SHARING_OPS | _KEEPING and not node.called() and node.op not in self.references.library:
                continue
            sharing.add(node.name)
            iterations = users[node.name] + (node.op in _BACK_EDGES)
            if iterations > _MOST_ITERATIONS:  # it goes round with the loop
                iterations = _EVER
            for user, position in self.index.consumers(node.name):
                if not user.inputs[position].startswith("^") and users.get(user.name, -1) < iterations:
                    users[user.name] = iterations
                    waiting.append(user.name)
        return users, sharing

    def _late(self, read: Read, write: str, users: Mapping[str, int]) -> Iterable[str]:
        """Return the users that come after a write which the read itself may come before."""
        later = self.later(write)
        reached = self._reached(read, write)
        keeps_shape = self.index.nodes[write].attrs.get("validate_shape", True)
        suspects = [
            user
            for user, iterations in users.items()
            if user in later
            and (reached is None or later[user] < reached + iterations)
            and not (keeps_shape and self.index.nodes[user].op in _SHAPE_ONLY)
        ]
        if not suspects:
            return []
        sides = cond_sides(self.index, write)
        return [user for user in suspects if not never_both(cond_sides(self.index, user), sides)]

    def _reached(self, read: Read, write: str) -> int | None:
        """Return how many iterations after a write the read comes, or None where it may come before."""
        later = self.later(write)
        found = [0 if name == write else later[name] for name in read.waits if name == write or name in later]
        return min(found, default=None)


def _distances(index: GraphIndex, start: str) -> dict[str, int]:
    """Return every node after a node -> the fewest ways back to the head of a loop between them."""
    found: dict[str, int] = {}
    waiting = deque([(start, 0)])
    while waiting:
        name, distance = waiting.popleft()
        step = 1 if index.nodes[name].op in _BACK_EDGES else 0
        for node, _ in index.consumers(name):
            if node.name in found and found[node.name] <= distance + step:
                continue
            found[node.name] = distance + step
            if step:
                waiting.append((node.name, distance + step))
            else:
                waiting.appendleft((node.name, distance))
    return found
