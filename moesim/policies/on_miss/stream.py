"""Stream: a missing expert comes to the GPU for this visit only and leaves at its end; what is cached stays.

The way of FlexGen-like weight streaming and of a cache bypass: nothing is evicted for it. It passes through space of
its own (``slots`` experts of the largest size), which is taken from the GPU's cache. With one slot an expert's copy
waits until the one before it is computed; with two they overlap.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import ABSENT, STREAM, Asked, PolicyParams

ACTIONS = (STREAM,)


class Params(PolicyParams):
    """How much space there is to stream through."""

    slots: int = Field(2, ge=1, description="experts of the largest size that fit into the streaming space")


def initial_state(params):
    """Nothing to remember."""
    return np.zeros(0)


def plan(state_f, asked: Asked):
    """Everything that is not there."""
    for place in range(len(asked.there)):
        if asked.there[place] == ABSENT:
            asked.action[place] = STREAM
