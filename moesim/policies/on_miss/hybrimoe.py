"""HybriMoE: of a visit's missing experts the most loaded go to the GPU and the rest to the CPU, so that both end soon.

For each number m of transfers, 0 to all: the m missing experts with the most tokens are copied, most tokens first,
and computed on the GPU as they arrive, after those that are there; the others run on the CPU, fewest tokens first.
The m with the least max(CPU time, GPU time) is carried out; of equals the fewest transfers.

Source: Zhong et al., "HybriMoE", arXiv 2504.05897 (its greedy simulation fills the CPU's, the GPU's and the link's
timelines, always the one that is free first, and keeps the plan with the least maximum; trying every m finds that
plan or a better one). Seconds are this machine's costs; queues left over from other visits are not looked at.
"""

import numpy as np

from moesim.policies.api import ABSENT, CPU, FETCH, Asked, PolicyParams
from moesim.policies.list_schedule import best_moved

ACTIONS = (FETCH, CPU)


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params):
    """Nothing to remember."""
    return np.zeros(0)


def plan(state_f, asked: Asked):
    """The best number of transfers."""
    missing = _rank(asked)
    gpu_s = 0.0
    for place in range(len(asked.there)):
        if asked.there[place] != ABSENT:
            gpu_s += asked.gpu_s[place]
    best = best_moved(asked.instead, missing, asked.fetch_s, asked.cpu_s, asked.gpu_s, gpu_s)
    for place in range(len(asked.there)):
        if asked.there[place] == ABSENT and asked.order[place] >= best:
            asked.action[place] = CPU
            asked.order[place] = best + missing - 1 - asked.order[place]


def _rank(asked: Asked):
    """How many are missing; writes each one's rank by tokens, most first, to ``order``, its inverse to ``instead``."""
    missing = 0
    for place in range(len(asked.there)):
        if asked.there[place] == ABSENT:
            missing += 1
            rank = 0
            for other in range(len(asked.there)):
                more = asked.tokens[other] > asked.tokens[place]
                ties = asked.tokens[other] == asked.tokens[place] and other < place
                if asked.there[other] == ABSENT and (more or ties):
                    rank += 1
            asked.order[place] = rank
            asked.instead[rank] = place
    return missing
