"""The books of one cache or of one for each layer: what ``ExpertCache`` does, on flat arrays.

Keys are counted over all caches, one after the other; a policy counts those of its own cache from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moesim.replay.kernels.policy import admit, before_insert, on_bypass, on_evict, on_hit, on_insert, on_visit, victim

#: A key is away, holds space for the running visit, or is known to the policy.
ABSENT, PASSES, KEPT = 0, 1, 2

#: Columns of ``books``: bytes held, activations so far, bytes of space; the cache's part of ``state_i``, of
#: ``state_f``, and of the keys.
USED, NOW, CAPACITY, I_START, I_STOP, F_START, F_STOP, KEY_START, KEY_STOP = range(9)
BOOKS = 9
#: Places in ``common``: keys of each cache, how many keys pass, and whether the policy broke its contract (its
#: ``victim`` named nobody though somebody must leave, or somebody whom it does not keep).
KEYS_PER_CACHE, PASSING, FAULT = range(3)
COMMON = 3


@dataclass(frozen=True)
class Caches:
    """Arrays of all caches.

    Attributes:
        state_i, state_f: the policy's states, one after the other.
        sizes: bytes. [keys]
        held: ABSENT, PASSES or KEPT. [keys]
        locked: reasons to stay. [keys]
        passing: keys that came in during the running visit. [keys]
        books: numbers of each cache. [caches, BOOKS]
        common: numbers of all. [COMMON]
    """

    state_i: Any
    state_f: Any
    sizes: Any
    held: Any
    locked: Any
    passing: Any
    books: Any
    common: Any


def cache_of(caches: Caches, key: int) -> int:
    """The cache of a key."""
    return 0 if len(caches.books) == 1 else key // caches.common[KEYS_PER_CACHE]


def announce(caches: Caches, cache: int, layer: int, starts_request: bool) -> None:
    """A router has spoken."""
    own = caches.books[cache]
    state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
    on_visit(state_i, state_f, layer, starts_request)


def expect(caches: Caches, cache: int, key: int) -> None:
    """Room is about to be made for the key."""
    own = caches.books[cache]
    state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
    before_insert(state_i, state_f, key - own[KEY_START])


def admits(caches: Caches, cache: int, key: int, note: float) -> bool:
    """Whether the policy would keep the key after this use."""
    own = caches.books[cache]
    state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
    return admit(state_i, state_f, key - own[KEY_START], own[NOW], note)


def fits(caches: Caches, cache: int, key: int) -> bool:
    """Whether the free space holds the key."""
    return caches.books[cache, USED] + caches.sizes[key] <= caches.books[cache, CAPACITY]


def hold(caches: Caches, cache: int, key: int) -> None:
    """A transfer that the running visit waits for starts."""
    caches.held[key] = PASSES
    caches.books[cache, USED] += caches.sizes[key]
    caches.passing[caches.common[PASSING]] = key
    caches.common[PASSING] += 1


def keep(caches: Caches, cache: int, key: int, note: float) -> None:
    """The policy keeps a key that holds space."""
    own = caches.books[cache]
    state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
    on_insert(state_i, state_f, key - own[KEY_START], own[NOW], note)
    caches.held[key] = KEPT


def drop(caches: Caches, cache: int, key: int) -> None:
    """The key leaves and its space is free."""
    if caches.held[key] == KEPT:
        own = caches.books[cache]
        state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
        on_evict(state_i, state_f, key - own[KEY_START])
    caches.held[key] = ABSENT
    caches.books[cache, USED] -= caches.sizes[key]


def choose(caches: Caches, cache: int) -> int:
    """The policy's victim, checked; -1 where there is none."""
    own = caches.books[cache]
    state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
    key = victim(state_i, state_f, caches.locked[own[KEY_START] : own[KEY_STOP]])
    if key < 0:
        return -1
    key += own[KEY_START]
    if key >= own[KEY_STOP] or caches.held[key] != KEPT:
        caches.common[FAULT] = 1
        return -1
    return key


def lock(caches: Caches, members: Any, by: int) -> None:
    """One reason more (or, with -1, one less) for each of ``members`` to stay."""
    for place in range(len(members)):
        caches.locked[members[place]] += by


def next_to_leave(caches: Caches, cache: int, members: Any) -> int:
    """Who makes room for a demand of the running visit, as ``ExpertCache.next_to_leave`` says; -1 is a fault."""
    key = choose(caches, cache)
    if key < 0:
        lock(caches, members, -1)
        key = choose(caches, cache)
        lock(caches, members, 1)
    return key if key >= 0 else passing_to_leave(caches)


def passing_to_leave(caches: Caches) -> int:
    """The earliest that passed and is still here; -1 is a fault."""
    for place in range(caches.common[PASSING]):
        if caches.held[caches.passing[place]] == PASSES:
            return caches.passing[place]
    caches.common[FAULT] = 1
    return -1


def tell_uses(caches: Caches, cache: int, keys: Any, notes: Any) -> None:
    """Tell the policy every activation of a visit, in order. ``notes`` is empty where the policy takes none."""
    own = caches.books[cache]
    state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
    for place in range(len(keys)):
        key, now = keys[place], own[NOW]
        note = notes[place] if len(notes) else 0.0
        if caches.held[key] == KEPT:
            on_hit(state_i, state_f, key - own[KEY_START], now, note)
        elif caches.held[key] == PASSES and admit(state_i, state_f, key - own[KEY_START], now, note):
            on_insert(state_i, state_f, key - own[KEY_START], now, note)
            caches.held[key] = KEPT
        else:
            on_bypass(state_i, state_f, key - own[KEY_START], now, note)
        own[NOW] = now + 1
