"""The frozen input of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.costs.node_times import Times
from moesim.policies.api import Candidates, Policy
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
Rule = Literal["reserve", "evict_after"]
LinkDiscipline = Literal["fifo", "demand-first"]


@dataclass(frozen=True)
class TierSetup:
    """A tier that holds experts: how many bytes of them, under which policy, split by layer or not."""

    policy: Policy
    capacity_bytes: int
    per_layer: bool = False
    training_uses: Ints | None = None


@dataclass(frozen=True)
class Setup:
    """One offloading node with a workload.

    Attributes:
        visits: the workload.
        times: what everything costs.
        sizes: bytes of each expert. [keys]
        gpu: the GPU's expert cache.
        host: the host's expert cache in front of flash; None: host memory holds every expert.
        unified: GPU and host share one memory, so that experts come from flash straight into ``gpu``.
        rule: the capacity rule of the GPU's cache.
        link: in which order transfers leave a link's queue.
        candidates: what to prefetch, by visit.
        on_miss: what becomes of a missing expert.
        warmup_steps: steps at the start that run but are not counted.
    """

    visits: Visits
    times: Times
    sizes: Ints
    gpu: TierSetup
    host: TierSetup | None
    unified: bool
    rule: Rule
    link: LinkDiscipline
    candidates: Candidates
    on_miss: Policy
    warmup_steps: int = 0
