"""S3-FIFO: newcomers wait in a small queue; what is used there moves to the main queue, the rest leaves quickly.

Three queues in order of arrival: small (``small_ratio`` of the bytes), main (the rest), and a ghost queue of keys that
left small (``ghost_ratio`` of the bytes of what they were). Each key counts its uses since it came, newcomers 0.
A newcomer joins small, or main if the ghost queue remembers it (or if small is full while nothing has ever left).
Room is made in main if it holds more than its share or small is empty, else in small. Small: its oldest moves to main
if it was used at least ``move_to_main`` times (it starts again at 0 there), else it leaves and its ghost is kept.
Main: its oldest becomes its newest with min(uses, 3) - 1 uses if it has any, else it leaves.

Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, in the form of libCacheSim's code,
whose shares these defaults are; the paper's pseudocode agrees ("more than one use" is ``move_to_main`` 2). A small
queue of less than the largest expert is given the space of one; libCacheSim lets nothing in where an object does not
fit into less than its small queue, so that 10 slots hold nothing there. Locked keys are passed over; where a queue has
only such keys the other one makes room.
"""

from pydantic import Field

from moesim.policies.api import CacheContext, PolicyParams
from moesim.policies.structures import (
    empty_queues,
    join,
    oldest_of,
    oldest_unlocked_of,
    queue_bytes,
    queue_of,
    queues_end,
    quit_queue,
    shorten,
)

SMALL, MAIN, GHOST = 0, 1, 2
SMALL_BYTES, MAIN_BYTES, GHOST_BYTES, MOVE_TO_MAIN, HAS_EVICTED, RULES = range(6)


class Params(PolicyParams):
    """Shares of the space, and what counts as used."""

    small_ratio: float = Field(0.1, gt=0, lt=1, description="share of the capacity for newcomers")
    ghost_ratio: float = Field(0.9, ge=0, le=4, description="bytes of remembered leavers, as a share of the capacity")
    move_to_main: int = Field(2, ge=1, description="uses after the first that earn a place in the main queue")


def initial_state(params: Params, context: CacheContext):
    """The queues; behind them the rules, each key's uses, and whether its ghost was here when it was asked for."""
    state = empty_queues(context.sizes, 3, more=RULES + 2 * context.num_keys)
    rules = len(state) - RULES - 2 * context.num_keys
    small = max(int(params.small_ratio * context.capacity_bytes), int(context.sizes.max()))
    state[rules + SMALL_BYTES] = small
    state[rules + MAIN_BYTES] = context.capacity_bytes - small
    state[rules + GHOST_BYTES] = int(params.ghost_ratio * context.capacity_bytes)
    state[rules + MOVE_TO_MAIN] = params.move_to_main
    return state, context.no_floats


def on_hit(state_i, state_f, key, now, note):
    """One more use."""
    state_i[queues_end(state_i) + RULES + key] += 1


def before_insert(state_i, state_f, key):
    """Does the ghost queue remember it?"""
    if queue_of(state_i, key) == GHOST:
        quit_queue(state_i, key)
        state_i[queues_end(state_i) + RULES + state_i[0] + key] = 1


def on_insert(state_i, state_f, key, now, note):
    """Remembered: to main. New: to small."""
    rules = queues_end(state_i)
    remembered = rules + RULES + state_i[0] + key
    full = queue_bytes(state_i, SMALL) >= state_i[rules + SMALL_BYTES]
    if queue_of(state_i, key) == GHOST:
        quit_queue(state_i, key)
    to_main = state_i[remembered] or (full and not state_i[rules + HAS_EVICTED])
    join(state_i, MAIN if to_main else SMALL, key)
    state_i[remembered] = 0
    state_i[rules + RULES + key] = 0


def on_evict(state_i, state_f, key):
    """Leave; who leaves small is remembered."""
    rules = queues_end(state_i)
    was_small = queue_of(state_i, key) == SMALL
    quit_queue(state_i, key)
    if was_small:
        join(state_i, GHOST, key)
        shorten(state_i, GHOST, state_i[rules + GHOST_BYTES])


def victim(state_i, state_f, locked):
    """From main if it is too long, else from small; from the other one where all are locked."""
    rules = queues_end(state_i)
    state_i[rules + HAS_EVICTED] = 1
    if queue_bytes(state_i, MAIN) > state_i[rules + MAIN_BYTES] or oldest_of(state_i, SMALL) < 0:
        key = _from_main(state_i, locked)
        return key if key >= 0 else _from_small(state_i, locked)
    key = _from_small(state_i, locked)
    return key if key >= 0 else _from_main(state_i, locked)


def _from_small(state, locked):
    """The oldest that is little used; others move to main."""
    rules = queues_end(state)
    key = oldest_unlocked_of(state, SMALL, locked)
    while key >= 0 and state[rules + RULES + key] >= state[rules + MOVE_TO_MAIN]:
        quit_queue(state, key)
        join(state, MAIN, key)
        state[rules + RULES + key] = 0
        key = oldest_unlocked_of(state, SMALL, locked)
    return key


def _from_main(state, locked):
    """The oldest that is not used; others go round again."""
    uses = queues_end(state) + RULES
    key = oldest_unlocked_of(state, MAIN, locked)
    while key >= 0 and state[uses + key] > 0:
        state[uses + key] = min(state[uses + key], 3) - 1
        quit_queue(state, key)
        join(state, MAIN, key)
        key = oldest_unlocked_of(state, MAIN, locked)
    return key
