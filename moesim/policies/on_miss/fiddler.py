"""Fiddler: a missing expert is computed on the CPU where that is faster than bringing it to the GPU.

Fiddler's rule (Kamahori et al., arXiv 2402.07033): CPU if tokens x latency_cpu < transfer + latency_gpu, with latencies
measured once. Here both sides are the costs of this expert and this number of tokens: its CPU time against its copy
(each with the read from flash, where the host does not have it). The GPU's computing time is left out of the right
side, and so are queues: the rule does not look at how busy the link or the CPU is.
"""

import numpy as np

from moesim.policies.api import CPU, FETCH, PolicyParams

ACTIONS = (FETCH, CPU)


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params):
    """Nothing to remember."""
    return np.zeros(0)


def decide(state_f, tokens, fetch_s, cpu_s):
    """The faster of the two."""
    return CPU if cpu_s < fetch_s else FETCH
