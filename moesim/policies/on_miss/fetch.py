"""Fetch: a missing expert is copied to the GPU and computed there."""

import numpy as np

from moesim.policies.api import FETCH, PolicyParams

ACTIONS = (FETCH,)


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params):
    """Nothing to remember."""
    return np.zeros(0)


def decide(state_f, tokens, fetch_s, cpu_s, gpu_s):
    """Always fetch."""
    return FETCH
