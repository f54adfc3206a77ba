"""The drive, the host link and the CPU: who goes next, who makes room for it, and what follows when it is through.

Each function is called from one place where that is possible: all of them are compiled into one.
"""

from __future__ import annotations

import numpy as np

from moesim.replay.kernels.caches import (
    USED,
    Caches,
    admits,
    cache_of,
    choose,
    expect,
    fits,
    hold,
    keep,
    passing_to_leave,
)
from moesim.replay.kernels.host import Host, expect_in_host, hold_in_host, release, room_in_host
from moesim.replay.kernels.node import (
    ARRIVALS,
    ARRIVE,
    ARRIVED,
    ASKED,
    AWAITED,
    BEGIN,
    BY_CPU,
    BY_CPU_QUEUE,
    BY_FLASH,
    BY_FLASH_QUEUE,
    BY_ROOM,
    BY_TOP,
    BY_TOP_QUEUE,
    CANCELLED,
    CHOOSING,
    CPU,
    CROWDED,
    DISPATCH,
    DONE,
    DUE_S,
    END,
    FLASH,
    GPU,
    GPU_WAITS,
    HIT,
    IDLE,
    IS_DEMAND,
    KEY,
    LOCKED,
    LOOKUP,
    LOOKUP_NOW,
    NO_ROOM,
    ON_CPU,
    PCIE,
    PHASES,
    QUEUED_S,
    RANK,
    READ_QUEUED_S,
    READ_ROOM_S,
    READING_S,
    READY,
    RESERVE,
    RESUMED,
    ROOM_S,
    SERVED,
    SERVED_S,
    SERVING,
    STAGE,
    START_S,
    STARTED,
    STUCK,
    TARGET,
    TOP,
    UNUSED_NOW,
    USED_BYTES,
    VISIT,
    WAIT_S,
    WAITS_NOTED,
    WITHDRAWN,
    WOKEN,
    Node,
    Record,
    Work,
    close_slot,
    leave,
    schedule,
)
from moesim.replay.kernels.policy import has_host, may_use_cpu
from moesim.replay.kernels.queues import enqueue, first_of, others_act_at, unqueue

#: What came of an attempt to start a transfer.
BEGUN, WAITS, REFUSED = range(3)


def earliest(node: Node) -> int:
    """Whose event comes next."""
    best = GPU
    if has_host() or may_use_cpu():
        for server in range(GPU):
            if _precedes(node, server, best):
                best = server
    elif _precedes(node, node.numbers[TOP], best):
        best = node.numbers[TOP]
    return best


def _precedes(node: Node, one: int, other: int) -> bool:
    due, others = node.clock[DUE_S + one], node.clock[DUE_S + other]
    return due < others or (due == others and node.numbers[RANK + one] < node.numbers[RANK + other])


def serve(caches: Caches, host: Host, node: Node, work: Work, record: Record, server: int) -> None:
    """A server's event: a transfer ends, or it is time to choose, or there is room for what was chosen."""
    now, stage = node.clock[DUE_S + server], node.numbers[STAGE + server]
    node.clock[DUE_S + server] = np.inf
    if stage == SERVING:
        _through(caches, host, node, record, server, now)
    goes_on, chosen = stage == RESUMED, stage == CHOOSING
    node.numbers[STAGE + server] = WOKEN
    while True:
        if not goes_on:
            slot = first_of(node, server)
            if slot < 0:
                node.numbers[STAGE + server] = IDLE
                return
            if not chosen and others_act_at(node, now):  # they may ask for more
                node.numbers[STAGE + server] = CHOOSING
                schedule(node, server, now, DISPATCH)
                return
            unqueue(node, slot)
            node.numbers[SERVED + server] = slot
        outcome = _admit(caches, host, node, work, record, server, goes_on, now)
        if outcome == WAITS:
            node.numbers[STAGE + server] = CROWDED
            return
        if outcome == BEGUN:
            _begin(node, work, server, now)
            return
        goes_on = chosen = False


def _admit(
    caches: Caches, host: Host, node: Node, work: Work, record: Record, server: int, goes_on: bool, now: float
) -> int:
    """Make room at the far end for what was chosen."""
    slot = node.numbers[SERVED + server]
    if server == node.numbers[TOP]:
        outcome = _admit_to_gpu(caches, node, work, record, slot, goes_on, now)
        if outcome == REFUSED:
            _end(host, node, slot, now)
        return outcome
    if has_host() and server == FLASH:
        return _admit_to_host(host, node, slot, goes_on, now)
    return BEGUN


def _admit_to_host(host: Host, node: Node, slot: int, goes_on: bool, now: float) -> int:
    key = node.slot_i[slot, KEY]
    if not goes_on:
        node.numbers[CANCELLED] = 0
        expect_in_host(host, key)
    elif node.numbers[CANCELLED]:
        close_slot(node, slot)
        return REFUSED
    if not room_in_host(host, key):
        if node.slot_f[slot, READ_ROOM_S] < 0.0:
            node.slot_f[slot, READ_ROOM_S] = now
        return WAITS
    hold_in_host(host, key)
    return BEGUN


def _admit_to_gpu(caches: Caches, node: Node, work: Work, record: Record, slot: int, goes_on: bool, now: float) -> int:
    """Take space on the GPU; a prefetch is refused where nobody can leave for it, a demand waits."""
    key, is_demand = node.slot_i[slot, KEY], node.slot_i[slot, IS_DEMAND] > 0
    cache = cache_of(caches, key)
    note = node.upcoming[key] if len(node.upcoming) else 0.0
    if goes_on:
        leave(caches, node, node.numbers[AWAITED])
        node.numbers[AWAITED] = -1
    elif not is_demand and not admits(caches, cache, key, note):
        node.numbers[NO_ROOM] += 1
        return REFUSED
    else:
        expect(caches, cache, key)
    while node.numbers[RESERVE] and not fits(caches, cache, key):
        lock_members(caches, node, work)
        leaver = choose(caches, cache)
        if leaver < 0:
            if not is_demand:
                node.numbers[NO_ROOM] += 1
                return REFUSED
            leaver = _member_to_leave(caches, node, work, cache)
            if leaver < 0:
                node.numbers[STUCK] = 1
                return WAITS
            _note_wait(node, work, record, slot, leaver)
            if _is_to_be_computed(node, work, leaver):
                node.numbers[AWAITED] = leaver
                if node.slot_f[slot, ROOM_S] < 0.0:
                    node.slot_f[slot, ROOM_S] = now
                return WAITS
        leave(caches, node, leaver)
    if is_demand:
        hold(caches, cache, key)
    else:
        _keep_ahead(caches, node, cache, key, note)
    node.stayed[key] -= node.numbers[VISIT]
    node.numbers[USED_BYTES] += caches.sizes[key]
    return BEGUN


def _keep_ahead(caches: Caches, node: Node, cache: int, key: int, note: float) -> None:
    """A prefetch takes space, and stays until it has arrived at least."""
    caches.books[cache, USED] += caches.sizes[key]
    keep(caches, cache, key, note)
    caches.locked[key] += 1
    node.numbers[STARTED] += 1
    node.unused[key] = 1
    node.numbers[UNUSED_NOW] += 1


def lock_members(caches: Caches, node: Node, work: Work) -> None:
    """The running visit's experts must not make room; done when somebody has to, which is rarely."""
    if not node.numbers[LOCKED]:
        node.numbers[LOCKED] = 1
        change_locks(caches, node, work, 1)


def change_locks(caches: Caches, node: Node, work: Work, by: int) -> None:
    """One reason more, or with -1 one less, to stay: for what the running visit computes on the GPU."""
    for lookup in range(node.numbers[BEGIN], node.numbers[END]):
        if not may_use_cpu() or not node.on_cpu[lookup]:
            caches.locked[work.lookup_key[lookup]] += by


def _note_wait(node: Node, work: Work, record: Record, slot: int, leaver: int) -> None:
    """A transfer can't begin before a lookup of its visit is computed, whenever that is."""
    if node.numbers[WAITS_NOTED] < len(record.waits):
        for lookup in range(node.numbers[BEGIN], node.numbers[END]):
            if work.lookup_key[lookup] == leaver:
                record.waits[node.numbers[WAITS_NOTED], 0] = node.slot_i[slot, LOOKUP]
                record.waits[node.numbers[WAITS_NOTED], 1] = lookup
        node.numbers[WAITS_NOTED] += 1


def _member_to_leave(caches: Caches, node: Node, work: Work, cache: int) -> int:
    """As ``caches.next_to_leave``, where nobody outside of the visit may leave."""
    change_locks(caches, node, work, -1)
    key = choose(caches, cache)
    change_locks(caches, node, work, 1)
    return key if key >= 0 else passing_to_leave(caches)


def _is_to_be_computed(node: Node, work: Work, key: int) -> bool:
    """Whether the running visit still has to compute a key."""
    for lookup in range(node.numbers[BEGIN], node.numbers[END]):
        if work.lookup_key[lookup] == key:
            if lookup == node.numbers[LOOKUP_NOW]:
                return True
            if node.label[lookup] == HIT:
                return lookup >= node.numbers[READY]
            return not _has_come(node, lookup)
    return False


def _has_come(node: Node, lookup: int) -> bool:
    """Whether the lookup is among the arrivals that were taken."""
    found = False
    for place in range(node.numbers[ARRIVED]):
        found |= node.arrivals[place] == lookup
    return found


def _begin(node: Node, work: Work, server: int, now: float) -> None:
    """A transfer starts."""
    slot = node.numbers[SERVED + server]
    key = node.slot_i[slot, KEY]
    node.numbers[STAGE + server] = SERVING
    node.clock[START_S + server] = now
    if has_host() and server == FLASH:
        node.slot_f[slot, READING_S] = now
    else:
        node.slot_f[slot, SERVED_S] = now
    duration = node.read_s[key] if server == FLASH else node.copy_s[key]
    if may_use_cpu() and server == CPU:
        duration = work.cpu_s[node.slot_i[slot, LOOKUP]]
    schedule(node, server, now + duration, ARRIVE)


def _through(caches: Caches, host: Host, node: Node, record: Record, server: int, now: float) -> None:
    """A transfer has ended."""
    slot, done = node.numbers[SERVED + server], node.numbers[DONE + server]
    key = node.slot_i[slot, KEY]
    node.numbers[DONE + server] = done + 1
    if done < record.span_i.shape[1]:
        record.span_i[server, done, 0], record.span_i[server, done, 1] = key, node.slot_i[slot, TARGET]
        record.span_i[server, done, 2] = node.slot_i[slot, IS_DEMAND]
        record.span_s[server, done, 0], record.span_s[server, done, 1] = node.clock[START_S + server], now
    if has_host() and server == FLASH:
        if node.slot_i[slot, IS_DEMAND] or node.slot_i[slot, TARGET] > node.numbers[ASKED]:
            send_up(node, slot, now)
        else:
            node.numbers[WITHDRAWN] += 1
            _end(host, node, slot, now)
        return
    if server == node.numbers[TOP] and not node.slot_i[slot, IS_DEMAND]:
        caches.locked[key] -= 1
    lookup = node.slot_i[slot, LOOKUP]
    if lookup >= 0 and node.numbers[GPU_WAITS]:
        node.numbers[GPU_WAITS] = 0
        _charge_wait(node, slot, now)
        schedule(node, GPU, now, ARRIVE)
    _end(host, node, slot, now)
    if lookup >= 0:
        node.arrivals[node.numbers[ARRIVALS]] = lookup
        node.numbers[ARRIVALS] += 1


def _charge_wait(node: Node, slot: int, end_s: float) -> None:
    """Charge the GPU's wait to what the transfer that ended it was waiting for, phase by phase of its way."""
    cause, begin = -1, 0.0
    for phase in range(READ_QUEUED_S if has_host() else QUEUED_S, PHASES):
        at_s = node.slot_f[slot, phase]
        if at_s >= 0.0:
            _charge(node, cause, begin, at_s, end_s)
            cause, begin = _cause(node, slot, phase), at_s
    _charge(node, cause, begin, end_s, end_s)


def _charge(node: Node, cause: int, begin: float, until: float, end_s: float) -> None:
    begin, until = max(begin, node.clock[WAIT_S]), min(until, end_s)
    if cause >= 0 and begin < until:
        node.stall_s[node.numbers[VISIT], cause] += until - begin


def _cause(node: Node, slot: int, phase: int) -> int:
    """The column of ``stall_s`` for a phase."""
    if phase in (ROOM_S, READ_ROOM_S):
        return BY_ROOM
    is_served = phase in (SERVED_S, READING_S)
    if phase <= READING_S:
        return BY_FLASH if is_served else BY_FLASH_QUEUE
    if may_use_cpu() and node.slot_i[slot, ON_CPU]:
        return BY_CPU if is_served else BY_CPU_QUEUE
    return BY_TOP if is_served else BY_TOP_QUEUE


def send_up(node: Node, slot: int, now: float) -> None:
    """From host memory to where the expert is computed."""
    node.slot_f[slot, QUEUED_S] = now
    enqueue(node, CPU if may_use_cpu() and node.slot_i[slot, ON_CPU] else PCIE, slot, now)


def _end(host: Host, node: Node, slot: int, now: float) -> None:
    """A transfer is over, and host memory need not hold its expert any longer."""
    key = node.slot_i[slot, KEY]
    node.slot_of[key] = -1
    close_slot(node, slot)
    if has_host():
        release(host, node, key, now)
