"""What the timeline's kernels share: one GPU that computes, and the link that brings experts to it.

At equal times arrivals come first, then what the GPU does, then the link's choice of what goes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moesim.replay.kernels.caches import Caches, cache_of, drop

#: Places in ``numbers``: the rules; the visit that runs; the link (the key under way, the demand that waits for room
#: and whom it waits for, -1: none; entries queued so far; waits for room of the transfer under way); where the queues
#: begin (two), end (two), the arrivals begin and end; bytes held now, experts that left, whether nothing could go on.
RESERVE, DEMAND_FIRST, VISIT, BUSY, ADMITTING, AWAITED, SEQUENCE, ROOMS = range(8)
HEAD, TAIL, ARRIVED, ARRIVALS, USED_BYTES, EVICTIONS, OVERSHOOT, STUCK = 8, 10, 12, 13, 14, 15, 16, 17
#: What became of proposals, as the engine's ``PrefetchCounts`` have it.
PROPOSED, REDUNDANT, WITHDRAWN, NO_ROOM, STARTED, IN_TIME, TOO_LATE, WASTED = range(18, 26)
NUMBERS = 26

#: Places in ``clock``: the transfer under way; when the link may choose; when each wait for room began.
START_S, END_S, CHOICE_S, ROOM_S = range(4)

#: Columns of ``key_i``: the number of its entry in a queue (0: none); whether it is a demand; the visit that a
#: prefetch is for; the lookup that waits for it (-1: none); since which visit it is here (-1: away); visits that it
#: was here; whether it was prefetched and not yet asked for; the last visit (from 1) that asked for, and computed it.
PLACE, IS_DEMAND, TARGET, LOOKUP, SINCE, STAYED, UNUSED, MEMBER, COMPUTED = range(9)
KEY_I = 9
#: Columns of ``key_f``: when it was queued, the seconds of its transfer, the note of its next use.
PUT_S, COPY_S, UPCOMING = range(3)
KEY_F = 3

HIT, LATE, MISS = range(3)


@dataclass(frozen=True)
class Node:
    """The node's state and record.

    Attributes:
        numbers, clock: integers and seconds of the node. [NUMBERS], [ROOM_S + keys]
        key_i, key_f: integers and floats of each key. [keys, KEY_I], [keys, KEY_F]
        queue: demands that go ahead, the others (key, number of the entry each), and lookups that have arrived.
            [3, entries]
        label: HIT, LATE or MISS. [lookups]
        stall_s: the engine's causes in columns, the link's own and its queue's first. [visits, causes]
    """

    numbers: Any
    clock: Any
    key_i: Any
    key_f: Any
    queue: Any
    label: Any
    stall_s: Any


@dataclass(frozen=True)
class Work:
    """What the node does; arrays as in ``Visits``, ``Times`` and ``Candidates``.

    Attributes:
        layers: MoE layers; visit v is layer ``v % layers`` of step ``v // layers``.
        link: first column of ``stall_s`` that belongs to the link: its own, then its queue's.
        note: of each activation; empty where the policy takes none.
    """

    layers: int
    link: int
    starts_request: Any
    start: Any
    key: Any
    note: Any
    lookup_start: Any
    lookup_key: Any
    before_s: Any
    shared_s: Any
    expert_s: Any
    after_s: Any
    proposal_start: Any
    proposal_key: Any
    proposal_target: Any


@dataclass(frozen=True)
class Record:
    """When steps and visits began and ended, and bytes held at each visit's end."""

    step_start_s: Any
    step_end_s: Any
    visit_start_s: Any
    visit_end_s: Any
    resident_bytes: Any


def leave(caches: Caches, node: Node, key: int) -> None:
    """An expert leaves the GPU."""
    drop(caches, cache_of(caches, key), key)
    node.numbers[EVICTIONS] += 1
    node.numbers[USED_BYTES] -= caches.sizes[key]
    node.key_i[key, STAYED] += node.numbers[VISIT] - node.key_i[key, SINCE]
    node.key_i[key, SINCE] = -1
    if node.key_i[key, UNUSED]:
        node.key_i[key, UNUSED] = 0
        node.numbers[WASTED] += 1


def begin_transfer(caches: Caches, node: Node, key: int, now: float) -> None:
    """A transfer to the GPU starts."""
    node.numbers[BUSY] = key
    node.clock[START_S] = now
    node.clock[END_S] = now + node.key_f[key, COPY_S]
    node.key_i[key, SINCE] = node.numbers[VISIT]
    node.numbers[USED_BYTES] += caches.sizes[key]
