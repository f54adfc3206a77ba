"""Least recently used: the expert whose last activation is longest ago leaves first.

Source: Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal 9(2), 1970.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_list, oldest_unlocked, push_newest, renew, unlink


class Params(PolicyParams):
    """LRU has no parameters."""


def initial_state(params: Params, context: CacheContext):
    """A recency list over the keys."""
    return empty_list(context.num_keys), context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """An activation makes the expert the newest."""
    renew(state_i, key)


def on_insert(state_i, state_f, key, now, note):
    """A new expert is the newest."""
    push_newest(state_i, key)


def on_evict(state_i, state_f, key):
    """Forget it."""
    unlink(state_i, key)


def victim(state_i, state_f, locked):
    """The oldest that may leave."""
    return oldest_unlocked(state_i, locked)
