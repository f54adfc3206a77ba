"""The counting replay on compiled kernels: the same counts as ``counts`` interprets, some thirty times faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import PolicyError
from moesim.policies.api import CacheContext, Policy
from moesim.replay import compile as compiler
from moesim.replay.expert_cache import contexts
from moesim.replay.kernels.cache import CAPACITY, FAULT, KEPT, NUMBERS, OVERSHOOT, USED
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
#: A kernel is called for about so many visits at a time.
BLOCK_VISITS = 1 << 15


class CompiledCache:
    """One cache's arrays; see :mod:`moesim.replay.kernels.cache`."""

    def __init__(self, policy: Policy, context: CacheContext):
        self.policy = policy
        self.sizes = np.array(context.sizes, dtype=np.int64)
        self.held = np.zeros(context.num_keys, dtype=np.uint8)
        self.locked = np.zeros(context.num_keys, dtype=np.int64)
        self.passing = np.zeros(context.num_keys, dtype=np.int64)
        self.books = np.zeros(NUMBERS, dtype=np.int64)
        self.books[CAPACITY] = context.capacity_bytes
        self.state_i, self.state_f = self._state(context)

    def _state(self, context: CacheContext) -> tuple[Ints, NDArray[np.float64]]:
        """The policy's state with what it preloads, which is interpreted on lists."""
        module = self.policy.module
        state = module.initial_state(self.policy.params, context)
        state_i, state_f = (array.tolist() for array in state)
        for key in self.policy.preload(context):
            module.on_insert(state_i, state_f, key, 0, 0.0)
            self.held[key] = KEPT
            self.books[USED] += self.sizes[key]
        return np.array(state_i, dtype=np.int64), np.array(state_f, dtype=np.float64)

    def run(self, kernel: str, *arguments: Any) -> None:
        """Call a kernel on this cache.

        Raises:
            PolicyError: the policy let go of what it does not keep, or of nobody where somebody must leave.
        """
        common = (self.state_i, self.state_f, self.sizes, self.held, self.locked, self.books)
        compiler.run(self.policy, kernel, *common, *arguments)
        if self.books[FAULT]:
            raise victim_fault(self.policy)


def victim_fault(policy: Policy) -> PolicyError:
    """What is told when ``victim`` breaks its contract."""
    error = PolicyError.of(
        f"policy {policy.name!r} (caching)", "victim() named nobody who can leave, though room is needed"
    )
    assert isinstance(error, PolicyError)
    return error


def replay(
    visits: Visits,
    sizes: Ints,
    policy: Policy,
    capacity_bytes: int,
    *,
    per_layer: bool,
    rule: str,
    training_uses: Ints | None,
    progress: Callable[[int], None],
) -> tuple[NDArray[np.bool_], int]:
    """Whether each lookup was a hit, and the most that was held beyond the capacity."""
    hit = np.zeros(len(visits.activation_key if rule == "sequential" else visits.lookup_key), dtype=np.uint8)
    notes = notes_array(visits, policy)
    parts = contexts(
        sizes, capacity_bytes, experts_per_layer=visits.num_experts, per_layer=per_layer, training_uses=training_uses
    )
    overshoot, done = 0, 0
    for part, context in enumerate(parts):
        cache = CompiledCache(policy, context)
        for block in _blocks(visits, part, len(parts)):
            if rule == "sequential":
                _sequential(cache, visits, block, notes, hit)
            else:
                _by_visit(cache, visits, block, notes, hit, evict_after=rule == "evict_after")
            done += len(block.visit)
            progress(done)
        overshoot = max(overshoot, int(cache.books[OVERSHOOT]))
    return hit.astype(bool), overshoot


def notes_array(visits: Visits, policy: Policy) -> NDArray[np.float64]:
    """The ``note`` of every activation; empty where the policy takes none."""
    if policy.note == "next_use":
        return visits.next_use.astype(np.float64)
    return visits.activation_weight.astype(np.float64) if policy.note == "weight" else np.zeros(0)


@dataclass(frozen=True)
class _Block:
    """Some visits of one cache, in order.

    Attributes:
        visit: [visits of the block]
        first_key: of the cache's layers.
        layer, starts_request: what the policy is told of each.
    """

    visit: Ints
    first_key: int
    layer: Ints
    starts_request: NDArray[np.bool_]

    def ragged(self, start: Ints) -> tuple[Ints, slice | Ints]:
        """Where each visit's part of a ragged column begins in the block, and where the block lies in the column."""
        length = start[self.visit + 1] - start[self.visit]
        begin = np.concatenate([[0], np.cumsum(length)])
        if len(self.visit) == self.visit[-1] + 1 - self.visit[0]:
            return begin, slice(start[self.visit[0]], start[self.visit[-1] + 1])
        return begin, np.arange(begin[-1]) + np.repeat(start[self.visit] - begin[:-1], length)


def _blocks(visits: Visits, part: int, parts: int) -> Iterator[_Block]:
    """All visits of one cache: of layer ``part`` where each layer has its own."""
    layers = visits.num_layers
    for first in range(part, visits.num_visits, BLOCK_VISITS * parts):
        visit = np.arange(first, min(first + BLOCK_VISITS * parts, visits.num_visits), parts)
        step, layer = np.divmod(visit, layers)
        tells = (layer == 0) if parts == 1 else np.full(len(visit), True)
        yield _Block(visit, part * visits.num_experts, layer, visits.starts_request[step] & tells)


def _sequential(cache: CompiledCache, visits: Visits, block: _Block, notes: Any, hit: Any) -> None:
    start, use = block.ragged(visits.activation_start)
    key = visits.activation_key[use] - block.first_key
    found = np.empty(len(key), dtype=np.uint8)
    cache.run("sequential", block.layer, block.starts_request, start, key, _of(notes, use), found)
    hit[use] = found


def _by_visit(
    cache: CompiledCache, visits: Visits, block: _Block, notes: Any, hit: Any, *, evict_after: bool
) -> None:
    lookup_start, lookup = block.ragged(visits.lookup_start)
    start, use = block.ragged(visits.activation_start)
    wanted, key = visits.lookup_key[lookup] - block.first_key, visits.activation_key[use] - block.first_key
    found = np.empty(len(wanted), dtype=np.uint8)
    facts = cache.passing, evict_after, block.layer, block.starts_request
    cache.run("by_visit", *facts, lookup_start, wanted, start, key, _of(notes, use), found)
    hit[lookup] = found


def _of(notes: NDArray[np.float64], use: slice | Ints) -> NDArray[np.float64]:
    return notes[use] if len(notes) else notes
