"""``moesim optimum``: a scenario's own run, and the optimum of each problem beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moesim.errors import MoesimError
from moesim.results.optimum import Finding, OptimumResult, Problem
from moesim.results.result import write_text
from moesim.scenario.load import ScenarioFile
from moesim.setup import Schedule, save_schedule
from moesim.studies.optimum import caching, hybrid, placement, prefetch, tiers
from moesim.studies.optimum.found import Found, Solution, Subject, Wanted
from moesim.version import __version__

SOLVERS: dict[Problem, Callable[[Subject], Iterator[Found]]] = {
    "caching": caching.solve,
    "prefetch": prefetch.solve,
    "placement": placement.solve,
    "tiers": tiers.solve,
    "hybrid": hybrid.solve,
}
_ON_A_NODE: tuple[Problem, ...] = ("caching", "prefetch")
_ON_A_CLUSTER: tuple[Problem, ...] = ("placement",)


@dataclass(frozen=True)
class Optimum:
    """What was found, and the solutions that something replays."""

    result: OptimumResult
    solutions: list[Solution]

    def save(self, folder: Path) -> list[Path]:
        """Write the result and every solution; returns the paths."""
        write_text(folder / "optimum.json", self.result.to_json())
        for solution in self.solutions:
            if isinstance(solution.content, Schedule):
                save_schedule(solution.content, folder / solution.name)
            else:
                write_text(folder / solution.name, solution.content)
        return [folder / "optimum.json", *(folder / solution.name for solution in self.solutions)]


def optimum(
    file: ScenarioFile,
    problems: Sequence[Problem] = (),
    wanted: Wanted | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Optimum:
    """Run a scenario and solve problems for it.

    Args:
        problems: default: caching and prefetch on one node, placement on a cluster.

    Raises:
        MoesimError: the scenario is wrong, or a problem does not apply to it; says why.
    """
    scenario = file.scenario
    on_a_cluster = scenario.parallel is not None
    if scenario.serving is not None:
        told = "a serving scenario keeps every expert on its GPUs"
        raise MoesimError.of("serving", told, "a scenario with offloading, or with `parallel`")
    subject = Subject(file, wanted or Wanted())
    found: list[Found] = []
    for problem in problems or (_ON_A_CLUSTER if on_a_cluster else _ON_A_NODE):
        if (problem in _ON_A_CLUSTER) != on_a_cluster:
            kind = "several GPUs (`parallel`)" if on_a_cluster else "one node"
            other = ", ".join(_ON_A_CLUSTER if on_a_cluster else [p for p in SOLVERS if p not in _ON_A_CLUSTER])
            raise MoesimError.of("--problem", f"{problem} does not apply to a scenario of {kind}", other)
        progress(problem)
        found += SOLVERS[problem](subject)
    given = scenario.model_dump(mode="json")
    result = OptimumResult(
        moesim_version=__version__,
        question=scenario.question,
        scenario=given,
        scenario_sha256=hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest(),
        trace_sha256=subject.trace_sha256,
        findings=[_named(each) for each in found],
        warnings=[] if on_a_cluster else list(subject.run.result.warnings),
    )
    return Optimum(result, [each.solution for each in found if each.solution is not None])


def _named(found: Found) -> Finding:
    """The finding with the file that replays it."""
    if found.solution is None:
        return found.finding
    name = found.solution.name
    settings = {"saved_as": name, "replay_with": found.solution.settings.replace("FILE", name)}
    return found.finding.model_copy(update=settings)
