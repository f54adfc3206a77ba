"""Belady's MIN: the expert whose next activation is farthest in the future leaves first.

With experts of equal size it fetches the fewest times that any policy can without prefetching (Belady 1966; Mattson
et al. 1970). With several experts asked for at once the same rule stays optimal. It knows the future, so it is a
bound and not a system.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import drop_number, empty_numbers, largest_unlocked, put_number

NOTE = "next_use"
needs_future = True


class Params(PolicyParams):
    """MIN has no parameters."""


def initial_state(params: Params, context: CacheContext):
    """The next use of each key."""
    return empty_numbers(context.num_keys), context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Remember when it is needed next."""
    put_number(state_i, key, int(note))


def on_insert(state_i, state_f, key, now, note):
    """Remember when it is needed next."""
    put_number(state_i, key, int(note))


def on_evict(state_i, state_f, key):
    """Forget it."""
    drop_number(state_i, key)


def victim(state_i, state_f, locked):
    """The one needed last that may leave."""
    return largest_unlocked(state_i, locked)
