"""The fewest fetches, replayed, beside those of the scenario's own policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.engine import Figures, figures_of
from moesim.errors import MoesimError
from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.caching.cpu import fetch_or_cpu
from moesim.optimal.caching.fewest import fewest, fewest_by_layer
from moesim.optimal.caching.intervals import sized
from moesim.optimal.caching.requests import requests_of
from moesim.optimal.caching.split import best_split
from moesim.optimal.prefetch.problem import link_seconds, model_of, visit_seconds
from moesim.optimal.prefetch.schedules import as_kept, fewest_bytes, with_host
from moesim.policies.api import CPU, FETCH, STREAM
from moesim.setup import Schedule, Setup
from moesim.setup.schedule import with_schedule
from moesim.studies.optimum.found import Found, Subject, finding, scheduled

RULES = {
    "together": "reserve: a visit's experts stand on the GPU together; whatever is fetched early or late",
    "bypass": "what is kept between visits fits; visits stream through, or run in waves",
    "overshoot": "evict_after: what is kept between visits fits, or is the visit's own experts",
}


def solve(subject: Subject) -> Iterator[Found]:
    """Fewest fetches; by layer where the scenario splits its cache; with the CPU where misses may run there."""
    setup, outcome = subject.run.built.setup, subject.run.figures
    trace_sha256, time_limit_s = subject.trace_sha256, subject.wanted.time_limit_s
    if not np.isin(outcome.action, (FETCH, STREAM, CPU)).all():
        told = f"{setup.on_miss.name!r} changes what is computed, and the optimum is for the model as it is"
        raise MoesimError.of("policies.on_miss", told, "--set policies.on_miss=fetch")
    if not (setup.sizes == setup.sizes[0]).all():
        yield _fewest_bytes(setup, outcome, trace_sha256, time_limit_s)
    elif np.isin(outcome.action, (FETCH, STREAM)).all():
        yield _fewest(setup, outcome, trace_sha256)
        if setup.gpu.per_layer:
            yield _by_layer(setup, outcome)
    else:
        yield _with_cpu(setup, outcome, time_limit_s)


def to_gpu(setup: Setup, outcome: Figures) -> int:
    """Experts that were brought to the GPU."""
    return len(brought("flash" if setup.unified else "pcie", outcome))


def brought(link: str, outcome: Figures) -> NDArray[np.int64]:
    """Keys in the order in which a link brought them. [transfers]"""
    moves = outcome.moves[link]
    return moves.key[moves.is_last]


def stall_s(setup: Setup, outcome: Figures) -> float:
    """Seconds from start to end in which the GPU waited."""
    return float(outcome.step_end_s[-1]) - float(visit_seconds(setup).sum())


def _fewest(setup: Setup, outcome: Figures, trace_sha256: str) -> Found:
    clock, model = Stopwatch(), model_of(setup)
    slots = setup.gpu.capacity_bytes // int(setup.sizes[0])
    is_warm = getattr(setup.gpu.policy.module, "preload", None) is not None
    least = float(fewest(requests_of(setup.visits), slots, model, warm=is_warm).sum())
    schedule, replayed = replay(setup, fewest_bytes(setup, trace_sha256))
    fetched = float(to_gpu(setup, replayed))
    found = answer("fetches", "fetches", value=fetched, bound=least, solver="intervals by their ends (exact)")
    figures: dict[str, float | str | None] = {
        "bytes fetched": fetched * float(setup.sizes[0]),
        "bytes fetched by the scenario's policy": float(to_gpu(setup, outcome)) * float(setup.sizes[0]),
        "stall when replayed (s)": stall_s(setup, replayed),
        "stall of the scenario's policy (s)": stall_s(setup, outcome),
        "slots": float(slots),
    }
    question = "the fewest experts brought to a GPU cache of this size"
    told = finding(
        "caching",
        question + (", which may hold anything at the start" if is_warm else ", from a cold start"),
        RULES[model],
        clock.stamp(found),
        ours=float(to_gpu(setup, outcome)),
        ours_name=setup.gpu.policy.name,
        figures=figures,
    )
    return Found(told, scheduled("fewest-fetches.npz", schedule))


def _fewest_bytes(setup: Setup, outcome: Figures, trace_sha256: str, time_limit_s: float) -> Found:
    """Experts of mixed sizes: the fewest bytes."""
    requests, sizes, model = requests_of(setup.visits), setup.sizes, model_of(setup)
    solved = sized(
        requests, sizes, sizes.astype(np.float64), setup.gpu.capacity_bytes, model, time_limit_s=time_limit_s
    )
    schedule, replayed = replay(setup, as_kept(setup, trace_sha256, solved.kept))
    moved, ours = (float(_bytes_to_gpu(setup, each)) for each in (replayed, outcome))
    best = answer("bytes", "bytes", value=moved, bound=solved.answer.bound, solver=solved.answer.solver)
    figures: dict[str, float | str | None] = {
        "fetches": float(to_gpu(setup, replayed)),
        "stall when replayed (s)": stall_s(setup, replayed),
        "stall of the scenario's policy (s)": stall_s(setup, outcome),
    }
    told = finding(
        "caching",
        "the fewest bytes brought to a GPU cache of this size, for experts of mixed sizes, from a cold start",
        RULES[model],
        replace(best, seconds=solved.answer.seconds),
        ours=ours,
        ours_name=setup.gpu.policy.name,
        figures=figures,
    )
    return Found(told, scheduled("fewest-fetches.npz", schedule))


def replay(setup: Setup, schedule: Schedule) -> tuple[Schedule, Figures]:
    """What the engine makes of a schedule, and the schedule with its plan for host memory, where a drive lies below.

    Without prefetching the same experts go up whatever host memory holds, so what went up once is what it plans for.
    """
    replayed = figures_of(with_schedule(setup, schedule))
    if setup.host is None or setup.unified:
        return schedule, replayed
    schedule = with_host(setup, schedule, brought("pcie", replayed))
    return schedule, figures_of(with_schedule(setup, schedule))


def _bytes_to_gpu(setup: Setup, outcome: Figures) -> int:
    moves = outcome.moves["flash" if setup.unified else "pcie"]
    return int(moves.bytes_of(setup.sizes[moves.key]).sum())


def _by_layer(setup: Setup, outcome: Figures) -> Found:
    """The cache split by layer: the least with equal shares, and with the best ones."""
    clock, visits, size = Stopwatch(), setup.visits, int(setup.sizes[0])
    requests, slots = requests_of(visits), setup.gpu.capacity_bytes // size
    share = slots // visits.num_layers
    model = model_of(setup)
    if model == "together" and share < requests.largest_set:
        model = "bypass"  # the visits of some layers run in waves
    equal = sum(fewest_by_layer(requests, visits.num_layers, [share] * visits.num_layers, model))
    split = best_split(requests, visits.num_layers, slots, model)
    figures: dict[str, float | str | None] = {
        "fewest with equal shares": float(equal),
        "slots of each layer": " ".join(map(str, split.slots)),
    }
    best = split.answer
    if model == "bypass":  # a bound: no policy of the engine lets a visit stream through
        best = answer(best.problem, best.unit, value=None, bound=best.bound, solver=best.solver)
    told = finding(
        "caching",
        "the fewest experts brought to caches of their own for each layer, with the best split of the slots",
        RULES[model],
        clock.stamp(best),
        ours=float(to_gpu(setup, outcome)),
        ours_name=f"{setup.gpu.policy.name} with the scenario's split",
        figures=figures,
    )
    return Found(told)


def _with_cpu(setup: Setup, outcome: Figures, time_limit_s: float) -> Found:
    """A miss may run on the CPU: the least seconds of link and CPU together."""
    fetch_s, cpu_s = link_seconds(setup), np.asarray(setup.times.cpu_s, dtype=np.float64)
    slots = setup.gpu.capacity_bytes // int(setup.sizes[0])
    solved: Answer = fetch_or_cpu(
        requests_of(setup.visits), fetch_s, cpu_s, slots, unit="s", time_limit_s=time_limit_s
    ).answer
    ours = fetch_s[0] * to_gpu(setup, outcome) + float(cpu_s[outcome.action == CPU].sum())
    figures: dict[str, float | str | None] = {"experts run on the CPU": float((outcome.action == CPU).sum())}
    told = finding(
        "caching",
        "the least seconds of transfers and CPU experts together, when a miss may be fetched or run on the CPU",
        "reserve: what is on the GPU stands there together; reads from flash are left out",
        solved,
        ours=ours,
        ours_name=f"{setup.gpu.policy.name} with {setup.on_miss.name}",
        figures=figures,
    )
    return Found(told)
