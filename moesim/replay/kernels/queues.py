"""Who waits in front of a server. Each has two queues, and a transfer stands in one of them or in none."""

from __future__ import annotations

from moesim.replay.kernels.node import (
    ARRIVE,
    CPU,
    DEMAND_FIRST,
    DUE_S,
    FLASH,
    GPU,
    HEAD,
    IDLE,
    IS_DEMAND,
    NEXT,
    PCIE,
    PREVIOUS,
    QUEUED_ON,
    STAGE,
    TAIL,
    TOP,
    WAITING_PREFETCHES,
    WOKEN,
    Node,
    schedule,
)
from moesim.replay.kernels.policy import has_host, may_use_cpu


def enqueue(node: Node, server: int, slot: int, now: float) -> None:
    """Put a transfer at the end of a server's queue; a server that has nothing to do wakes up."""
    queue = 2 * server + (1 if node.numbers[DEMAND_FIRST] and not node.slot_i[slot, IS_DEMAND] else 0)
    last = node.numbers[TAIL + queue]
    node.slot_i[slot, QUEUED_ON], node.slot_i[slot, NEXT], node.slot_i[slot, PREVIOUS] = queue, -1, last
    if last >= 0:
        node.slot_i[last, NEXT] = slot
    else:
        node.numbers[HEAD + queue] = slot
    node.numbers[TAIL + queue] = slot
    node.numbers[WAITING_PREFETCHES] += not node.slot_i[slot, IS_DEMAND]
    if node.numbers[STAGE + server] == IDLE:
        node.numbers[STAGE + server] = WOKEN
        schedule(node, server, now, ARRIVE)


def unqueue(node: Node, slot: int) -> None:
    """Take a transfer out of the queue that it stands in. ``IS_DEMAND`` must be what it was when it joined."""
    queue = node.slot_i[slot, QUEUED_ON]
    after, before = node.slot_i[slot, NEXT], node.slot_i[slot, PREVIOUS]
    if before >= 0:
        node.slot_i[before, NEXT] = after
    else:
        node.numbers[HEAD + queue] = after
    if after >= 0:
        node.slot_i[after, PREVIOUS] = before
    else:
        node.numbers[TAIL + queue] = before
    node.slot_i[slot, QUEUED_ON] = -1
    node.numbers[WAITING_PREFETCHES] -= not node.slot_i[slot, IS_DEMAND]


def first_of(node: Node, server: int) -> int:
    """The slot that goes next, or -1."""
    slot = node.numbers[HEAD + 2 * server]
    return slot if slot >= 0 else node.numbers[HEAD + 2 * server + 1]


def others_act_at(node: Node, now: float) -> bool:
    """Whether anybody's event is due now; whoever asks has taken its own entry out."""
    return min(node.clock[DUE_S + GPU], servers_due(node)) <= now


def servers_due(node: Node) -> float:
    """When the next event of a server is due."""
    if not has_host() and not may_use_cpu():
        return node.clock[DUE_S + node.numbers[TOP]]
    return min(node.clock[DUE_S + FLASH], node.clock[DUE_S + PCIE], node.clock[DUE_S + CPU])
