"""One arrow from a scenario to its Result."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.engine import Figures, figures_of
from moesim.results import Result
from moesim.results.saved import SavedResult
from moesim.scenario.build import Built, build
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parallel.run import run_parallel
from moesim.scenario.parallel.summary import summarise_parallel
from moesim.scenario.serving.build import build_serving
from moesim.scenario.serving.summary import run_serving
from moesim.scenario.summary import summarise


@dataclass(frozen=True)
class Run:
    """A run: what went in, what the quicker engine left behind, and the Result."""

    built: Built
    figures: Figures
    result: Result


def run_scenario(file: ScenarioFile) -> Run:
    """Build and simulate a scenario.

    Raises:
        ScenarioError: with every fault at once.
    """
    built = build(file)
    figures = figures_of(built.setup)
    return Run(built, figures, summarise(built, figures))


def result_of(file: ScenarioFile) -> SavedResult:
    """Build and simulate a scenario of any kind; its result alone.

    Raises:
        ScenarioError: with every fault at once.
    """
    if file.scenario.parallel is not None:
        return summarise_parallel(run_parallel(file))
    if file.scenario.serving is not None:
        return run_serving(build_serving(file))
    return run_scenario(file).result
