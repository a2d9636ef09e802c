"""Tensors that kept their content and changed their name.

Equal content is evidence as far as it is particular. A trained kernel that occurs once on each side was renamed, beyond
doubt. A bias that is all zeros, a counter, or a tensor that occurs twice says nothing of itself: such ones are paired
only where their names tell, and else reported as undecided. Nothing is guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.verify.tensor_differences import Named

_ATTRIBUTE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # what object-based checkpoints append to every key
_LEAST_ELEMENTS = 4
_LEAST_BYTES = 16
"""Fewer elements or bytes than these are equal by chance too often: steps, rates, shapes, small class weights."""

_HEAD_BYTES = 1024
"""Tensors that differ at all nearly always do so within these: the rest of them need not be read."""

Kind = tuple[DType, tuple[int, ...], bytes]


@dataclass(frozen=True)
class Rename:
    """One tensor under two names.

    Attributes:
        a: Its name in A.
        b: Its name in B.
        dtype: Its element type.
        shape: Its shape.
        reason: Why it is taken for the same.
    """

    a: str
    b: str
    dtype: DType
    shape: tuple[int, ...]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as `diff --json` prints it."""
        return {"a": self.a, "b": self.b, "dtype": self.dtype.name, "shape": list(self.shape), "reason": self.reason}


@dataclass(frozen=True)
class Undecided:
    """Tensors of equal content that may be the same, and may be not.

    Attributes:
        a: Their names in A.
        b: Their names in B.
        reason: Why their content proves nothing.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as `diff --json` prints it."""
        return {"a": list(self.a), "b": list(self.b), "reason": self.reason}


@dataclass(frozen=True)
class _Group:
    """The tensors of one content."""

    kind: Kind
    a: list[str]
    b: list[str]
    weakness: str | None

    def rename(self, a: str, b: str, reason: str) -> Rename:
        return Rename(a, b, self.kind[0], self.kind[1], reason)


def find_renames(a: Mapping[str, Named], b: Mapping[str, Named]) -> tuple[list[Rename], list[Undecided]]:
    """Pair tensors of different names by their content.

    Contents are read only where the other side has a tensor of the same type and shape.

    Args:
        a: The tensors that only A has, by name.
        b: The tensors that only B has.

    Returns:
        The renamed tensors, and the groups that nothing decides.

    Raises:
        TfthawError: A tensor cannot be read.
    """
    groups = _groups(a, b)
    renamed = [group.rename(group.a[0], group.b[0], "equal content") for group in groups if group.weakness is None]
    beside = _parents(renamed)
    undecided = []
    for group in groups:
        if group.weakness is None:
            continue
        pairs = _told_by_names(group, beside)
        renamed += pairs
        left_a = tuple(name for name in group.a if name not in {pair.a for pair in pairs})
        left_b = tuple(name for name in group.b if name not in {pair.b for pair in pairs})
        if left_a and left_b:
            undecided.append(Undecided(left_a, left_b, group.weakness))
    order = {name: position for position, name in enumerate(a)}
    return sorted(renamed, key=lambda pair: order[pair.a]), undecided


def _groups(a: Mapping[str, Named], b: Mapping[str, Named]) -> list[_Group]:
    """Group the tensors that both sides have the content of."""
    found: dict[Kind, _Group] = {}
    for side, candidates in enumerate(_candidates(a, b)):
        for name, named in candidates.items():
            digest, is_particular = _fingerprint(named)
            kind = (*named.kind, digest)
            group = found.setdefault(kind, _Group(kind, [], [], None if is_particular else _weakness(named)))
            (group.b if side else group.a).append(name)
    result = []
    for group in found.values():
        if not group.a or not group.b:
            continue
        repeated = len(group.a) > 1 or len(group.b) > 1
        reason = f"{len(group.a)} in A and {len(group.b)} in B have this content" if repeated else None
        result.append(_Group(group.kind, group.a, group.b, group.weakness or reason))
    return result


def _candidates(a: Mapping[str, Named], b: Mapping[str, Named]) -> list[dict[str, Named]]:
    """Return the tensors that the other side may have: one of their type, shape and first bytes."""
    sides = [{name: named for name, named in side.items() if _is_known_by_content(named)} for side in (a, b)]
    for trait in (lambda named: named.kind, lambda named: (named.kind, _head(named))):
        traits = [{name: trait(named) for name, named in side.items()} for side in sides]
        shared = set(traits[0].values()) & set(traits[1].values())
        sides = [
            {name: named for name, named in side.items() if found[name] in shared}
            for side, found in zip(sides, traits, strict=True)
        ]
    return sides


def _is_known_by_content(named: Named) -> bool:
    return named.is_array or named.tensor.dtype is DType.string


def _head(named: Named) -> bytes:
    return next(named.chunks(_HEAD_BYTES), np.empty(0, np.uint8)).tobytes() if named.is_array else b""


def _weakness(named: Named) -> str:
    return "a scalar" if not named.tensor.shape else "one value throughout, or too few elements"


def _fingerprint(named: Named) -> tuple[bytes, bool]:
    """Return a digest of a tensor's content, and whether that content is particular enough to know it by."""
    digest = hashlib.blake2b(digest_size=32)
    if named.tensor.dtype is DType.string:
        strings = named.strings().tolist()
        for value in strings:
            digest.update(len(value).to_bytes(8, "little") + value)
        return digest.digest(), len(set(strings)) > 1 and sum(map(len, strings)) >= _LEAST_BYTES
    width = named.tensor.dtype.itemsize
    first: Any = None
    varies = False
    for elements in named.elements():
        data = elements.view(np.uint8)
        digest.update(data.data)
        if not varies and len(data):
            rows = data.reshape(-1, width)
            first = rows[0].copy() if first is None else first
            varies = bool((rows != first).any())
    enough = named.tensor.size >= _LEAST_ELEMENTS and named.tensor.nbytes >= _LEAST_BYTES
    return digest.digest(), varies and enough


def _plain(name: str) -> str:
    """Return a name without what formats append to it."""
    return name.removesuffix(_ATTRIBUTE_SUFFIX).removesuffix(":0")


def _split(name: str) -> tuple[str, str]:
    parent, _, leaf = _plain(name).rpartition("/")
    return parent, leaf


def _parents(renamed: Iterable[Rename]) -> dict[str, set[str]]:
    """Return what the scope of a renamed tensor is called on the other side."""
    result: dict[str, set[str]] = {}
    for pair in renamed:
        result.setdefault(_split(pair.a)[0], set()).add(_split(pair.b)[0])
    return result


def _told_by_names(group: _Group, beside: Mapping[str, set[str]]) -> list[Rename]:
    """Pair the tensors of a group whose names tell which is which; the surest evidence first."""
    pairs: list[Rename] = []

    def pair(keys_a: Callable[[str], Iterable[Any]], key_b: Callable[[str], Any], reason: str) -> None:
        left_a = [name for name in group.a if name not in {found.a for found in pairs}]
        left_b = [name for name in group.b if name not in {found.b for found in pairs}]
        pairs.extend(group.rename(a, b, reason) for a, b in _unique(left_a, keys_a, left_b, key_b))

    pair(lambda a: [_plain(a)], _plain, "equal content, and the name but for its ending")
    scopes: Callable[[str], Iterable[str]] = lambda a: beside.get(_split(a)[0], ())  # noqa: E731
    pair(lambda a: [(scope, _split(a)[1]) for scope in scopes(a)], _split, "equal content, beside a renamed tensor")
    pair(scopes, lambda b: _split(b)[0], "equal content, the only one such beside a renamed tensor")
    return pairs


def _unique(
    names_a: Iterable[str], keys_a: Callable[[str], Iterable[Any]], names_b: Iterable[str], key_b: Callable[[str], Any]
) -> list[tuple[str, str]]:
    """Pair names by a key that exactly one of each side has; a name with several such keys stays out."""
    by_key: dict[Any, tuple[set[str], set[str]]] = {}
    for name in names_a:
        for key in keys_a(name):
            by_key.setdefault(key, (set(), set()))[0].add(name)
    for name in names_b:
        if (entry := by_key.get(key_b(name))) is not None:
            entry[1].add(name)
    found = [(*ones, *others) for ones, others in by_key.values() if len(ones) == 1 and len(others) == 1]
    once: dict[str, int] = {}
    for one, _ in found:
        once[one] = once.get(one, 0) + 1
    return [(one, other) for one, other in found if once[one] == 1]
