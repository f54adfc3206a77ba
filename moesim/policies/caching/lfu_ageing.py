"""LFU with ageing: the fewest activations leave first, and old activations count less.

``dynamic`` (LFU-DA): a key's rank at an activation is K = F + L, where F counts its activations since it came in and
L is the largest rank of anyone who left; the smallest rank leaves first, so that what once was popular is overtaken.
Source: Arlitt et al., "Evaluating content management techniques for Web proxy caches", Performance Evaluation Review
27(4), 2000. libCacheSim's LFUDA is another rule: after a, a, b, c in two slots it has dropped a, used twice, not b.
``halving``: every ``period`` activations all counts are halved, rounding down (the "reset" of TinyLFU, Einziger et
al., ACM Transactions on Storage 13(4), 2017). Among equals the one promoted longest ago leaves.
"""

from typing import Literal

from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_heap, heap_end, heap_put, heap_rank, heap_remove, smallest_unlocked

DYNAMIC, AGE, NEXT_HALVING, PERIOD, RULES = range(5)


class Params(PolicyParams):
    """How counts grow old."""

    method: Literal["dynamic", "halving"] = Field("dynamic", description="newcomers start higher, or counts are halved")
    period: int = Field(10_000, ge=1, description="activations between two halvings")


def initial_state(params: Params, context: CacheContext):
    """A heap by (rank, last promotion); behind it the rules, each key's activations, its last promotion (-1: out)."""
    n = context.num_keys
    state = empty_heap(n, more=RULES + 2 * n)
    rules = 2 + 4 * n
    state[rules + DYNAMIC] = params.method == "dynamic"
    state[rules + NEXT_HALVING] = state[rules + PERIOD] = params.period
    state[rules + RULES + n :] = -1
    return state, context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Count the activation."""
    rules = heap_end(state_i)
    if not state_i[rules + DYNAMIC] and now >= state_i[rules + NEXT_HALVING]:
        _halve(state_i, now)
    state_i[rules + RULES + key] += 1
    state_i[rules + RULES + state_i[0] + key] = now
    heap_put(state_i, key, state_i[rules + RULES + key] + state_i[rules + AGE], now)


def on_insert(state_i, state_f, key, now, note):
    """Start counting at one."""
    state_i[heap_end(state_i) + RULES + key] = 0
    on_hit(state_i, state_f, key, now, note)


def on_evict(state_i, state_f, key):
    """Who leaves sets the age of the rest."""
    rules = heap_end(state_i)
    if state_i[rules + DYNAMIC]:
        state_i[rules + AGE] = max(state_i[rules + AGE], heap_rank(state_i, key))
    state_i[rules + RULES + state_i[0] + key] = -1
    heap_remove(state_i, key)


def victim(state_i, state_f, locked):
    """The lowest rank that may leave."""
    return smallest_unlocked(state_i, locked)


def _halve(state, now):
    rules, n = heap_end(state), state[0]
    while state[rules + NEXT_HALVING] <= now:
        state[rules + NEXT_HALVING] += state[rules + PERIOD]
    for key in range(n):
        state[rules + RULES + key] //= 2
        if state[rules + RULES + n + key] >= 0:
            heap_put(state, key, state[rules + RULES + key], state[rules + RULES + n + key])
