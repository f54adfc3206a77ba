"""MoE-Infinity: the expert least activated in the running request leaves first, weighed by its layer.

M[l, e] counts the activations of expert e in layer l since the request started; several requests at once share one M,
which starts anew with each of them. ``paper``: priority (M[l, e] / sum_e M[l, e] + eps) x (1 - l / L), the lowest
leaves (Xue et al., arXiv 2401.14361, the algorithm of its first version, from memory: early layers are kept because
prefetching comes too late for them). ``code``: the product of three scores, each normalised over all experts, plus
eps: 1 for layers up to the running one and else l / (L + 1); M[l, e] / sum_e M[l, e], equal shares where the layer
was not reached yet; activations over all requests (``priority_score`` in the released code's memory module, its
decoder's half). Among equals the one unused for longest leaves.
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
    layer_of,
    leaves_first,
    num_kept,
    running_layer,
    touch,
)

EPS = 1e-6


class Params(PolicyParams):
    """Which priority."""

    formula: Literal["paper", "code"] = Field("paper", description="the paper's priority, or the released code's")


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them which formula; floats: M, each key's activations ever, M's sums by layer."""
    n = context.num_keys
    state = empty_kept(n, context.experts_per_layer, more=1)
    state[-1] = params.formula == "code"
    return state, np.zeros(2 * n + n // context.experts_per_layer)


def on_visit(state_i, state_f, layer, starts_request):
    """The next layer; with a new request M starts anew."""
    enter_visit(state_i, layer)
    if starts_request:
        n = state_i[0]
        for key in range(n):
            state_f[key] = 0.0
        for place in range(2 * n, 2 * n + state_i[2]):
            state_f[place] = 0.0


def on_bypass(state_i, state_f, key, now, note):
    """Count the activation."""
    n = state_i[0]
    state_f[key] += 1.0
    state_f[n + key] += 1.0
    state_f[2 * n + layer_of(state_i, key)] += 1.0


def on_hit(state_i, state_f, key, now, note):
    """Count the activation."""
    touch(state_i, key, now)
    on_bypass(state_i, state_f, key, now, note)


def on_insert(state_i, state_f, key, now, note):
    """Count the activation."""
    keep(state_i, key, now)
    on_bypass(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Out; the counts stay."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """The lowest priority that may leave."""
    n, layers = state_i[0], state_i[2]
    by_code = state_i[kept_end(state_i)]
    nearness = ever = 0.0
    if by_code:
        for layer in range(layers):
            nearness += _nearness(state_i, layer) * (n // layers)
        for key in range(n):
            ever += state_f[n + key]
    best, lowest = -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        layer = layer_of(state_i, key)
        in_layer = state_f[2 * n + layer]
        if by_code:
            share = state_f[key] / in_layer if in_layer > 0.0 else layers / n
            score = (_nearness(state_i, layer) / nearness + EPS) * (share / layers + EPS)
            score *= state_f[n + key] / ever + EPS
        else:
            share = state_f[key] / in_layer if in_layer > 0.0 else 0.0
            score = (share + EPS) * (1.0 - layer / layers)
        if not locked[key] and leaves_first(state_i, key, score, best, lowest):
            best, lowest = key, score
    return best


def _nearness(state, layer):
    return 1.0 if layer <= running_layer(state) else layer / (state[2] + 1.0)
