"""Least-stale: what this forward pass has left behind unused leaves first, what it has yet to reach leaves last.

Three classes, in the order in which they leave. Stale: the layer runs or has run in this pass, without the expert;
it can't be asked for before the next pass. Used: it was used in this pass; it can't either, but was wanted lately.
Ahead: its layer is still to come in this pass (left from an earlier pass, or prefetched). Among the stale and among
the used the longest unused leaves first, among those ahead the farthest layer's.

The idea is SpecMD's (Hoang et al., arXiv 2602.03921): LRU drops what the coming layers ask for next ("collision
misses"). The order is our reading of the paper's abstract, not a copy of its algorithm.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import (
    discard,
    empty_kept,
    enter_visit,
    keep,
    kept_end,
    kept_key,
    layer_of,
    layers_until,
    leaves_first,
    num_kept,
    passes,
    running_layer,
    touch,
)

STALE, USED, AHEAD = 0.0, 1.0, 3.0


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them the forward pass of each key's last use."""
    return empty_kept(context.num_keys, context.experts_per_layer, more=context.num_keys), context.no_floats


def on_visit(state_i, state_f, layer, starts_request):
    """The next layer, or the next pass."""
    enter_visit(state_i, layer)


def on_hit(state_i, state_f, key, now, note):
    """Used in this pass."""
    touch(state_i, key, now)
    state_i[kept_end(state_i) + key] = passes(state_i)


def on_insert(state_i, state_f, key, now, note):
    """Used in this pass."""
    keep(state_i, key, now)
    on_hit(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Forget it."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """The stalest that may leave."""
    best, lowest = -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        score = STALE
        if layer_of(state_i, key) > running_layer(state_i):
            score = AHEAD - layers_until(state_i, key) / state_i[2]
        elif state_i[kept_end(state_i) + key] == passes(state_i):
            score = USED
        if not locked[key] and leaves_first(state_i, key, score, best, lowest):
            best, lowest = key, score
    return best
