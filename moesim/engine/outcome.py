"""What a run leaves behind: labels, seconds, counters and spans. Everything else is derived from it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.engine.links import Span
from moesim.engine.transfers import Cause
from moesim.policies.api import CPU

HIT, LATE, MISS = 0, 1, 2


class ComputeSpan(NamedTuple):
    """What the GPU computed, and when. ``key`` is -1 where it was not a routed expert."""

    visit: int
    what: str
    key: int
    start_s: float
    end_s: float


class Wait(NamedTuple):
    """The GPU stood still in ``visit``, for the expert ``key``, because of ``cause``."""

    visit: int
    key: int
    cause: Cause
    start_s: float
    end_s: float


@dataclass
class PrefetchCounts:
    """Proposals by what became of them.

    ``proposed = redundant + withdrawn + no_room + started`` and ``started = used + late + wasted``, once a run is over.

    Attributes:
        proposed: by the policy.
        redundant: already there or on its way when proposed.
        withdrawn: never started: its visit's router spoke first (and either dropped it or made it a demand).
        no_room: never started: nothing could leave for it, or the caching policy would not keep it.
        started: transfers to the GPU that began as prefetches.
        used: arrived before it was asked for, and was asked for while it stayed.
        late: asked for while it was under way.
        wasted: left, or was left over at the end, without ever being asked for.
    """

    proposed: int = 0
    redundant: int = 0
    withdrawn: int = 0
    no_room: int = 0
    started: int = 0
    used: int = 0
    late: int = 0
    wasted: int = 0


@dataclass(frozen=True)
class Outcome:
    """The record of a run.

    Attributes:
        step_start_s, step_end_s: [steps]
        visit_start_s, visit_end_s: [visits]
        label: HIT, LATE or MISS. [lookups]
        action: what became of it, FETCH standing for the GPU's plain work; see ``policies.api``. [lookups]
        evictions: experts that left the GPU.
        overshoot_bytes: the most that the GPU's cache held beyond its capacity (rule ``evict_after``).
        resident_share: share of all visits at whose end each key held space on the GPU, in full. [keys]
        resident_bytes: held on the GPU at the end of each visit. [visits]
        prefetch: what became of proposals.
        compute: what the GPU did, in order.
        waits: when the GPU did nothing, and what for, in order.
        transfers: what each link and the CPU did, by name, in order.
    """

    step_start_s: NDArray[np.float64]
    step_end_s: NDArray[np.float64]
    visit_start_s: NDArray[np.float64]
    visit_end_s: NDArray[np.float64]
    label: NDArray[np.uint8]
    action: NDArray[np.uint8]
    evictions: int
    overshoot_bytes: int
    resident_share: NDArray[np.float64]
    resident_bytes: NDArray[np.int64]
    prefetch: PrefetchCounts
    compute: list[ComputeSpan]
    waits: list[Wait]
    transfers: dict[str, list[Span]]

    @cached_property
    def on_cpu(self) -> NDArray[np.bool_]:
        """Whether the lookup was computed on the CPU. [lookups]"""
        return np.asarray(self.action == CPU)

    @cached_property
    def stall_s(self) -> NDArray[np.float64]:
        """Seconds that the GPU waited, by cause. [visits, causes]"""
        stall = np.zeros((len(self.visit_start_s), len(Cause)))
        for wait in self.waits:
            stall[wait.visit, wait.cause] += wait.end_s - wait.start_s
        return stall
