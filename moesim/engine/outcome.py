"""What a run leaves behind: labels, seconds, counters and spans. Everything else is derived from it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.policies.api import CPU
from moesim.replay.figures import Cause, Moves, PrefetchCounts, Span

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
    def moves(self) -> dict[str, Moves]:
        """``transfers`` as columns."""
        return {name: _columns(spans) for name, spans in self.transfers.items()}

    @cached_property
    def stall_s(self) -> NDArray[np.float64]:
        """Seconds that the GPU waited, by cause. [visits, causes]"""
        stall = np.zeros((len(self.visit_start_s), len(Cause)))
        for wait in self.waits:
            stall[wait.visit, wait.cause] += wait.end_s - wait.start_s
        return stall


def _columns(spans: list[Span]) -> Moves:
    key, visit, is_demand, start_s, end_s, form, piece, pieces = zip(*spans, strict=True) if spans else ((),) * 8
    is_cut = any(count > 1 for count in pieces)
    return Moves(
        key=np.array(key, dtype=np.int64),
        visit=np.array(visit, dtype=np.int64),
        is_demand=np.array(is_demand, dtype=np.bool_),
        start_s=np.array(start_s, dtype=np.float64),
        end_s=np.array(end_s, dtype=np.float64),
        form=np.array(form, dtype=np.int64),
        piece=np.array(piece, dtype=np.int64) if is_cut else None,
        pieces=np.array(pieces, dtype=np.int64) if is_cut else None,
    )
