"""Oracle: what the next ``horizon`` visits will really ask for, nearest visit first.

It knows the future: what is left of the stall under it is what no predictor could save. (A bound only together with
the caching policy at hand; the stall bracket of the optima is the proven one.)
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams, proposals

needs_future = True


class Params(PolicyParams):
    """How far it sees."""

    horizon: int = Field(1, ge=1, le=64, description="visits ahead, across the border of steps")
    budget: int | None = Field(None, ge=1, description="at most so many experts a visit; default: all")


def candidates(params, visits, trace, rng):
    """The true lookups of the visits ahead, in the order in which they will be asked for."""
    count = np.diff(visits.lookup_start)
    asked_in = np.repeat(np.arange(visits.num_visits), count)
    visit, key, target = [], [], []
    for ahead in range(1, params.horizon + 1):
        known = asked_in >= ahead
        visit.append(asked_in[known] - ahead)
        key.append(visits.lookup_key[known])
        target.append(asked_in[known])
    return proposals(visits, np.concatenate(visit), np.concatenate(key), np.concatenate(target), params.budget)
