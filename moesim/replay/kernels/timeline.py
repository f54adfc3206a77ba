"""Counts with a clock: the GPU walks through the visits, and the servers beside it bring experts.

The semantics of ``moesim.engine.offload``, to the last bit: times are only added and compared, in the engine's order,
and events at one time come in the engine's order (``node`` says how). Read ``timeline`` first, then ``asking`` (a
router has spoken) and ``servers`` (who is brought next, and who makes room).
"""

from __future__ import annotations

import numpy as np

from moesim.replay.kernels.asking import ask
from moesim.replay.kernels.caches import CAPACITY, FAULT, PASSES, PASSING, USED, Caches, choose, tell_uses
from moesim.replay.kernels.host import Host
from moesim.replay.kernels.node import (
    ARRIVALS,
    ARRIVE,
    ARRIVED,
    ASK,
    AWAITED,
    BEGIN,
    DUE_S,
    END,
    GPU,
    GPU_STAGE,
    GPU_WAITS,
    HIT,
    IS_DEMAND,
    LAYER,
    LOCKED,
    LOOKUP_NOW,
    MISSING,
    OVERSHOOT,
    READY,
    RESERVE,
    RESUMED,
    SERVED,
    SERVING,
    STAGE,
    STEP,
    STUCK,
    TOP,
    UNUSED_NOW,
    USED_BYTES,
    VISIT,
    WAIT_S,
    WASTED,
    WITHDRAWN,
    Node,
    Record,
    Work,
    leave,
    schedule,
)
from moesim.replay.kernels.policy import may_use_cpu
from moesim.replay.kernels.queues import servers_due
from moesim.replay.kernels.servers import change_locks, earliest, lock_members, serve

#: What the GPU is at: attention and router, shared experts, an expert, waiting for an arrival, the output head.
ROUTING, SHARING, COMPUTING, WAITING, ENDING = range(5)


def timeline(caches: Caches, host: Host, node: Node, work: Work, record: Record) -> None:
    """Run every visit of every step; stops early where nothing can go on (``STUCK``)."""
    _begin_step(node, work, record, 0, 0.0)
    while node.numbers[STEP] < len(record.step_start_s):
        process = earliest(node)
        if process != GPU:
            serve(caches, host, node, work, record, process)
            continue
        now, stage = node.clock[DUE_S + GPU], node.numbers[GPU_STAGE]
        if now == np.inf or node.numbers[STUCK] or caches.common[FAULT]:
            node.numbers[STUCK] = 1
            return
        if stage == ROUTING:
            ask(caches, host, node, work, node.numbers[VISIT], now)
            if work.shared_s[node.numbers[VISIT]]:
                _compute(node, SHARING, now + work.shared_s[node.numbers[VISIT]])
                continue
        elif stage == COMPUTING:
            _computed(node, work, now)
        elif stage == ENDING:
            record.step_end_s[node.numbers[STEP]] = now
            _begin_step(node, work, record, node.numbers[STEP] + 1, now)
            continue
        end_s = _experts(node, work, now)
        if end_s >= 0.0:
            _end_visit(caches, node, work, record, end_s)
    _close(caches, node, len(record.visit_end_s))


def _begin_step(node: Node, work: Work, record: Record, step: int, now: float) -> None:
    node.numbers[STEP], node.numbers[LAYER], node.numbers[VISIT] = step, 0, step * work.layers
    if step < len(record.step_start_s):
        record.step_start_s[step] = now
        _compute(node, ROUTING, now + work.before_s[node.numbers[VISIT]])


def _compute(node: Node, stage: int, until_s: float) -> None:
    node.numbers[GPU_STAGE] = stage
    schedule(node, GPU, until_s, ASK)


def _computed(node: Node, work: Work, now: float) -> None:
    """An expert is done: it may leave, and a demand may have waited for that."""
    lookup = node.numbers[LOOKUP_NOW]
    node.numbers[LOOKUP_NOW] = -1
    if node.numbers[AWAITED] >= 0 and node.numbers[AWAITED] == work.lookup_key[lookup]:
        top = node.numbers[TOP]
        node.numbers[STAGE + top] = RESUMED
        schedule(node, top, now, ARRIVE)


def _experts(node: Node, work: Work, now: float) -> float:
    """Compute the experts that are ready, then those that have arrived, as far as no server has its turn before.

    Returns:
        When all of the visit were done, or -1 where the GPU is at one, or waits for the next arrival.
    """
    horizon = servers_due(node) if node.numbers[AWAITED] < 0 else -1.0
    while True:
        lookup = _next_expert(node)
        if lookup < 0:
            break
        until_s = now + work.expert_s[lookup]
        if until_s >= horizon:
            node.numbers[LOOKUP_NOW] = lookup
            _compute(node, COMPUTING, until_s)
            return -1.0
        now = until_s
    if node.numbers[MISSING] == 0:
        return now
    node.numbers[GPU_STAGE], node.numbers[GPU_WAITS] = WAITING, 1
    node.clock[WAIT_S], node.clock[DUE_S + GPU] = now, np.inf
    return -1.0


def _next_expert(node: Node) -> int:
    """The next lookup that is ready, else the next that has arrived and is not done on the CPU; -1: none."""
    ready, end = node.numbers[READY], node.numbers[END]
    while ready < end and node.label[ready] != HIT:
        ready += 1
    node.numbers[READY] = ready + 1
    if ready < end:
        return ready
    while node.numbers[ARRIVED] < node.numbers[ARRIVALS]:
        lookup = node.arrivals[node.numbers[ARRIVED]]
        node.numbers[ARRIVED] += 1
        node.numbers[MISSING] -= 1
        if not may_use_cpu() or not node.on_cpu[lookup]:
            return lookup
    return -1


def _end_visit(caches: Caches, node: Node, work: Work, record: Record, now: float) -> None:
    """Recency is refreshed, what is not kept leaves, and the next visit begins, or the step ends."""
    visit, layer = node.numbers[VISIT], node.numbers[LAYER] + 1
    _refresh(caches, node, work, visit, 0 if len(caches.books) == 1 else layer - 1)
    record.resident_bytes[visit] = node.numbers[USED_BYTES]
    record.visit_end_s[visit] = now
    if layer < work.layers:
        node.numbers[VISIT], node.numbers[LAYER] = visit + 1, layer
        _compute(node, ROUTING, now + work.before_s[visit + 1])
    else:
        _compute(node, ENDING, now + work.after_s[node.numbers[STEP]])


def _refresh(caches: Caches, node: Node, work: Work, visit: int, cache: int) -> None:
    """Tell the policy of every activation; under ``evict_after`` come down to the capacity."""
    begin, end = work.start[visit], work.start[visit + 1]
    tell_uses(caches, cache, work.key[begin:end], work.note[begin:end])
    for place in range(caches.common[PASSING]):
        if caches.held[caches.passing[place]] == PASSES:
            leave(caches, node, caches.passing[place])
    caches.common[PASSING] = 0
    if len(work.note):
        for place in range(begin, end):
            node.upcoming[work.key[place]] = work.note[place]
    if not node.numbers[RESERVE]:
        capacity = 0
        for other in range(len(caches.books)):
            capacity += caches.books[other, CAPACITY]
        node.numbers[OVERSHOOT] = max(node.numbers[OVERSHOOT], node.numbers[USED_BYTES] - capacity)
        while caches.books[cache, USED] > caches.books[cache, CAPACITY]:
            lock_members(caches, node, work)
            leaver = choose(caches, cache)
            if leaver < 0:
                break
            leave(caches, node, leaver)
    if node.numbers[LOCKED]:
        change_locks(caches, node, work, -1)
    node.numbers[BEGIN], node.numbers[END], node.numbers[LOCKED] = 0, 0, 0


def _close(caches: Caches, node: Node, visits: int) -> None:
    """The run is over: what was never used was in vain, and who is here was here until now."""
    node.numbers[WASTED] += node.numbers[UNUSED_NOW]
    top = node.numbers[TOP]
    under_way = node.numbers[SERVED + top] if node.numbers[STAGE + top] == SERVING else -1
    for key in range(len(caches.held)):
        slot = node.slot_of[key]
        if caches.held[key]:
            node.stayed[key] += visits
        if slot >= 0 and slot != under_way and not node.slot_i[slot, IS_DEMAND]:
            node.numbers[WITHDRAWN] += 1
