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
from moesim.traces.visits import visits_of

#: A curve is replayed over about so many lookups, at these shares of all experts' bytes.
MAX_LOOKUPS = 50_000
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


def hit_curves(trace: RoutingTrace, policies: Sequence[str]) -> tuple[HitCurve, ...]:
    """A curve for each of these caching policies, over :data:`CAPACITY_SHARES`.

    Raises:
        PolicyError: an unknown policy, or one that needs parameters or a training split.
    """
    if not policies:
        return ()
    requests = first_requests(trace, MAX_LOOKUPS // (trace.num_layers * trace.top_k))
    visits = visits_of(trace, closed_loop(trace, requests))
    sizes = np.repeat(np.array(trace.card.expert_bytes or [1] * trace.num_layers, np.int64), trace.num_experts)
    capacities = tuple(max(int(share * sizes.sum()), int(sizes.max())) for share in CAPACITY_SHARES)
    curves = []
    for name in policies:
        policy = api.load("caching", name)
        rates = tuple(count(visits, sizes, policy, capacity).hit_rate_per_lookup for capacity in capacities)
        curves.append(HitCurve(name, len(visits.lookup_key), CAPACITY_SHARES, capacities, rates))
    return tuple(curves)
