"""Host memory in front of the drive: what ``engine.host_memory`` does, on flat arrays. One cache for all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moesim.replay.kernels.node import ARRIVE, CROWDED, FLASH, RESUMED, STAGE, Node, schedule
from moesim.replay.kernels.policy import (
    host_admit,
    host_before_insert,
    host_on_bypass,
    host_on_evict,
    host_on_hit,
    host_on_insert,
    host_on_visit,
    host_victim,
)

#: A key is away, holds space on its way up only, or is known to the policy.
ABSENT, PASSES, KEPT = 0, 1, 2
#: Places in ``numbers``: bytes held, bytes of space, uses so far, keys of a layer, whether the policy broke its
#: contract.
USED, CAPACITY, NOW, KEYS_PER_LAYER, FAULT = range(5)
NUMBERS = 5


@dataclass(frozen=True)
class Host:
    """Arrays of host memory.

    Attributes:
        state_i, state_f: the policy's state.
        sizes: bytes. [keys]
        held: ABSENT, PASSES or KEPT. [keys]
        locked: reasons to stay. [keys]
        passing: whether it leaves when it is up. [keys]
        numbers: [NUMBERS]
    """

    state_i: Any
    state_f: Any
    sizes: Any
    held: Any
    locked: Any
    passing: Any
    numbers: Any


def use_in_host(host: Host, key: int) -> None:
    """An expert that is in host memory goes up; it stays until it is released."""
    now = host.numbers[NOW]
    host_on_visit(host.state_i, host.state_f, key // host.numbers[KEYS_PER_LAYER], False)
    if host.held[key] == KEPT:
        host_on_hit(host.state_i, host.state_f, key, now, 0.0)
    elif host_admit(host.state_i, host.state_f, key, now, 0.0):
        host_on_insert(host.state_i, host.state_f, key, now, 0.0)
        host.held[key] = KEPT
    else:
        host_on_bypass(host.state_i, host.state_f, key, now, 0.0)
    host.numbers[NOW] = now + 1
    host.locked[key] += 1


def expect_in_host(host: Host, key: int) -> None:
    """Room is about to be made for the key."""
    host_on_visit(host.state_i, host.state_f, key // host.numbers[KEYS_PER_LAYER], False)
    host_before_insert(host.state_i, host.state_f, key)


def room_in_host(host: Host, key: int) -> bool:
    """Let others leave for the key; False where everybody is on the way up."""
    while host.numbers[USED] + host.sizes[key] > host.numbers[CAPACITY]:
        leaver = host_victim(host.state_i, host.state_f, host.locked)
        if leaver < 0:
            return False
        if host.held[leaver] != KEPT:
            host.numbers[FAULT] = 1
            return False
        _drop(host, leaver)
    return True


def hold_in_host(host: Host, key: int) -> None:
    """A read starts; the key stays until it is released at least."""
    now = host.numbers[NOW]
    if host_admit(host.state_i, host.state_f, key, now, 0.0):
        host_on_insert(host.state_i, host.state_f, key, now, 0.0)
        host.held[key] = KEPT
    else:
        host.held[key], host.passing[key] = PASSES, 1
    host.numbers[USED] += host.sizes[key]
    host.numbers[NOW] = now + 1
    host.locked[key] += 1


def release(host: Host, node: Node, key: int, now: float) -> None:
    """The expert is up, or no longer wanted there: it may leave. The drive may have waited for that."""
    host.locked[key] -= 1
    if host.passing[key]:
        host.passing[key] = 0
        _drop(host, key)
    if node.numbers[STAGE + FLASH] == CROWDED:
        node.numbers[STAGE + FLASH] = RESUMED
        schedule(node, FLASH, now, ARRIVE)


def _drop(host: Host, key: int) -> None:
    if host.held[key] == KEPT:
        host_on_evict(host.state_i, host.state_f, key)
    host.held[key] = ABSENT
    host.numbers[USED] -= host.sizes[key]
