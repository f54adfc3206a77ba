"""The least stall with perfect prefetching and caching, from both sides: bounds from below, a plan from above."""

from __future__ import annotations

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.prefetch import fluid, slots
from moesim.optimal.prefetch.plan import Plan, aggressive
from moesim.optimal.prefetch.prefix import prefix_bound_s
from moesim.optimal.prefetch.problem import TimedRequests


def bracket(problem: TimedRequests, *, time_limit_s: float | None = None, sharp: bool = True) -> tuple[Answer, Plan]:
    """Bound and plan; the answer is the time from start to end in seconds.

    Args:
        sharp: solve the linear programs as well, where they fit and the first bound leaves a gap.
    """
    clock = Stopwatch(time_limit_s)
    plan = aggressive(problem)
    in_waves = problem.requests.largest_set > problem.slots
    value_s = None if in_waves else plan.end_s
    found = answer("time", "s", value=value_s, bound=prefix_bound_s(problem), solver="aggressive; bound: prefix")
    if sharp:
        found = sharpened(found, problem, clock)
    return clock.stamp(found), plan


def sharpened(found: Answer, problem: TimedRequests, clock: Stopwatch) -> Answer:
    """The answer with the bounds of the linear programs, one after the other until it is optimal or time is over."""
    for covers, bound in ((slots.fits, slots.slot_bound), (fluid.fits, fluid.fluid_bound)):
        if found.status != "optimal" and covers(problem) and (clock.left_s is None or clock.left_s > 0):
            sharper = bound(problem, time_limit_s=clock.left_s)
            if sharper.bound is not None:
                found = found.tightened(sharper.bound, sharper.solver)
    return found
