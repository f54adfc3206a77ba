"""Expert caches of GPUs that can't hold all of their experts: what each must bring from its host's memory, and when.

Every rank has its own cache of ``memory.gpu_experts`` bytes on each GPU under ``policies.caching``, filled before the
first step with the experts that the placement's profile saw most. A visit is one MoE layer of one part of one pass; an
expert counts as one use in it, however many tokens come. Each GPU has a host link of its own, and host memory is taken
to keep up with all links of a node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.costs.part import Basis
from moesim.costs.transfer import host_copy
from moesim.errors import PolicyError
from moesim.hardware.catalog import load_link
from moesim.models import parameters
from moesim.policies.api import CacheContext, Policy
from moesim.replay.expert_cache import ExpertCache
from moesim.scenario.parallel.parts import ParallelParts
from moesim.setup.placement import Placement
from moesim.units import format_bytes, parse

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Cached:
    """How GPUs hold experts that don't all fit.

    Attributes:
        policy: what leaves.
        capacity_bytes: of each GPU's cache.
        expert_bytes: of an expert's share on one GPU.
    """

    policy: Policy
    capacity_bytes: int
    expert_bytes: int

    @property
    def slots(self) -> int:
        """Experts that a cache holds."""
        return self.capacity_bytes // self.expert_bytes


@dataclass(frozen=True)
class Fetched:
    """What a stage's ranks brought in.

    Attributes:
        fetches: experts. [passes, parts, layers, ranks]
        lookups: distinct experts that were asked for, over all ranks.
        seconds: on each GPU's host link. [passes, parts, layers, ranks]
        basis: what these rest on.
    """

    fetches: Ints
    lookups: int
    seconds: Floats
    basis: Basis


def cached_of(parts: ParallelParts, gpu_experts: str, policy: Policy) -> Cached | None:
    """The caches that a scenario asks for; None where GPUs hold all of their experts (``auto``).

    Raises:
        PolicyError: a cache holds no expert, or the policy looks into the future.
    """
    if gpu_experts == "auto":
        return None
    whole = parameters.expert_bytes(parts.model, parts.precisions.experts)
    found = Cached(policy, int(parse(gpu_experts, "bytes")), -(-whole // parts.degrees.expert_tp))
    if found.slots < 1:
        told = f"{gpu_experts} hold no expert of {format_bytes(found.expert_bytes)}"
        raise PolicyError.of("memory.gpu_experts", told, "more, or auto")
    if policy.needs_future or policy.note is not None:
        told = f"{policy.name!r} needs more than a cluster's run tells it (the future, or gate weights)"
        raise PolicyError.of("policies.caching", told, "lru, lfu or fifo")
    return found


def fetched(
    parts: ParallelParts, cached: Cached, placements: list[Placement], moe_layers: Ints, used: Bools, load: Floats
) -> Fetched:
    """Replay every rank's lookups through its cache.

    Args:
        placements: of each pass.
        moe_layers: the stage's, among the model's MoE layers.
        used: slots with tokens. [passes, parts, layers, slots]
        load: tokens of each expert in the profile. [all layers, experts]
    """
    ranks, experts = parts.degrees.ep, parts.model.num_experts
    passes, chunks, layers, _ = used.shape
    fetches = np.zeros((passes, chunks, layers, ranks), dtype=np.int64)
    heat, lookups = load[moe_layers], 0
    caches = [_cache(cached, placements[0], moe_layers, heat, rank) for rank in range(ranks)]
    for number in range(passes):
        placement = placements[number]
        for chunk in range(chunks):
            for place, layer in enumerate(moe_layers):
                slots = np.flatnonzero(used[number, chunk, place])
                key = place * experts + placement.logical[layer][slots]
                rank = placement.rank[layer][slots]
                for owner in np.unique(rank):
                    members = np.unique(key[rank == owner]).tolist()
                    lookups += len(members)
                    fetches[number, chunk, place, owner] = _visit(caches[owner], members)
    link = load_link(parts.topology.node_card.link)
    copy = host_copy(np.asarray(float(cached.expert_bytes)), link)
    return Fetched(fetches, lookups, np.asarray(fetches * float(copy.seconds), dtype=np.float64), copy.basis)


def _cache(cached: Cached, placement: Placement, moe_layers: Ints, heat: Floats, rank: int) -> ExpertCache:
    """A rank's cache, with its most used experts in it."""
    layers, experts = heat.shape
    sizes = np.full(layers * experts, cached.expert_bytes, dtype=np.int64)
    own = [placement.logical[layer][placement.rank[layer] == rank] for layer in moe_layers]
    key = np.unique(np.concatenate([place * experts + found for place, found in enumerate(own)]))
    uses = np.zeros(layers * experts, dtype=np.int64)
    uses[key] = heat.ravel()[key]  # others' experts are never asked for here
    cache = ExpertCache(cached.policy, CacheContext(sizes, cached.capacity_bytes, experts, uses))
    for each in key[np.argsort(-uses[key], kind="stable")][: cached.slots][::-1].tolist():
        if not cache.resident[each] and cache.fits(each):
            cache.start_prefetch(each, 0.0)
    return cache


def _visit(cache: ExpertCache, members: list[int]) -> int:
    """One layer's distinct experts: how many had to be brought in. In waves where they are more than the cache."""
    missing = [key for key in members if not cache.resident[key]]
    cache.begin_visit(members)
    for key in missing:
        cache.expect(key)
        while not cache.fits(key):
            cache.drop(cache.next_to_leave())
        cache.start_demand(key)
    cache.end_visit((key, 0.0) for key in members)
    return len(missing)
