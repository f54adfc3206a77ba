"""A cache's books on flat arrays: what :class:`moesim.replay.expert_cache.ExpertCache` does, compiled.

``held[key]`` is ABSENT, PASSES (it holds space for the running visit) or KEPT (the policy knows it). ``books`` holds
the cache's numbers, ``passing`` the keys that came in during the running visit.
"""

from __future__ import annotations

from typing import Any

from moesim.replay.kernels.policy import admit, on_bypass, on_evict, on_hit, on_insert, victim

ABSENT, PASSES, KEPT = 0, 1, 2

#: Places in ``books``: bytes held, activations so far, bytes of space, how many pass, the most held beyond the space,
#: and what the policy did that its contract forbids.
USED, NOW, CAPACITY, PASSING, OVERSHOOT, FAULT, NUMBERS = range(7)
#: FAULT: ``victim`` named nobody, or somebody whom the policy does not keep.
VICTIM = 1


def hold(sizes: Any, held: Any, books: Any, passing: Any, key: int) -> None:
    """A transfer that the running visit waits for starts."""
    held[key] = PASSES
    books[USED] += sizes[key]
    passing[books[PASSING]] = key
    books[PASSING] += 1


def keep(state_i: Any, state_f: Any, held: Any, books: Any, key: int, note: float) -> None:
    """The policy keeps a key that holds space."""
    on_insert(state_i, state_f, key, books[NOW], note)
    held[key] = KEPT


def drop(state_i: Any, state_f: Any, sizes: Any, held: Any, books: Any, key: int) -> None:
    """The key leaves and its space is free."""
    if held[key] == KEPT:
        on_evict(state_i, state_f, key)
    held[key] = ABSENT
    books[USED] -= sizes[key]


def lock(locked: Any, members: Any, by: int) -> None:
    """One reason more (or, with -1, one less) for each of ``members`` to stay."""
    for place in range(len(members)):
        locked[members[place]] += by


def choose(state_i: Any, state_f: Any, held: Any, locked: Any, books: Any) -> int:
    """The policy's victim, checked: -1 where there is none."""
    key = victim(state_i, state_f, locked)
    if key >= 0 and held[key] != KEPT:
        books[FAULT] = VICTIM
        return -1
    return key


def next_to_leave(
    state_i: Any, state_f: Any, held: Any, locked: Any, books: Any, passing: Any, members: Any
) -> int:
    """Who makes room for a demand of the running visit, as ``ExpertCache.next_to_leave`` says; -1 is a fault."""
    key = choose(state_i, state_f, held, locked, books)
    if key >= 0:
        return key
    lock(locked, members, -1)
    key = choose(state_i, state_f, held, locked, books)
    lock(locked, members, 1)
    if key >= 0:
        return key
    for place in range(books[PASSING]):
        if held[passing[place]] == PASSES:
            return passing[place]
    books[FAULT] = VICTIM
    return -1


def tell_uses(state_i: Any, state_f: Any, held: Any, books: Any, keys: Any, notes: Any) -> None:
    """Tell the policy every activation of a visit, in order. ``notes`` is empty where the policy takes none."""
    for place in range(len(keys)):
        key = keys[place]
        note = notes[place] if len(notes) else 0.0
        now = books[NOW]
        if held[key] == KEPT:
            on_hit(state_i, state_f, key, now, note)
        elif held[key] == PASSES and admit(state_i, state_f, key, now, note):
            keep(state_i, state_f, held, books, key, note)
        else:
            on_bypass(state_i, state_f, key, now, note)
        books[NOW] = now + 1


def let_go(state_i: Any, state_f: Any, sizes: Any, held: Any, books: Any, passing: Any) -> None:
    """At a visit's end what the policy does not keep leaves."""
    for place in range(books[PASSING]):
        if held[passing[place]] == PASSES:
            drop(state_i, state_f, sizes, held, books, passing[place])
    books[PASSING] = 0
