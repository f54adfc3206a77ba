"""A bound on the time in which the transfer that is under way takes its slot.

While a set runs, its experts stand on the GPU, those that are kept across it do, and either the link is busy, so that
one more slot belongs to what is coming, or it is idle for as long as the set runs. The time up to the last set is what
the link works and what it idles. So over intervals that are kept (x, as in ``caching.intervals``) and sets that leave
the link idle (j)::

    min  sum f (1 - x) + sum p_s j_s    s.t.  at each set s:  sum over s1 < s < s2 of x  <=  C - |set s| - 1 + j_s

and the last set's compute comes after. The columns' ones are consecutive, so it is integral and solved as a flow.
"""

from __future__ import annotations

import numpy as np

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.caching.intervals import CBC_FROM, intervals_of
from moesim.optimal.prefetch.problem import TimedRequests
from moesim.optimal.program import Program, Solver

#: With more lookups the program takes longer than anybody waits for a bound.
MAX_LOOKUPS = 100_000


def fits(problem: TimedRequests) -> bool:
    """Whether the program is small enough, and the rule is one that it covers."""
    return problem.model == "together" and not problem.warm and len(problem.requests.key) <= MAX_LOOKUPS


def slot_bound(problem: TimedRequests, *, time_limit_s: float | None = None) -> Answer:
    """A bound on the time from start to end; None where the solver did not finish."""
    clock = Stopwatch(time_limit_s)
    requests, intervals = problem.requests, intervals_of(problem.requests, "together")
    points, program = intervals.num_points, Program("time", "s")
    first_s, last_s = problem.link_from_s, problem.arrival_s + float(problem.compute_s[-1])
    program.add_constant(first_s + float(problem.fetch_s[requests.key].sum()) + last_s)
    program.variables(-problem.fetch_s[intervals.key], high=1.0)
    slack = program.variables(np.zeros(points))
    held_s = np.array(problem.compute_s if problem.hold_s is None else problem.hold_s)
    held_s[-1] = 0.0
    idle = program.variables(held_s, high=1.0)
    terms: list[list[tuple[int, float]]] = [[] for _ in range(points + 1)]
    for number, (low, high) in enumerate(zip(intervals.low.tolist(), intervals.high.tolist(), strict=True)):
        if low < high:
            terms[low].append((number, 1.0))
            terms[high].append((number, -1.0))
    room = problem.slots - np.diff(requests.start) - 1
    for point, change in enumerate(np.diff(room, prepend=0).tolist()):
        row = [*terms[point], (slack[point], 1.0), (idle[point], -1.0)]
        if point:
            row += [(slack[point - 1], -1.0), (idle[point - 1], 1.0)]
        program.row(row, "==", change)
    solver: Solver = "CBC" if len(intervals.first) >= CBC_FROM else "HiGHS"
    solved = program.solve(time_limit_s=clock.left_s, solver=solver).answer
    return answer("time", "s", value=None, bound=solved.value, solver=f"{solver}, slots", seconds=solved.seconds)
