"""The saved result of a run on many GPUs. Seconds, bytes and counts are plain numbers; null is what is undefined."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from moesim.results.result import (
    SCHEMA_VERSION,
    Bound,
    Distribution,
    EvidenceRow,
    Kind,
    ModelFacts,
    Part,
    TimeShare,
    TraceFacts,
)


class ClusterFacts(TypedDict):
    """The machines."""

    name: str
    gpu: str
    gpus: int
    nodes: int
    gpus_per_node: int
    inside: str
    between: str | None


class ParallelHeadline(Part):
    """The answer in a few numbers."""

    step_s: Distribution = Field(description="a forward pass of all tokens, over steps; rebalancing included")
    tokens_per_s: float = Field(description="tokens of all GPUs over the time of the steps")
    tokens_per_s_per_gpu: float
    imbalance: float = Field(description="pairs of the fullest rank over the mean, mean over layers and steps")
    exposed_share: float = Field(description="of the time that GPUs wait for dispatch and combine, mean over GPUs")
    waiting_share: float = Field(description="of the time that GPUs wait for slower ones, mean over GPUs")
    dropped_share: float = Field(description="of (token, expert) pairs, beyond the capacity")
    reached_gpus: float = Field(description="GPUs that hold an expert of a token, mean over tokens")
    fits: bool = Field(description="whether every GPU's memory holds what it must")


class Change(Part):
    """The same run with one thing changed, simulated again."""

    change: str
    meaning: str
    step_s: float
    speedup: float


class ParallelBottleneck(Part):
    """What limits the run, and what would help most."""

    bound_by: str
    share: float = Field(description="of the time, mean over GPUs")
    what_if: list[Change] | None = Field(description="most helpful first; null where not asked for")


class ExchangeRow(Part):
    """A kind of exchange: how long it took, and how much of that nobody saw."""

    name: str
    busy_s: float = Field(description="on its stream, mean over GPUs")
    exposed_s: float = Field(description="of it, GPUs waited, mean over GPUs")
    hidden_s: float = Field(description="of it, beside computation")
    per_layer_s: Distribution = Field(description="from when the last GPU is ready, over layers and passes")


class LinkRow(Part):
    """All links of one level and speed."""

    level: str
    network: str
    links: int
    bytes_per_s: float
    total_bytes: float
    mean_busy_share: float = Field(description="of the run's time, at what all-to-all traffic reaches")
    max_busy_share: float
    fullest: str


class ParallelMemoryRow(Part):
    """A use of GPU memory: over the fullest GPU, and the mean."""

    name: str
    fullest_gpu_bytes: float
    mean_bytes: float


class ParallelMemoryTable(Part):
    """What GPUs hold, and the verdict."""

    rows: list[ParallelMemoryRow]
    fullest_gpu: int
    needed_bytes: float = Field(description="of the fullest GPU")
    total_bytes: int = Field(description="of each GPU")
    fits: bool
    verdict: str


class Load(Part):
    """Who computes how much, and who sends what to whom, summed over steps; what stays on a GPU is not sent."""

    layer_rank_share: list[list[float]] = Field(description="pairs of each rank over the layer's mean. [layers][ranks]")
    rank_pairs: list[float] = Field(description="pairs of each rank, all layers. [ranks]")
    layer_imbalance: list[float] = Field(description="fullest rank over mean, mean over steps. [layers]")
    traffic_bytes: list[list[float]] = Field(description="dispatch, from row to column. [units][units]")
    unit: Literal["GPU", "node"]


class PlacementRow(Part):
    """A placement of the same run, simulated again."""

    policy: str
    redundant_experts: int
    step_s: float
    speedup: float = Field(description="over the contiguous placement without redundant experts")
    imbalance: float
    reached_gpus: float
    replica_bytes_per_gpu: float
    fits: bool


class ReplicationStudy(Part):
    """Is replication worth it for this workload?"""

    rows: list[PlacementRow]
    answer: str
    before: Load = Field(description="the contiguous placement without redundant experts")


class FlowCheck(Part):
    """The busiest dispatch again, flow by flow under max-min fair shares."""

    ports_s: float = Field(description="the fullest link alone")
    simulated_s: float
    ratio: float


class OffloadFigures(Part):
    """Experts that GPUs cache and bring from their host's memory."""

    caching: str
    slots_per_gpu: int = Field(description="experts that a GPU's cache holds, all layers")
    lookups: int = Field(description="distinct experts of a layer, part and rank, all steps")
    fetches: int
    hit_rate_per_lookup: float | None
    fetched_bytes: int = Field(description="over all host links")
    host_needed_bytes: float = Field(description="of the fullest node's host memory")
    host_total_bytes: int


class ParallelCounters(Part):
    """Integer counts of the run."""

    steps: int
    passes: int
    tokens: int
    pairs: int
    dropped: int
    rebalances: int
    moved_bytes: int
    trace_reuse: float = Field(description="how often a row of the trace is used, in the mean")


class ParallelResult(Part):
    """Everything that a run on many GPUs found, and everything that it was run with."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["parallel"] = "parallel"
    moesim_version: str
    question: str
    scenario: dict[str, Any] = Field(description="as run, defaults included")
    scenario_sha256: str
    seed: int
    model: ModelFacts
    hardware: ClusterFacts
    trace: TraceFacts
    degrees: dict[str, int]
    policies: dict[str, Any]
    headline: ParallelHeadline
    bottleneck: ParallelBottleneck
    bounds: list[Bound]
    breakdown: list[TimeShare] = Field(description="mean over GPUs; the parts add up to the time of all steps")
    exchanges: list[ExchangeRow]
    links: list[LinkRow]
    load: Load
    memory: ParallelMemoryTable
    replication: ReplicationStudy | None
    flow_check: FlowCheck | None
    offload: OffloadFigures | None = None
    counters: ParallelCounters
    step_s: list[float]
    step_imbalance: list[float] = Field(description="fullest rank over mean, mean over layers. [steps]")
    evidence: list[EvidenceRow]
    evidence_shares: dict[Kind, float]
    warnings: list[str]

    def to_json(self) -> str:
        """The bytes that are saved."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
