"""The saved result of a capacity plan: candidates, the answer, and how sure it is. Money in USD, energy in joule."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moesim.results.result import SCHEMA_VERSION, Kind, load_versioned


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figures(_Part):
    """What a simulated deployment does under a load."""

    good_share: float = Field(description="of the requests, within the limits")
    met: bool = Field(description="as many as the SLO asks for, and no queue that grows for good")
    saturated: bool
    ttft_p99_s: float | None
    tpot_p99_s: float | None
    latency_mean_s: float
    output_tokens_per_s: float
    joule_per_output_token: float | None = Field(
        description="of GPUs at their power limit while busy; of a machine that offloads, all of it"
    )
    kv_most_share: float | None
    busy_share: float | None
    bound_by: str
    bound_by_share: float
    key: str = Field(description="of the whole result in the store")


class CandidateRow(_Part):
    """A configuration with so many replicas under one load: simulated, or cut by a bound."""

    load: str
    options: dict[str, str]
    replicas: int
    gpus: int
    usd: float = Field(description="to buy, all machines")
    usd_per_hour: float = Field(description="rent, purchase written off, and the power of what is bought")
    cut: str = Field(description="why it was not simulated; empty where it was")
    figures: Figures | None


class Sensitivity(_Part):
    """The recommended deployment with one thing changed."""

    change: str
    met: bool
    good_share: float
    ttft_p99_s: float | None
    tpot_p99_s: float | None
    latency_mean_s: float
    usd_per_hour: float
    cheaper_instead: str = Field(description="what would then be the cheapest of the simulated ones, where another is")


class PartShare(_Part):
    """A part of the steps' time, and how well it is known."""

    part: str
    kind: Kind
    share: float


class Upgrade(_Part):
    """One choice changed from its first option, everything else as it is."""

    choice: str
    option: str
    usd: float
    faster: float = Field(description="mean latency as it is over that with the upgrade")
    met: bool


class Recommendation(_Part):
    """The answer for one load."""

    load: str
    found: bool = Field(description="whether anything keeps to the limits; else this is the nearest")
    proven: bool = Field(description="no cheaper candidate of the plan does, by simulation or bound")
    candidate: CandidateRow
    runner_up: CandidateRow | None
    safe: CandidateRow | None = Field(
        description="the cheapest simulated one that keeps to the limits at the long end of its own error bar, too"
    )
    holds_load: float | None = Field(description="times its load that it still carries within the limits, as tried")
    binds: list[str] = Field(description="what limits it, in words")
    first: list[Upgrade] = Field(description="of a desktop: single upgrades, the best for its price first")
    pareto: list[int] = Field(description="places in `candidates` that no other one beats in cost, latency and energy")
    sensitivity: list[Sensitivity]
    evidence_shares: dict[Kind, float]
    error_bar: float = Field(description="of step times, from the evidence shares: relative")
    measure_first: list[PartShare] = Field(description="what the error bar rests on most")


class MixRow(_Part):
    """Machines of one kind for one load, in a mix."""

    load: str
    options: dict[str, str]
    replicas: int
    share: float = Field(description="of the load")
    capacity_per_replica: float = Field(description="times the load's rate that one carries within the limits")
    met: bool = Field(description="simulated with its share")


class Mix(_Part):
    """Machine types mixed over the loads: the cheapest cover, simulated again."""

    rows: list[MixRow]
    usd_per_hour: float
    alone_usd_per_hour: float | None = Field(description="of the best deployment of each load by itself")
    status: Literal["optimal", "feasible with gap", "bound only"]
    met: bool


class CapacityResult(_Part):
    """Everything that a plan found."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["capacity"] = "capacity"
    moesim_version: str
    question: str
    plan: dict[str, Any]
    base_scenario: dict[str, Any]
    configurations: int
    simulated: int
    cut: int
    candidates: list[CandidateRow]
    recommendations: list[Recommendation]
    mix: Mix | None
    prices: list[str] = Field(description="where each price comes from")
    labels: list[str] = Field(description="of the routing: synthetic, stand-in")
    warnings: list[str]

    def to_json(self) -> str:
        """The bytes that are saved."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """One line for each candidate."""
        text = io.StringIO()
        choices = list(dict.fromkeys(choice for row in self.candidates for choice in row.options))
        figures = list(Figures.model_fields)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["load", *choices, "replicas", "gpus", "usd", "usd_per_hour", "cut", *figures])
        for row in self.candidates:
            values = row.figures.model_dump() if row.figures else {}
            options = [row.options.get(choice, "") for choice in choices]
            known = [row.load, *options, row.replicas, row.gpus, row.usd, row.usd_per_hour, row.cut]
            writer.writerow([*known, *(values.get(name) for name in figures)])
        return text.getvalue()


def load_capacity_result(path: Path) -> CapacityResult:
    """Read a saved plan; errors as :func:`moesim.results.load_result`."""
    return load_versioned(path, CapacityResult)


def named(row: CandidateRow, result: CapacityResult) -> str:
    """A candidate in words; of a desktop only what is not as it is (the first option of each choice)."""
    options = dict(row.options)
    if not result.base_scenario.get("serving"):
        choices = result.plan.get("choices", {})
        options = {
            choice: name for choice, name in options.items() if name != next(iter(choices.get(choice, {})), None)
        }
    return (" · ".join(options.values()) or "as it is") + (f" × {row.replicas}" if row.replicas > 1 else "")


def choices(advice: Recommendation, result: CapacityResult, most: int | None = None) -> list[tuple[str, CandidateRow]]:
    """The candidates to show, each with what it is: recommended, runner-up, safe; then trade-offs, at most so many."""
    told = [("recommended" if advice.found else "nearest", advice.candidate)]
    told += [(name, row) for name, row in (("runner-up", advice.runner_up), ("safe", advice.safe)) if row is not None]
    told += [("trade-off", result.candidates[place]) for place in advice.pareto[:most]]
    rows: list[CandidateRow] = []
    for _, row in told:
        if row not in rows:
            rows.append(row)
    names = [[name for name, other in told if other == row] for row in rows]
    return [
        (", ".join(n for n in own if n != "trade-off" or own == ["trade-off"]), row)
        for own, row in zip(names, rows, strict=True)
    ]


def safety(advice: Recommendation, result: CapacityResult) -> str:
    """Whether the recommendation stands at the long end of its error bar, and what does if not; "" without one."""
    if not advice.found:
        return ""
    error = f"{advice.error_bar:.0%}"
    if advice.safe is None:
        return f"With steps {error} longer than computed (the error bar) nothing simulated does: measure before buying."
    if advice.safe == advice.candidate:
        return f"It still does with steps {error} longer than computed (the error bar)."
    safe = f"{named(advice.safe, result)} for {advice.safe.usd_per_hour:.3g} USD/h"
    return f"With steps {error} longer than computed (the error bar) it does not; {safe} does, by its own error bar."
