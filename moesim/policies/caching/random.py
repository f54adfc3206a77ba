"""Random: any of the experts that may leave, each with the same probability, leaves first.

The choice is ``x mod kept`` with the generator of Park & Miller, x <- 48271 x mod (2^31 - 1), drawn again while the
chosen one is locked (Communications of the ACM 31(10), 1988; multiplier of 1993). Same seed, same victims.
"""

from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import discard, empty_kept, keep, kept_end, kept_key, num_kept


class Params(PolicyParams):
    """Where the generator starts."""

    seed: int = Field(1, ge=1, lt=2**31 - 1, description="start of the generator")


def initial_state(params: Params, context: CacheContext):
    """The kept keys, and behind them the generator."""
    state = empty_kept(context.num_keys, context.experts_per_layer, more=1)
    state[-1] = params.seed
    return state, context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Use does not matter."""


def on_insert(state_i, state_f, key, now, note):
    """One more to choose from."""
    keep(state_i, key, now)


def on_evict(state_i, state_f, key):
    """One less."""
    discard(state_i, key)


def victim(state_i, state_f, locked):
    """Any that may leave; draws only where there is one."""
    free = 0
    for place in range(num_kept(state_i)):
        free += locked[kept_key(state_i, place)] == 0
    if free == 0:
        return -1
    generator = kept_end(state_i)
    while True:
        state_i[generator] = state_i[generator] * 48271 % 2147483647
        key = kept_key(state_i, state_i[generator] % num_kept(state_i))
        if not locked[key]:
            return key
