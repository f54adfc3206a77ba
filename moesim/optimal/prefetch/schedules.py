"""Plans as schedules that the engine replays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.prefetch.plan import Plan
from moesim.policies.api import Candidates
from moesim.setup import Schedule, Setup
from moesim.setup.schedule import digest_of, no_proposals


def fewest_bytes(setup: Setup, trace_sha256: str) -> Schedule:
    """Belady's MIN and no prefetching: the fewest fetches, each when it is asked for."""
    return _schedule(setup, trace_sha256, "fewest fetches", no_proposals(setup.visits))


def as_kept(setup: Setup, trace_sha256: str, kept: NDArray[np.bool_]) -> Schedule:
    """What an interval program keeps, and no prefetching.

    Args:
        kept: whether each lookup's expert stays until its next use. [lookups]
    """
    visits = setup.visits
    keep_until = visits.next_use.copy()
    last = np.zeros(len(kept), dtype=np.int64)
    last[visits.activation_lookup] = np.arange(len(visits.activation_key))  # of several the last one stays
    keep_until[last[~kept]] += len(visits.activation_key) + 1
    schedule = _schedule(setup, trace_sha256, "least cost of fetches", no_proposals(visits))
    return replace(schedule, keep_until=keep_until)


def least_stall(setup: Setup, trace_sha256: str, plan: Plan) -> Schedule:
    """Fetches in the plan's order, each proposed by the visit whose router has last spoken when it is to start.

    What the plan starts only when its own visit has spoken is left out: it is a demand. Who leaves is again whoever is
    needed farthest.
    """
    visit = np.maximum(np.searchsorted(plan.ready_s, plan.start_s, side="right") - 1, 0)
    ahead = plan.target > visit
    start = np.searchsorted(visit[ahead], np.arange(setup.visits.num_visits + 1))
    proposals = Candidates(start.astype(np.int64), plan.key[ahead], plan.target[ahead])
    return _schedule(setup, trace_sha256, "least stall", proposals)


def _schedule(setup: Setup, trace_sha256: str, purpose: str, proposals: Candidates) -> Schedule:
    return Schedule(
        purpose=purpose,
        trace_sha256=trace_sha256,
        visits_sha256=digest_of(setup.visits),
        capacity_bytes=setup.gpu.capacity_bytes,
        rule=setup.rule,
        keep_until=setup.visits.next_use,
        proposals=proposals,
    )
