"""The counting replay on compiled kernels: the same counts as ``counts`` interprets, some thirty times faster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moesim.policies.api import CacheContext, Policy
from moesim.replay import compile as compiler
from moesim.replay.compile import run
from moesim.replay.kernels.uses import Uses
from moesim.replay.packed import check_fault, pack
from moesim.traces.visits import Visits

#: A kernel is called for so many steps at a time, so that progress can be shown.
BLOCK_STEPS = 4096


def replay(
    visits: Visits,
    policy: Policy,
    contexts: list[CacheContext],
    rule: str,
    progress: Callable[[int], None],
) -> tuple[NDArray[np.bool_], int]:
    """Whether each lookup was a hit, and the most that was held beyond the capacity.

    Args:
        contexts: of one cache for all layers, or of one for each.

    Raises:
        PolicyError: the policy can't be compiled, or breaks its contract.
    """
    caches = pack(policy, contexts)
    lookups = len(visits.activation_key if rule == "sequential" else visits.lookup_key)
    uses = Uses(
        layers=visits.num_layers,
        starts_request=visits.starts_request,
        start=visits.activation_start,
        key=visits.activation_key,
        note=notes_array(visits, policy),
        lookup_start=visits.lookup_start,
        lookup_key=visits.lookup_key,
        hit=np.zeros(lookups, dtype=np.bool_),
    )
    overshoot = 0
    for first in range(0, visits.steps.num_steps, BLOCK_STEPS):
        stop = min(first + BLOCK_STEPS, visits.steps.num_steps)
        if rule == "sequential":
            run(policy, "sequential", caches, uses, first, stop)
        else:
            over = run(policy, "by_visit", caches, uses, first, stop, rule == "evict_after")
            overshoot = max(overshoot, over)
        check_fault(policy, caches)
        progress(stop * visits.num_layers)
    return uses.hit, overshoot


def is_at_hand(policy: Policy) -> bool:
    """Whether this process has the policy's kernels already."""
    return compiler.is_compiled(policy)


def notes_array(visits: Visits, policy: Policy) -> NDArray[np.float64]:
    """The ``note`` of every activation; empty where the policy takes none."""
    if policy.note == "next_use":
        return visits.next_use.astype(np.float64)
    if policy.note == "schedule":
        return visits.scheduled.astype(np.float64)
    return visits.activation_weight if policy.note == "weight" else np.zeros(0)
