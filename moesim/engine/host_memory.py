"""The host's expert cache in front of flash: a staging place through which every expert goes up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import simpy
from numpy.typing import NDArray

from moesim.engine.links import Admission
from moesim.engine.transfers import Transfer
from moesim.replay.expert_cache import ExpertCache, partition
from moesim.replay.figures import Cause
from moesim.setup import FULL, LOW, TierSetup


class HostMemory:
    """Space in host memory. Its caching policy sees one use for each expert that is asked for from above.

    Copies in low precision are experts of their own here, numbered behind the others as further layers. ``sizes``: of
    all of them. ``keys``: how many there are without those. ``give_way``: stops a read for the good of another one.
    """

    def __init__(
        self,
        env: simpy.Environment,
        tier: TierSetup,
        sizes: NDArray[np.int64],
        experts_per_layer: int,
        keys: int,
        give_way: Callable[[Transfer], bool],
    ):
        self._env, self._give_way = env, give_way
        self._experts_per_layer, self._keys = experts_per_layer, keys
        self._cache: ExpertCache
        (self._cache,) = partition(
            tier.policy,
            sizes,
            tier.capacity_bytes,
            experts_per_layer=experts_per_layer,
            per_layer=False,
            training_uses=tier.training_uses,
            asks=tier.asks,
        ).caches
        self._passing: set[int] = set()
        self._released: simpy.Event | None = None

    def holds(self, key: int, form: int = FULL) -> bool:
        """Whether the expert is here (or being read)."""
        return self._cache.resident[self._number(key, form)]

    def use(self, transfer: Transfer) -> None:
        """An expert that is here goes up; it stays until :meth:`release`."""
        key = self._number(transfer.key, transfer.form)
        self._announce(key)
        self._cache.begin_visit((key,))
        self._cache.end_visit(((key, 0.0),))
        self._cache.locked[key] += 1

    def admit(self, transfer: Transfer) -> Admission:
        """Take space for a read; waits while everybody here is on the way up."""
        cache, key = self._cache, self._number(transfer.key, transfer.form)
        self._announce(key)
        cache.expect(key)
        while not cache.fits(key):
            if (leaver := cache.victim()) >= 0:
                cache.drop(leaver)
                continue
            if self._give_way(transfer):
                continue
            transfer.waits_for(Cause.ROOM, self._env.now)
            self._released = self._env.event()
            yield self._released
            if transfer.cancelled:
                return False
        if not cache.start_prefetch(key, 0.0):
            cache.pass_through(key)
            self._passing.add(key)
        cache.now += 1
        cache.locked[key] += 1
        return True

    def _announce(self, key: int) -> None:
        self._cache.announce(key % self._keys // self._experts_per_layer, starts_request=False)

    def _number(self, key: int, form: int) -> int:
        return key + self._keys if form == LOW else key

    def stopped(self, transfer: Transfer) -> None:
        """A read that had begun is given up: its space is free."""
        key = self._number(transfer.key, transfer.form)
        self._cache.locked[key] -= 1
        self._passing.discard(key)
        self._cache.drop(key)

    def release(self, transfer: Transfer) -> None:
        """The expert is up (or no longer wanted there): it may leave from now on."""
        key = self._number(transfer.key, transfer.form)
        self._cache.locked[key] -= 1
        if key in self._passing:
            self._passing.discard(key)
            self._cache.drop(key)
        if self._released is not None:
            released, self._released = self._released, None
            released.succeed()
