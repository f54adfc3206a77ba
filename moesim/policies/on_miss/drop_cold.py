"""Drop cold: a missing expert that no token gives more than a share of its gate weight is not computed at all.

Skip where max over the step's tokens of w_e / sum(w) < ``share``; everything else is fetched. With ``resident`` the
rule holds for experts that are on the GPU as well: then it is a gate that drops, as AdapMoE's (Zhong et al., arXiv
2408.10284), whose threshold comes from each layer's sensitivity and here is one number. What is dropped changes the
model's output; the weights of the others are not rescaled in the count.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import ABSENT, FETCH, HERE, SKIP, Asked, PolicyParams

ACTIONS = (FETCH, SKIP)


class Params(PolicyParams):
    """What is cold, and whether only misses are dropped."""

    share: float = Field(0.2, ge=0, le=1, description="of a token's gate weight, below which an expert is dropped")
    resident: bool = Field(False, description="drop also what is on the GPU")


def initial_state(params):
    """The share, and whether residents are dropped."""
    return np.array([params.share, float(params.resident)])


def plan(state_f, asked: Asked):
    """Skip what is cold."""
    for place in range(len(asked.there)):
        may_go = asked.there[place] == ABSENT or (state_f[1] > 0.0 and asked.there[place] == HERE)
        if may_go and asked.share[place] < state_f[0]:
            asked.action[place] = SKIP
