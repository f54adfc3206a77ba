"""Static: the experts most used in a training split stay for ever; every other one passes through.

The placement of Fiddler (Kamahori et al., arXiv 2402.07033) and of static splits in CPU-GPU engines: popularity is
measured offline, and the cache content never changes. ``streaming_slots`` experts' worth of space stays free for
those that pass through, unless all of them fit.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams

needs_training = True


class Params(PolicyParams):
    """How much space is left for experts that pass through."""

    streaming_slots: int = Field(2, ge=1, description="largest experts that fit into the space left free")


def initial_state(params: Params, context: CacheContext):
    """Nothing to remember."""
    return np.zeros(0, dtype=np.int64), context.no_floats


def preload(params: Params, context: CacheContext):
    """The most used keys that fit beside the streaming slots."""
    assert context.training_uses is not None
    free = context.capacity_bytes - params.streaming_slots * int(context.sizes.max())
    if context.sizes.sum() <= context.capacity_bytes:
        free = context.capacity_bytes
    chosen = []
    for key in np.argsort(-context.training_uses, kind="stable"):
        if context.sizes[key] <= free:
            chosen.append(int(key))
            free -= int(context.sizes[key])
    return chosen


def admit(state_i, state_f, key, now, note):
    """No newcomer stays."""
    return False


def on_hit(state_i, state_f, key, now, note):
    """Nothing changes."""


def on_insert(state_i, state_f, key, now, note):
    """Only the preloaded keys come here."""


def on_evict(state_i, state_f, key):
    """Nothing changes."""


def victim(state_i, state_f, locked):
    """Nobody leaves."""
    return -1
