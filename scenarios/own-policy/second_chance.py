"""Second chance: an expert that was used more than once since it came in stays once more before it leaves.

A caching policy of one's own, beside the scenario that names it. It is what a policy of moesim is: see
`moesim.policies.api` for the contract, and `moesim.policies.structures` for lists and heaps on flat arrays.
"""

import numpy as np

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_list, list_end, oldest_unlocked, push_newest, renew, unlink


class Params(PolicyParams):
    """Nothing to choose."""


def initial_state(params: Params, context: CacheContext):
    """A list from the oldest to the newest, and behind it whether each key was used again."""
    return empty_list(context.num_keys, more=context.num_keys), np.zeros(0)


def on_hit(state_i, state_f, key, now, note):
    """It was used again."""
    state_i[list_end(state_i) + key] = 1


def on_insert(state_i, state_f, key, now, note):
    """The newest."""
    state_i[list_end(state_i) + key] = 0
    push_newest(state_i, key)


def on_evict(state_i, state_f, key):
    """Out."""
    unlink(state_i, key)


def victim(state_i, state_f, locked):
    """The oldest that was not used again; those before it go to the end and must be used once more."""
    key = oldest_unlocked(state_i, locked)
    while key >= 0 and state_i[list_end(state_i) + key]:
        state_i[list_end(state_i) + key] = 0
        renew(state_i, key)
        key = oldest_unlocked(state_i, locked)
    return key
