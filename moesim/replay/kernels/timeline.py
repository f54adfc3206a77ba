"""Counts with a clock: the GPU walks through the visits, and the link beside it brings experts.

The semantics of ``moesim.engine.offload``, to the last bit: times are only added and compared, in the engine's order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.replay.kernels.caches import (
    CAPACITY,
    PASSES,
    PASSING,
    USED,
    Caches,
    announce,
    choose,
    lock,
    tell_uses,
)
from moesim.replay.kernels.link import enqueue, go_on, make_room, withdraw_stale
from moesim.replay.kernels.node import (
    ARRIVALS,
    ARRIVED,
    AWAITED,
    BUSY,
    COMPUTED,
    DEMAND_FIRST,
    END_S,
    HEAD,
    HIT,
    IN_TIME,
    IS_DEMAND,
    LATE,
    LOOKUP,
    MEMBER,
    MISS,
    OVERSHOOT,
    PLACE,
    PROPOSED,
    PUT_S,
    REDUNDANT,
    RESERVE,
    ROOM_S,
    ROOMS,
    SINCE,
    START_S,
    STAYED,
    STUCK,
    TAIL,
    TARGET,
    TOO_LATE,
    UNUSED,
    UPCOMING,
    USED_BYTES,
    VISIT,
    WASTED,
    WITHDRAWN,
    Node,
    Record,
    Work,
    leave,
)

#: The column of ``stall_s`` for waits for room.
ROOM = 4


def timeline(caches: Caches, node: Node, work: Work, record: Record) -> None:
    """Run every visit of every step; stops early where the policy breaks its contract (``STUCK``)."""
    now = 0.0
    for step in range(len(work.after_s)):
        record.step_start_s[step] = now
        for layer in range(work.layers):
            visit = step * work.layers + layer
            node.numbers[VISIT] = visit
            record.visit_start_s[visit] = now
            now = _visit(caches, node, work, visit, now)
            if node.numbers[STUCK]:
                return
            record.visit_end_s[visit] = now
            record.resident_bytes[visit] = node.numbers[USED_BYTES]
        now += work.after_s[step]
        _catch_up(caches, node, work.lookup_key[:0], now)
        record.step_end_s[step] = now
    _close(node, len(record.visit_end_s))


def _visit(caches: Caches, node: Node, work: Work, visit: int, now: float) -> float:
    """One visit from ``now`` on; returns its end."""
    begin, end = work.lookup_start[visit], work.lookup_start[visit + 1]
    members = work.lookup_key[begin:end]
    now += work.before_s[visit]
    _catch_up(caches, node, members[:0], now)
    missing = _ask(caches, node, work, visit, now)
    if work.shared_s[visit]:
        now += work.shared_s[visit]
        _catch_up(caches, node, members, now)
    for lookup in range(begin, end):
        if node.label[lookup] == HIT:
            now += work.expert_s[lookup]
            _computed(caches, node, members, work.lookup_key[lookup], now)
    for _ in range(missing):
        if node.numbers[ARRIVED] == node.numbers[ARRIVALS]:
            now = _wait(caches, node, work, members, visit, now)
            if node.numbers[STUCK]:
                return now
        lookup = node.queue[2, node.numbers[ARRIVED]]
        node.numbers[ARRIVED] += 1
        now += work.expert_s[lookup]
        _computed(caches, node, members, work.lookup_key[lookup], now)
    _catch_up(caches, node, members, now)
    _end_visit(caches, node, work, members, visit)
    return now


def _catch_up(caches: Caches, node: Node, members: Any, now: float) -> None:
    """Bring the link up to ``now``."""
    while go_on(caches, node, members, now):
        pass


def _computed(caches: Caches, node: Node, members: Any, key: int, now: float) -> None:
    """An expert of the running visit is done: it may leave, and a demand may have waited for that."""
    _catch_up(caches, node, members, now)
    node.key_i[key, COMPUTED] = node.numbers[VISIT] + 1
    if node.numbers[AWAITED] == key:
        node.numbers[AWAITED] = -1
        leave(caches, node, key)
        make_room(caches, node, members, now)


def _wait(caches: Caches, node: Node, work: Work, members: Any, visit: int, start_s: float) -> float:
    """Wait for the next arrival, and charge the wait to what that expert was waiting for; returns when it came."""
    while node.numbers[ARRIVED] == node.numbers[ARRIVALS]:
        if not go_on(caches, node, members, np.inf):
            node.numbers[STUCK] = 1
            return start_s
    end_s = node.clock[END_S]
    key = work.lookup_key[node.queue[2, node.numbers[ARRIVED]]]
    begin, column = node.key_f[key, PUT_S], work.link + 1
    for room in range(node.numbers[ROOMS] if node.key_i[key, IS_DEMAND] else 0):
        _charge(node, visit, column, max(begin, start_s), min(node.clock[ROOM_S + room], end_s))
        begin, column = node.clock[ROOM_S + room], ROOM
    _charge(node, visit, column, max(begin, start_s), min(node.clock[START_S], end_s))
    _charge(node, visit, work.link, max(node.clock[START_S], start_s), end_s)
    return end_s


def _charge(node: Node, visit: int, column: int, begin: float, end: float) -> None:
    if begin < end:
        node.stall_s[visit, column] += end - begin


def _ask(caches: Caches, node: Node, work: Work, visit: int, now: float) -> int:
    """A router has spoken: label its lookups, send for what is missing and for what is proposed.

    Returns:
        How many lookups will arrive.
    """
    layer, one_cache = visit % work.layers, len(caches.books) == 1
    begin, end = work.lookup_start[visit], work.lookup_start[visit + 1]
    node.numbers[HEAD], node.numbers[TAIL] = 0, 0
    node.numbers[ARRIVED], node.numbers[ARRIVALS] = 0, 0
    missing = 0
    for lookup in range(begin, end):
        node.label[lookup] = _label(caches, node, work.lookup_key[lookup], lookup)
        missing += node.label[lookup] != HIT
        node.key_i[work.lookup_key[lookup], MEMBER] = visit + 1
    starts = work.starts_request[visit // work.layers] and (layer == 0 or not one_cache)
    announce(caches, 0 if one_cache else layer, layer, starts)
    lock(caches, work.lookup_key[begin:end], 1)
    if missing > 0:
        for lookup in range(begin, end):
            if node.label[lookup] == MISS:
                _demand(node, work.lookup_key[lookup], lookup, now)
    withdraw_stale(node)
    for proposal in range(work.proposal_start[visit], work.proposal_start[visit + 1]):
        _propose(caches, node, work.proposal_key[proposal], work.proposal_target[proposal], now)
    return missing


def _label(caches: Caches, node: Node, key: int, lookup: int) -> int:
    """HIT, LATE or MISS; a prefetch that is asked for has paid off."""
    if not caches.held[key]:
        return MISS
    late = node.numbers[BUSY] == key
    if late:
        node.key_i[key, LOOKUP] = lookup
    if node.key_i[key, UNUSED]:
        node.key_i[key, UNUSED] = 0
        node.numbers[TOO_LATE if late else IN_TIME] += 1
    return LATE if late else HIT


def _demand(node: Node, key: int, lookup: int, now: float) -> None:
    """Send for a missing expert; a queued prefetch of it becomes the demand."""
    is_queued = node.key_i[key, PLACE] > 0
    node.key_i[key, IS_DEMAND], node.key_i[key, LOOKUP] = 1, lookup
    if is_queued:
        node.numbers[WITHDRAWN] += 1
    else:
        node.key_f[key, PUT_S] = now
    if not is_queued or node.numbers[DEMAND_FIRST]:
        enqueue(node, key, now)


def _propose(caches: Caches, node: Node, key: int, target: int, now: float) -> None:
    """Send for what the policy proposes, unless it is here or on its way."""
    node.numbers[PROPOSED] += 1
    if node.key_i[key, PLACE] > 0 or node.numbers[BUSY] == key:
        node.key_i[key, TARGET] = max(node.key_i[key, TARGET], target)
        node.numbers[REDUNDANT] += 1
    elif caches.held[key]:
        node.numbers[REDUNDANT] += 1
    else:
        node.key_i[key, IS_DEMAND], node.key_i[key, LOOKUP], node.key_i[key, TARGET] = 0, -1, target
        node.key_f[key, PUT_S] = now
        enqueue(node, key, now)


def _end_visit(caches: Caches, node: Node, work: Work, members: Any, visit: int) -> None:
    """Refresh recency activation by activation; what is not kept leaves; ``evict_after`` comes down to the capacity."""
    begin, end = work.start[visit], work.start[visit + 1]
    cache = 0 if len(caches.books) == 1 else visit % work.layers
    tell_uses(caches, cache, work.key[begin:end], work.note[begin:end])
    for place in range(caches.common[PASSING]):
        if caches.held[caches.passing[place]] == PASSES:
            leave(caches, node, caches.passing[place])
    caches.common[PASSING] = 0
    if len(work.note):
        for place in range(begin, end):
            node.key_f[work.key[place], UPCOMING] = work.note[place]
    if not node.numbers[RESERVE]:
        capacity = caches.books[:, CAPACITY].sum()
        node.numbers[OVERSHOOT] = max(node.numbers[OVERSHOOT], node.numbers[USED_BYTES] - capacity)
        while caches.books[cache, USED] > caches.books[cache, CAPACITY]:
            leaver = choose(caches, cache)
            if leaver < 0:
                break
            leave(caches, node, leaver)
    lock(caches, members, -1)


def _close(node: Node, visits: int) -> None:
    """The run is over: what was never used was in vain, and who is here was here until now."""
    for key in range(len(node.key_i)):
        if node.key_i[key, UNUSED]:
            node.numbers[WASTED] += 1
        if node.key_i[key, SINCE] >= 0:
            node.key_i[key, STAYED] += visits - node.key_i[key, SINCE]
        if node.key_i[key, PLACE] > 0 and not node.key_i[key, IS_DEMAND]:
            node.numbers[WITHDRAWN] += 1
