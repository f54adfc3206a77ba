"""Least frequently used: the expert with the fewest activations since it came in leaves first.

Counts are kept while an expert is resident and forgotten when it leaves; among equals the one promoted longest ago
leaves. This is "in-cache LFU", the definition of libCacheSim (Yang et al., 2021).
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_heap, heap_put, heap_rank, heap_remove, smallest_unlocked


class Params(PolicyParams):
    """LFU has no parameters."""


def initial_state(params: Params, context: CacheContext):
    """A heap of keys by (activations, last promotion)."""
    return empty_heap(context.num_keys), context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Count the activation."""
    heap_put(state_i, key, heap_rank(state_i, key) + 1, now)


def on_insert(state_i, state_f, key, now, note):
    """Start counting at one."""
    heap_put(state_i, key, 1, now)


def on_evict(state_i, state_f, key):
    """Forget the count."""
    heap_remove(state_i, key)


def victim(state_i, state_f, locked):
    """The least used that may leave."""
    return smallest_unlocked(state_i, locked)
