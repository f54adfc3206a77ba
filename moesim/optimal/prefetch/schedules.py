"""Plans as schedules that the engine replays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.caching.fewest import fewest
from moesim.optimal.caching.requests import singles
from moesim.optimal.prefetch.plan import Drive, Plan, aggressive
from moesim.optimal.prefetch.problem import link_seconds, planned
from moesim.policies.api import Candidates
from moesim.setup import Schedule, Setup
from moesim.setup.schedule import HostPlan, digest_of, no_proposals

Ints = NDArray[np.int64]


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
    order = np.argsort(visit, kind="stable")
    ahead = order[plan.target[order] > visit[order]]
    start = np.searchsorted(visit[ahead], np.arange(setup.visits.num_visits + 1))
    proposals = Candidates(start.astype(np.int64), plan.key[ahead], plan.target[ahead])
    return _schedule(setup, trace_sha256, "least stall", proposals)


def through_host(setup: Setup, ahead: int) -> Plan:
    """A plan over both links, with a drive below host memory: what goes up decides what is read, and when.

    Host memory keeps what goes up again soonest (Belady's MIN on what goes up), so the plan is made twice: the first
    time every expert is read once.
    """
    assert setup.host is not None
    problem, read_s = planned(setup, link_seconds(setup)), np.asarray(setup.times.read_s)
    slots = setup.host.capacity_bytes // int(setup.sizes.max()) - ahead
    reads: list[list[bool]] = [[] for _ in range(setup.visits.num_keys)]
    for _ in range(2):
        plan = aggressive(problem, Drive(read_s, reads, ahead, problem.link_from_s))
        missed = fewest(singles(plan.key, setup.visits.num_keys), max(slots, 1))
        reads = [[] for _ in range(setup.visits.num_keys)]
        for key, is_read in zip(plan.key.tolist(), missed.tolist(), strict=True):
            reads[key].append(is_read)
    return plan


def with_host(setup: Setup, schedule: Schedule, went_up: Ints) -> Schedule:
    """The schedule with a plan for host memory, if a drive lies below it: whoever goes up again last leaves first.

    Args:
        went_up: keys in the order in which they went up to the GPU. [transfers]
    """
    if setup.host is None or setup.unified:
        return schedule
    order = np.argsort(went_up, kind="stable")
    start = np.searchsorted(went_up[order], np.arange(setup.visits.num_keys + 1))
    plan = HostPlan(setup.host.capacity_bytes, start.astype(np.int64), order.astype(np.int64))
    return replace(schedule, host=plan)


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
