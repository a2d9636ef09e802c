"""Cycles among things that need each other: the nodes of a graph, the functions of a library."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

_SHOWN = 24


def cycles(needs: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Yield cycles in linear time: at least one of everything that is entangled, no two with a member in common.

    Args:
        needs: name -> the names that it needs; names that are no key need nothing.

    Yields:
        A cycle, each name before what it needs; the first is the last again.
    """
    done: set[str] = set()
    for root in needs:
        if root not in done:
            yield from _cycles_from(root, needs, done)


def _cycles_from(root: str, needs: Mapping[str, Collection[str]], done: set[str]) -> Iterator[list[str]]:
    """Yield the cycles that a walk from one name meets; what it has seen is done."""
    way, places = [root], {root: 0}
    waiting = [iter(needs[root])]
    last_shown = [-1]  # by place on the way: the last place up to it that is on a cycle that was yielded
    while waiting:
        for name in waiting[-1]:
            place = places.get(name)
            if place is None:
                if name not in done and name in needs:
                    places[name] = len(way)
                    way.append(name)
                    waiting.append(iter(needs[name]))
                    last_shown.append(last_shown[-1])
                    break
            elif place > last_shown[-1]:
                last_shown[place:] = range(place, len(way))
                yield [*way[place:], name]
        else:
            waiting.pop()
            last_shown.pop()
            places.popitem()
            done.add(way.pop())


def cycle_text(cycle: list[str], arrow: str) -> str:
    """Return a cycle as text, without the middle of a very long one."""
    if len(cycle) > _SHOWN:
        half = _SHOWN // 2
        cycle = [*cycle[:half], f"... {len(cycle) - _SHOWN} more ...", *cycle[-half:]]
    return f" {arrow} ".join(cycle)
