"""One expert on its way up the tiers, and what a wait for it is really a wait for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from moesim.replay.figures import Cause

if TYPE_CHECKING:
    from moesim.engine.links import Link


class Transfer:
    """An expert that was asked for by the visit that runs (a demand) or ahead of it (a prefetch).

    Attributes:
        key, form: the expert, and in which form it comes (``setup.FULL``, …).
        visit: the visit that wants it.
        lookup: the lookup that waits for it; -1 while it is a prefetch.
        on_cpu: it is computed on the CPU, so it comes up to host memory only.
        cancelled: no longer wanted; whoever takes it from a queue lets it go.
        queued_on, place: the link in whose queue it stands, and its number there.
        piece, pieces: the piece that is next, and how many there are on the link on which it has begun (0: on none).
        arrives_s: when the transfer (or piece) under way ends; None while it waits.
        reaching_gpu: the transfer under way ends in GPU memory.
    """

    __slots__ = (
        "arrives_s",
        "cancelled",
        "form",
        "is_demand",
        "key",
        "lookup",
        "on_cpu",
        "phases",
        "piece",
        "pieces",
        "place",
        "queued_on",
        "reaching_gpu",
        "visit",
    )

    def __init__(self, key: int, visit: int, lookup: int, on_cpu: bool = False, form: int = 0):
        self.key = key
        self.form = form
        self.visit = visit
        self.lookup = lookup
        self.is_demand = lookup >= 0
        self.on_cpu = on_cpu
        self.cancelled = False
        self.queued_on: Link | None = None
        self.place = -1
        self.piece = self.pieces = 0
        self.arrives_s: float | None = None
        self.reaching_gpu = False
        self.phases: list[tuple[float, Cause]] = []

    def waits_for(self, cause: Cause, now: float) -> None:
        """From ``now`` on a wait for this expert is a wait for ``cause``."""
        if not self.phases or self.phases[-1][1] != cause:
            self.phases.append((now, cause))

    def split(self, start_s: float, end_s: float) -> Iterator[tuple[Cause, float, float]]:
        """A wait for this expert from ``start_s`` to ``end_s``, as (cause, start, end), in order."""
        ends = [time for time, _ in self.phases[1:]] + [end_s]
        for (begin, cause), end in zip(self.phases, ends, strict=True):
            begin, end = max(begin, start_s), min(end, end_s)
            if begin < end:
                yield cause, begin, end
