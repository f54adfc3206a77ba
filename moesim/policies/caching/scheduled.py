"""Scheduled: who leaves was decided beforehand; the expert with the largest number in the schedule leaves first.

A schedule (``policies.schedule``, as ``moesim optimum`` writes it) says for each activation how long its expert is to
stay: the number of the activation until which it is kept, and numbers beyond the trace's end where it is not kept until
its next use. Without a schedule that number is the next use itself, which is Belady's MIN. It knows the future.

In host memory, where an expert is asked for whenever it goes up, the schedule says when each one is to be asked for,
as numbers of asks; whoever is asked for last leaves first.
"""

import numpy as np

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_heap, heap_end, heap_put, heap_remove, smallest_unlocked

NOTE = "schedule"
#: Leaves before all that are asked for again.
NEVER = 2**62
#: What goes up at about the same time is not always asked for in that order: an ask this near is the one that is made.
#: With few keys it has to be nearer.
NEAR, KEYS = 40, 8
needs_future = True


class Params(PolicyParams):
    """The schedule itself is named beside the policy."""


def initial_state(params: Params, context: CacheContext):
    """Kept experts, the one with the largest number on top; then the table of asks, if there is one.

    The table: how near an ask is the one that is made (-1: no table), for each key the place of its next ask, for each
    key the place after its last one, and the asks.
    """
    heap = empty_heap(context.num_keys)
    if context.asks is None:
        return np.append(heap, -1), context.no_floats
    start, asks = context.asks
    near = min(NEAR, np.count_nonzero(np.diff(start)) // KEYS)
    first = len(heap) + 1 + 2 * context.num_keys
    return np.concatenate([heap, [near], start[:-1] + first, start[1:] + first, asks]), context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Remember how long it is to stay from here on."""
    heap_put(state_i, key, -_until(state_i, key, now, note), key)


def on_insert(state_i, state_f, key, now, note):
    """Remember how long it is to stay."""
    heap_put(state_i, key, -_until(state_i, key, now, note), key)


def on_evict(state_i, state_f, key):
    """Forget it."""
    heap_remove(state_i, key)


def victim(state_i, state_f, locked):
    """The one with the largest number that may leave."""
    return smallest_unlocked(state_i, locked)


def _until(state_i, key, now, note):
    """How long a key is to stay: until its next ask by the table where there is one, else by the note."""
    table = heap_end(state_i)
    near = state_i[table]
    if near < 0:
        return int(note)
    place, stop = state_i[table + 1 + key], state_i[table + 1 + state_i[0] + key]
    while place < stop and state_i[place] <= now + near:
        place += 1
    state_i[table + 1 + key] = place
    return state_i[place] if place < stop else NEVER
