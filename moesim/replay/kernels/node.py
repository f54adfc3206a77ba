"""What the timeline's kernels share: a GPU that computes, and the servers that bring experts or compute them.

The servers are SimPy's processes in the engine: the drive (to host memory, or straight to the GPU where memory is
unified), the host link, and the CPU. Each waits for one event at most, so that the whole agenda is four entries: a
time, and a rank that orders entries of one time as SimPy does (by the event's order, then by when it was scheduled).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.replay.kernels.caches import Caches, cache_of, drop
from moesim.replay.kernels.policy import has_host

#: Who has an entry in the agenda.
FLASH, PCIE, CPU, GPU = range(4)
#: The engine's orders of events at one time, as the high bits of a rank.
ARRIVE, ASK, DISPATCH = 1 << 50, 2 << 50, 3 << 50
#: What a server does: nothing is queued; it was just woken; it is about to choose; a transfer is under way; what was
#: chosen waits for room; it has just been given some.
IDLE, WOKEN, CHOOSING, SERVING, CROWDED, RESUMED = range(6)

#: Places in ``numbers``. The rules; which server leads to the GPU; the visit that runs, the one whose router spoke
#: last; events scheduled so far; the key that must be computed before the host link goes on (-1: none); whether what
#: waits for room on the drive was withdrawn; whether the visit's members are locked; its lookups (begin, end), the
#: next ready one, how many are still to arrive, the one that is computed; arrivals taken, arrivals; what the GPU is at,
#: and whether it waits.
RESERVE, DEMAND_FIRST, TOP, VISIT, ASKED, SCHEDULED, AWAITED, CANCELLED, LOCKED, BEGIN, END, READY, MISSING = range(13)
LOOKUP_NOW, ARRIVED, ARRIVALS, GPU_STAGE, GPU_WAITS = range(13, 18)
#: Bytes held, experts that left, overshoot, whether nothing could go on; prefetched experts not yet asked for;
#: prefetches that wait; the first free slot.
USED_BYTES, EVICTIONS, OVERSHOOT, STUCK, UNUSED_NOW, WAITING_PREFETCHES, FREE_SLOT = range(18, 25)
#: The visit's step and layer.
STEP, LAYER = 25, 26
#: What became of proposals, as the engine's ``PrefetchCounts`` have it.
PROPOSED, REDUNDANT, WITHDRAWN, NO_ROOM, STARTED, IN_TIME, TOO_LATE, WASTED = range(27, 35)
#: For each process its rank; for each server its stage, the slot that it serves or admits, transfers done, and the
#: first and last slot of its two queues (demands that go ahead; the others).
RANK, STAGE, SERVED, DONE, HEAD, TAIL = 35, 39, 43, 47, 51, 59
#: Of ``Record.waits``.
WAITS_NOTED = 67
NUMBERS = 68

#: Places in ``clock``: for each process when its event is due (infinite: it waits for somebody), for each server when
#: its transfer started, and since when the GPU waits.
DUE_S, START_S, WAIT_S = 0, 4, 8
CLOCK = 9

#: Columns of ``slot_i``: the transfer's key; whether it is a demand, and one for the CPU; the visit that it is for; the
#: lookup that waits for it (-1: none); whose queue it stands in (-1: none) with the next and the previous slot there
#: (of a free slot: the next free one).
KEY, IS_DEMAND, ON_CPU, TARGET, LOOKUP, QUEUED_ON, NEXT, PREVIOUS = range(8)
SLOT_I = 8
#: Columns of ``slot_f``: when each phase of its way began (negative: it did not): in the drive's queue, waiting for
#: room in host memory, being read; the same for the host link or the CPU, with room on the GPU.
READ_QUEUED_S, READ_ROOM_S, READING_S, QUEUED_S, ROOM_S, SERVED_S = range(6)
PHASES = 6
SLOT_F = 8

HIT, LATE, MISS = range(3)
#: Columns of ``stall_s``, the rarer last: what is not there takes no memory.
BY_TOP, BY_TOP_QUEUE, BY_ROOM, BY_FLASH, BY_FLASH_QUEUE, BY_CPU, BY_CPU_QUEUE = range(7)


@dataclass(frozen=True)
class Node:
    """The node's state and record.

    A transfer that is wanted (queued, admitted or under way) has a slot; few slots are in use at a time, so they stay
    in the processor's first cache, and so does most of what there is for each key.

    Attributes:
        numbers, clock: integers and seconds of the node. [NUMBERS], [CLOCK]
        slot_i, slot_f: integers and floats of each transfer. [keys + 1, SLOT_I], [keys + 1, SLOT_F]
        slot_of: the slot of a key's transfer, -1 where there is none. [keys]
        copy_s, read_s: seconds of a key's transfers. [keys]
        upcoming: the note of its next use; empty where the policy takes none. [keys]
        stayed: visits that it was on the GPU; while it is there, less those before it came. [keys]
        unused: whether it was prefetched and not yet asked for. [keys]
        arrivals: lookups of the running visit that have arrived. [keys]
        label: HIT, LATE or MISS. [lookups]
        on_cpu: whether the CPU computed it. [lookups]
        stall_s: [visits, causes]
    """

    numbers: Any
    clock: Any
    slot_i: Any
    slot_f: Any
    slot_of: Any
    copy_s: Any
    read_s: Any
    upcoming: Any
    stayed: Any
    unused: Any
    arrivals: Any
    label: Any
    on_cpu: Any
    stall_s: Any


@dataclass(frozen=True)
class Work:
    """What the node does; arrays as in ``Visits``, ``Times`` and ``Candidates``.

    Attributes:
        layers: MoE layers; visit v is layer ``v % layers`` of step ``v // layers``.
        note: of each activation; empty where the policy takes none.
        miss_state: of the on-miss policy.
    """

    layers: int
    starts_request: Any
    start: Any
    key: Any
    note: Any
    lookup_start: Any
    lookup_key: Any
    lookup_tokens: Any
    before_s: Any
    shared_s: Any
    expert_s: Any
    after_s: Any
    cpu_s: Any
    proposal_start: Any
    proposal_key: Any
    proposal_target: Any
    miss_state: Any


@dataclass(frozen=True)
class Record:
    """When steps began and ended and visits ended, bytes held at each visit's end, and what each server did, in order.

    Attributes:
        span_i: key, visit and whether it was a demand. [servers, transfers, 3]
        span_s: start and end. [servers, transfers, 2]
        waits: of transfers that had to wait until another lookup of the visit was computed: the lookup that they are
            for, and the other one. [waits, 2]
    """

    step_start_s: Any
    step_end_s: Any
    visit_end_s: Any
    resident_bytes: Any
    span_i: Any
    span_s: Any
    waits: Any


def schedule(node: Node, process: int, at_s: float, order: int) -> None:
    """Enter a process's next event into the agenda."""
    node.numbers[SCHEDULED] += 1
    node.clock[DUE_S + process] = at_s
    node.numbers[RANK + process] = order + node.numbers[SCHEDULED]


def leave(caches: Caches, node: Node, key: int) -> None:
    """An expert leaves the GPU."""
    drop(caches, cache_of(caches, key), key)
    node.numbers[EVICTIONS] += 1
    node.numbers[USED_BYTES] -= caches.sizes[key]
    node.stayed[key] += node.numbers[VISIT]
    if node.numbers[UNUSED_NOW] and node.unused[key]:
        node.unused[key] = 0
        node.numbers[UNUSED_NOW] -= 1
        node.numbers[WASTED] += 1


def open_slot(node: Node, key: int, is_demand: bool, on_cpu: bool, target: int, lookup: int) -> int:
    """A slot for a new transfer."""
    slot = node.numbers[FREE_SLOT]
    node.numbers[FREE_SLOT] = node.slot_i[slot, NEXT]
    node.slot_of[key] = slot
    node.slot_i[slot, KEY], node.slot_i[slot, IS_DEMAND], node.slot_i[slot, ON_CPU] = key, is_demand, on_cpu
    node.slot_i[slot, TARGET], node.slot_i[slot, LOOKUP] = target, lookup
    for phase in range(0 if has_host() else ROOM_S, PHASES):
        node.slot_f[slot, phase] = -1.0
    return slot


def transfer_of(node: Node, key: int) -> Any:
    """The slot of a key's transfer, -1 where there is none; of the type that slots have elsewhere."""
    return np.int64(node.slot_of[key])


def close_slot(node: Node, slot: int) -> None:
    """A transfer is over."""
    node.slot_i[slot, NEXT] = node.numbers[FREE_SLOT]
    node.numbers[FREE_SLOT] = slot
