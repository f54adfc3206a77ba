"""The saved result of ``moesim optimum``: what is best, what is proven, and how far the scenario is from it."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moesim.results.result import SCHEMA_VERSION

Problem = Literal["caching", "prefetch", "placement", "tiers", "hybrid"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Finding(_Part):
    """One question and its answer; everything is minimised."""

    problem: Problem
    question: str
    rule: str = Field(description="what it holds for: a capacity rule, or the model of the machine")
    unit: str
    status: Literal["optimal", "feasible with gap", "bound only"]
    value: float | None = Field(description="of the best solution found")
    bound: float | None = Field(description="proven: no solution is below")
    gap: float | None = Field(description="(value - bound) / value")
    solver: str
    seconds: float = Field(description="wall clock")
    ours: float | None = Field(description="the scenario's own policy, in the same unit")
    ours_name: str | None
    figures: dict[str, float | str | None] = Field(description="what else the solutions have to show")
    saved_as: str | None = Field(None, description="the solution's file, which an engine replays")
    replay_with: str | None = Field(None, description="the setting that replays it")

    @property
    def ratio(self) -> tuple[float, float] | None:
        """How many times the least the scenario's own value is, at least and at most; None where that is unknown."""
        if self.ours is None or not self.bound or self.bound <= 0:
            return None
        return (self.ours / self.value if self.value else 1.0), self.ours / self.bound

    @property
    def verdict(self) -> str:
        """The comparison in a sentence, as in "lru: 1.38-1.41x the least"."""
        if self.ours is None or self.ours_name is None:
            return ""
        if self.ratio is None:
            return f"{self.ours_name}: {_number(self.ours)} {self.unit}"
        low, high = self.ratio
        if self.value is None:
            return f"{self.ours_name}: at most {high:.2f}x the least"
        times = f"{low:.2f}x" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}-{high:.2f}x"
        return f"{self.ours_name}: {times} the least"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


class OptimumResult(_Part):
    """Everything that was found for a scenario."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["optimum"] = "optimum"
    moesim_version: str
    question: str
    scenario: dict[str, Any]
    scenario_sha256: str
    trace_sha256: str
    findings: list[Finding]
    warnings: list[str]

    def to_json(self) -> str:
        """The bytes that are saved."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
