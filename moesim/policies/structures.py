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
# layout: [0] n, then for each key a pair: the next newer key, the next older key. Key -1 closes the ring, and its pair
# comes first: the oldest key of all, the newest of all. An empty list is that pair, pointing to itself.


def empty_list(num_keys: int, more: int = 0) -> NDArray[np.int64]:
    """A recency list that holds none of ``num_keys`` keys yet, and ``more`` zeros behind it."""
    state = np.full(3 + 2 * num_keys + more, -1, dtype=np.int64)
    state[0] = num_keys
    state[3 + 2 * num_keys :] = 0
    return state


def push_newest(state: Ints, key: int) -> None:
    """Put a key that is not in the list at its newest end."""
    newest = state[2]
    state[3 + 2 * key] = -1
    state[4 + 2 * key] = newest
    state[3 + 2 * newest] = key
    state[2] = key


def unlink(state: Ints, key: int) -> None:
    """Take a key out of the list."""
    newer, older = state[3 + 2 * key], state[4 + 2 * key]
    state[4 + 2 * newer] = older
    state[3 + 2 * older] = newer


def renew(state: Ints, key: int) -> None:
    """Put a key that is in the list at its newest end: ``unlink`` and ``push_newest``, where it isn't there already."""
    if key != state[2]:
        unlink(state, key)
        push_newest(state, key)


def newer_in_list(state: Ints, key: int) -> int:
    """The key that came next, or -1; of -1 the oldest."""
    return state[3 + 2 * key]


def oldest_unlocked(state: Ints, locked: Ints) -> int:
    """The oldest key that is not locked, or -1."""
    key = state[1]
    while key >= 0 and locked[key]:
        key = state[3 + 2 * key]
    return key


def list_end(state: Ints) -> int:
    """The first place after a recency list, where a policy may keep more."""
    return 3 + 2 * state[0]


# ---- Several queues over keys 0 .. n-1; a key stands in one of them or in none -------------------------------------
# layout: [0] n, [1] q, q triples (newest key, oldest key, bytes), then four blocks of n: the next newer key, the next
# older key, the queue that the key stands in, the key's bytes; -1 is none


def empty_queues(sizes: NDArray[np.int64], queues: int, more: int = 0) -> NDArray[np.int64]:
    """``queues`` empty queues over keys of ``sizes`` bytes, and ``more`` zeros behind them."""
    n = len(sizes)
    state = np.full(2 + 3 * queues + 4 * n + more, -1, dtype=np.int64)
    state[:2] = n, queues
    state[4 : 2 + 3 * queues : 3] = 0
    state[2 + 3 * queues + 3 * n :][:n] = sizes
    state[2 + 3 * queues + 4 * n :] = 0
    return state


def queues_end(state: Ints) -> int:
    """The first place after the queues, where a policy may keep more."""
    return 2 + 3 * state[1] + 4 * state[0]


def queue_of(state: Ints, key: int) -> int:
    """The queue that a key stands in, or -1."""
    return state[2 + 3 * state[1] + 2 * state[0] + key]


def queue_bytes(state: Ints, queue: int) -> int:
    """Bytes of the keys in a queue."""
    return state[4 + 3 * queue]


def oldest_of(state: Ints, queue: int) -> int:
    """The key that stands longest in a queue, or -1."""
    return state[3 + 3 * queue]


def newer_than(state: Ints, key: int) -> int:
    """The key that joined the same queue next, or -1."""
    return state[2 + 3 * state[1] + key]


def join(state: Ints, queue: int, key: int) -> None:
    """Put a key that stands nowhere at a queue's newest end."""
    newer = 2 + 3 * state[1]
    older, standing, size = newer + state[0], newer + 2 * state[0], newer + 3 * state[0]
    newest = state[2 + 3 * queue]
    state[newer + key] = -1
    state[older + key] = newest
    if newest >= 0:
        state[newer + newest] = key
    else:
        state[3 + 3 * queue] = key
    state[2 + 3 * queue] = key
    state[4 + 3 * queue] += state[size + key]
    state[standing + key] = queue


def quit_queue(state: Ints, key: int) -> None:
    """Take a key out of the queue that it stands in."""
    newer = 2 + 3 * state[1]
    older, standing, size = newer + state[0], newer + 2 * state[0], newer + 3 * state[0]
    queue = state[standing + key]
    before, after = state[newer + key], state[older + key]
    if before >= 0:
        state[older + before] = after
    else:
        state[2 + 3 * queue] = after
    if after >= 0:
        state[newer + after] = before
    else:
        state[3 + 3 * queue] = before
    state[4 + 3 * queue] -= state[size + key]
    state[standing + key] = -1


def oldest_unlocked_of(state: Ints, queue: int, locked: Ints) -> int:
    """The oldest key of a queue that is not locked, or -1."""
    key = oldest_of(state, queue)
    while key >= 0 and locked[key]:
        key = newer_than(state, key)
    return key


def shorten(state: Ints, queue: int, most_bytes: int) -> None:
    """Take the oldest keys out of a queue until it holds at most so many bytes."""
    while queue_bytes(state, queue) > most_bytes and oldest_of(state, queue) >= 0:
        quit_queue(state, oldest_of(state, queue))


# ---- A binary heap over keys 0 .. n-1, smallest (rank, tie) first --------------------------------------------------
# layout: [0] n, [1] how many keys are in it, then four blocks of n: the heap, each key's place in it (-1: not in),
# each key's rank, each key's tie


def empty_heap(num_keys: int, more: int = 0) -> NDArray[np.int64]:
    """A heap that holds none of ``num_keys`` keys yet, and ``more`` zeros behind it."""
    state = np.zeros(2 + 4 * num_keys + more, dtype=np.int64)
    state[0] = num_keys
    state[2 + num_keys : 2 + 2 * num_keys] = -1
    return state


def heap_end(state: Ints) -> int:
    """The first place after a heap, where a policy may keep more."""
    return 2 + 4 * state[0]


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
    ranks, ties = 2 + 2 * n, 2 + 3 * n
    rank, tie = state[ranks + key], state[ties + key]
    while place > 0:
        above = (place - 1) >> 1
        parent = state[2 + above]
        other = state[ranks + parent]
        if other < rank or (other == rank and state[ties + parent] < tie):
            break
        state[2 + place] = parent
        state[2 + n + parent] = place
        place = above
    child = 2 * place + 1
    while child < count:
        smaller = state[2 + child]
        other = state[ranks + smaller]
        if child + 1 < count:
            second = state[3 + child]
            second_rank = state[ranks + second]
            if second_rank < other or (second_rank == other and state[ties + second] < state[ties + smaller]):
                child, smaller, other = child + 1, second, second_rank
        if rank < other or (rank == other and tie < state[ties + smaller]):
            break
        state[2 + place] = smaller
        state[2 + n + smaller] = place
        place = child
        child = 2 * place + 1
    state[2 + place] = key
    state[2 + n + key] = place


# ---- A number for some of the keys 0 .. n-1, largest first: cheaper than a heap where numbers grow far more often ---
# than they are looked for
# layout: [0] n, [1] blocks of 64 keys, then a block of 64 numbers each (-1: none), then each block's largest


def empty_numbers(num_keys: int) -> NDArray[np.int64]:
    """No key has a number yet."""
    blocks = -(-num_keys // 64)
    state = np.full(2 + 65 * blocks, -1, dtype=np.int64)
    state[:2] = num_keys, blocks
    return state


def put_number(state: Ints, key: int, number: int) -> None:
    """Give a key its number, 0 or more, larger than any that it has."""
    largest = 2 + 64 * state[1] + (key >> 6)
    state[2 + key] = number
    state[largest] = max(state[largest], number)


def drop_number(state: Ints, key: int) -> None:
    """The key has no number any longer."""
    block = key >> 6
    state[2 + key] = -1
    state[2 + 64 * state[1] + block] = _largest(state, 2 + 64 * block, 64)


def largest_unlocked(state: Ints, locked: Ints) -> int:
    """The key with the largest number that is not locked, the first of several; -1 where there is none."""
    blocks = 2 + 64 * state[1]
    largest = _largest(state, blocks, state[1])
    if largest < 0:
        return -1
    block = 0
    while state[blocks + block] != largest:
        block += 1
    for key in range(64 * block, min(64 * block + 64, state[0])):
        if state[2 + key] == largest and not locked[key]:
            return key
    best = -1
    for key in range(state[0]):
        if state[2 + key] >= 0 and not locked[key] and (best < 0 or state[2 + key] > state[2 + best]):
            best = key
    return best


def _largest(state: Ints, start: int, count: int) -> int:
    largest = -1
    for place in range(start, start + count):
        largest = max(largest, state[place])
    return largest


# ---- The kept keys of a policy that scores them, and where the model is --------------------------------------------
# layout: [0] n, [1] how many are kept, [2] layers, [3] the layer that runs, [4] forward passes begun, then three blocks
# of n: the kept keys in no order, each key's place among them (-1: not kept), the activation count at its last use


def empty_kept(num_keys: int, experts_per_layer: int, more: int = 0) -> NDArray[np.int64]:
    """No kept keys, before the first visit, and ``more`` zeros behind."""
    state = np.zeros(5 + 3 * num_keys + more, dtype=np.int64)
    layers = num_keys // experts_per_layer
    state[:5] = num_keys, 0, layers, layers, 0
    state[5 + num_keys : 5 + 2 * num_keys] = -1
    return state


def kept_end(state: Ints) -> int:
    """The first place after the kept keys, where a policy may keep more."""
    return 5 + 3 * state[0]


def num_kept(state: Ints) -> int:
    """How many keys are kept."""
    return state[1]


def kept_key(state: Ints, place: int) -> int:
    """One of the kept keys, by its place from 0 on."""
    return state[5 + place]


def keep(state: Ints, key: int, now: int) -> None:
    """Keep a key from now on."""
    state[5 + state[1]] = key
    state[5 + state[0] + key] = state[1]
    state[1] += 1
    touch(state, key, now)


def touch(state: Ints, key: int, now: int) -> None:
    """A key is used now."""
    state[5 + 2 * state[0] + key] = now


def discard(state: Ints, key: int) -> None:
    """Keep a key no longer; the last of the kept keys takes its place."""
    state[1] -= 1
    place, last = state[5 + state[0] + key], state[5 + state[1]]
    state[5 + place] = last
    state[5 + state[0] + last] = place
    state[5 + state[0] + key] = -1


def leaves_first(state: Ints, key: int, score: float, best: int, best_score: float) -> bool:
    """Whether a key goes before the best one found so far (-1: none): lower score, then longer unused."""
    if best < 0 or score != best_score:
        return best < 0 or score < best_score
    return state[5 + 2 * state[0] + key] < state[5 + 2 * state[0] + best]


def enter_visit(state: Ints, layer: int) -> None:
    """A layer of the model begins. A cache of one layer sees a forward pass in each of its visits."""
    layer %= state[2]
    if layer < state[3] or state[2] == 1:
        state[4] += 1
    state[3] = layer


def running_layer(state: Ints) -> int:
    """The layer that runs, counted in this cache."""
    return state[3] % state[2]


def passes(state: Ints) -> int:
    """Forward passes begun."""
    return state[4]


def layer_of(state: Ints, key: int) -> int:
    """The layer of a key, counted in this cache."""
    return key // (state[0] // state[2])


def layers_until(state: Ints, key: int) -> int:
    """In how many layers a key's turn comes: 1 .. layers; the running layer's comes after a whole round."""
    ahead = (layer_of(state, key) - running_layer(state)) % state[2]
    return ahead if ahead > 0 else state[2]
