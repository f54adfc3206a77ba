"""Where simulated time went, what limits it, and on which constants it rests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from moesim.costs.evidence import Term
from moesim.costs.roofline import OpTime
from moesim.engine import Outcome
from moesim.engine.transfers import Cause
from moesim.hardware import Node
from moesim.policies.api import FETCH, LOW, STREAM, SUBSTITUTE
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

    def __init__(self, setup: Setup, outcome: Outcome):
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
        times, visits = self._setup.times, np.repeat(steps, self._layers)
        wanted, action = visits[self._lookup_visit], self._outcome.action
        parts: list[tuple[OpTime, Bools]] = [
            (times.before, visits),
            (times.shared, visits),
            (times.expert, wanted & np.isin(action, (FETCH, STREAM, SUBSTITUTE))),
            (times.after, steps),
        ]
        if (low := self._setup.low) is not None:
            parts.append((low.expert, wanted & (action == LOW)))
        sums = [[float(part[mask].sum()) for part in (op.compute_s, op.memory_s, op.launch_s)] for op, mask in parts]
        compute, memory, launch = (sum(column) for column in zip(*sums, strict=True))
        return compute, memory, launch

    def evidence(self, steps: Bools, node: Node, terms: Mapping[str, Term]) -> list[EvidenceRow]:
        """Seconds by the constants that they rest on, most first; a wait for a link by what a transfer is."""
        shares = sorted(metrics.time_shares(self._by_term(steps, node)), key=lambda share: -share.seconds)
        return [
            EvidenceRow(
                term=share.name,
                seconds=share.seconds,
                share=share.share,
                kind=terms[share.name].kind,
                constants=[ConstantRow(**asdict(constant)) for constant in terms[share.name].constants],
            )
            for share in shares
        ]

    def _by_term(self, steps: Bools, node: Node) -> dict[str, float]:
        compute, memory, launch = self.gpu_seconds(steps)
        stalls = self._outcome.stall_s[np.repeat(steps, self._layers)].sum(axis=0)
        waits = {limit: sum(stalls[c] for c, name in STALLS.items() if name in LIMITS[limit]) for limit in LIMITS}
        times = self._setup.times
        copy_latency = node.link.latency.value / float(times.copy_s.mean())
        read_latency = node.storage.read_latency.value / float(times.read_s.mean()) if node.storage else 0.0
        return {
            "GPU compute": compute,
            "GPU memory": memory,
            "kernel launch": launch,
            "PCIe bandwidth": float(waits["PCIe"] * (1 - copy_latency)),
            "PCIe latency": float(waits["PCIe"] * copy_latency),
            "flash bandwidth": float(waits["flash"] * (1 - read_latency)),
            "flash latency": float(waits["flash"] * read_latency),
            "CPU": float(waits["CPU"]),
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
