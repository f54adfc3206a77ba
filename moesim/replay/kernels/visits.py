"""Rules ``reserve`` and ``evict_after``: counts visit by visit."""

from __future__ import annotations

from typing import Any

from moesim.replay.kernels.caches import (
    CAPACITY,
    FAULT,
    PASSES,
    PASSING,
    USED,
    Caches,
    announce,
    choose,
    drop,
    expect,
    fits,
    hold,
    lock,
    next_to_leave,
    tell_uses,
)
from moesim.replay.kernels.uses import Uses


def by_visit(caches: Caches, uses: Uses, first_step: int, stop_step: int, evict_after: bool) -> int:
    """Replay some steps; ``uses.hit`` says of each lookup whether it was one.

    Returns:
        The most that was held beyond the capacity.
    """
    overshoot, one_cache = 0, len(caches.books) == 1
    for visit in range(first_step * uses.layers, stop_step * uses.layers):
        layer = visit % uses.layers
        cache = 0 if one_cache else layer
        starts = uses.starts_request[visit // uses.layers] and (layer == 0 or not one_cache)
        announce(caches, cache, layer, starts)
        _fetch(caches, uses, visit, cache, evict_after)
        overshoot = max(overshoot, caches.books[cache, USED] - caches.books[cache, CAPACITY])
        begin, end = uses.start[visit], uses.start[visit + 1]
        tell_uses(caches, cache, uses.key[begin:end], uses.note[begin:end])
        for place in range(caches.common[PASSING]):
            if caches.held[caches.passing[place]] == PASSES:
                drop(caches, cache, caches.passing[place])
        caches.common[PASSING] = 0
        if caches.books[cache, USED] > caches.books[cache, CAPACITY]:
            _trim(caches, cache, uses.lookup_key[uses.lookup_start[visit] : uses.lookup_start[visit + 1]])
        if caches.common[FAULT]:
            break
    return overshoot


def _fetch(caches: Caches, uses: Uses, visit: int, cache: int, evict_after: bool) -> None:
    """Label the visit's lookups, and bring in what is missing."""
    begin, end = uses.lookup_start[visit], uses.lookup_start[visit + 1]
    members = uses.lookup_key[begin:end]
    missing = 0
    for lookup in range(begin, end):
        uses.hit[lookup] = caches.held[uses.lookup_key[lookup]] > 0
        missing += not uses.hit[lookup]
    if missing == 0:
        return
    lock(caches, members, 1)
    for lookup in range(begin, end):
        if not uses.hit[lookup]:
            key = uses.lookup_key[lookup]
            expect(caches, cache, key)
            while not evict_after and not fits(caches, cache, key):
                leaver = next_to_leave(caches, cache, members)
                if leaver < 0:
                    return
                drop(caches, cache, leaver)
            hold(caches, cache, key)
    lock(caches, members, -1)


def _trim(caches: Caches, cache: int, members: Any) -> None:
    """Down to the capacity, but none of ``members``."""
    lock(caches, members, 1)
    while caches.books[cache, USED] > caches.books[cache, CAPACITY]:
        leaver = choose(caches, cache)
        if leaver < 0:
            break
        drop(caches, cache, leaver)
    lock(caches, members, -1)
