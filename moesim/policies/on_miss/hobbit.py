"""HOBBIT: on a miss, first choices come in full precision, later ones in low precision, and the least are skipped.

A token's experts are ranked by gate weight; an expert's unimportance s is the sum of the normalised weights ranked
before it (0 for the first). s <= T1: full precision; T1 < s <= T2: low precision; s > T2: skipped. With several tokens
in a step the most important use decides. A copy in low precision that is on the GPU serves uses with s > T1; an
expert that is there in full serves all.

Source: Tang et al., "HOBBIT", arXiv 2411.01433, which prints T1 = 0.6 and T2 = 0.9 for Mixtral-8x7B. Its two caches
are ``caching`` (full) and ``low_caching`` here. Low precision and skipping change the model's output.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import ABSENT, COMING, FETCH, LOW, SKIP, Asked, PolicyParams

ACTIONS = (FETCH, LOW, SKIP)


class Params(PolicyParams):
    """Thresholds, and the copies in low precision."""

    t1: float = Field(0.6, ge=0, le=1, description="unimportance up to which the full precision is brought")
    t2: float = Field(0.9, ge=0, le=1, description="unimportance above which the expert is skipped")
    precision: str = Field("int4", description="of the copies in low precision")
    low_share: float = Field(0.25, gt=0, lt=1, description="share of the GPU's space for experts that holds them")


def initial_state(params):
    """The thresholds."""
    return np.array([params.t1, params.t2])


def plan(state_f, asked: Asked):
    """By unimportance."""
    for place in range(len(asked.there)):
        if asked.before[place] > state_f[1]:
            if asked.there[place] == ABSENT:
                asked.action[place] = SKIP
            elif asked.there[place] > COMING:
                asked.action[place] = LOW
        elif asked.before[place] > state_f[0]:
            asked.action[place] = LOW
