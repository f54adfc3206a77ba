"""A miss may run on the CPU instead: the least cost of fetches and CPU runs, for experts of equal size.

At each use j of an expert, r_j = 1 if it is on the GPU then, and k_j = 1 if it stays until its next use::

    min sum f (r_j - k_(j-1)) + sum c_j (1 - r_j)    s.t.  k_j <= r_j,  k_j <= r_(j+1)
        at each set s:  sum of r over its members + sum of k over intervals that span it  <=  C

Slots are units that move on a star (k servers), and the linear program was integral in every test; where it is not, the
integer program is solved. As in ``intervals``, each row is taken from the next. Where time is over before, the bound is
that of the lookups that have to miss, each at the cheaper of its costs, and the solution is Belady's MIN, in which what
does not stay runs where it is cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.caching.fewest import fewest
from moesim.optimal.caching.intervals import intervals_of
from moesim.optimal.caching.requests import Requests
from moesim.optimal.program import Program, Solution
from moesim.traces.visits import next_use

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_WHOLE = 1e-6
_NAME = "cost of fetches and CPU runs"


@dataclass(frozen=True)
class CpuOrFetch:
    """An answer, and for each lookup whether the expert is on the GPU; None where none was found in time. [lookups]"""

    answer: Answer
    on_gpu: Bools | None


def fetch_or_cpu(
    requests: Requests,
    fetch: Floats,
    cpu: Floats,
    slots: int,
    *,
    unit: str = "cost",
    time_limit_s: float | None = None,
) -> CpuOrFetch:
    """The least sum of costs.

    Args:
        fetch: of each expert. [keys]
        cpu: of running each lookup on the CPU. [lookups]
    """
    clock = Stopwatch(time_limit_s)
    solved = _proven(requests, fetch, cpu, slots, clock)
    if solved is None or solved.values is None:
        return _quick(requests, fetch, cpu, slots, unit, clock)
    found = solved.answer
    best = answer(_NAME, unit, value=found.value, bound=found.bound, solver=found.solver)
    return CpuOrFetch(clock.stamp(best), solved.values[: len(requests.key)] > 0.5)


def _quick(requests: Requests, fetch: Floats, cpu: Floats, slots: int, unit: str, clock: Stopwatch) -> CpuOrFetch:
    """Without a solver."""
    cheaper = np.minimum(fetch[requests.key], cpu)
    least = int(fewest(requests, slots, "bypass").sum())
    bound, value, on_gpu = float(np.sort(cheaper)[:least].sum()), None, None
    if requests.largest_set <= slots:
        missed = fewest(requests, slots)
        stays = ~np.append(missed, True)[next_use(requests.key)]
        value = float(np.where(stays, fetch[requests.key], cheaper)[missed].sum())
        on_gpu = ~missed | stays | (fetch[requests.key] <= cpu)
    found = answer(_NAME, unit, value=value, bound=bound, solver="Belady; bound: fewest misses")
    return CpuOrFetch(clock.stamp(found), on_gpu)


def _proven(requests: Requests, fetch: Floats, cpu: Floats, slots: int, clock: Stopwatch) -> Solution | None:
    """By the linear program, and the integer one where that is not whole; None where time is over."""
    if clock.left_s == 0:
        return None
    solved = _solve(requests, fetch, cpu, slots, clock, integer=False)
    if solved.values is not None and np.abs(solved.values - np.round(solved.values)).max(initial=0.0) > _WHOLE:
        linear = solved.answer
        solved = _solve(requests, fetch, cpu, slots, clock, integer=True)
        if linear.value is not None:
            solved = Solution(solved.answer.tightened(linear.value, "HiGHS, linear"), solved.values)
    return solved


def _solve(requests: Requests, fetch: Floats, cpu: Floats, slots: int, clock: Stopwatch, *, integer: bool) -> Solution:
    program, intervals = Program(_NAME, "cost"), intervals_of(requests, "together")
    program.add_constant(float(np.sum(cpu)))
    here = program.variables(fetch[requests.key] - cpu, high=1.0, integer=integer)
    stays = program.variables(-fetch[intervals.key], high=1.0, integer=integer)
    slack = program.variables(np.zeros(requests.num_sets))
    terms: list[list[tuple[int, float]]] = [[(spare, 1.0)] for spare in slack]
    for before, row in zip(slack, terms[1:], strict=False):
        row.append((before, -1.0))
    ends = zip(intervals.first.tolist(), intervals.second.tolist(), strict=True)
    for kept, (first, second), low, high in zip(
        stays, ends, intervals.low.tolist(), intervals.high.tolist(), strict=True
    ):
        program.row([(kept, 1.0), (here[first], -1.0)], "<=", 0.0)
        program.row([(kept, 1.0), (here[second], -1.0)], "<=", 0.0)
        if low < high:
            terms[low].append((kept, 1.0))
            terms[high].append((kept, -1.0))
    for number, (begin, end) in enumerate(pairwise(requests.start.tolist())):
        terms[number] += [(lookup, 1.0) for lookup in here[begin:end]]
        if number + 1 < requests.num_sets:
            terms[number + 1] += [(lookup, -1.0) for lookup in here[begin:end]]
    for number, row in enumerate(terms):
        program.row(row, "==", 0.0 if number else slots)
    return program.solve(time_limit_s=clock.left_s)
