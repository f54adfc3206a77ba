"""CLOCK: first in first out, but an expert used since the hand's last pass gets another round.

Each key has a counter of ``bits`` bits: 0 when it comes in, one more (up to 2^bits - 1) at every activation. The hand
goes from the oldest on: a counter above 0 falls by one and its key becomes the newest; a counter of 0 leaves. One bit
is the second-chance algorithm (Corbato, "A paging experiment with the Multics system", 1968); the definition is
libCacheSim's (Yang et al., 2021). Locked keys are passed over and keep place and counter.
"""

from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_list, list_end, oldest_unlocked, push_newest, unlink


class Params(PolicyParams):
    """How many uses are remembered."""

    bits: int = Field(1, ge=1, le=16, description="bits of each key's counter")


def initial_state(params: Params, context: CacheContext):
    """The clock's hand is the oldest end of the list; behind it the largest count and each key's count."""
    state = empty_list(context.num_keys, more=1 + context.num_keys)
    state[3 + 2 * context.num_keys] = 2**params.bits - 1
    return state, context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """One more use, up to the largest count."""
    end = list_end(state_i)
    state_i[end + 1 + key] = min(state_i[end + 1 + key] + 1, state_i[end])


def on_insert(state_i, state_f, key, now, note):
    """Behind the hand, not used again yet."""
    push_newest(state_i, key)
    state_i[list_end(state_i) + 1 + key] = 0


def on_evict(state_i, state_f, key):
    """Leave the clock."""
    unlink(state_i, key)


def victim(state_i, state_f, locked):
    """The first from the hand on whose counter is 0."""
    count = list_end(state_i) + 1
    key = oldest_unlocked(state_i, locked)
    while key >= 0 and state_i[count + key] > 0:
        state_i[count + key] -= 1
        unlink(state_i, key)
        push_newest(state_i, key)
        key = oldest_unlocked(state_i, locked)
    return key
