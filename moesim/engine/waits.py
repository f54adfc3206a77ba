"""What the GPU waited for, moment by moment: recovered from what it computed and what the links moved.

The GPU waits for the expert that arrives next. A wait ends when a transfer's last leg ends, on the GPU (which then
computes that expert at once) or on the CPU. What that expert was doing meanwhile is the wait's cause: its legs over
flash, PCIe and CPU, and between them the queue of the next leg (or room at its far end, which leaves no span).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter

from moesim.engine.links import Span
from moesim.engine.outcome import ComputeSpan
from moesim.engine.transfers import Cause

#: When, whether on the GPU, and which expert.
_Arrival = tuple[float, bool, int]
#: Of each link: the cause of a wait for a transfer that it serves, and for one in its queue.
_CAUSES = {
    "pcie": (Cause.PCIE, Cause.PCIE_QUEUE),
    "flash": (Cause.FLASH, Cause.FLASH_QUEUE),
    "cpu": (Cause.CPU, Cause.CPU_QUEUE),
}


@dataclass(frozen=True)
class Wait:
    """The GPU stood still in ``visit`` for the expert ``key``, because of ``cause``."""

    visit: int
    key: int
    cause: Cause
    start_s: float
    end_s: float


@dataclass(frozen=True)
class _Leg:
    link: str
    span: Span


def waits(compute: Sequence[ComputeSpan], transfers: Mapping[str, Sequence[Span]], unified: bool) -> Iterator[Wait]:
    """Every wait between two things that the GPU computed, in order of time; waits of one gap follow each other."""
    legs: defaultdict[int, list[_Leg]] = defaultdict(list)
    for link, spans in transfers.items():
        for span in spans:
            legs[span.key].append(_Leg(link, span))
    for of_key in legs.values():
        of_key.sort(key=lambda leg: leg.span.end_s)
    last_legs = ("flash" if unified else "pcie", "cpu")
    arrivals = sorted((span.end_s, link != "cpu", span.key) for link in last_legs for span in transfers.get(link, ()))
    for before, after in pairwise(compute):
        start_s = before.end_s
        if after.start_s > start_s:
            for end_s, key in _ends(arrivals, start_s, after):
                yield from _split(before.visit, key, start_s, end_s, legs[key])
                start_s = end_s


def _ends(arrivals: Sequence[_Arrival], start_s: float, after: ComputeSpan) -> Iterator[tuple[float, int]]:
    """When each wait of a gap ended, and for which expert: CPU experts inside it, and what ends it."""
    first, last = (bisect_right(arrivals, time, key=itemgetter(0)) for time in (start_s, after.start_s))
    for end_s, on_gpu, key in arrivals[first:last]:
        if not on_gpu or (end_s == after.start_s and key == after.key):
            yield end_s, key


def _split(visit: int, key: int, start_s: float, end_s: float, legs: Sequence[_Leg]) -> Iterator[Wait]:
    """A wait by cause: inside each leg the link itself, before it the link's queue."""
    first = bisect_right(legs, start_s, key=lambda leg: leg.span.end_s)
    for leg in legs[first:]:
        if leg.span.end_s > end_s:
            break
        served, queued = _CAUSES[leg.link]
        begin = max(start_s, leg.span.start_s)
        if begin > start_s:
            yield Wait(visit, key, queued, start_s, begin)
        yield Wait(visit, key, served, begin, leg.span.end_s)
        start_s = leg.span.end_s
