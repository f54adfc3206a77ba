"""What happens when a router has spoken: lookups are labelled, demands and prefetches sent for."""

from __future__ import annotations

from moesim.replay.kernels.caches import Caches, announce
from moesim.replay.kernels.host import ABSENT, Host, release, use_in_host
from moesim.replay.kernels.node import (
    ARRIVALS,
    ARRIVED,
    ASKED,
    BEGIN,
    CANCELLED,
    CROWDED,
    DEMAND_FIRST,
    END,
    FLASH,
    HEAD,
    HIT,
    IN_TIME,
    IS_DEMAND,
    KEY,
    LATE,
    LAYER,
    LOCKED,
    LOOKUP,
    MISS,
    MISSING,
    NEXT,
    ON_CPU,
    PCIE,
    PROPOSED,
    QUEUED_ON,
    QUEUED_S,
    READ_QUEUED_S,
    READY,
    REDUNDANT,
    SERVED,
    SERVING,
    STAGE,
    STEP,
    TARGET,
    TOO_LATE,
    TOP,
    UNUSED_NOW,
    WAITING_PREFETCHES,
    WITHDRAWN,
    Node,
    Work,
    close_slot,
    open_slot,
    transfer_of,
)
from moesim.replay.kernels.policy import decide, has_host, may_use_cpu
from moesim.replay.kernels.queues import enqueue, unqueue
from moesim.replay.kernels.servers import send_up


def ask(caches: Caches, host: Host, node: Node, work: Work, visit: int, now: float) -> None:
    """Label the visit's lookups against what is there, then send for what is missing and for what is proposed."""
    layer, one_cache = node.numbers[LAYER], len(caches.books) == 1
    begin, end = work.lookup_start[visit], work.lookup_start[visit + 1]
    node.numbers[BEGIN], node.numbers[END], node.numbers[READY], node.numbers[LOCKED] = begin, end, begin, 0
    node.numbers[ARRIVED], node.numbers[ARRIVALS], node.numbers[ASKED] = 0, 0, visit
    top = node.numbers[TOP]
    slot = node.numbers[SERVED + top] if node.numbers[STAGE + top] == SERVING else -1
    under_way = node.slot_i[slot, KEY] if slot >= 0 else -1
    missing = misses = 0
    for lookup in range(begin, end):
        key = work.lookup_key[lookup]
        label = HIT
        if caches.held[key] == ABSENT:
            label = MISS
            misses += 1
            if may_use_cpu():
                node.on_cpu[lookup] = _runs_on_cpu(host, node, work, key, lookup)
        elif key == under_way:
            label = LATE
            node.slot_i[slot, LOOKUP] = lookup
        node.label[lookup] = label
        missing += label != HIT
    node.numbers[MISSING] = missing
    if node.numbers[UNUSED_NOW]:
        _pay_off(node, work, begin, end)
    starts = work.starts_request[node.numbers[STEP]] and (layer == 0 or not one_cache)
    announce(caches, 0 if one_cache else layer, layer, starts)
    if misses:
        for lookup in range(begin, end):
            if node.label[lookup] == MISS:
                _demand(host, node, work, visit, lookup, now)
    if node.numbers[WAITING_PREFETCHES] or (has_host() and node.numbers[STAGE + FLASH] >= CROWDED):
        _withdraw_stale(host, node, visit, now)
    for proposal in range(work.proposal_start[visit], work.proposal_start[visit + 1]):
        _propose(caches, host, node, work.proposal_key[proposal], work.proposal_target[proposal], now)


def _pay_off(node: Node, work: Work, begin: int, end: int) -> None:
    """Prefetches that are asked for have paid off."""
    for lookup in range(begin, end):
        key = work.lookup_key[lookup]
        if node.label[lookup] != MISS and node.unused[key]:
            node.unused[key] = 0
            node.numbers[UNUSED_NOW] -= 1
            node.numbers[TOO_LATE if node.label[lookup] == LATE else IN_TIME] += 1


def _demand(host: Host, node: Node, work: Work, visit: int, lookup: int, now: float) -> None:
    """Send for a missing expert; a prefetch of it that has not reached the link to the GPU becomes the demand."""
    key = work.lookup_key[lookup]
    slot, on_cpu = transfer_of(node, key), may_use_cpu() and node.on_cpu[lookup]
    if slot >= 0:
        node.numbers[WITHDRAWN] += 1
        if not (on_cpu and node.slot_i[slot, QUEUED_ON] >> 1 == PCIE):
            _promote(node, slot, now)
            node.slot_i[slot, TARGET], node.slot_i[slot, LOOKUP], node.slot_i[slot, ON_CPU] = visit, lookup, on_cpu
            return
        _withdraw(host, node, slot, now)
    _send(host, node, open_slot(node, key, True, on_cpu, visit, lookup), now)


def _promote(node: Node, slot: int, now: float) -> None:
    """A prefetch becomes a demand: under ``demand-first`` it moves ahead in its queue, under ``fifo`` it stays."""
    queue = node.slot_i[slot, QUEUED_ON]
    if queue >= 0 and node.numbers[DEMAND_FIRST]:
        unqueue(node, slot)
        node.slot_i[slot, IS_DEMAND] = 1
        enqueue(node, queue >> 1, slot, now)
        return
    node.numbers[WAITING_PREFETCHES] -= queue >= 0
    node.slot_i[slot, IS_DEMAND] = 1


def _runs_on_cpu(host: Host, node: Node, work: Work, key: int, lookup: int) -> bool:
    read_s = 0.0
    if has_host() and host.held[key] == ABSENT:
        read_s = node.read_s[key]
    fetch_s, cpu_s = read_s + node.copy_s[key], read_s + work.cpu_s[lookup]
    return decide(work.miss_state, work.lookup_tokens[lookup], fetch_s, cpu_s, work.expert_s[lookup]) == 1


def _withdraw_stale(host: Host, node: Node, visit: int, now: float) -> None:
    """Prefetches for this visit or earlier ones that still wait are off; one that is being read is not stopped."""
    if has_host() and node.numbers[STAGE + FLASH] >= CROWDED and not node.numbers[CANCELLED]:
        slot = node.numbers[SERVED + FLASH]
        if not node.slot_i[slot, IS_DEMAND] and node.slot_i[slot, TARGET] <= visit:
            node.numbers[WITHDRAWN] += 1
            node.numbers[CANCELLED] = 1  # whoever admits it will let it go
            node.slot_of[node.slot_i[slot, KEY]] = -1
    for queue in range(2 * PCIE + 2):
        slot = node.numbers[HEAD + queue]
        while slot >= 0:
            following = node.slot_i[slot, NEXT]
            if not node.slot_i[slot, IS_DEMAND] and node.slot_i[slot, TARGET] <= visit:
                node.numbers[WITHDRAWN] += 1
                _withdraw(host, node, slot, now)
            slot = following


def _withdraw(host: Host, node: Node, slot: int, now: float) -> None:
    was_on_pcie, key = node.slot_i[slot, QUEUED_ON] >> 1 == PCIE, node.slot_i[slot, KEY]
    unqueue(node, slot)
    node.slot_of[key] = -1
    close_slot(node, slot)
    if has_host() and was_on_pcie:
        release(host, node, key, now)


def _propose(caches: Caches, host: Host, node: Node, key: int, target: int, now: float) -> None:
    """Send for what the policy proposes, unless it is here or on its way."""
    node.numbers[PROPOSED] += 1
    slot = transfer_of(node, key)
    if slot >= 0:
        node.slot_i[slot, TARGET] = max(node.slot_i[slot, TARGET], target)
        node.numbers[REDUNDANT] += 1
    elif caches.held[key] != ABSENT:
        node.numbers[REDUNDANT] += 1
    else:
        _send(host, node, open_slot(node, key, False, False, target, -1), now)


def _send(host: Host, node: Node, slot: int, now: float) -> None:
    """Start an expert on its way from where it is."""
    if has_host():
        key = node.slot_i[slot, KEY]
        if host.held[key] == ABSENT:
            node.slot_f[slot, READ_QUEUED_S] = now
            enqueue(node, FLASH, slot, now)
            return
        use_in_host(host, key)
    if node.numbers[TOP] == FLASH:
        node.slot_f[slot, QUEUED_S] = now
        enqueue(node, FLASH, slot, now)
    else:
        send_up(node, slot, now)
