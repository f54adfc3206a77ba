"""A run's decisions with other times: one link, demands only, nothing that depends on the clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moesim.replay.kernels.node import BY_ROOM, BY_TOP, BY_TOP_QUEUE, HIT


@dataclass(frozen=True)
class Decisions:
    """What was decided, whatever the clock says.

    Attributes:
        layers: MoE layers.
        lookup_start, lookup_key: each visit's lookups.
        label: HIT or MISS. [lookups]
        waits: which lookup's transfer needs room that another lookup of its visit gives once it is computed, in the
            order in which they need it. [waits, 2]
    """

    layers: int
    lookup_start: Any
    lookup_key: Any
    label: Any
    waits: Any


@dataclass(frozen=True)
class Seconds:
    """What everything takes; arrays as in ``Times``, ``to_gpu_s`` of the link to the GPU. [keys]"""

    before_s: Any
    shared_s: Any
    expert_s: Any
    after_s: Any
    to_gpu_s: Any


@dataclass(frozen=True)
class Timings:
    """What follows.

    Attributes:
        step_start_s, step_end_s, visit_end_s, stall_s: as in ``Record`` and ``Node``.
        span_s: start and end of each transfer. [misses, 2]
        done_s: when each lookup of the running visit was computed. [most lookups of a visit]
    """

    step_start_s: Any
    step_end_s: Any
    visit_end_s: Any
    stall_s: Any
    span_s: Any
    done_s: Any


def retime(decisions: Decisions, seconds: Seconds, timings: Timings) -> None:
    """Run every visit of every step."""
    now, misses, waits = 0.0, 0, 0
    for step in range(len(timings.step_start_s)):
        timings.step_start_s[step] = now
        for visit in range(step * decisions.layers, (step + 1) * decisions.layers):
            begin, end = decisions.lookup_start[visit], decisions.lookup_start[visit + 1]
            asked = now + seconds.before_s[visit]
            now, free, missing = asked + seconds.shared_s[visit], asked, False
            for lookup in range(begin, end):
                if decisions.label[lookup] == HIT:
                    now += seconds.expert_s[lookup]
                    timings.done_s[lookup - begin] = now
                else:
                    missing = True
            for lookup in range(begin, end if missing else begin):
                if decisions.label[lookup] == HIT:
                    continue
                start = free
                while waits < len(decisions.waits) and decisions.waits[waits, 0] == lookup:
                    start = max(start, timings.done_s[decisions.waits[waits, 1] - begin])
                    waits += 1
                there = start + seconds.to_gpu_s[decisions.lookup_key[lookup]]
                timings.span_s[misses, 0], timings.span_s[misses, 1] = start, there
                misses += 1
                if now < there:
                    _charge(timings, visit, BY_TOP_QUEUE, max(asked, now), free)
                    _charge(timings, visit, BY_ROOM, max(free, now), start)
                    _charge(timings, visit, BY_TOP, max(start, now), there)
                    now = there
                now += seconds.expert_s[lookup]
                timings.done_s[lookup - begin] = now
                free = there
            timings.visit_end_s[visit] = now
        now += seconds.after_s[step]
        timings.step_end_s[step] = now


def _charge(timings: Timings, visit: int, cause: int, begin: float, until: float) -> None:
    """The GPU waited, for a cause."""
    if begin < until:
        timings.stall_s[visit, cause] += until - begin
