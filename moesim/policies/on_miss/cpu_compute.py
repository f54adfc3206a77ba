"""CPU compute: a missing expert is computed where its weights are, on the CPU, and is not brought to the GPU.

Fiddler's idea (Kamahori et al., arXiv 2402.07033): for few tokens, moving activations beats moving weights. The expert
runs on the CPU when at most ``max_tokens`` tokens of the step use it; with more it is fetched.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import CPU, FETCH, PolicyParams

ACTIONS = (FETCH, CPU)


class Params(PolicyParams):
    """Up to how many tokens the CPU is used."""

    max_tokens: int | None = Field(None, ge=1, description="fetch instead above so many tokens; default: never fetch")


def initial_state(params):
    """The largest number of tokens that stays on the CPU."""
    return np.array([np.inf if params.max_tokens is None else float(params.max_tokens)])


def decide(state_f, tokens, fetch_s, cpu_s, gpu_s):
    """CPU for few tokens."""
    return CPU if tokens <= state_f[0] else FETCH
