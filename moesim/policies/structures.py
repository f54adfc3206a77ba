"""Data structures on one flat integer array, in the subset of Python that numba compiles.

A policy's state is flat so that it compiles to fast code and can be held in a plain list when it is interpreted
(a list is indexed several times faster than a numpy array from Python). Every function takes the array first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: A list of integers when a policy is interpreted, an int64 array when it is compiled.
Ints = list[int]

# ---- A list ordered from newest to oldest over keys 0 .. n-1 -------------------------------------------------------
# layout: [0] n, [1] newest, [2] oldest, [3 : 3+n] the next newer key, [3+n : 3+2n] the next older key; -1 is none


def empty_list(num_keys: int) -> NDArray[np.int64]:
    """A recency list that holds none of ``num_keys`` keys yet."""
    state = np.full(3 + 2 * num_keys, -1, dtype=np.int64)
    state[0] = num_keys
    return state


def push_newest(state: Ints, key: int) -> None:
    """Put a key that is not in the list at its newest end."""
    newest = state[1]
    state[3 + key] = -1
    state[3 + state[0] + key] = newest
    if newest >= 0:
        state[3 + newest] = key
    else:
        state[2] = key
    state[1] = key


def unlink(state: Ints, key: int) -> None:
    """Take a key out of the list."""
    newer, older = state[3 + key], state[3 + state[0] + key]
    if newer >= 0:
        state[3 + state[0] + newer] = older
    else:
        state[1] = older
    if older >= 0:
        state[3 + older] = newer
    else:
        state[2] = newer


def oldest_unlocked(state: Ints, locked: Ints) -> int:
    """The oldest key that is not locked, or -1."""
    key = state[2]
    while key >= 0 and locked[key]:
        key = state[3 + key]
    return key


# ---- A binary heap over keys 0 .. n-1, smallest (rank, tie) first --------------------------------------------------
# layout: [0] n, [1] how many keys are in it, then four blocks of n: the heap, each key's place in it (-1: not in),
# each key's rank, each key's tie


def empty_heap(num_keys: int) -> NDArray[np.int64]:
    """A heap that holds none of ``num_keys`` keys yet."""
    state = np.zeros(2 + 4 * num_keys, dtype=np.int64)
    state[0] = num_keys
    state[2 + num_keys : 2 + 2 * num_keys] = -1
    return state


def heap_rank(state: Ints, key: int) -> int:
    """The rank with which a key was last put."""
    return state[2 + 2 * state[0] + key]


def heap_put(state: Ints, key: int, rank: int, tie: int) -> None:
    """Insert a key, or give it a new rank."""
    n = state[0]
    place = state[2 + n + key]
    if place < 0:
        place = state[1]
        state[1] += 1
    state[2 + 2 * n + key] = rank
    state[2 + 3 * n + key] = tie
    _settle(state, place, key)


def heap_remove(state: Ints, key: int) -> None:
    """Take a key out of the heap."""
    n = state[0]
    place = state[2 + n + key]
    state[2 + n + key] = -1
    state[1] -= 1
    last = state[2 + state[1]]
    if last != key:
        _settle(state, place, last)


def smallest_unlocked(state: Ints, locked: Ints) -> int:
    """The key with the smallest (rank, tie) that is not locked, or -1.

    Walks the heap from its top and goes below a key only where that key is locked.
    """
    best = -1
    place = 0
    while place < state[1]:
        key = state[2 + place]
        if not locked[key]:
            if best < 0 or _before(state, key, best):
                best = key
        elif 2 * place + 1 < state[1]:
            place = 2 * place + 1
            continue
        place = _next_in_heap(place, state[1])
    return best


def _next_in_heap(place: int, count: int) -> int:
    """The place after ``place`` and all below it, in depth-first order; ``count`` at the end."""
    while place > 0:
        if place % 2 == 1 and place + 1 < count:
            return place + 1
        place = (place - 1) // 2
    return count


def _before(state: Ints, a: int, b: int) -> bool:
    n = state[0]
    rank_a, rank_b = state[2 + 2 * n + a], state[2 + 2 * n + b]
    if rank_a != rank_b:
        return rank_a < rank_b
    return state[2 + 3 * n + a] < state[2 + 3 * n + b]


def _settle(state: Ints, place: int, key: int) -> None:
    """Put ``key`` at ``place`` and let it rise or sink to where it belongs."""
    n, count = state[0], state[1]
    while place > 0:
        parent = state[2 + (place - 1) // 2]
        if not _before(state, key, parent):
            break
        state[2 + place] = parent
        state[2 + n + parent] = place
        place = (place - 1) // 2
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and _before(state, state[2 + child + 1], state[2 + child]):
            child += 1
        smaller = state[2 + child]
        if not _before(state, smaller, key):
            break
        state[2 + place] = smaller
        state[2 + n + smaller] = place
        place = child
    state[2 + place] = key
    state[2 + n + key] = place
