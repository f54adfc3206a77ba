"""Each visit's experts over CPU, GPU and link: the least time, beside published rules and the scenario's own run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from moesim.engine import Figures
from moesim.engine.outcome import MISS
from moesim.errors import MoesimError
from moesim.optimal.answer import Stopwatch, answer
from moesim.optimal.hybrid import RULES, Layer, least_makespan, makespan_s
from moesim.policies.api import CPU, FETCH, STREAM
from moesim.setup import Setup
from moesim.studies.optimum.found import Found, Subject, finding

#: That each visit's integer program may leave.
GAP = 1e-3
RULE = "after each router, with what was then on the GPU in the scenario's run; reads from flash are left out, for all"


def solve(subject: Subject) -> Iterator[Found]:
    """Sums over all visits."""
    setup, outcome = subject.run.built.setup, subject.run.figures
    if setup.unified:
        message = f"{subject.run.built.parts.node.gpu.name} shares one memory with its CPU"
        raise MoesimError.of("hardware", message, "a machine with a GPU of its own memory")
    if not np.isin(outcome.action, (FETCH, STREAM, CPU)).all():
        message = f"{setup.on_miss.name!r} changes what is computed, and the optimum is for the model as it is"
        raise MoesimError.of("policies.on_miss", message, "--set policies.on_miss=fetch")
    clock, layers = Stopwatch(subject.wanted.time_limit_s), list(layers_of(setup, outcome))
    alike = {layer.key: layer for layer in layers}
    times = Counter(layer.key for layer in layers)
    best_s, bound_s, by_rule = 0.0, 0.0, dict.fromkeys(RULES, 0.0)
    for number, (key, layer) in enumerate(alike.items()):
        share_s = (clock.left_s or 0.0) / (len(alike) - number)
        found = least_makespan(layer, time_limit_s=share_s, gap=GAP).answer
        best_s += times[key] * (found.value or 0.0)
        bound_s += times[key] * (found.bound or 0.0)
        for name, rule in RULES.items():
            by_rule[name] += times[key] * makespan_s(layer, *rule(layer))
    visits_s = outcome.visit_end_s - outcome.visit_start_s - setup.times.before.total_s
    best = answer("makespan", "s", value=best_s, bound=bound_s, solver="counting, all subsets, HiGHS to 0.1 %")
    parts = zip(layers, np.split(outcome.action == CPU, setup.visits.lookup_start[1:-1]), strict=True)
    ours_s = sum(makespan_s(layer, on_cpu) for layer, on_cpu in parts)
    figures: dict[str, float | str | None] = {"in the engine, with queues and flash (s)": float(visits_s.sum())}
    for name, seconds in by_rule.items():
        figures[f"{name} (s)"] = seconds
        figures[f"{name}, over the least"] = f"{seconds / best_s:.3f}x" if best_s else None
    figures["different visits"] = float(len(alike))
    told = finding(
        "hybrid",
        "the least seconds from each router to its visit's end, experts divided between CPU and GPU at will",
        RULE,
        clock.stamp(best),
        ours=ours_s,
        ours_name=f"{setup.on_miss.name}'s division",
        figures=figures,
    )
    yield Found(told)


def layers_of(setup: Setup, outcome: Figures) -> Iterator[Layer]:
    """What each visit has to compute, given what its router found on the GPU."""
    visits, times = setup.visits, setup.times
    cpu_s, gpu_s = np.asarray(times.cpu_s), np.asarray(times.expert.total_s)
    move_s = np.where(outcome.label == MISS, times.copy_s[visits.lookup_key], 0.0)
    shared_s = times.shared.total_s.tolist()
    for visit, first_s in enumerate(shared_s):
        part = slice(int(visits.lookup_start[visit]), int(visits.lookup_start[visit + 1]))
        yield Layer(cpu_s[part], gpu_s[part], move_s[part], visits.lookup_tokens[part], first_s)
