"""Whole-model LRU: the model whose last use is longest ago leaves first, all of it before anything of another.

A composition of experts (Prabhakar et al., arXiv 2405.07518, 2412.01868): experts are whole language models, a router
sends each request to one, and fast memory keeps the models used last. In a trace a model is one expert number in every
layer (or the only layer). Of a model that leaves, the part unused for longest goes first.
"""

import numpy as np

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import discard, empty_kept, keep, kept_key, leaves_first, num_kept, touch


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params: Params, context: CacheContext):
    """The kept keys; floats: when each model was used last."""
    return empty_kept(context.num_keys, context.experts_per_layer), np.zeros(context.experts_per_layer)


def on_hit(state_i, state_f, key, now, note):
    """Its model was used now."""
    touch(state_i, key, now)
    state_f[key % len(state_f)] = now


def on_insert(state_i, state_f, key, now, note):
    """Its model was used now."""
    keep(state_i, key, now)
    state_f[key % len(state_f)] = now


def on_bypass(state_i, state_f, key, now, note):
    """Its model was used now."""
    state_f[key % len(state_f)] = now


def on_evict(state_i, state_f, key):
    """Out."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """Of the model used longest ago."""
    best, lowest = -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        score = state_f[key % len(state_f)]
        if not locked[key] and leaves_first(state_i, key, score, best, lowest):
            best, lowest = key, score
    return best
