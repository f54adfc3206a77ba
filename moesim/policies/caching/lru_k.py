"""LRU-K: the expert whose K-th last activation is longest ago leaves first; fewer than K count as never.

Among those with fewer than K activations the first to come in leaves first. ``remember`` keeps the times of past
activations of experts that have left (O'Neil et al., "The LRU-K page replacement algorithm", SIGMOD 1993, with a
retained information period without end and no correlated reference period); without it an expert starts anew when it
comes back, which is libCacheSim's definition (Yang et al., 2021).
"""

from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_heap, heap_end, heap_put, heap_remove, smallest_unlocked


class Params(PolicyParams):
    """How far back, and whether leaving forgets."""

    k: int = Field(2, ge=1, le=64, description="which activation counts, from the last one on")
    remember: bool = Field(True, description="keep the times of experts that have left")


def initial_state(params: Params, context: CacheContext):
    """A heap by (K-th last activation, arrival); behind it k, remember, when each came, and k times of each key."""
    n = context.num_keys
    state = empty_heap(n, more=2 + n + params.k * n)
    end = 2 + 4 * n
    state[end : end + 2] = params.k, params.remember
    state[end + 2 + n :] = -1
    return state, context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Its times move on by one."""
    end = heap_end(state_i)
    k, came, times = state_i[end], end + 2 + key, end + 2 + state_i[0] + key * state_i[end]
    for i in range(k - 1):
        state_i[times + i] = state_i[times + i + 1]
    state_i[times + k - 1] = now
    heap_put(state_i, key, state_i[times], state_i[came])


def on_insert(state_i, state_f, key, now, note):
    """Come in, with or without a past."""
    end = heap_end(state_i)
    state_i[end + 2 + key] = now
    if not state_i[end + 1]:
        for i in range(state_i[end]):
            state_i[end + 2 + state_i[0] + key * state_i[end] + i] = -1
    on_hit(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Out of the heap; the times stay."""
    heap_remove(state_i, key)


def victim(state_i, state_f, locked):
    """The one with the oldest K-th last activation that may leave."""
    return smallest_unlocked(state_i, locked)
