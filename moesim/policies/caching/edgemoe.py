"""EdgeMoE: the expert with few activations so far and a long way to its layer's next turn leaves first.

The highest L = -f / d leaves: f is the expert's activations so far, d a distance between its layer i and the running
layer I of S. The paper (Yi et al., arXiv 2308.14352) prints d = (S - i + I) mod S, under which the *next* layer has
the largest d and leaves first, and the running layer divides by zero; its prose asks for the opposite.
``described``: d = (i - I) mod S, the layers until the expert's turn. ``printed``: as printed. In both the running
layer's 0 is read as S. Among equals the one unused for longest leaves.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import (
    discard,
    empty_kept,
    enter_visit,
    keep,
    kept_end,
    kept_key,
    layers_until,
    leaves_first,
    num_kept,
    touch,
)


class Params(PolicyParams):
    """Which distance."""

    formula: Literal["described", "printed"] = Field("described", description="the paper's intent, or its formula")


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them which formula; floats: each key's activations so far."""
    state = empty_kept(context.num_keys, context.experts_per_layer, more=1)
    state[-1] = params.formula == "printed"
    return state, np.zeros(context.num_keys)


def on_visit(state_i, state_f, layer, starts_request):
    """The next layer."""
    enter_visit(state_i, layer)


def on_hit(state_i, state_f, key, now, note):
    """Count the activation."""
    touch(state_i, key, now)
    state_f[key] += 1.0


def on_insert(state_i, state_f, key, now, note):
    """Count the activation."""
    keep(state_i, key, now)
    state_f[key] += 1.0


def on_bypass(state_i, state_f, key, now, note):
    """Count the activation."""
    state_f[key] += 1.0


def on_evict(state_i, state_f, key):
    """Out; the count stays."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """The highest L = the lowest f / d that may leave."""
    best, lowest, layers = -1, 0.0, state_i[2]
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        distance = layers_until(state_i, key)
        if state_i[kept_end(state_i)] and distance < layers:
            distance = layers - distance
        score = state_f[key] / distance
        if not locked[key] and leaves_first(state_i, key, score, best, lowest):
            best, lowest = key, score
    return best
