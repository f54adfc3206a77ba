"""No prefetching: experts are fetched when the router asks for them."""

import numpy as np

from moesim.policies.api import Candidates, PolicyParams


class Params(PolicyParams):
    """Nothing to choose."""


def candidates(params, visits, trace, rng):
    """No proposals."""
    nothing = np.zeros(0, dtype=np.int64)
    return Candidates(np.zeros(visits.num_visits + 1, dtype=np.int64), nothing, nothing)
