"""A tier's expert cache: the accounting around a caching policy.

The policy decides, the cache counts. It knows which keys hold space, how many bytes they take, and who may leave;
whether a transfer is still under way is the engine's business. DESIGN: a visit's experts never make room for each
other before they are computed, and recency is refreshed activation by activation at the visit's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.policies.api import CacheContext, Policy


class ExpertCache:
    """Bytes, residency and a caching policy's state over keys 0 .. n-1.

    State arrays are plain lists here, because the policy is interpreted. A resident key is either *kept* (the policy
    knows it) or *passing* (it holds space for the running visit, at whose end the policy may admit it).

    Attributes:
        resident: whether a key holds space. [keys]
        locked: how many reasons a key has to stay: in the running visit, being copied. [keys]
        now: activations so far; the policy's clock.
    """

    def __init__(self, policy: Policy, context: CacheContext):
        self.capacity_bytes = context.capacity_bytes
        self.sizes: list[int] = context.sizes.tolist()
        self.used_bytes = 0
        self.resident = [False] * context.num_keys
        self.locked = [0] * context.num_keys
        self.now = 0
        self._kept = [False] * context.num_keys
        self._passing: list[int] = []
        self._members: Sequence[int] = ()
        module = policy.module
        state_i, state_f = module.initial_state(policy.params, context)
        self._state_i: list[int] = state_i.tolist()
        self._state_f: list[float] = state_f.tolist()
        self._on_hit, self._on_insert = module.on_hit, module.on_insert
        self._on_evict, self._victim = module.on_evict, module.victim
        self._admit, self._on_visit = policy.admit, policy.on_visit
        self._before_insert, self._on_bypass = policy.before_insert, policy.on_bypass
        for key in policy.preload(context):
            self._hold(key)
            self._keep(key, 0.0)
        for key in context.pinned:
            self.locked[key] += 1

    def announce(self, layer: int, starts_request: bool) -> None:
        """A router has spoken: tell the policy, if it wants to know.

        Args:
            layer: the MoE layer, counted in the model.
            starts_request: whether a request runs its first token in this step; said at this cache's first layer.
        """
        if self._on_visit is not None:
            self._on_visit(self._state_i, self._state_f, layer, starts_request)

    def begin_visit(self, members: Sequence[int]) -> None:
        """The router has chosen ``members``: none of them makes room for another while the visit runs."""
        self._members = members
        for key in members:
            self.locked[key] += 1

    def end_visit(self, activations: Iterable[tuple[int, float]]) -> None:
        """Tell the policy every activation of the visit, in order, and let go of what it does not keep.

        Args:
            activations: (key, note), token by token; key -1 is one that does not concern this cache.
        """
        kept, resident = self._kept, self.resident
        state_i, state_f, on_hit = self._state_i, self._state_f, self._on_hit
        for key, note in activations:
            if key < 0:
                pass
            elif kept[key]:
                on_hit(state_i, state_f, key, self.now, note)
            elif resident[key] and self.admits(key, note):
                self._keep(key, note)
            elif self._on_bypass is not None:
                self._on_bypass(state_i, state_f, key, self.now, note)
            self.now += 1
        for key in self._passing:
            if resident[key] and not kept[key]:
                self.drop(key)
        self._passing = []
        for key in self._members:
            self.locked[key] -= 1
        self._members = ()

    def start_demand(self, key: int) -> None:
        """A transfer that the running visit waits for starts: the key passes until the visit ends."""
        self._hold(key)
        self._passing.append(key)

    def start_prefetch(self, key: int, note: float) -> bool:
        """A transfer ahead of use starts; False (and nothing happens) where the policy would not keep the key."""
        if not self.admits(key, note):
            return False
        self._hold(key)
        self._keep(key, note)
        return True

    def expect(self, key: int) -> None:
        """Room is about to be made for the key: tell the policy, if it wants to know."""
        if self._before_insert is not None:
            self._before_insert(self._state_i, self._state_f, key)

    def pass_through(self, key: int) -> None:
        """Hold space for a key that the policy does not keep; the caller drops it."""
        self._hold(key)

    def admits(self, key: int, note: float) -> bool:
        """Whether the policy would keep the key after this use."""
        return self._admit is None or self._admit(self._state_i, self._state_f, key, self.now, note)

    def fits(self, key: int) -> bool:
        """Whether the free space holds the key."""
        return self.used_bytes + self.sizes[key] <= self.capacity_bytes

    def victim(self) -> int:
        """The kept key, none of the locked ones, that the policy would evict now; -1 where there is none."""
        return int(self._victim(self._state_i, self._state_f, self.locked))

    def next_to_leave(self) -> int:
        """Who makes room for a demand of the running visit; -1 where nobody can.

        First the policy's victim outside the visit. In a visit larger than the cache it is then the policy's choice
        among the visit's own members that were here before, and last the earliest of those that passed: the caller
        waits until that one is computed, so that the choice does not depend on the clock.
        """
        key = self.victim()
        if key >= 0:
            return key
        for member in self._members:
            self.locked[member] -= 1
        key = self.victim()
        for member in self._members:
            self.locked[member] += 1
        if key >= 0:
            return key
        return next((passing for passing in self._passing if self.resident[passing]), -1)

    def trim(self, members: Sequence[int]) -> list[int]:
        """Rule ``evict_after``: evict down to the capacity, never one of ``members``; returns who left."""
        evicted = []
        for member in members:
            self.locked[member] += 1
        while self.used_bytes > self.capacity_bytes and (key := self.victim()) >= 0:
            self.drop(key)
            evicted.append(key)
        for member in members:
            self.locked[member] -= 1
        return evicted

    def drop(self, key: int) -> None:
        """The key leaves and its space is free."""
        if self._kept[key]:
            self._on_evict(self._state_i, self._state_f, key)
            self._kept[key] = False
        self.resident[key] = False
        self.used_bytes -= self.sizes[key]

    def _hold(self, key: int) -> None:
        self.resident[key] = True
        self.used_bytes += self.sizes[key]

    def _keep(self, key: int, note: float) -> None:
        self._on_insert(self._state_i, self._state_f, key, self.now, note)
        self._kept[key] = True


@dataclass(frozen=True)
class CachePartition:
    """One cache for all layers, or one for each: which cache a layer's experts live in.

    Attributes:
        caches: one, or one for each layer.
        experts_per_layer: the first key of layer l is ``l * experts_per_layer``.
    """

    caches: tuple[ExpertCache, ...]
    experts_per_layer: int

    def of_layer(self, layer: int) -> tuple[ExpertCache, int]:
        """The layer's cache, and what to subtract from a key to get the cache's own."""
        if len(self.caches) == 1:
            return self.caches[0], 0
        return self.caches[layer], layer * self.experts_per_layer

    def announce(self, layer: int, step_starts_request: bool) -> None:
        """Tell the layer's cache that its router has spoken; a request's start at the first layer that it holds."""
        cache, _ = self.of_layer(layer)
        cache.announce(layer, step_starts_request and (layer == 0 or len(self.caches) > 1))

    def of_key(self, key: int) -> tuple[ExpertCache, int]:
        """As :meth:`of_layer`, for a key."""
        return self.of_layer(key // self.experts_per_layer)


def partition(
    policy: Policy,
    sizes: NDArray[np.int64],
    capacity_bytes: int,
    *,
    experts_per_layer: int,
    per_layer: bool,
    training_uses: NDArray[np.int64] | None = None,
    layer_bytes: Sequence[int] | None = None,
    pinned: Sequence[int] = (),
    asks: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> CachePartition:
    """Caches under one policy; arguments as in :func:`contexts`."""
    parts = contexts(
        sizes,
        capacity_bytes,
        experts_per_layer=experts_per_layer,
        per_layer=per_layer,
        training_uses=training_uses,
        layer_bytes=layer_bytes,
        pinned=pinned,
        asks=asks,
    )
    return CachePartition(tuple(ExpertCache(policy, context) for context in parts), experts_per_layer)


def contexts(
    sizes: NDArray[np.int64],
    capacity_bytes: int,
    *,
    experts_per_layer: int,
    per_layer: bool,
    training_uses: NDArray[np.int64] | None = None,
    layer_bytes: Sequence[int] | None = None,
    pinned: Sequence[int] = (),
    asks: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> list[CacheContext]:
    """What each cache's policy knows: a global one, or one for each layer.

    Args:
        sizes: bytes of each key. [layers * experts_per_layer]
        training_uses: as in :class:`CacheContext`. [layers * experts_per_layer]
        layer_bytes: of each layer's cache; default: equal shares of the capacity. [layers]
        pinned: keys that never leave.
        asks: as in :class:`CacheContext`, for a global cache.
    """
    parts = len(sizes) // experts_per_layer if per_layer else 1
    uses = np.split(training_uses, parts) if training_uses is not None else [None] * parts
    shares = [capacity_bytes // parts] * parts if layer_bytes is None else layer_bytes
    keys = len(sizes) // parts
    stay = [tuple(key % keys for key in pinned if key // keys == part) for part in range(parts)]
    return [
        CacheContext(part, share, experts_per_layer, part_uses, part_stays, asks)
        for part, share, part_uses, part_stays in zip(np.split(sizes, parts), shares, uses, stay, strict=True)
    ]
