"""The saved result of a comparison: every run's figures, and what they say together. Reports read this."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moesim.results.result import SCHEMA_VERSION, Kind, load_versioned

Verdict = Literal["policy", "working set", "near the optimum", "not proven"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(_Part):
    """Where policies are compared: one trace, machine, cache size and seed."""

    trace: str
    machine: str
    gpu_experts: str
    seed: int


class RunRow(_Part):
    """One run. Rates and fetched bytes are those of decode; ``tpot_s`` is by request, in the order of ``requests``."""

    cell: Cell
    policy: str
    needs_future: bool = Field(description="knows the future: a bound, not a system")
    gpu_slots: float
    decode_tokens_per_s: float | None
    output_tokens_per_s: float
    ceiling_output_tokens_per_s: float | None = Field(
        None, description="no policy that computes every expert on the GPU exceeds it at this size; null: not known"
    )
    mean_ttft_s: float | None = Field(None, description="over requests; null without prefill")
    cpu_rate_per_lookup: float = Field(0.0, description="lookups that the CPU computed; prefill included")
    hit_rate_per_lookup: float | None
    late_rate_per_lookup: float | None
    fetched_bytes_per_decode_token: float | None
    fetches: int | None = Field(description="experts brought to the GPU; null where no bound on them is proven")
    fewest_fetches: int | None = Field(description="Belady MIN at this size; null where it proves nothing")
    output_changed_share: float = Field(0.0, description="of gate weight; see the Result's output_changed")
    prefetch_wasted_bytes: int = Field(description="brought in and never used")
    bound_by: str
    bound_by_share: float
    limited_by: Verdict = Field(description="could a better policy help at this size, or only a larger cache?")
    requests: list[int]
    tpot_s: list[float]
    evidence_shares: dict[Kind, float]


class RankRow(_Part):
    """A policy's place in a cell, by mean TPOT over requests and seeds; ratios against the fastest real policy."""

    cell: Cell
    policy: str
    needs_future: bool
    mean_tpot_s: float
    slower_than_best: float = Field(description="mean TPOT over the best's")
    interval: tuple[float, float] | None = Field(
        description="95 % interval of that ratio, paired bootstrap over requests"
    )
    distinguishable: bool | None = Field(description="whether the interval leaves out 1; null: too few requests")


class Cliff(_Part):
    """Two neighbouring cache sizes between which a policy changes its speed out of proportion."""

    trace: str
    machine: str
    policy: str
    smaller: str
    larger: str
    size_ratio: float
    speedup: float


class Paradox(_Part):
    """A policy that hits more often and runs slower than another one, in the same cell."""

    cell: Cell
    hits_more: str
    runs_faster: str
    hit_rates: tuple[float, float]
    decode_tokens_per_s: tuple[float, float]
    why: str


class ComparisonResult(_Part):
    """Everything that a comparison found."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["comparison"] = "comparison"
    moesim_version: str
    question: str
    comparison: dict[str, Any]
    base_scenario: dict[str, Any]
    runs: list[RunRow]
    ranking: list[RankRow]
    cliffs: list[Cliff]
    paradoxes: list[Paradox]
    warnings: list[str]

    def to_json(self) -> str:
        """The bytes that are saved."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def load_comparison_result(path: Path) -> ComparisonResult:
    """Read a saved comparison; errors as :func:`moesim.results.load_result`."""
    return load_versioned(path, ComparisonResult)
