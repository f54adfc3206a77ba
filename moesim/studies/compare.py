"""Policies side by side: the same workload under each policy, at each cache size, on each trace and machine.

A comparison is a base scenario and what is varied. Every combination is a run of its own (in parallel, and never
repeated once it is in the store); the ranking says where two policies can't be told apart. Where the base scenario runs
on a cluster, what is compared are systems: placements, exchanges, overlaps (``cluster_ranking``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from moesim.documents import read_yaml, validate
from moesim.errors import Fault, MoesimError, ScenarioError
from moesim.results import Result
from moesim.results.parallel import ParallelResult
from moesim.scenario import load_scenario
from moesim.scenario.build import build
from moesim.scenario.parallel.build import build_parallel
from moesim.studies.execution import Executor, Processes
from moesim.studies.points import Progress, Task, faults_of, overrides_of, results_of, run_all
from moesim.studies.store import Failure

MAX_RUNS = 10_000
Ran = TypeVar("Ran", Result, ParallelResult)


class Comparison(BaseModel):
    """What ``moesim compare`` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field("", description="what the comparison is to answer; the report opens with it")
    scenario: str | dict[str, Any] = Field(description="the base scenario: a file, relative to this one, or itself")
    policies: Annotated[
        dict[str, dict[str, Any]],
        Field(min_length=1, description="label -> what it sets below `policies`; keys with a dot count from the top"),
    ]
    gpu_experts: Annotated[list[str], Field(min_length=1, description="cache sizes, as in [2 GiB, 4 GiB]")] = ["auto"]
    traces: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="label -> settings by dotted key, as in {trace.file: ..., model: ...}"
    )
    machines: dict[str, dict[str, Any]] = Field(default_factory=dict, description="label -> settings by dotted key")
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    expect: dict[str, Any] = Field(
        default_factory=dict, description="what was reported, to hold the comparison against; no run reads it"
    )


@dataclass(frozen=True)
class Point:
    """One combination: its labels, and the settings that make it out of the base scenario."""

    policy: str
    gpu_experts: str
    trace: str
    machine: str
    seed: int
    settings: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """For progress and errors."""
        parts = (self.policy, self.gpu_experts, self.trace, self.machine, f"seed {self.seed}")
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class ComparedRun(Generic[Ran]):
    """A point and its result."""

    point: Point
    result: Ran


def load_comparison(path: Path) -> tuple[Comparison, Path]:
    """A comparison file, and the path of its base scenario (its own, where that stands inside).

    Raises:
        FileError, ScenarioError: with every fault at once.
    """
    comparison = validate(read_yaml(path, ScenarioError), Comparison, ScenarioError)
    if (runs := len(points_of(comparison))) > MAX_RUNS:
        raise ScenarioError.of(str(path), f"asks for {runs} runs, and {MAX_RUNS} is the most", "vary less at once")
    return comparison, path if isinstance(comparison.scenario, dict) else path.parent / comparison.scenario


def points_of(comparison: Comparison) -> list[Point]:
    """Every combination, policies innermost."""
    traces: Mapping[str, dict[str, Any]] = comparison.traces or {"": {}}
    machines: Mapping[str, dict[str, Any]] = comparison.machines or {"": {}}
    points = []
    for trace, machine, size, seed, policy in product(
        traces, machines, comparison.gpu_experts, comparison.seeds, comparison.policies
    ):
        wanted = comparison.policies[policy].items()
        policies = {key if "." in key else f"policies.{key}": value for key, value in wanted}
        settings = {**traces[trace], **machines[machine], "memory.gpu_experts": size, **policies, "seed": seed}
        points.append(Point(policy, size, trace, machine, seed, tuple(settings.items())))
    return points


def checked(base: Path, points: Sequence[Point]) -> int:
    """Build every point without running any; how many there are.

    Raises:
        ScenarioError: what is wrong with any of them.
    """
    faults = []
    for point in points:
        try:
            file = load_scenario(base, overrides_of(point.settings), code="read")
            build(file) if file.scenario.parallel is None else build_parallel(file)
        except MoesimError as error:
            faults += [Fault(f"{point.name}: {fault.place}", fault.message, fault.hint) for fault in error.faults]
    if faults:
        raise ScenarioError(faults)
    return len(points)


def compare(
    base: Path,
    points: Sequence[Point],
    store: Path,
    *,
    executor: Executor | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    allow_code: bool = False,
) -> list[ComparedRun[Result]] | list[ComparedRun[ParallelResult]]:
    """Run every point that is not in the store, and gather all results in the order of ``points``.

    Args:
        executor: default: a process for each core.
        allow_code: run policies that are named as files.

    Raises:
        ScenarioError: points that can't run, all at once; the others are in the store by then.
    """
    tasks = [
        Task(base.resolve(), point.settings, store.resolve(), point.name, allow_code=allow_code) for point in points
    ]
    endings = run_all(tasks, executor or Processes(), progress)
    on_one: list[ComparedRun[Result]] = []
    on_clusters: list[ComparedRun[ParallelResult]] = []
    faults: list[Fault] = []
    for point, found in zip(points, results_of(tasks, endings), strict=True):
        if isinstance(found, Failure):
            told = [Fault(f"{point.name}: {fault.place}", fault.message, fault.hint) for fault in faults_of(found)]
            faults.extend(told)
        elif isinstance(found, Result):
            on_one.append(ComparedRun(point, found))
        elif isinstance(found, ParallelResult):
            on_clusters.append(ComparedRun(point, found))
        else:
            faults.append(Fault(point.name, "serves requests, and comparisons don't", "moesim sweep"))
    if on_one and on_clusters:
        faults.append(Fault("", "some runs are on clusters and some are not", "`parallel` in the base scenario"))
    if faults:
        raise ScenarioError(sorted(set(faults), key=lambda fault: fault.place))
    return on_clusters or on_one
