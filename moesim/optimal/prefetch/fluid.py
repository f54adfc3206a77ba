"""A bound on the stall by a linear program in which transfers may be cut and experts be there in part.

Periods are the stall before each set, of length sigma_s, and its compute, of length p_s. With a_is and b_is the share
of expert i that is there at their ends::

    min sum sigma    s.t.  u_is >= a_is - b_i(s-1),   f sum u_is <= sigma_s      (fetched while the GPU waits)
                           v_is >= b_is - a_is,       f sum v_is <= p_s          (fetched while it computes)
                           sum a_is <= C,  sum b_is <= C,  a_is = b_is = 1 for the members of set s

(b only where a set stands on the GPU for all of its compute).
For one disk and unit requests it is integral (Albers, Garg and Leonardi, JACM 47(6), 2000); for sets it is a bound. It
grows with experts x sets, so it is for small workloads only.
"""

from __future__ import annotations

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.prefetch.problem import TimedRequests
from moesim.optimal.program import Program

#: With more variables no solver finished in reasonable time.
MAX_VARIABLES = 50_000


def fits(problem: TimedRequests) -> bool:
    """Whether the program is small enough, and the rule is one that it covers."""
    variables = 4 * problem.requests.num_keys * problem.requests.num_sets
    return problem.model == "together" and not problem.warm and variables <= MAX_VARIABLES


def fluid_bound(problem: TimedRequests, *, time_limit_s: float | None = None) -> Answer:
    """A bound on the time from start to end; None where the solver did not finish."""
    clock = Stopwatch(time_limit_s)
    program, sets, keys = Program("time", "s"), problem.requests.sets, range(problem.requests.num_keys)
    program.add_constant(problem.busy_s)
    stalls = program.variables([1.0] * len(sets))
    fetch_s = problem.fetch_s.tolist()
    before: range | None = None
    for number, members in enumerate(sets):
        needed = [1.0 if key in set(members) else 0.0 for key in keys]
        stays = needed if problem.hold_s is None else 0.0
        ready, done, waiting, computing = (
            program.variables([0.0] * len(keys), low=low, high=high)
            for low, high in ((needed, 1.0), (stays, 1.0), (0.0, None), (0.0, None))
        )
        for key in keys:
            earlier = [] if before is None else [(before[key], 1.0)]
            program.row([(waiting[key], 1.0), (ready[key], -1.0), *earlier], ">=", 0.0)
            program.row([(computing[key], 1.0), (done[key], -1.0), (ready[key], 1.0)], ">=", 0.0)
        free_s = max(0.0, problem.lead_s - problem.link_from_s) if number == 0 else 0.0
        program.row([*zip(waiting, fetch_s, strict=True), (stalls[number], -1.0)], "<=", free_s)
        program.row(zip(computing, fetch_s, strict=True), "<=", float(problem.compute_s[number]))
        program.sum_row(ready, "<=", problem.slots)
        program.sum_row(done, "<=", problem.slots)
        before = done
    solved = program.solve(time_limit_s=clock.left_s).answer
    return answer("time", "s", value=None, bound=solved.value, solver="HiGHS, fluid", seconds=solved.seconds)
