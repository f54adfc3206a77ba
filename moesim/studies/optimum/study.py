"""``moesim optimum``: a scenario's own run, and the optimum of each problem beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moesim.results.optimum import OptimumResult, Problem
from moesim.results.result import write_text
from moesim.scenario.load import ScenarioFile
from moesim.scenario.run import Run, run_scenario
from moesim.setup import Schedule, save_schedule
from moesim.studies.optimum import caching, prefetch
from moesim.studies.optimum.found import Found
from moesim.version import __version__

#: How the file of a solution is called, and what replays it.
_SCHEDULES = {
    "caching": ("fewest-fetches.npz", "policies: {caching: scheduled, prefetch: none, schedule: FILE}"),
    "prefetch": ("least-stall.npz", "policies: {caching: scheduled, prefetch: none, schedule: FILE}"),
}
_SOLVERS: dict[Problem, Callable[[Run, str, float], Iterator[Found]]] = {
    "caching": caching.solve,
    "prefetch": prefetch.solve,
}


@dataclass(frozen=True)
class Optimum:
    """What was found, and the files of its solutions by name."""

    result: OptimumResult
    files: dict[str, Schedule | str]

    def save(self, folder: Path) -> list[Path]:
        """Write the result and every solution; returns the paths."""
        write_text(folder / "optimum.json", self.result.to_json())
        for name, file in self.files.items():
            if isinstance(file, Schedule):
                save_schedule(file, folder / name)
            else:
                write_text(folder / name, file)
        return [folder / name for name in ("optimum.json", *self.files)]


def optimum(
    file: ScenarioFile,
    problems: Sequence[Problem] = ("caching", "prefetch"),
    *,
    time_limit_s: float = 60.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Optimum:
    """Run a scenario and solve problems for it.

    Args:
        time_limit_s: wall clock for each problem's solver; the best answer by then is reported with its gap.

    Raises:
        MoesimError: the scenario is wrong, or a problem does not apply to it; says why.
    """
    run = run_scenario(file)
    trace_sha256 = run.built.parts.source.sha256
    findings, files = [], {}
    for problem in problems:
        progress(problem)
        for found in _SOLVERS[problem](run, trace_sha256, time_limit_s):
            told = found.finding
            if found.file is not None:
                name, setting = _SCHEDULES[problem]
                files[name] = found.file
                told = told.model_copy(update={"saved_as": name, "replay_with": setting.replace("FILE", name)})
            findings.append(told)
    result = OptimumResult(
        moesim_version=__version__,
        question=run.result.question,
        scenario=run.result.scenario,
        scenario_sha256=run.result.scenario_sha256,
        trace_sha256=trace_sha256,
        findings=findings,
        warnings=list(run.result.warnings),
    )
    return Optimum(result, files)
