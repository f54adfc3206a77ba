"""Substitute: a missing expert is replaced by the most used expert of its layer that is on the GPU and not in use.

Only where no token gives the missing one ``below`` or more of its gate weight; each resident replaces at most one
expert of a visit, and where none is left the expert is fetched. The idea of buddy experts (BuddyMoE, Wang et al.,
arXiv 2511.10054, from memory: there by co-activation measured offline). Which resident is chosen changes the output,
not the time. The replacement counts as a use of neither expert for the cache.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import ABSENT, FETCH, SUBSTITUTE, Asked, PolicyParams

ACTIONS = (FETCH, SUBSTITUTE)


class Params(PolicyParams):
    """What may be replaced."""

    below: float = Field(0.5, ge=0, le=1, description="share of a token's gate weight from which it must be fetched")


def initial_state(params):
    """The share."""
    return np.array([params.below])


def plan(state_f, asked: Asked):
    """Replace what is absent and not too important."""
    for place in range(len(asked.there)):
        if asked.there[place] == ABSENT and asked.share[place] < state_f[0]:
            stand_in = _most_used(asked)
            if stand_in >= 0:
                asked.action[place] = SUBSTITUTE
                asked.instead[place] = stand_in


def _most_used(asked: Asked):
    """The resident expert with the most activations that this visit has no other use for; -1: none."""
    best = -1
    for expert in range(len(asked.resident)):
        free = asked.resident[expert]
        for place in range(len(asked.there)):
            if asked.expert[place] == expert or asked.instead[place] == expert:
                free = False
        if free and (best < 0 or asked.uses[expert] > asked.uses[best]):
            best = expert
    return best
