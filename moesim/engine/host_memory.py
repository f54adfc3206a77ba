"""The host's expert cache in front of flash: a staging place through which every expert goes up."""

from __future__ import annotations

import numpy as np
import simpy
from numpy.typing import NDArray

from moesim.engine.links import Admission
from moesim.engine.transfers import Cause, Transfer
from moesim.replay.expert_cache import ExpertCache, partition
from moesim.setup import TierSetup


class HostMemory:
    """Space in host memory. Its caching policy sees one use for each expert that is asked for from above."""

    def __init__(self, env: simpy.Environment, tier: TierSetup, sizes: NDArray[np.int64], experts_per_layer: int):
        self._env = env
        self._experts_per_layer = experts_per_layer
        self._cache: ExpertCache
        (self._cache,) = partition(
            tier.policy,
            sizes,
            tier.capacity_bytes,
            experts_per_layer=experts_per_layer,
            per_layer=False,
            training_uses=tier.training_uses,
        ).caches
        self._passing: set[int] = set()
        self._released: simpy.Event | None = None

    def holds(self, key: int) -> bool:
        """Whether the expert is here (and not still being read)."""
        return self._cache.resident[key]

    def use(self, key: int) -> None:
        """An expert that is here goes up; it stays until :meth:`release`."""
        self._announce(key)
        self._cache.begin_visit((key,))
        self._cache.end_visit(((key, 0.0),))
        self._cache.locked[key] += 1

    def admit(self, transfer: Transfer) -> Admission:
        """Take space for a read; waits while everybody here is on the way up."""
        cache, key = self._cache, transfer.key
        self._announce(key)
        cache.expect(key)
        while not cache.fits(key):
            if (leaver := cache.victim()) >= 0:
                cache.drop(leaver)
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
        self._cache.announce(key // self._experts_per_layer, starts_request=False)

    def release(self, key: int) -> None:
        """The expert is up (or no longer wanted there): it may leave from now on."""
        self._cache.locked[key] -= 1
        if key in self._passing:
            self._passing.discard(key)
            self._cache.drop(key)
        if self._released is not None:
            released, self._released = self._released, None
            released.succeed()
