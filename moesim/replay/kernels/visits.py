"""Rules ``reserve`` and ``evict_after``: counts visit by visit."""

from __future__ import annotations

from typing import Any

from moesim.replay.kernels.cache import (
    CAPACITY,
    FAULT,
    OVERSHOOT,
    USED,
    choose,
    drop,
    hold,
    let_go,
    lock,
    next_to_leave,
    tell_uses,
)
from moesim.replay.kernels.policy import before_insert, on_visit


def by_visit(
    state_i: Any,
    state_f: Any,
    sizes: Any,
    held: Any,
    locked: Any,
    books: Any,
    passing: Any,
    evict_after: bool,
    layer: Any,
    starts_request: Any,
    lookup_start: Any,
    lookup_key: Any,
    start: Any,
    key: Any,
    notes: Any,
    hit: Any,
) -> None:
    """Replay visits; ``hit`` says of each lookup whether it was one. Stops where the policy breaks its contract.

    Args:
        layer, starts_request: what the policy is told of each visit. [visits]
        lookup_start, lookup_key: each visit's lookups. [visits + 1], [lookups]
        start, key, notes: each visit's activations; no notes where the policy takes none. [visits + 1], [activations]
    """
    for visit in range(len(layer)):
        on_visit(state_i, state_f, layer[visit], starts_request[visit])
        first, stop = lookup_start[visit], lookup_start[visit + 1]
        members = lookup_key[first:stop]
        missing = False
        for lookup in range(first, stop):
            hit[lookup] = held[lookup_key[lookup]] > 0
            missing |= not hit[lookup]
        if missing:
            lock(locked, members, 1)
            for lookup in range(first, stop):
                if not hit[lookup]:
                    _bring_in(
                        state_i, state_f, sizes, held, locked, books, passing, members, lookup_key[lookup], evict_after
                    )
            lock(locked, members, -1)
            books[OVERSHOOT] = max(books[OVERSHOOT], books[USED] - books[CAPACITY])
        begin, end = start[visit], start[visit + 1]
        tell_uses(state_i, state_f, held, books, key[begin:end], notes[begin:end])
        let_go(state_i, state_f, sizes, held, books, passing)
        if books[USED] > books[CAPACITY]:
            _trim(state_i, state_f, sizes, held, locked, books, members)
        if books[FAULT]:
            return


def _bring_in(
    state_i: Any,
    state_f: Any,
    sizes: Any,
    held: Any,
    locked: Any,
    books: Any,
    passing: Any,
    members: Any,
    key: int,
    evict_after: bool,
) -> None:
    before_insert(state_i, state_f, key)
    while not evict_after and books[USED] + sizes[key] > books[CAPACITY]:
        leaver = next_to_leave(state_i, state_f, held, locked, books, passing, members)
        if leaver < 0:
            break
        drop(state_i, state_f, sizes, held, books, leaver)
    hold(sizes, held, books, passing, key)


def _trim(state_i: Any, state_f: Any, sizes: Any, held: Any, locked: Any, books: Any, members: Any) -> None:
    """Down to the capacity, but none of ``members``."""
    lock(locked, members, 1)
    while books[USED] > books[CAPACITY]:
        leaver = choose(state_i, state_f, held, locked, books)
        if leaver < 0:
            break
        drop(state_i, state_f, sizes, held, books, leaver)
    lock(locked, members, -1)
