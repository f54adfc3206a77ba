"""The least stall with perfect prefetching and caching, from both sides; its plan replayed by the engine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moesim.engine import Figures, figures_of
from moesim.errors import MoesimError
from moesim.optimal.answer import Stopwatch, answer
from moesim.optimal.caching.fewest import fewest
from moesim.optimal.prefetch.bracket import sharpened
from moesim.optimal.prefetch.phases import phased_bound_s
from moesim.optimal.prefetch.plan import aggressive
from moesim.optimal.prefetch.problem import TimedRequests, link_seconds, planned, relaxed, relaxed_flash
from moesim.optimal.prefetch.schedules import fewest_bytes, least_stall, through_host, with_host
from moesim.policies.api import FETCH, STREAM
from moesim.setup import Schedule, Setup
from moesim.setup.schedule import with_schedule
from moesim.studies.optimum.caching import brought, replay, stall_s, to_gpu
from moesim.studies.optimum.found import Found, Subject, finding, scheduled

RULE = "one transfer at a time on each link; space is taken when a transfer starts; the future is known"
#: Plans with a drive below host memory: how many experts are read before they go up, and how often a plan is adapted to
#: what went up when it was replayed.
READ_AHEAD, ROUNDS = (8, 32), 3


def solve(subject: Subject) -> Iterator[Found]:
    """The bracket on the stall of the whole run, warm-up included."""
    run = subject.run
    setup, outcome = run.built.setup, run.figures
    if not np.isin(outcome.action, (FETCH, STREAM)).all():
        message = f"{setup.on_miss.name!r} does not compute every miss on the GPU in full, and the bound is for that"
        raise MoesimError.of("policies.on_miss", message, "--set policies.on_miss=fetch, or --problem hybrid")
    clock = Stopwatch(subject.wanted.time_limit_s)
    tries = Stopwatch(subject.wanted.time_limit_s / 2)
    schedule, replayed = min(_replays(setup, subject.trace_sha256, tries), key=lambda found: found[1].step_end_s[-1])
    bound_s, proof = _bound(setup, float(replayed.step_end_s[-1]), clock)
    busy_s = relaxed(setup).busy_s
    solver = f"{schedule.purpose}, replayed; bound: {proof}"
    if is_own := bool(outcome.step_end_s[-1] < replayed.step_end_s[-1]):
        replayed, solver = outcome, f"the scenario itself is the best known; bound: {proof}"
    best = answer("stall", "s", value=stall_s(setup, replayed), bound=max(0.0, bound_s - busy_s), solver=solver)
    figures: dict[str, float | str | None] = {
        "GPU's own work (s)": busy_s,
        "time, best found (s)": float(replayed.step_end_s[-1]),
        "time, bound (s)": bound_s,
        "time of the scenario's policy (s)": float(outcome.step_end_s[-1]),
        "fetches, best found": float(to_gpu(setup, replayed)),
        "fetches of the scenario's policy": float(to_gpu(setup, outcome)),
        **_of_the_drive(setup, outcome, replayed),
    }
    told = finding(
        "prefetch",
        "the least time that the GPU waits, with perfect caching and prefetching, warm-up included",
        RULE,
        clock.stamp(best),
        ours=stall_s(setup, outcome),
        ours_name=f"{setup.gpu.policy.name} + {run.built.parts.policies['prefetch'].name}",
        figures=figures,
    )
    yield Found(told, None if is_own else scheduled("least-stall.npz", schedule))


def _replays(setup: Setup, trace_sha256: str, clock: Stopwatch) -> Iterator[tuple[Schedule, Figures]]:
    """Schedules and what the engine makes of them, while there is time: without prefetching, then plans."""
    yield replay(setup, fewest_bytes(setup, trace_sha256))
    if setup.host is None or setup.unified:
        schedule = least_stall(setup, trace_sha256, aggressive(planned(setup, link_seconds(setup))))
        yield schedule, figures_of(with_schedule(setup, schedule))
        return
    for ahead in READ_AHEAD:
        plan = through_host(setup, ahead)
        schedule, went_up = least_stall(setup, trace_sha256, plan), plan.key
        for _ in range(ROUNDS):
            if clock.left_s == 0:
                return
            schedule = with_host(setup, schedule, went_up)
            replayed = figures_of(with_schedule(setup, schedule))
            yield schedule, replayed
            went_up = brought("pcie", replayed)


def _of_the_drive(setup: Setup, ours: Figures, best: Figures) -> dict[str, float | str | None]:
    """What was read below host memory, which no figure above it shows; and how far the bound on it sees."""
    problem = relaxed_flash(setup)
    if problem is None:
        return {}
    least = int(fewest(problem.requests, problem.slots, problem.model, warm=problem.warm).sum())
    return {
        "reads from flash, best found": float(len(brought("flash", best))),
        "reads from flash, bound": float(least),
        "reads from flash of the scenario's policy": float(len(brought("flash", ours))),
        "the bound": "takes GPU and host memory for one cache, and both links for free of each other within a phase",
    }


def _bound(setup: Setup, best_s: float, clock: Stopwatch) -> tuple[float, str]:
    """The highest bound on the time from start to end, and what proves it."""
    on_link, on_flash = relaxed(setup), relaxed_flash(setup)
    problems: list[TimedRequests] = [on_link] if on_flash is None else [on_link, on_flash]
    phased_s = phased_bound_s(problems, clock)
    first = answer("time", "s", value=best_s, bound=phased_s, solver="phases")
    found = [sharpened(first, problem, clock) for problem in problems]
    best = max(found, key=lambda each: each.bound or 0.0)
    assert best.bound is not None
    return best.bound, best.solver.rpartition("bound: ")[2]
