"""MRS: the lowest moving average of gate weights leaves first.

At each visit of a layer, S <- a x TopP(s) + (1 - a) x S for all its experts, kept or not: s is the router's score, and
only the p highest scores of a token count, the rest is 0. The minus recent score policy of HybriMoE (Zhong et al.,
arXiv 2504.05897): the paper takes p = 2 x top-k; its released code p = 12 and a = 0.5. A trace holds the scores of
the chosen experts only, so here p = top-k. Where several tokens share a visit their scores add up. Among equals the
one unused for longest leaves.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import (
    discard,
    empty_kept,
    enter_visit,
    keep,
    kept_key,
    leaves_first,
    num_kept,
    running_layer,
    touch,
)

NOTE = "weight"


class Params(PolicyParams):
    """How fast scores grow old."""

    alpha: float = Field(0.5, gt=0, le=1, description="weight of the newest score")


def initial_state(params: Params, context: CacheContext):
    """The kept keys; floats: each key's S, then alpha."""
    state = empty_kept(context.num_keys, context.experts_per_layer)
    return state, np.append(np.zeros(context.num_keys), params.alpha)


def on_visit(state_i, state_f, layer, starts_request):
    """The layer's scores grow old."""
    enter_visit(state_i, layer)
    experts = state_i[0] // state_i[2]
    first = running_layer(state_i) * experts
    for key in range(first, first + experts):
        state_f[key] *= 1.0 - state_f[state_i[0]]


def on_bypass(state_i, state_f, key, now, note):
    """Add the new score."""
    state_f[key] += state_f[state_i[0]] * note


def on_hit(state_i, state_f, key, now, note):
    """Add the new score."""
    touch(state_i, key, now)
    on_bypass(state_i, state_f, key, now, note)


def on_insert(state_i, state_f, key, now, note):
    """Add the new score."""
    keep(state_i, key, now)
    on_bypass(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Out; the score stays."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """The lowest score that may leave."""
    best, lowest = -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        if not locked[key] and leaves_first(state_i, key, state_f[key], best, lowest):
            best, lowest = key, state_f[key]
    return best
