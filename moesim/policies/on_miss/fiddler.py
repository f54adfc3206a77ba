"""Fiddler: a missing expert is computed on the CPU where that is faster than bringing it to the GPU.

CPU if tokens x latency_cpu < transfer + latency_gpu (Kamahori et al., arXiv 2402.07033), with latencies measured once.
``costs``: the three are what this expert costs here with this number of tokens (each way with the read from flash,
where the host does not have it). ``constants``: tokens x 7 < 70, the released code's defaults, tuned to its machine.
Its comment says that it looks for the least of the larger of CPU's and GPU's sums; what it computes is the least sum of
both, which is this rule expert by expert. It does not look at how busy the link or the CPU is.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.policies.api import CPU, FETCH, PolicyParams

ACTIONS = (FETCH, CPU)


class Params(PolicyParams):
    """Which numbers."""

    rule: Literal["costs", "constants"] = Field("costs", description="this machine's costs, or the code's constants")
    latency_cpu: float = Field(7.0, ge=0, description="of a token on the CPU, for `constants`, in any unit of time")
    latency_gpu: float = Field(70.0, ge=0, description="to bring an expert and compute it on the GPU, in the same unit")


def initial_state(params):
    """Whether constants count, and which."""
    return np.array([float(params.rule == "constants"), params.latency_cpu, params.latency_gpu])


def decide(state_f, tokens, fetch_s, cpu_s, gpu_s):
    """The faster of the two."""
    if state_f[0] > 0.0:
        return CPU if tokens * state_f[1] < state_f[2] else FETCH
    return CPU if cpu_s < fetch_s + gpu_s else FETCH
