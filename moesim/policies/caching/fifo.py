"""First in, first out: the expert that was brought in longest ago leaves first, used or not.

Source: Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_list, oldest_unlocked, push_newest, unlink


class Params(PolicyParams):
    """FIFO has no parameters."""


def initial_state(params: Params, context: CacheContext):
    """A queue over the keys."""
    return empty_list(context.num_keys), context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Use does not change the queue."""


def on_insert(state_i, state_f, key, now, note):
    """Join the queue at its end."""
    push_newest(state_i, key)


def on_evict(state_i, state_f, key):
    """Leave the queue."""
    unlink(state_i, key)


def victim(state_i, state_f, locked):
    """The first of the queue that may leave."""
    return oldest_unlocked(state_i, locked)
