"""One arrow from a scenario to its Result."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.engine import Outcome, simulate
from moesim.results import Result
from moesim.scenario.build import Built, build
from moesim.scenario.load import ScenarioFile
from moesim.scenario.summary import summarise


@dataclass(frozen=True)
class Run:
    """A run: what went in, what the engine left behind, and the Result."""

    built: Built
    outcome: Outcome
    result: Result


def run_scenario(file: ScenarioFile) -> Run:
    """Build and simulate a scenario.

    Raises:
        ScenarioError: with every fault at once.
    """
    built = build(file)
    outcome = simulate(built.setup)
    return Run(built, outcome, summarise(built, outcome))


def result_of(file: ScenarioFile) -> Result:
    """Build and simulate a scenario; its Result alone.

    Raises:
        ScenarioError: with every fault at once.
    """
    return run_scenario(file).result
