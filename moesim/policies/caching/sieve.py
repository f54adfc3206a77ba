"""SIEVE: a hand goes from the oldest expert to the newest; who was used since its last pass stays, others leave.

An activation marks a key; newcomers are unmarked. The hand unmarks what is marked and passes on, and takes the first
unmarked key; it rests on the next newer one, and from the newest it goes back to the oldest. Unlike CLOCK nothing is
moved, so newcomers are sifted quickly. Source: Zhang et al., "SIEVE is simpler than LRU", NSDI 2024; the definition
is libCacheSim's too. Locked keys are passed over and keep their mark.
"""

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import empty_list, list_end, newer_in_list, push_newest, unlink


class Params(PolicyParams):
    """SIEVE has no parameters."""


def initial_state(params: Params, context: CacheContext):
    """A queue; behind it how many keys are in it, the hand (-1: at the oldest), and each key's mark."""
    state = empty_list(context.num_keys, more=2 + context.num_keys)
    state[3 + 2 * context.num_keys + 1] = -1
    return state, context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """Mark it."""
    state_i[list_end(state_i) + 2 + key] = 1


def on_insert(state_i, state_f, key, now, note):
    """Newest, unmarked."""
    end = list_end(state_i)
    push_newest(state_i, key)
    state_i[end] += 1
    state_i[end + 2 + key] = 0


def on_evict(state_i, state_f, key):
    """Leave; a hand that rests here moves on."""
    end = list_end(state_i)
    if state_i[end + 1] == key:
        state_i[end + 1] = newer_in_list(state_i, key)
    unlink(state_i, key)
    state_i[end] -= 1


def victim(state_i, state_f, locked):
    """The first unmarked one from the hand on. Two rounds find it, if there is one."""
    end = list_end(state_i)
    key = state_i[end + 1]
    for _ in range(2 * state_i[end]):
        if key < 0:
            key = newer_in_list(state_i, -1)
        if not locked[key]:
            if state_i[end + 2 + key] == 0:
                state_i[end + 1] = key
                return key
            state_i[end + 2 + key] = 0
        key = newer_in_list(state_i, key)
    return -1
