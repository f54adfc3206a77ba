"""None: no expert is kept; each is fetched for its visit and dropped at its end.

The on-demand baseline of offloading papers ("MoE-OnDemand" of Pre-gated MoE, Hwang et al., arXiv 2308.12066). Nothing
can be prefetched either, since nothing stays until it is asked for; for a double buffer use ``fifo`` with the space of
two layers' active experts.
"""

import numpy as np

from moesim.policies.api import CacheContext, PolicyParams


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params: Params, context: CacheContext):
    """Nothing to remember."""
    return np.zeros(0, dtype=np.int64), context.no_floats


def admit(state_i, state_f, key, now, note):
    """Nothing stays."""
    return False


def on_hit(state_i, state_f, key, now, note):
    """Never happens."""


def on_insert(state_i, state_f, key, now, note):
    """Never happens."""


def on_evict(state_i, state_f, key):
    """Never happens."""


def victim(state_i, state_f, locked):
    """Nobody is here to leave."""
    return -1
