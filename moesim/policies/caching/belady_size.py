"""Belady by size: the expert with the largest (activations until its next one) x bytes leaves first.

A heuristic for experts of unequal size, where the optimum is hard to find: it needs little space soon rather than much
space late. With equal sizes it is Belady's MIN. One that is never used again counts as used after the trace's end.
libCacheSim's BeladySize looks at a random sample of the keys; here all are compared. It knows the future.
"""

import numpy as np

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import discard, empty_kept, keep, kept_end, kept_key, leaves_first, num_kept, touch

NOTE = "next_use"
needs_future = True


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them the last activation's number; floats: each key's next use, each key's bytes."""
    state = empty_kept(context.num_keys, context.experts_per_layer, more=1)
    return state, np.concatenate([np.zeros(context.num_keys), context.sizes])


def on_hit(state_i, state_f, key, now, note):
    """Remember when it is needed next."""
    touch(state_i, key, now)
    state_i[kept_end(state_i)] = now
    state_f[key] = note


def on_insert(state_i, state_f, key, now, note):
    """Remember when it is needed next."""
    keep(state_i, key, now)
    on_hit(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Forget it."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """The most bytes for the longest time that may leave."""
    now, best, lowest = state_i[kept_end(state_i)], -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        score = -(state_f[key] - now) * state_f[state_i[0] + key]
        if not locked[key] and leaves_first(state_i, key, score, best, lowest):
            best, lowest = key, score
    return best
