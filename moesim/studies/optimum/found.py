"""What a problem's module is given, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moesim.optimal.answer import Answer
from moesim.results.optimum import Finding, Problem
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parallel.build import BuiltParallel, build_parallel
from moesim.scenario.run import Run, run_scenario
from moesim.setup import Schedule


@dataclass(frozen=True)
class Wanted:
    """What the user asks beside the scenario.

    Attributes:
        time_limit_s: wall clock for each problem's solver.
        quality: the uniform precision whose error tiers may not exceed.
        errors: a table of each expert's error in each precision; None: a rule of thumb.
    """

    time_limit_s: float = 60.0
    quality: str = "int4"
    errors: Path | None = None


class Subject:
    """A scenario, run once, when a problem needs it."""

    def __init__(self, file: ScenarioFile, wanted: Wanted):
        self.file, self.wanted = file, wanted

    @cached_property
    def run(self) -> Run:
        """The scenario's own run on one offloading node."""
        return run_scenario(self.file)

    @cached_property
    def parallel(self) -> BuiltParallel:
        """The scenario on several GPUs, built."""
        return build_parallel(self.file)

    @property
    def trace_sha256(self) -> str:
        """Of the trace as its file has it."""
        on_a_cluster = self.file.scenario.parallel is not None
        return self.parallel.parts.source.sha256 if on_a_cluster else self.run.built.parts.source.sha256


@dataclass(frozen=True)
class Solution:
    """What replays a finding: a schedule or a text, the name of its file, and the settings (FILE stands for it)."""

    name: str
    content: Schedule | str
    settings: str


@dataclass(frozen=True)
class Found:
    """A finding, and its solution where something replays it."""

    finding: Finding
    solution: Solution | None = None


def finding(
    problem: Problem,
    question: str,
    rule: str,
    answer: Answer,
    *,
    ours: float | None = None,
    ours_name: str | None = None,
    figures: dict[str, float | str | None] | None = None,
) -> Finding:
    """An answer as it is saved."""
    return Finding(
        problem=problem,
        question=question,
        rule=rule,
        unit=answer.unit,
        status=answer.status,
        value=answer.value,
        bound=answer.bound,
        gap=answer.gap,
        solver=answer.solver,
        seconds=answer.seconds,
        ours=ours,
        ours_name=ours_name,
        figures=figures or {},
    )


def scheduled(name: str, schedule: Schedule) -> Solution:
    """A schedule as both engines replay it."""
    return Solution(name, schedule, "policies: {caching: scheduled, prefetch: none, schedule: FILE}")
