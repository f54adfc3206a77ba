"""A miss may run on the CPU instead: the least cost of fetches and CPU runs, for experts of equal size.

At each use j of an expert, r_j = 1 if it is on the GPU then, and k_j = 1 if it stays until its next use::

    min sum f (r_j - k_(j-1)) + sum c_j (1 - r_j)    s.t.  k_j <= r_j,  k_j <= r_(j+1)
        at each set s:  sum of r over its members + sum of k over intervals that span it  <=  C

Slots are units that move on a star (k servers), and the linear program was integral in every test; where it is not, the
integer program is solved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch
from moesim.optimal.caching.intervals import intervals_of
from moesim.optimal.caching.requests import Requests
from moesim.optimal.program import Program, Solution

Floats = NDArray[np.float64]
_WHOLE = 1e-6


@dataclass(frozen=True)
class CpuOrFetch:
    """An answer, and for each lookup whether the expert is on the GPU; None where none was found in time. [lookups]"""

    answer: Answer
    on_gpu: NDArray[np.bool_] | None


def fetch_or_cpu(
    requests: Requests, fetch: Floats, cpu: Floats, slots: int, *, time_limit_s: float | None = None
) -> CpuOrFetch:
    """The least sum of costs.

    Args:
        fetch: of each expert. [keys]
        cpu: of running each lookup on the CPU. [lookups]
    """
    clock = Stopwatch(time_limit_s)
    solved = _solve(requests, fetch, cpu, slots, clock, integer=False)
    if solved.values is not None and np.abs(solved.values - np.round(solved.values)).max(initial=0.0) > _WHOLE:
        linear = solved.answer
        solved = _solve(requests, fetch, cpu, slots, clock, integer=True)
        if linear.value is not None:
            solved = Solution(solved.answer.tightened(linear.value, "HiGHS, linear"), solved.values)
    on_gpu = None if solved.values is None else solved.values[: len(requests.key)] > 0.5
    return CpuOrFetch(clock.stamp(solved.answer), on_gpu)


def _solve(requests: Requests, fetch: Floats, cpu: Floats, slots: int, clock: Stopwatch, *, integer: bool) -> Solution:
    program, intervals = Program("cost of fetches and CPU runs", "cost"), intervals_of(requests, "together")
    program.add_constant(float(np.sum(cpu)))
    here = program.variables(fetch[requests.key] - cpu, high=1.0, integer=integer)
    stays = program.variables(-fetch[intervals.key], high=1.0, integer=integer)
    spanning: list[list[int]] = [[] for _ in range(requests.num_sets)]
    ends = zip(intervals.first.tolist(), intervals.second.tolist(), strict=True)
    for kept, (first, second), low, high in zip(
        stays, ends, intervals.low.tolist(), intervals.high.tolist(), strict=True
    ):
        program.row([(kept, 1.0), (here[first], -1.0)], "<=", 0.0)
        program.row([(kept, 1.0), (here[second], -1.0)], "<=", 0.0)
        for point in range(low, high):
            spanning[point].append(kept)
    for number, (begin, end) in enumerate(zip(requests.start[:-1].tolist(), requests.start[1:].tolist(), strict=True)):
        program.sum_row([*here[begin:end], *spanning[number]], "<=", slots)
    return program.solve(time_limit_s=clock.left_s)
