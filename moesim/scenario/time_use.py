"""Where simulated time went, what limits it, and on which constants it rests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from moesim.costs.evidence import Term, Waited, charge_term
from moesim.engine import Figures
from moesim.policies.api import FETCH, LOW, STREAM, SUBSTITUTE
from moesim.replay.figures import Cause
from moesim.results import metrics
from moesim.results.result import Bottleneck, ConstantRow, EvidenceRow, Kind, TimeShare
from moesim.setup import Setup

Bools = NDArray[np.bool_]

#: What a stall is called in the breakdown, by cause.
STALLS = {
    Cause.PCIE: "stall: PCIe transfer",
    Cause.PCIE_QUEUE: "stall: PCIe queue",
    Cause.FLASH: "stall: flash read",
    Cause.FLASH_QUEUE: "stall: flash queue",
    Cause.ROOM: "stall: room in memory",
    Cause.CPU: "stall: CPU expert",
    Cause.CPU_QUEUE: "stall: CPU queue",
}
#: What limits a run, by the parts of the breakdown that speak for it.
LIMITS = {
    "GPU compute": ("GPU compute",),
    "GPU memory bandwidth": ("GPU memory",),
    "kernel launches": ("kernel launch",),
    "PCIe": (STALLS[Cause.PCIE], STALLS[Cause.PCIE_QUEUE], STALLS[Cause.ROOM]),
    "flash": (STALLS[Cause.FLASH], STALLS[Cause.FLASH_QUEUE]),
    "CPU": (STALLS[Cause.CPU], STALLS[Cause.CPU_QUEUE]),
}


class TimeUse:
    """The seconds of a run, of the GPU's work by what bounds it and of its waits by their cause."""

    def __init__(self, setup: Setup, outcome: Figures):
        self._setup, self._outcome = setup, outcome
        visits = setup.visits
        self._layers = visits.num_layers
        self._lookup_visit = np.repeat(np.arange(visits.num_visits), np.diff(visits.lookup_start))

    def breakdown(self, steps: Bools) -> list[TimeShare]:
        """Of some steps; the parts add up to their whole time. ``steps``: [steps]"""
        compute, memory, launch = self.gpu_seconds(steps)
        stalls = self._outcome.stall_s[np.repeat(steps, self._layers)].sum(axis=0)
        parts = {"GPU compute": compute, "GPU memory": memory, "kernel launch": launch}
        return metrics.time_shares(parts | {name: float(stalls[cause]) for cause, name in STALLS.items()})

    def gpu_seconds(self, steps: Bools) -> tuple[float, float, float]:
        """What the GPU computed in some steps, by what bounds it: arithmetic, memory, launches."""
        times, low = self._setup.times, self._setup.low
        ops = {"before": times.before, "shared": times.shared, "expert": times.expert, "after": times.after}
        if low is not None:
            ops["low"] = low.expert
        masks = self._counted(steps)
        parts = [(op, masks[place]) for place, op in ops.items()]
        sums = [[float(part[mask].sum()) for part in (op.compute_s, op.memory_s, op.launch_s)] for op, mask in parts]
        compute, memory, launch = (sum(column) for column in zip(*sums, strict=True))
        return compute, memory, launch

    def _counted(self, steps: Bools) -> dict[str, Bools]:
        """What the GPU computed in some steps, of the entries of each of the engine's times."""
        visits, action = np.repeat(steps, self._layers), self._outcome.action
        wanted = visits[self._lookup_visit]
        return {
            "before": visits,
            "shared": visits,
            "expert": wanted & np.isin(action, (FETCH, STREAM, SUBSTITUTE)),
            "low": wanted & (action == LOW),
            "after": steps,
        }

    def evidence(self, steps: Bools, waited: Sequence[Waited]) -> list[EvidenceRow]:
        """Seconds by the constants that they rest on, most first; a wait for a link by what a transfer is."""
        limits = self._waits(steps)
        charged = [*self._charged(steps), *((part.term, part.share * limits[part.limit]) for part in waited)]
        whole = sum(seconds for _, seconds in charged)
        return [
            EvidenceRow(
                term=term.name,
                seconds=seconds,
                share=seconds / whole,
                kind=term.kind,
                constants=[ConstantRow(**asdict(constant)) for constant in term.constants],
                extrapolated=list(term.extrapolated),
            )
            for term, seconds in sorted(charged, key=lambda pair: -pair[1])
            if seconds > 0
        ]

    def _charged(self, steps: Bools) -> Iterator[tuple[Term, float]]:
        """The GPU's work by operation; one that stands in several of the engine's times is put together."""
        masks, low = self._counted(steps), self._setup.low
        found: dict[str, tuple[Term, float]] = {}
        for charge in (*self._setup.times.charges, *(low.charges if low else ())):
            mask = masks[charge.place]
            for outside in (False, True):
                seconds = float(charge.seconds[mask & (charge.extrapolated == outside)].sum())
                if seconds > 0:
                    term = charge_term(charge, outside)
                    found[term.name] = (term, found.get(term.name, (term, 0.0))[1] + seconds)
        yield from found.values()

    def _waits(self, steps: Bools) -> dict[str, float]:
        """Seconds by the limit that was waited for."""
        stalls = self._outcome.stall_s[np.repeat(steps, self._layers)].sum(axis=0)
        return {
            limit: sum(float(stalls[cause]) for cause, name in STALLS.items() if name in names)
            for limit, names in LIMITS.items()
        }


def limit_shares(parts: list[TimeShare]) -> dict[str, float]:
    """The share of the time that speaks for each limit."""
    share = {part.name: part.share for part in parts}
    return {limit: sum(share.get(name, 0.0) for name in names) for limit, names in LIMITS.items()}


def bottleneck_of(parts: list[TimeShare]) -> Bottleneck:
    """The limit with the largest share of the time."""
    limits = limit_shares(parts)
    worst = max(limits, key=lambda limit: limits[limit])
    return Bottleneck(bound_by=worst, share=limits[worst], what_if=None)


def kind_shares(evidence: list[EvidenceRow]) -> dict[Kind, float]:
    """The share of the time that rests on each kind of constant."""
    return {row.kind: sum(other.share for other in evidence if other.kind == row.kind) for row in evidence}


def extrapolations(evidence: list[EvidenceRow]) -> list[str]:
    """What a reader must know where prices lie outside of what their constants were fitted to."""
    outside = [row for row in evidence if row.extrapolated]
    if not outside:
        return []
    told = "; ".join(f"{row.term.partition(',')[0]}: {', '.join(row.extrapolated)}" for row in outside)
    share = sum(row.share for row in outside)
    return [f"extrapolated: {share:.1%} of the time is priced outside of what its constants were fitted to ({told})."]
