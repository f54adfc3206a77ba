"""HOBBIT: the lowest weighted sum of recency, frequency, weighty frequency and layer distance leaves first.

p = w_lru R/T + w_lfu F/T + w_lhu H/T + w_fld (1 - d/S) over the running sequence (request): T forward passes so far,
R the pass of the expert's last use, F its activations, H those at which it was needed in high precision, d the
distance of its layer in S layers. All are forgotten when a request starts; several at once share them.

Source: Tang et al., "HOBBIT", arXiv 2411.01433. The paper needs high precision where the gate weights ranked before
the expert sum to at most T1 (0.6 for Mixtral). For two experts a token with weights that sum to 1 this is: a weight
of at least 1 - T1, and that is the rule here (``high_weight``), for more experts an approximation. The distance reads
(l_t - l_i + l_n) mod l_n in the notes we have, by which the *next* layer's experts leave first (``printed``);
``described`` counts the layers until the expert's turn. The paper fits the four weights on calibration data and
does not print them; the default is equal ones.
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
    passes,
    touch,
)

NOTE = "weight"
PRINTED, PASSES_BEFORE, RULES = 0, 1, 2


class Params(PolicyParams):
    """The four weights (only their ratios matter), and what they weigh."""

    lru: float = Field(0.25, ge=0, description="weight of recency")
    lfu: float = Field(0.25, ge=0, description="weight of activations")
    lhu: float = Field(0.25, ge=0, description="weight of activations in high precision")
    fld: float = Field(0.25, ge=0, description="weight of the layer's nearness")
    high_weight: float = Field(0.4, ge=0, le=1, description="gate weight from which high precision is needed: 1 - T1")
    distance: Literal["described", "printed"] = Field("described", description="the intent, or the printed formula")


def initial_state(params: Params, context: CacheContext):
    """The kept keys; behind them the rules, then each key's R, F and H; floats: the four weights, ``high_weight``."""
    state = empty_kept(context.num_keys, context.experts_per_layer, more=RULES + 3 * context.num_keys)
    state[len(state) - RULES - 3 * context.num_keys + PRINTED] = params.distance == "printed"
    return state, np.array([params.lru, params.lfu, params.lhu, params.fld, params.high_weight])


def on_visit(state_i, state_f, layer, starts_request):
    """The next layer; with a new request the records start anew."""
    enter_visit(state_i, layer)
    if starts_request:
        rules = kept_end(state_i)
        state_i[rules + PASSES_BEFORE] = passes(state_i) - 1
        for place in range(rules + RULES, rules + RULES + 3 * state_i[0]):
            state_i[place] = 0


def on_bypass(state_i, state_f, key, now, note):
    """Take it down."""
    rules, n = kept_end(state_i), state_i[0]
    record = rules + RULES + key
    state_i[record] = passes(state_i) - state_i[rules + PASSES_BEFORE]
    state_i[record + n] += 1
    if note >= state_f[4]:
        state_i[record + 2 * n] += 1


def on_hit(state_i, state_f, key, now, note):
    """Take it down."""
    touch(state_i, key, now)
    on_bypass(state_i, state_f, key, now, note)


def on_insert(state_i, state_f, key, now, note):
    """Take it down."""
    keep(state_i, key, now)
    on_bypass(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Out; the records stay."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """The lowest priority that may leave."""
    rules, n, layers = kept_end(state_i), state_i[0], state_i[2]
    elapsed = max(passes(state_i) - state_i[rules + PASSES_BEFORE], 1)
    best, lowest = -1, 0.0
    for place in range(num_kept(state_i)):
        key = kept_key(state_i, place)
        record = rules + RULES + key
        distance = layers_until(state_i, key)
        if state_i[rules + PRINTED]:
            distance = layers - distance
        score = state_f[0] * state_i[record] + state_f[1] * state_i[record + n] + state_f[2] * state_i[record + 2 * n]
        score = score / elapsed + state_f[3] * (1.0 - distance / layers)
        if not locked[key] and leaves_first(state_i, key, score, best, lowest):
            best, lowest = key, score
    return best
