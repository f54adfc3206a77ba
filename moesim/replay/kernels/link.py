"""The link to the GPU: who goes next, who makes room for it, and when it is there."""

from __future__ import annotations

from typing import Any

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
    next_to_leave,
)
from moesim.replay.kernels.node import (
    ADMITTING,
    ARRIVALS,
    AWAITED,
    BUSY,
    CHOICE_S,
    COMPUTED,
    DEMAND_FIRST,
    END_S,
    HEAD,
    IS_DEMAND,
    LOOKUP,
    MEMBER,
    NO_ROOM,
    PLACE,
    RESERVE,
    ROOM_S,
    ROOMS,
    SEQUENCE,
    STARTED,
    STUCK,
    TAIL,
    TARGET,
    UNUSED,
    UPCOMING,
    VISIT,
    WITHDRAWN,
    Node,
    begin_transfer,
    leave,
)


def enqueue(node: Node, key: int, now: float) -> None:
    """Queue a key, or queue it again: its former entry is void."""
    row = 0 if node.key_i[key, IS_DEMAND] and node.numbers[DEMAND_FIRST] else 1
    if node.numbers[BUSY] < 0 and node.numbers[ADMITTING] < 0 and nobody_waits(node):
        node.clock[CHOICE_S] = now
    node.numbers[SEQUENCE] += 1
    place = node.numbers[TAIL + row]
    node.key_i[key, PLACE] = node.numbers[SEQUENCE]
    node.queue[row, 2 * place], node.queue[row, 2 * place + 1] = key, node.numbers[SEQUENCE]
    node.numbers[TAIL + row] = place + 1


def nobody_waits(node: Node) -> bool:
    """Whether both queues are empty."""
    return node.numbers[HEAD] == node.numbers[TAIL] and node.numbers[HEAD + 1] == node.numbers[TAIL + 1]


def withdraw_stale(node: Node) -> None:
    """Prefetches for the visit whose router has spoken, or for earlier ones, are off. Clears void entries away."""
    kept = 0
    for place in range(node.numbers[HEAD + 1], node.numbers[TAIL + 1]):
        key, number = node.queue[1, 2 * place], node.queue[1, 2 * place + 1]
        if node.key_i[key, PLACE] != number:
            continue
        if not node.key_i[key, IS_DEMAND] and node.key_i[key, TARGET] <= node.numbers[VISIT]:
            node.key_i[key, PLACE] = 0
            node.numbers[WITHDRAWN] += 1
            continue
        node.queue[1, 2 * kept], node.queue[1, 2 * kept + 1] = key, number
        kept += 1
    node.numbers[HEAD + 1], node.numbers[TAIL + 1] = 0, kept


def go_on(caches: Caches, node: Node, members: Any, now: float) -> bool:
    """What the link does next: arrive, at ``now`` at the latest, or choose, before ``now``; False if neither."""
    if node.numbers[BUSY] >= 0:
        if node.clock[END_S] > now:
            return False
        _arrive(caches, node)
        return True
    if node.numbers[ADMITTING] >= 0 or nobody_waits(node) or node.clock[CHOICE_S] >= now:
        return False
    key = _next(node)
    if key < 0:
        return False
    if node.key_i[key, IS_DEMAND]:
        node.numbers[ADMITTING], node.numbers[ROOMS] = key, 0
        expect(caches, cache_of(caches, key), key)
        make_room(caches, node, members, node.clock[CHOICE_S])
    else:
        _prefetch(caches, node, key)
    return True


def _arrive(caches: Caches, node: Node) -> None:
    """The transfer under way ends; a prefetched expert may leave from now on."""
    key = node.numbers[BUSY]
    node.numbers[BUSY] = -1
    node.clock[CHOICE_S] = node.clock[END_S]
    if not node.key_i[key, IS_DEMAND]:
        caches.locked[key] -= 1
    if node.key_i[key, LOOKUP] >= 0:
        node.queue[2, node.numbers[ARRIVALS]] = node.key_i[key, LOOKUP]
        node.numbers[ARRIVALS] += 1


def _next(node: Node) -> int:
    """The key that goes next, or -1."""
    for row in range(2):
        while node.numbers[HEAD + row] < node.numbers[TAIL + row]:
            place = node.numbers[HEAD + row]
            node.numbers[HEAD + row] = place + 1
            key = node.queue[row, 2 * place]
            if node.key_i[key, PLACE] == node.queue[row, 2 * place + 1]:
                node.key_i[key, PLACE] = 0
                return key
    return -1


def make_room(caches: Caches, node: Node, members: Any, now: float) -> None:
    """Let experts leave for the demand that is next, and start it; or wait until a member of the visit is computed."""
    key, this_visit = node.numbers[ADMITTING], node.numbers[VISIT] + 1
    cache = cache_of(caches, key)
    while node.numbers[RESERVE] and not fits(caches, cache, key):
        leaver = next_to_leave(caches, cache, members)
        if leaver < 0:
            node.numbers[STUCK] = 1
            return
        if node.key_i[leaver, MEMBER] == this_visit and node.key_i[leaver, COMPUTED] != this_visit:
            node.numbers[AWAITED] = leaver
            node.clock[ROOM_S + node.numbers[ROOMS]] = now
            node.numbers[ROOMS] += 1
            return
        leave(caches, node, leaver)
    hold(caches, cache, key)
    node.numbers[ADMITTING] = -1
    begin_transfer(caches, node, key, now)


def _prefetch(caches: Caches, node: Node, key: int) -> None:
    """Start a prefetch, unless the policy would not keep it or nobody can leave for it."""
    cache, note = cache_of(caches, key), node.key_f[key, UPCOMING]
    if not admits(caches, cache, key, note):
        node.numbers[NO_ROOM] += 1
        return
    expect(caches, cache, key)
    while node.numbers[RESERVE] and not fits(caches, cache, key):
        leaver = choose(caches, cache)
        if leaver < 0:
            node.numbers[NO_ROOM] += 1
            return
        leave(caches, node, leaver)
    caches.books[cache, USED] += caches.sizes[key]
    keep(caches, cache, key, note)
    caches.locked[key] += 1
    node.numbers[STARTED] += 1
    node.key_i[key, UNUSED] = 1
    begin_transfer(caches, node, key, node.clock[CHOICE_S])
