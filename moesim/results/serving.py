"""The saved result of a serving run. Seconds, bytes, counts and shares are plain numbers; null is what is undefined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moesim.results.result import (
    SCHEMA_VERSION,
    Bottleneck,
    Bound,
    Distribution,
    Kind,
    TimeShare,
    TraceFacts,
    load_versioned,
)

Role = Literal["serves", "prefills", "decodes"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServingHeadline(_Part):
    """The answer in a few numbers. Rates are over the time from the first arrival to the last token."""

    output_tokens_per_s: float
    requests_per_s: float = Field(description="that ended")
    ttft_s: Distribution | None = Field(description="arrival to first token, over requests")
    tpot_s: Distribution | None = Field(description="(latency - TTFT) / (output tokens - 1), over requests")
    itl_s: Distribution | None = Field(description="gaps between a request's tokens, in bins of 0.5 %")
    latency_s: Distribution | None = Field(description="arrival to last token, over requests")
    queue_s: Distribution | None = Field(description="arrival to the first step that has a token of it")
    goodput_per_s: float | None = Field(description="requests within the SLO, per second; null without an SLO")
    good_share: float | None = Field(description="share of all requests within the SLO; a rejected one is not")
    slo_met: bool | None = Field(description="whether that share is what the SLO asks for, and nothing saturates")
    saturated: bool = Field(description="the queue grew for as long as requests came: waits depend on how long that is")
    mean_running: float = Field(description="requests in a step, over time and all replicas")
    mean_waiting: float
    kv_mean_share: float = Field(description="of all KV blocks, over time")
    kv_most_share: float
    busy_share: float = Field(description="of the time that a replica runs steps, mean over replicas")
    gpus: int
    usd_per_million_output_tokens: float | None = Field(description="rent of all GPUs, idle or not; null: no price")
    joule_per_output_token: float | None = Field(description="of all GPUs at their power limit while busy; null: none")
    duration_s: float = Field(description="first arrival to last token, simulated")


class ReplicaRow(_Part):
    """One replica."""

    role: Role
    steps: int
    busy_s: float


class Timeline(_Part):
    """Means over equal intervals, as columns of equal length. Rates per second; requests; share of KV blocks."""

    interval_s: float
    arrivals_per_s: list[float]
    ended_per_s: list[float]
    tokens_per_s: list[float]
    waiting: list[float]
    running: list[float]
    kv_share: list[float]


class RequestColumns(_Part):
    """The first requests that ended, as columns of equal length; seconds after the first arrival."""

    ident: list[int]
    prompt_tokens: list[int]
    output_tokens: list[int]
    arrival_s: list[float]
    ttft_s: list[float]
    latency_s: list[float]
    queue_s: list[float]
    preempted: list[int]


class StepErrorFacts(_Part):
    """Tables of step times against the forms that filled them, over random steps."""

    steps: int
    mean: float
    largest: float


class PartEvidence(_Part):
    """A part of the steps' time, by the kind of the constants that it rests on."""

    part: str
    kind: Kind
    share: float


class ServingCounters(_Part):
    """Integer counts."""

    arrived: int
    ended: int
    rejected: int = Field(description="could never fit into a replica's KV cache")
    steps: int
    prompt_tokens: int
    computed_prompt_tokens: int = Field(description="computed anew after preemption included, shared prefixes not")
    output_tokens: int
    preemptions: int


class MemoryUse(_Part):
    """A use of a GPU's memory."""

    name: str
    bytes: int


class ServingWhatIf(_Part):
    """The same requests with one thing changed, simulated again."""

    change: str
    meaning: str
    output_tokens_per_s: float
    ttft_p99_s: float | None
    tpot_p99_s: float | None
    latency_mean_s: float | None
    good_share: float | None
    gpus: int
    usd_per_million_output_tokens: float | None
    faster: float = Field(description="mean latency of this run over that of the changed one")


class ServingResult(_Part):
    """Everything that a serving run found, and everything that it was run with."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["serving"] = "serving"
    moesim_version: str
    question: str
    scenario: dict[str, Any] = Field(description="as run, defaults included")
    scenario_sha256: str
    seed: int
    model: dict[str, Any]
    hardware: dict[str, Any]
    trace: TraceFacts | None
    headline: ServingHeadline
    bottleneck: Bottleneck
    what_if: list[ServingWhatIf] | None = Field(description="most helpful first; null where not asked for")
    bounds: list[Bound]
    breakdown: list[TimeShare] = Field(description="of the time that replicas ran steps, and idle, summed over them")
    resources: list[TimeShare] = Field(description="of the time that replicas ran steps, by what limits it")
    counters: ServingCounters
    replicas: list[ReplicaRow]
    timeline: Timeline
    requests: RequestColumns
    memory: list[MemoryUse]
    kv_tokens: int = Field(description="of one replica")
    step_error: StepErrorFacts
    evidence: list[PartEvidence]
    evidence_shares: dict[Kind, float]
    assumptions: list[str] = Field(description="where tables lie outside of fitted ranges, used or not")
    warnings: list[str]

    @property
    def offloads(self) -> bool:
        """Whether experts are offloaded: steps come from the offloading engine, power from the whole machine."""
        return bool(self.scenario["serving"]["engine"] == "offload")

    def to_json(self) -> str:
        """The bytes that are saved: keys in the order of this class, floats in full."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def load_serving_result(path: Path) -> ServingResult:
    """Read a saved serving result; errors as :func:`moesim.results.load_result`."""
    return load_versioned(path, ServingResult)
