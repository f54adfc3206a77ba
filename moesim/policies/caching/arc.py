"""ARC: two recency lists, used once and used again; which one makes room adapts to which one's leavers return.

T1 holds what was used once since it came, T2 what was used again; B1 and B2 remember what left them. In experts of
equal size, with c experts of space and a target p (0 at first) for T1: asking for a key of B1 sets
p <- min(p + max(|B2|/|B1|, 1), c), for a key of B2 p <- max(p - max(|B1|/|B2|, 1), 0), and such a key comes back into
T2; any other newcomer joins T1. T1's oldest leaves where |T1| > p (or |T1| = p and the newcomer comes from B2), else
T2's. Then |T1| + |B1| <= c and |T1| + |T2| + |B1| + |B2| <= 2c are restored by forgetting the oldest of B1, of
B2. Here every |.| is in bytes, and a step of 1 is the newcomer's size.

Source: Megiddo & Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, figure 4. Where a list has
only locked keys (or none) the other one makes room.
"""

import numpy as np

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import (
    empty_queues,
    join,
    oldest_unlocked_of,
    queue_bytes,
    queue_of,
    queues_end,
    quit_queue,
    shorten,
)

T1, T2, B1, B2 = 0, 1, 2, 3
TARGET, CAPACITY, SIZES = 0, 1, 2


class Params(PolicyParams):
    """ARC has no parameters."""


def initial_state(params: Params, context: CacheContext):
    """The lists; behind them the ghost list of the last key asked for, and each key's when it was asked for (else 0).

    The floats are the target p, the capacity c, and each key's bytes.
    """
    state = empty_queues(context.sizes, 4, more=1 + context.num_keys)
    return state, np.concatenate([[0.0, context.capacity_bytes], context.sizes])


def on_hit(state_i, state_f, key, now, note):
    """Used again: the newest of T2."""
    quit_queue(state_i, key)
    join(state_i, T2, key)


def before_insert(state_i, state_f, key):
    """A ghost moves the target towards its list, and is one no longer."""
    asked = queues_end(state_i)
    in_b1, in_b2 = queue_bytes(state_i, B1), queue_bytes(state_i, B2)
    size = state_f[SIZES + key]
    if queue_of(state_i, key) == B1:
        state_f[TARGET] = min(state_f[TARGET] + size * max(in_b2 / in_b1, 1.0), state_f[CAPACITY])
    elif queue_of(state_i, key) == B2:
        state_f[TARGET] = max(state_f[TARGET] - size * max(in_b1 / in_b2, 1.0), 0.0)
    if queue_of(state_i, key) >= B1:
        state_i[asked + 1 + key] = queue_of(state_i, key)
        quit_queue(state_i, key)
    state_i[asked] = state_i[asked + 1 + key]


def on_insert(state_i, state_f, key, now, note):
    """Remembered: to T2. New: to T1. Then the ghosts are cut to their length."""
    remembered = queues_end(state_i) + 1 + key
    join(state_i, T2 if state_i[remembered] else T1, key)
    state_i[remembered] = 0
    capacity = int(state_f[CAPACITY])
    shorten(state_i, B1, capacity - queue_bytes(state_i, T1))
    kept = queue_bytes(state_i, T1) + queue_bytes(state_i, T2)
    shorten(state_i, B2, 2 * capacity - kept - queue_bytes(state_i, B1))


def on_evict(state_i, state_f, key):
    """Become a ghost of the list that it leaves."""
    ghosts = B1 if queue_of(state_i, key) == T1 else B2
    quit_queue(state_i, key)
    join(state_i, ghosts, key)


def victim(state_i, state_f, locked):
    """The oldest of the list that is too long for the target."""
    in_t1, from_b2 = queue_bytes(state_i, T1), state_i[queues_end(state_i)] == B2
    first = T1 if in_t1 > state_f[TARGET] or (from_b2 and in_t1 == state_f[TARGET]) else T2
    key = oldest_unlocked_of(state_i, first, locked)
    return key if key >= 0 else oldest_unlocked_of(state_i, T1 + T2 - first, locked)
