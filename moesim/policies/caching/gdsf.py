"""GreedyDual-Size-Frequency: the expert whose fetches saved per byte are fewest leaves first, and values grow old.

A key's value at an activation is H = L + F x cost / size: F counts its activations since it came in, L is the value
of the last who left, size is its bytes in units of the largest expert. ``cost`` of a fetch is 1 (fewest fetches), or
its bytes (fewest bytes; then H = L + F, as in LFU with dynamic ageing). Among equals the one unused for longest
leaves. Source: Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching policy", HP
Laboratories report HPL-98-69R1, 1998. In libCacheSim's GDSF a newcomer of the lowest value is not kept and nobody
leaves for it; here an expert needs room to be used at all, so that room is made first, and H starts from the new L.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import discard, empty_kept, keep, kept_end, kept_key, leaves_first, num_kept, touch


class Params(PolicyParams):
    """What a fetch costs."""

    cost: Literal["fetch", "bytes"] = Field("fetch", description="each fetch costs the same, or its bytes")


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them each key's F; floats: L, then each key's H, then each key's cost / size."""
    n = context.num_keys
    worth = np.ones(n) if params.cost == "bytes" else context.sizes.max() / context.sizes
    state = empty_kept(n, context.experts_per_layer, more=n)
    return state, np.concatenate([np.zeros(1 + n), worth])


def on_hit(state_i, state_f, key, now, note):
    """One more activation, valued at today's L."""
    touch(state_i, key, now)
    state_i[kept_end(state_i) + key] += 1
    state_f[1 + key] = state_f[0] + state_i[kept_end(state_i) + key] * state_f[1 + state_i[0] + key]


def on_insert(state_i, state_f, key, now, note):
    """The first activation."""
    keep(state_i, key, now)
    state_i[kept_end(state_i) + key] = 0
    on_hit(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Who leaves sets the age of the rest."""
    discard(state_i, key)
    state_f[0] = max(state_f[0], state_f[1 + key])


def victim(state_i, state_f, locked):
    """The lowest value that may leave."""
    best, lowest = -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        if not locked[key] and leaves_first(state_i, key, state_f[1 + key], best, lowest):
            best, lowest = key, state_f[1 + key]
    return best
