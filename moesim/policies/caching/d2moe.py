"""D2MoE: the highest bit-plane leaves first, of these the one whose layer is longest until its next turn.

For experts that are stored in nested planes (``policies.precision: nested``, with the same number of widths): "keep
low-bit planes resident, free the previous layer's high-bit planes first" (Wang et al., arXiv 2504.15299). Among equals
the one unused for longest leaves.
"""

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
    """How an expert is stored."""

    planes: int = Field(3, ge=1, le=8, description="bit-planes of an expert: its widths")


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them the number of planes."""
    state = empty_kept(context.num_keys, context.experts_per_layer, more=1)
    state[-1] = params.planes
    return state, np.zeros(0)


def on_visit(state_i, state_f, layer, starts_request):
    """The next layer."""
    enter_visit(state_i, layer)


def on_hit(state_i, state_f, key, now, note):
    """Used now."""
    touch(state_i, key, now)


def on_insert(state_i, state_f, key, now, note):
    """Used now."""
    keep(state_i, key, now)


def on_evict(state_i, state_f, key):
    """Out."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """By plane, then by layer. Keys number an expert's planes one after the other."""
    planes, layers = state_i[kept_end(state_i)], state_i[2]
    best, lowest = -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        score = -1.0 * (key % planes) * (layers + 1) - layers_until(state_i, key)
        if not locked[key] and leaves_first(state_i, key, score, best, lowest):
            best, lowest = key, score
    return best
