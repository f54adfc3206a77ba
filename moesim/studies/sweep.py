"""Sweeps: a base scenario with any of its keys varied, on a grid, at random, or both.

Every combination of the grid meets every random draw, so that what the grid varies is compared on equal draws. Each
key draws from a stream of its own: another key in the file shifts none of the draws.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from moesim.documents import read_yaml, validate
from moesim.errors import ScenarioError
from moesim.results.saved import figures_of
from moesim.results.sweep import SweepResult, SweepRow
from moesim.scenario import load_scenario
from moesim.studies.execution import Executor
from moesim.studies.points import Ending, Progress, Task, faults_of, results_of, run_all
from moesim.studies.store import Failure
from moesim.version import __version__

MAX_POINTS = 1_000_000
_QUANTITY = re.compile(r"\s*([+-]?[\d._]+(?:[eE][+-]?\d+)?)\s*(\S.*)?$")
Values = Annotated[list[Any], Field(min_length=1)]


class Range(BaseModel):
    """What a random key draws from: ``choices``, or a range of numbers or quantities of one unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: Values | None = Field(None, description="each as likely")
    low: float | str | None = Field(None, description="a number, or a quantity such as 10 GB/s")
    high: float | str | None = Field(None, description="in the unit of low")
    log: bool = Field(False, description="draw the logarithm evenly")
    integer: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("needs either choices, or low and high")
        if self.choices is None:
            (low, unit), (high, other) = _quantity(self.low), _quantity(self.high)
            if unit != other:
                raise ValueError(f"low and high must have one unit (got {unit!r} and {other!r})")
            if not low < high or (self.log and low <= 0):
                raise ValueError("needs low < high, and low > 0 for log")
        return self

    def draw(self, random: np.random.Generator) -> Any:
        """One value."""
        if self.choices is not None:
            return self.choices[int(random.integers(len(self.choices)))]
        (low, unit), (high, _) = _quantity(self.low), _quantity(self.high)
        at = float(random.random())
        drawn = low * (high / low) ** at if self.log else low + (high - low) * at
        number: float | int = min(math.floor(low + (high - low + 1) * at), int(high)) if self.integer else drawn
        return f"{number:.6g} {unit}" if unit else number if self.integer else float(f"{number:.6g}")


class Sweep(BaseModel):
    """What ``moesim sweep`` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field("", description="what the sweep is to answer")
    scenario: str = Field(description="the base scenario, relative to this file")
    grid: dict[str, Values] = Field(default_factory=dict, description="key of the scenario -> its values")
    random: dict[str, Range] = Field(default_factory=dict, description="key of the scenario -> what it is drawn from")
    samples: Annotated[int, Field(ge=1, le=MAX_POINTS)] = Field(1, description="draws of the random keys")
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(0, description="of the random keys")

    @model_validator(mode="after")
    def _varies(self) -> Sweep:
        if not self.grid and not self.random:
            raise ValueError("varies nothing: it has neither grid nor random")
        if both := sorted(set(self.grid) & set(self.random)):
            raise ValueError(f"{both[0]!r} stands both in grid and in random")
        return self


def load_sweep(path: Path) -> tuple[Sweep, Path]:
    """A sweep file, and the path of its base scenario.

    Raises:
        FileError, ScenarioError: with every fault at once.
    """
    sweep = validate(read_yaml(path, ScenarioError), Sweep, ScenarioError)
    points = math.prod(len(values) for values in sweep.grid.values()) * (sweep.samples if sweep.random else 1)
    if points > MAX_POINTS:
        raise ScenarioError.of(str(path), f"asks for {points} runs, and {MAX_POINTS} is the most", "vary less at once")
    return sweep, path.parent / sweep.scenario


def points_of(sweep: Sweep) -> list[dict[str, Any]]:
    """The settings of every point: the grid's last key varies fastest, draws faster still."""
    draws = list(_draws(sweep)) or [{}]
    combinations = [dict(zip(sweep.grid, values, strict=True)) for values in product(*sweep.grid.values())]
    return [{**combination, **draw} for combination in combinations for draw in draws]


def run_sweep(
    sweep: Sweep,
    base: Path,
    store: Path,
    executor: Executor,
    *,
    retry: bool = False,
    allow_code: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> SweepResult:
    """Run every point that the store has not, and gather all of them, failures beside successes.

    Args:
        retry: run again what has failed before.
        allow_code: run policies that scenarios name as files.

    Raises:
        FileError, ScenarioError: the base scenario is wrong by itself.
    """
    scenario = load_scenario(base).scenario
    points = points_of(sweep)
    where = (base.resolve(), store.resolve())
    tasks = [
        Task(where[0], tuple(point.items()), where[1], name_of(point), retry=retry, allow_code=allow_code)
        for point in points
    ]
    endings = run_all(tasks, executor, progress)
    rows = list(_rows(points, tasks, endings))
    failed = sum(row.status == "failed" for row in rows)
    return SweepResult(
        moesim_version=__version__,
        question=sweep.question,
        sweep=sweep.model_dump(mode="json", exclude_defaults=True),
        base_scenario=scenario.model_dump(mode="json"),
        rows=rows,
        warnings=[f"{failed} of {len(rows)} points failed; their messages stand in their rows"] if failed else [],
    )


def name_of(point: dict[str, Any]) -> str:
    """A point in a few words."""
    return ", ".join(f"{key}={value}" for key, value in point.items())


def _rows(points: Sequence[dict[str, Any]], tasks: Sequence[Task], endings: Sequence[Ending]) -> Iterator[SweepRow]:
    for point, ending, found in zip(points, endings, results_of(tasks, endings), strict=True):
        if isinstance(found, Failure):
            message = " | ".join(str(fault).replace("\n", " ") for fault in faults_of(found))
            yield SweepRow(settings=point, status="failed", figures={}, message=message, key=ending.key)
        else:
            yield SweepRow(settings=point, status="ok", figures=figures_of(found), message="", key=ending.key)


def _draws(sweep: Sweep) -> Iterator[dict[str, Any]]:
    streams = {key: np.random.SeedSequence([sweep.seed, zlib.crc32(f"sweep {key}".encode())]) for key in sweep.random}
    generators = {key: np.random.default_rng(stream) for key, stream in streams.items()}
    for _ in range(sweep.samples if sweep.random else 0):
        yield {key: sweep.random[key].draw(generator) for key, generator in generators.items()}


def _quantity(value: float | str | None) -> tuple[float, str]:
    """A number and its unit ("" where it has none)."""
    match = _QUANTITY.match(value) if isinstance(value, str) else None
    if match is not None:
        return float(match[1]), match[2] or ""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value), ""
    raise ValueError(f"not a number or a quantity: {value!r}")
