"""The fewest fetches at any time: who of each set can have been kept since its last use, all in one pass.

An interval between two consecutive uses of an expert takes a slot of every point that it spans. Intervals are granted
in the order of their ends, each if it fits: with equal sizes that grants the most, for every prefix at once (it counts
as Belady's MIN does). All that ends now spans a suffix of the points so far, so what counts is, for each point, the
least room from there on. That never falls from left to right, and only where it rises (``rise``) is anything kept:
granting a suffix takes one from the nearest rise at or before its first point. ``before`` leads there, as a union-find
forest. Points are numbered from 2: 1 stands for the start, 0 for "no room".
"""

from __future__ import annotations

from typing import Any

TOGETHER, BYPASS, OVERSHOOT = range(3)


def fewest_misses(
    start: Any, key: Any, slots: int, model: int, warm: bool, last: Any, before: Any, rise: Any, missed: Any
) -> int:
    """Mark in ``missed`` which lookups can't have been kept.

    Args:
        start, key: the sets, each asked for at once; no key twice in a set. [sets + 1], [lookups]
        slots: of the cache.
        model: TOGETHER: a whole set stands in the cache at once, and is at most as large. BYPASS: a set streams through
            a place of its own, and only what is kept between sets takes slots. OVERSHOOT: as BYPASS, but after a set
            the cache may hold the whole set and one more, whatever its size.
        warm: the cache may hold anything at the start.
        last: room for the point of each key's last use, zeroed. [keys]
        before, rise: room, zeroed. [sets + 2]

    Returns:
        How many missed.
    """
    count = 0
    top = slots if warm else 0
    rise[1] = top
    before[1] = 1 if warm else 0
    for number in range(len(start) - 1):
        point = number + 2
        begin, end = start[number], start[number + 1]
        for place in range(begin, end):
            used = last[key[place]]
            last[key[place]] = point
            if used == 0:
                missed[place] = not warm
                if not warm:
                    count += 1
                    continue
                used = 1
            elif model == TOGETHER:
                used += 1
                if used == point:
                    missed[place] = False
                    continue
            root = _nearest(before, used)
            missed[place] = root == 0
            if root == 0:
                count += 1
                continue
            top -= 1
            rise[root] -= 1
            if rise[root] == 0:
                before[root] = root - 1
        room = _room(slots, model, end - begin)
        _append(before, rise, point, top, room)
        top = room
    return count


def _room(slots: int, model: int, size: int) -> int:
    """What the point of a set of this size leaves for experts that are kept across it."""
    if model == TOGETHER:
        return slots - size
    return max(slots, size + 1) if model == OVERSHOOT else slots


def _append(before: Any, rise: Any, point: int, top: int, room: int) -> None:
    """A new last point: where it has less room than the one before, so have from now on all that had more."""
    before[point] = point - 1
    if room > top:
        rise[point] = room - top
        before[point] = point
    while top > room:
        root = _nearest(before, point)
        taken = min(rise[root], top - room)
        rise[root] -= taken
        top -= taken
        if rise[root] == 0:
            before[root] = root - 1


def _nearest(before: Any, point: int) -> int:
    """The nearest rise at or before a point; the way there is halved for the next time."""
    while before[point] != point:
        before[point] = before[before[point]]
        point = before[point]
    return point
