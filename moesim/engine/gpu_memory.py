"""The GPU's expert cache in time: who holds space, who makes room, and what became of prefetches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from moesim.engine.links import Admission
from moesim.engine.transfers import Transfer
from moesim.replay.counts import notes_of, visit_facts
from moesim.replay.expert_cache import CachePartition, ExpertCache, partition
from moesim.replay.figures import Cause, PrefetchCounts
from moesim.setup import FULL, Setup, TierSetup

_Activation = tuple[int, float]


class GpuMemory:
    """Space on the GPU, taken when a transfer starts and freed when an expert leaves.

    Each form of experts has space and a caching policy of its own. An *object* is an expert in a form, numbered
    ``form * keys + key``.

    Args:
        give_way: makes room by stopping a prefetch that has begun.

    Attributes:
        visit: the visit that runs, set by the engine.
        counts: what became of prefetches; the engine adds what never reached a link.
        evictions: experts that left.
        overshoot_bytes: the most that was held beyond the capacity (rule ``evict_after``).
        used_bytes: held now, in each form.
    """

    def __init__(self, env: simpy.Environment, setup: Setup, give_way: Callable[[], None]):
        visits = setup.visits
        self._give_way = give_way
        self._env, self._visits, self._keys = env, visits, visits.num_keys
        self._reserve = setup.rule == "reserve"
        self._parts = {FULL: _partition(setup, setup.gpu, setup.sizes)}
        self._sizes: list[int] = setup.sizes.tolist() + [0] * (2 * self._keys)
        for form, other in setup.forms.items():
            self._parts[form] = _partition(setup, other.tier, other.sizes)
            self._sizes[form * self._keys : (form + 1) * self._keys] = other.sizes.tolist()
        self._capacity = {
            form: sum(cache.capacity_bytes for cache in part.caches) for form, part in self._parts.items()
        }
        self._notes = notes_of(visits, setup.gpu.policy)
        self._upcoming = self._first_notes(setup)
        self._activation_start: list[int] = visits.activation_start.tolist()
        self._activation_key: list[int] = visits.activation_key.tolist()
        self._members: dict[int, list[int]] = {}
        self._untold: frozenset[int] = frozenset()
        self._uncomputed: set[int] = set()
        self._awaited: dict[int, simpy.Event] = {}
        self._unused: set[int] = set()
        self._protected: list[int] = []
        self.visit = 0
        held = [is_held for cache in self._parts[FULL].caches for is_held in cache.resident]
        # since which visit; -1: not held
        self._since = [0 if is_held else -1 for is_held in held] + [-1] * (2 * self._keys)
        self._resident_visits = [0] * (3 * self._keys)
        self.used_bytes = {form: sum(cache.used_bytes for cache in part.caches) for form, part in self._parts.items()}
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

    def number(self, key: int, form: int) -> int:
        """The object of an expert in a form."""
        return form * self._keys + key

    def holds(self, thing: int) -> bool:
        """Whether the object has space here (its transfer may still be under way)."""
        return self._since[thing] >= 0

    def begin_visit(self, layer: int, members: dict[int, list[int]], skipped: frozenset[int]) -> None:
        """The router of the running visit has spoken.

        Args:
            members: the objects that the visit computes with, by form, in the order in which they were asked for.
            skipped: keys that it does not use at all, of which no policy is told.
        """
        self._members, self._untold = members, skipped
        self._uncomputed = {thing for things in members.values() for thing in things}
        for form, part in self._parts.items():
            part.announce(*visit_facts(self._visits, self.visit))
            cache, first = self._cache(form, layer)
            cache.begin_visit([thing - first for thing in members.get(form, ())])

    def asked(self, thing: int, on_the_way: bool) -> None:
        """An object that has space was asked for: if it was prefetched, it paid off."""
        if thing in self._unused:
            self._unused.discard(thing)
            if on_the_way:
                self.counts.late += 1
            else:
                self.counts.used += 1

    def computed(self, thing: int) -> None:
        """An object of the running visit is done; from now on it may leave."""
        self._uncomputed.discard(thing)
        if thing in self._awaited:
            self._awaited.pop(thing).succeed()

    def end_visit(self, layer: int) -> None:
        """Refresh recency activation by activation, and under ``evict_after`` come down to the capacity."""
        start, stop = self._activation_start[self.visit], self._activation_start[self.visit + 1]
        keys, notes = self._activation_key[start:stop], self._notes[start:stop]
        for form in self._parts:
            cache, first = self._cache(form, layer)
            members = self._members.get(form, [])
            passed = [thing for thing in members if cache.resident[thing - first]]
            cache.end_visit(self._activations(form, first, keys, notes))
            for thing in passed:
                if not cache.resident[thing - first]:
                    self._left(thing)
        for key, note in zip(keys, notes, strict=True):
            self._upcoming[key] = note
        if not self._reserve:
            over = sum(max(0, self.used_bytes[form] - self._capacity[form]) for form in self._parts)
            self.overshoot_bytes = max(self.overshoot_bytes, over)
            self._trim(layer)
        self._members = {}

    def _activations(self, form: int, first: int, keys: Sequence[int], notes: Sequence[float]) -> list[_Activation]:
        """The visit's activations as a form's cache numbers them: -1 for those that don't concern it."""
        if form == FULL and not self._untold:
            return [(key - first, note) for key, note in zip(keys, notes, strict=True)]
        things = [self.number(key, form) for key in keys]
        if form == FULL:
            told = set(keys) - self._untold
        else:
            told = {thing - form * self._keys for thing in self._members.get(form, ())}
        return [
            (thing - first if key in told else -1, note) for key, thing, note in zip(keys, things, notes, strict=True)
        ]

    def _trim(self, layer: int) -> None:
        for form in self._parts:
            cache, first = self._cache(form, layer)
            members = [thing - first for thing in self._members.get(form, ())]
            left = cache.trim(members)
            if cache.used_bytes > cache.capacity_bytes and self._protected:
                self.unprotect()
                left += cache.trim(members)
            for key in left:
                self._left(key + first)

    def admit(self, transfer: Transfer) -> Admission:
        """Take space for a transfer that is about to start; False where a prefetch finds no room."""
        thing = self.number(transfer.key, transfer.form)
        cache, first = self._cache(transfer.form, transfer.key // self._visits.num_experts)
        if transfer.is_demand:
            yield from self._room_for_demand(cache, first, thing, transfer)
            cache.start_demand(thing - first)
        elif self._room_for_prefetch(cache, first, thing):
            cache.start_prefetch(thing - first, self._upcoming[transfer.key])
            cache.locked[thing - first] += 1
            self.counts.started += 1
            self._unused.add(thing)
        else:
            self.counts.no_room += 1
            return False
        transfer.reaching_gpu = True
        self._since[thing] = self.visit
        self.used_bytes[transfer.form] += self._sizes[thing]
        return True

    def arrived(self, transfer: Transfer) -> None:
        """A transfer has ended; a prefetched expert may leave from now on."""
        if not transfer.is_demand:
            cache, first = self._cache(transfer.form, transfer.key // self._visits.num_experts)
            cache.locked[self.number(transfer.key, transfer.form) - first] -= 1

    def protect(self, thing: int) -> None:
        """An object that is here stays until :meth:`unprotect`, unless a demand finds no other room."""
        cache, first = self._cache(thing // self._keys, thing % self._keys // self._visits.num_experts)
        cache.locked[thing - first] += 1
        self._protected.append(thing)

    def unprotect(self) -> None:
        """What was protected may leave."""
        for thing in self._protected:
            cache, first = self._cache(thing // self._keys, thing % self._keys // self._visits.num_experts)
            cache.locked[thing - first] -= 1
        self._protected.clear()

    def stopped(self, transfer: Transfer) -> None:
        """A prefetch that had begun is given up: its space is free."""
        cache, first = self._cache(transfer.form, transfer.key // self._visits.num_experts)
        thing = self.number(transfer.key, transfer.form)
        cache.locked[thing - first] -= 1
        cache.drop(thing - first)
        self._left(thing)

    def close(self, num_visits: int) -> list[float]:
        """The run is over: for each key the share of visits at whose end it held space, in full."""
        self.counts.wasted += len(self._unused)
        for key, since in enumerate(self._since[: self._keys]):
            if since >= 0:
                self._resident_visits[key] += num_visits - since
        return [visits / num_visits for visits in self._resident_visits[: self._keys]]

    def _cache(self, form: int, layer: int) -> tuple[ExpertCache, int]:
        """The cache that holds a layer's experts in a form, and what to subtract from an object to get its key."""
        cache, first = self._parts[form].of_layer(layer)
        return cache, first + form * self._keys

    def _room_for_demand(self, cache: ExpertCache, first: int, thing: int, transfer: Transfer) -> Iterator[simpy.Event]:
        cache.expect(thing - first)
        while self._reserve and not cache.fits(thing - first):
            if self._protected and cache.victim() < 0:
                self.unprotect()
            key = cache.next_to_leave()
            if key < 0:
                self._give_way()
                continue
            leaver = key + first
            if leaver in self._uncomputed:
                transfer.waits_for(Cause.ROOM, self._env.now)
                self._awaited[leaver] = self._env.event()
                yield self._awaited[leaver]
            cache.drop(leaver - first)
            self._left(leaver)

    def _room_for_prefetch(self, cache: ExpertCache, first: int, thing: int) -> bool:
        key = thing - first
        if not cache.admits(key, self._upcoming[thing % self._keys]):
            return False
        cache.expect(key)
        while self._reserve and not cache.fits(key):
            if (leaver := cache.victim()) < 0:
                return False
            cache.drop(leaver)
            self._left(leaver + first)
        return True

    def _left(self, thing: int) -> None:
        self.evictions += 1
        self.used_bytes[thing // self._keys] -= self._sizes[thing]
        self._resident_visits[thing] += self.visit - self._since[thing]
        self._since[thing] = -1
        if thing in self._unused:
            self._unused.discard(thing)
            self.counts.wasted += 1


def _partition(setup: Setup, tier: TierSetup, sizes: NDArray[np.int64]) -> CachePartition:
    return partition(
        tier.policy,
        sizes,
        tier.capacity_bytes,
        experts_per_layer=setup.visits.num_experts,
        per_layer=tier.per_layer,
        training_uses=tier.training_uses,
        layer_bytes=tier.layer_bytes,
        pinned=tier.pinned,
    )
