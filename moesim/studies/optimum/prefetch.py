"""The least stall with perfect prefetching and caching, from both sides; its plan replayed by the engine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moesim.engine import Figures, figures_of
from moesim.errors import MoesimError
from moesim.optimal.answer import Stopwatch, answer
from moesim.optimal.prefetch.bracket import sharpened
from moesim.optimal.prefetch.plan import aggressive
from moesim.optimal.prefetch.prefix import prefix_bound_s
from moesim.optimal.prefetch.problem import TimedRequests, link_seconds, planned, relaxed, relaxed_flash
from moesim.optimal.prefetch.schedules import fewest_bytes, least_stall
from moesim.policies.api import FETCH, STREAM
from moesim.setup import Schedule, Setup
from moesim.setup.schedule import with_schedule
from moesim.studies.optimum.caching import stall_s, to_gpu
from moesim.studies.optimum.found import Found, Subject, finding, scheduled

RULE = "one transfer at a time on each link; space is taken when a transfer starts; the future is known"


def solve(subject: Subject) -> Iterator[Found]:
    """The bracket on the stall of the whole run, warm-up included."""
    run = subject.run
    setup, outcome = run.built.setup, run.figures
    if not np.isin(outcome.action, (FETCH, STREAM)).all():
        message = f"{setup.on_miss.name!r} does not compute every miss on the GPU in full, and the bound is for that"
        raise MoesimError.of("policies.on_miss", message, "--set policies.on_miss=fetch, or --problem hybrid")
    clock = Stopwatch(subject.wanted.time_limit_s)
    schedule, replayed = _best_replay(setup, subject.trace_sha256)
    bound_s, proof = _bound(setup, float(replayed.step_end_s[-1]), clock)
    busy_s = relaxed(setup).busy_s
    if outcome.step_end_s[-1] < replayed.step_end_s[-1]:  # the scenario's own policy is the best solution known
        schedule, replayed = None, outcome
    solver = f"{'aggressive plan' if schedule else 'the scenario itself'}, replayed; bound: {proof}"
    best = answer("stall", "s", value=stall_s(setup, replayed), bound=max(0.0, bound_s - busy_s), solver=solver)
    figures: dict[str, float | str | None] = {
        "GPU's own work (s)": busy_s,
        "time, best found (s)": float(replayed.step_end_s[-1]),
        "time, bound (s)": bound_s,
        "time of the scenario's policy (s)": float(outcome.step_end_s[-1]),
        "fetches, best found": float(to_gpu(setup, replayed)),
        "fetches of the scenario's policy": float(to_gpu(setup, outcome)),
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
    yield Found(told, None if schedule is None else scheduled("least-stall.npz", schedule))


def _best_replay(setup: Setup, trace_sha256: str) -> tuple[Schedule | None, Figures]:
    """The schedule that the engine runs quickest: plans for different speeds of the way up, and no prefetching."""
    schedules = [fewest_bytes(setup, trace_sha256)]
    schedules += [least_stall(setup, trace_sha256, aggressive(planned(setup, seconds))) for seconds in _ways_up(setup)]
    runs = [figures_of(with_schedule(setup, schedule)) for schedule in schedules]
    best = min(range(len(runs)), key=lambda number: (runs[number].step_end_s[-1], number))
    return schedules[best], runs[best]


def _ways_up(setup: Setup) -> list[NDArray[np.float64]]:
    """What a plan may take a transfer to last; with flash below host memory it depends on where the expert is."""
    seconds = link_seconds(setup)
    return [seconds] if setup.host is None or setup.unified else [seconds, np.asarray(setup.times.read_s)]


def _bound(setup: Setup, best_s: float, clock: Stopwatch) -> tuple[float, str]:
    """The highest bound on the time from start to end, and what proves it."""
    on_link, on_flash = relaxed(setup), relaxed_flash(setup)
    problems: list[TimedRequests] = [on_link] if on_flash is None else [on_link, on_flash]
    found = []
    for problem in problems:
        first = answer("time", "s", value=best_s, bound=prefix_bound_s(problem), solver="prefix")
        found.append(sharpened(first, problem, clock))
    best = max(found, key=lambda each: each.bound or 0.0)
    assert best.bound is not None
    return best.bound, best.solver.rpartition("bound: ")[2]
