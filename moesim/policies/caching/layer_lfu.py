"""Layer LFU: the layer that holds the most bytes gives up its least used expert.

Every layer is asked for the same number of experts at each token, so no layer should crowd out another one: LFU over
all layers at once favours layers whose routing is uneven. Unlike a cache for each layer, a layer may hold more than
its share while others have no use for theirs. Counts are kept while an expert is resident; among equals the one
unused for longest leaves. No single source: LFU for each layer is common in offloading engines; this is that rule for
a space that layers share.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import (
    discard,
    empty_kept,
    keep,
    kept_end,
    kept_key,
    layer_of,
    leaves_first,
    num_kept,
    touch,
)


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them three blocks: each key's activations and bytes, each layer's bytes here."""
    n, layers = context.num_keys, context.num_keys // context.experts_per_layer
    state = empty_kept(n, context.experts_per_layer, more=2 * n + layers)
    state[len(state) - n - layers : len(state) - layers] = context.sizes
    return state, context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Count the activation."""
    touch(state_i, key, now)
    state_i[kept_end(state_i) + key] += 1


def on_insert(state_i, state_f, key, now, note):
    """Start counting at one; its layer holds more."""
    keep(state_i, key, now)
    state_i[kept_end(state_i) + key] = 1
    state_i[_held(state_i, key)] += _size(state_i, key)


def on_evict(state_i, state_f, key):
    """Its layer holds less."""
    discard(state_i, key)
    state_i[_held(state_i, key)] -= _size(state_i, key)


def victim(state_i, state_f, locked):
    """The least used of the fullest layer that has one that may leave."""
    best, lowest, fullest = -1, 0, 0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        held, uses = state_i[_held(state_i, key)], state_i[kept_end(state_i) + key]
        if locked[key] or held < fullest:
            continue
        if held > fullest or leaves_first(state_i, key, uses, best, lowest):
            best, lowest, fullest = key, uses, held
    return best


def _held(state, key):
    """Where the bytes that a key's layer holds are counted."""
    return kept_end(state) + 2 * state[0] + layer_of(state, key)


def _size(state, key):
    """A key's bytes."""
    return state[kept_end(state) + state[0] + key]
