"""Scheduled: who leaves was decided beforehand; the expert with the largest number in the schedule leaves first.

A schedule (``policies.schedule``, as ``moesim optimum`` writes it) says for each activation how long its expert is to
stay: the number of the activation until which it is kept, and numbers beyond the trace's end where it is not kept until
its next use. Without a schedule that number is the next use itself, which is Belady's MIN. It knows the future.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_heap, heap_put, heap_remove, smallest_unlocked

NOTE = "schedule"
needs_future = True


class Params(PolicyParams):
    """The schedule itself is named beside the policy."""


def initial_state(params: Params, context: CacheContext):
    """Kept experts, the one with the largest number on top."""
    return empty_heap(context.num_keys), context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Remember how long it is to stay from here on."""
    heap_put(state_i, key, -int(note), key)


def on_insert(state_i, state_f, key, now, note):
    """Remember how long it is to stay."""
    heap_put(state_i, key, -int(note), key)


def on_evict(state_i, state_f, key):
    """Forget it."""
    heap_remove(state_i, key)


def victim(state_i, state_f, locked):
    """The one with the largest number that may leave."""
    return smallest_unlocked(state_i, locked)
