"""The GPU's expert cache in time: who holds space, who makes room, and what became of prefetches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import simpy

from moesim.engine.links import Admission
from moesim.engine.outcome import PrefetchCounts
from moesim.engine.transfers import Cause, Transfer
from moesim.replay.counts import notes_of, visit_facts
from moesim.replay.expert_cache import ExpertCache, partition
from moesim.setup import Setup


class GpuMemory:
    """Space on the GPU, taken when a transfer starts and freed when an expert leaves.

    Attributes:
        visit: the visit that runs, set by the engine.
        counts: what became of prefetches; the engine adds what never reached a link.
        evictions: experts that left.
        overshoot_bytes: the most that was held beyond the capacity (rule ``evict_after``).
        used_bytes: held now.
    """

    def __init__(self, env: simpy.Environment, setup: Setup):
        visits = setup.visits
        self._env, self._visits = env, visits
        self._reserve = setup.rule == "reserve"
        self._caches = partition(
            setup.gpu.policy,
            setup.sizes,
            setup.gpu.capacity_bytes,
            experts_per_layer=visits.num_experts,
            per_layer=setup.gpu.per_layer,
            training_uses=setup.gpu.training_uses,
        )
        self._sizes: list[int] = setup.sizes.tolist()
        self._capacity = sum(cache.capacity_bytes for cache in self._caches.caches)
        self._notes = notes_of(visits, setup.gpu.policy)
        self._upcoming = self._first_notes(setup)
        self._activation_start: list[int] = visits.activation_start.tolist()
        self._activation_key: list[int] = visits.activation_key.tolist()
        self._members: Sequence[int] = ()
        self._computed: set[int] = set()
        self._awaited: dict[int, simpy.Event] = {}
        self._unused: set[int] = set()
        self.visit = 0
        held = [is_held for cache in self._caches.caches for is_held in cache.resident]
        self._since = [0 if is_held else -1 for is_held in held]  # since which visit; -1: not held
        self._resident_visits = [0] * visits.num_keys
        self.used_bytes = sum(cache.used_bytes for cache in self._caches.caches)
        self.counts = PrefetchCounts()
        self.evictions = 0
        self.overshoot_bytes = 0

    @staticmethod
    def _first_notes(setup: Setup) -> list[float]:
        """For each key the ``note`` of its first use, for prefetches of what was never used."""
        visits = setup.visits
        first = np.zeros(visits.num_keys)
        if setup.gpu.policy.note in ("next_use", "schedule"):
            first[:] = len(visits.activation_key)
            keys, place = np.unique(visits.activation_key, return_index=True)
            first[keys] = place
        return first.tolist()

    def holds(self, key: int) -> bool:
        """Whether the expert has space here (its transfer may still be under way)."""
        return self._since[key] >= 0

    def begin_visit(self, layer: int, members: Sequence[int]) -> None:
        """The router of the running visit has chosen ``members``."""
        self._members = members
        self._computed.clear()
        cache, first = self._caches.of_layer(layer)
        self._caches.announce(*visit_facts(self._visits, self.visit))
        cache.begin_visit([key - first for key in members])

    def asked(self, key: int, on_the_way: bool) -> None:
        """An expert that has space was asked for: if it was prefetched, it paid off."""
        if key in self._unused:
            self._unused.discard(key)
            if on_the_way:
                self.counts.late += 1
            else:
                self.counts.used += 1

    def computed(self, key: int) -> None:
        """An expert of the running visit is done; from now on it may leave."""
        self._computed.add(key)
        if key in self._awaited:
            self._awaited.pop(key).succeed()

    def end_visit(self, layer: int) -> None:
        """Refresh recency activation by activation, and under ``evict_after`` come down to the capacity."""
        cache, first = self._caches.of_layer(layer)
        start, stop = self._activation_start[self.visit], self._activation_start[self.visit + 1]
        keys, notes = self._activation_key[start:stop], self._notes[start:stop]
        passed = [key for key in self._members if cache.resident[key - first]]
        cache.end_visit([(key - first, note) for key, note in zip(keys, notes, strict=True)])
        for key in passed:
            if not cache.resident[key - first]:
                self._left(key)
        for key, note in zip(keys, notes, strict=True):
            self._upcoming[key] = note
        if not self._reserve:
            self.overshoot_bytes = max(self.overshoot_bytes, self.used_bytes - self._capacity)
            for key in cache.trim([key - first for key in self._members]):
                self._left(key + first)
        self._members = ()

    def admit(self, transfer: Transfer) -> Admission:
        """Take space for a transfer that is about to start; False where a prefetch finds no room."""
        cache, first = self._caches.of_key(transfer.key)
        key = transfer.key - first
        if transfer.is_demand:
            yield from self._room_for_demand(cache, first, transfer)
            cache.start_demand(key)
        elif self._room_for_prefetch(cache, first, key):
            cache.start_prefetch(key, self._upcoming[transfer.key])
            cache.locked[key] += 1
            self.counts.started += 1
            self._unused.add(transfer.key)
        else:
            self.counts.no_room += 1
            return False
        transfer.reaching_gpu = True
        self._since[transfer.key] = self.visit
        self.used_bytes += self._sizes[transfer.key]
        return True

    def arrived(self, key: int, was_prefetch: bool) -> None:
        """A transfer has ended; a prefetched expert may leave from now on."""
        if was_prefetch:
            cache, first = self._caches.of_key(key)
            cache.locked[key - first] -= 1

    def close(self, num_visits: int) -> list[float]:
        """The run is over: for each key the share of visits at whose end it held space."""
        self.counts.wasted += len(self._unused)
        for key, since in enumerate(self._since):
            if since >= 0:
                self._resident_visits[key] += num_visits - since
        return [visits / num_visits for visits in self._resident_visits]

    def _room_for_demand(self, cache: ExpertCache, first: int, transfer: Transfer) -> Iterator[simpy.Event]:
        cache.expect(transfer.key - first)
        while self._reserve and not cache.fits(transfer.key - first):
            leaver = cache.next_to_leave()
            if (key := leaver + first) in self._members and key not in self._computed:
                transfer.waits_for(Cause.ROOM, self._env.now)
                self._awaited[key] = self._env.event()
                yield self._awaited[key]
            cache.drop(leaver)
            self._left(key)

    def _room_for_prefetch(self, cache: ExpertCache, first: int, key: int) -> bool:
        if not cache.admits(key, self._upcoming[key + first]):
            return False
        cache.expect(key)
        while self._reserve and not cache.fits(key):
            if (leaver := cache.victim()) < 0:
                return False
            cache.drop(leaver)
            self._left(leaver + first)
        return True

    def _left(self, key: int) -> None:
        self.evictions += 1
        self.used_bytes -= self._sizes[key]
        self._resident_visits[key] += self.visit - self._since[key]
        self._since[key] = -1
        if key in self._unused:
            self._unused.discard(key)
            self.counts.wasted += 1
