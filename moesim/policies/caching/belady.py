"""Belady's MIN: the expert whose next activation is farthest in the future leaves first.

With experts of equal size it fetches the fewest times that any policy can without prefetching (Belady 1966; Mattson
et al. 1970). With several experts asked for at once the same rule stays optimal. It knows the future, so it is a
bound and not a system.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_heap, heap_put, heap_remove, smallest_unlocked

NOTE = "next_use"
needs_future = True


class Params(PolicyParams):
    """MIN has no parameters."""


def initial_state(params: Params, context: CacheContext):
    """A heap of keys by next use, farthest first."""
    return empty_heap(context.num_keys), context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Remember when it is needed next."""
    heap_put(state_i, key, -int(note), key)


def on_insert(state_i, state_f, key, now, note):
    """Remember when it is needed next."""
    heap_put(state_i, key, -int(note), key)


def on_evict(state_i, state_f, key):
    """Forget it."""
    heap_remove(state_i, key)


def victim(state_i, state_f, locked):
    """The one needed last that may leave."""
    return smallest_unlocked(state_i, locked)
