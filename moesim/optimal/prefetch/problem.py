"""Prefetching over one link as optima see it: sets of experts, the compute between them, and the transfers.

The GPU computes ``lead_s``, then set 0's ``compute_s``, then set 1's, and so on; a set's compute starts when all its
experts are there. The link carries one expert at a time, whole; an expert takes its slot when its transfer starts.
Everything is known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.caching.requests import Model, Requests, requests_of
from moesim.policies.api import STREAM
from moesim.setup import Setup

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TimedRequests:
    """A workload with times.

    Attributes:
        requests: the sets.
        compute_s: of each set, after its experts are there. [sets]
        fetch_s: seconds of each expert's transfer. [keys]
        slots: experts that the GPU holds.
        model: whether a whole set stands there together.
        lead_s: compute before the first set's experts are needed.
        link_from_s: no transfer starts before.
        warm: the GPU may hold anything at the start.
        arrival_s: from the end of a transfer until the expert is on the GPU.
        hold_s: of each set, while all its experts stand on the GPU; default: as long as it computes. [sets]
    """

    requests: Requests
    compute_s: Floats
    fetch_s: Floats
    slots: int
    model: Model = "together"
    lead_s: float = 0.0
    link_from_s: float = 0.0
    warm: bool = False
    arrival_s: float = 0.0
    hold_s: Floats | None = None

    @property
    def busy_s(self) -> float:
        """Seconds without any wait."""
        return self.lead_s + float(self.compute_s.sum())


def relaxed(setup: Setup) -> TimedRequests:
    """What any policy on a setup needs at least: its time is never below a bound on this one's.

    A visit needs its experts only when the last of them is computed, everything before may run while it comes. Slots
    are bytes over the smallest expert.
    """
    head_s, last_s, after_s = _parts(setup)
    return replace(_timed(setup, head_s, last_s + after_s, link_seconds(setup)), hold_s=last_s)


def relaxed_flash(setup: Setup) -> TimedRequests | None:
    """As :func:`relaxed`, for the drive below host memory: what neither memory holds is read. None without a drive."""
    if setup.host is None or setup.unified:
        return None
    on_link = relaxed(setup)
    overshoots = on_link.model == "overshoot"
    gpu_slots = max(on_link.slots, on_link.requests.largest_set + 1) if overshoots else on_link.slots
    return replace(
        on_link,
        model="bypass" if overshoots else on_link.model,
        fetch_s=np.asarray(setup.times.read_s, dtype=np.float64),
        slots=gpu_slots + setup.host.capacity_bytes // int(setup.sizes.min()),
        arrival_s=float(setup.times.copy_s.min()),
        warm=on_link.warm or getattr(setup.host.policy.module, "preload", None) is not None,
    )


def planned(setup: Setup, fetch_s: Floats) -> TimedRequests:
    """What a plan is made for: a visit's experts are needed when its router has spoken.

    Args:
        fetch_s: what the plan takes a transfer to last. [keys]
    """
    head_s = np.asarray(setup.times.before.total_s, dtype=np.float64)
    return _timed(setup, head_s, visit_seconds(setup) - head_s, fetch_s)


def model_of(setup: Setup) -> Model:
    """Which capacity model bounds every policy on a setup."""
    largest = int(np.diff(setup.visits.lookup_start).max(initial=0)) * int(setup.sizes.max())
    if setup.rule == "evict_after":
        return "overshoot"
    keeps_all = STREAM not in setup.on_miss.actions
    return "together" if keeps_all and largest <= setup.gpu.capacity_bytes else "bypass"


def link_seconds(setup: Setup) -> Floats:
    """Of the last link that every expert takes to the GPU. [keys]"""
    return np.asarray(setup.times.read_s if setup.unified else setup.times.copy_s, dtype=np.float64)


def visit_seconds(setup: Setup) -> Floats:
    """What the GPU computes in each visit; a step's output head counts to its last visit. [visits]"""
    times, visits = setup.times, setup.visits
    experts = np.add.reduceat(np.append(times.expert.total_s, 0.0), visits.lookup_start[:-1])
    experts = np.where(np.diff(visits.lookup_start) > 0, experts, 0.0)
    seconds = np.asarray(times.before.total_s + times.shared.total_s + experts, dtype=np.float64)
    seconds[visits.num_layers - 1 :: visits.num_layers] += times.after.total_s
    return seconds


def _parts(setup: Setup) -> tuple[Floats, Floats, Floats]:
    """Of each visit: what may run before all its experts are there, the shortest expert, the output head. [visits]"""
    visits, whole_s = setup.visits, visit_seconds(setup)
    shortest = np.minimum.reduceat(np.append(setup.times.expert.total_s, 0.0), visits.lookup_start[:-1])
    last_s = np.where(np.diff(visits.lookup_start) > 0, shortest, 0.0)
    after_s = np.zeros(visits.num_visits)
    after_s[visits.num_layers - 1 :: visits.num_layers] = setup.times.after.total_s
    return np.maximum(whole_s - last_s - after_s, 0.0), last_s, after_s


def _timed(setup: Setup, head_s: Floats, tail_s: Floats, fetch_s: Floats) -> TimedRequests:
    requests = requests_of(setup.visits)
    return TimedRequests(
        requests=requests,
        compute_s=tail_s + np.append(head_s[1:], 0.0),
        fetch_s=fetch_s,
        slots=setup.gpu.capacity_bytes // int(setup.sizes.min()),
        model=model_of(setup),
        lead_s=float(head_s[0]),
        link_from_s=float(setup.times.before.total_s[0]),
        warm=bool(setup.gpu.pinned) or getattr(setup.gpu.policy.module, "preload", None) is not None,
    )
