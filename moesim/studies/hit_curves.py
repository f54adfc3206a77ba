"""How often caches of all sizes hit on a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moesim.policies import api
from moesim.replay import count
from moesim.traces import RoutingTrace
from moesim.traces.statistics import first_requests
from moesim.traces.steps import closed_loop
from moesim.traces.visits import Visits, visits_of

#: So many lookups, or fewer, are replayed for each point of a curve, and for :func:`layer_lru`.
CURVE_LOOKUPS, LAYER_LRU_LOOKUPS = 100_000, 300_000
#: The points of a curve, as shares of all experts' bytes.
CAPACITY_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)


@dataclass(frozen=True)
class HitCurve:
    """Hits per lookup of one global cache with a policy, by the share of all experts' bytes that it holds.

    Requests run one after the other at batch 1, the first of them that together have at most ``lookups`` lookups;
    cold start, rule ``reserve``. ``capacity_bytes`` counts experts where their size is unknown.
    """

    policy: str
    lookups: int
    capacity_share: tuple[float, ...]
    capacity_bytes: tuple[int, ...]
    hit_rate_per_lookup: tuple[float | None, ...]


@dataclass(frozen=True)
class LayerLru:
    """Decode through an LRU of ``slots`` experts (2 k) in each layer, at batch 1, prefill passing through uncounted.

    ``uniform``: the hit rate of any cache of that size under uniform routing, slots / E.
    """

    slots: int
    lookups: int
    hit_rate_per_lookup: float | None
    uniform: float


def layer_lru(trace: RoutingTrace) -> LayerLru:
    """See :class:`LayerLru`; over the first requests with at most :data:`LAYER_LRU_LOOKUPS` lookups."""
    slots = min(2 * trace.top_k, trace.num_experts)
    sizes = np.ones(trace.num_layers * trace.num_experts, np.int64)
    lru = api.load("caching", "lru")
    counts = count(
        _visits(trace, LAYER_LRU_LOOKUPS), sizes, lru, slots * trace.num_layers, per_layer=True, phase="decode"
    )
    return LayerLru(slots, int(counts.lookups.sum()), counts.hit_rate_per_lookup, slots / trace.num_experts)


def hit_curves(trace: RoutingTrace, policies: Sequence[str]) -> tuple[HitCurve, ...]:
    """A curve for each of these caching policies, over :data:`CAPACITY_SHARES`.

    Raises:
        PolicyError: an unknown policy, or one that needs parameters or a training split.
    """
    if not policies:
        return ()
    visits = _visits(trace, CURVE_LOOKUPS)
    sizes = np.repeat(np.array(trace.card.expert_bytes or [1] * trace.num_layers, np.int64), trace.num_experts)
    capacities = tuple(max(int(share * sizes.sum()), int(sizes.max())) for share in CAPACITY_SHARES)
    curves = []
    for name in policies:
        policy = api.load("caching", name)
        rates = tuple(count(visits, sizes, policy, capacity).hit_rate_per_lookup for capacity in capacities)
        curves.append(HitCurve(name, len(visits.lookup_key), CAPACITY_SHARES, capacities, rates))
    return tuple(curves)


def _visits(trace: RoutingTrace, max_lookups: int) -> Visits:
    requests = first_requests(trace, max_lookups // (trace.num_layers * trace.top_k))
    return visits_of(trace, closed_loop(trace, requests))
