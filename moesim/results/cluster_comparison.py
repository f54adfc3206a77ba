"""The saved result of a comparison on clusters: one row for each system, and what they say together."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from moesim.results.result import SCHEMA_VERSION, Kind, Part, TimeShare


class SystemRow(Part):
    """One system, on one trace and machine. Ratios are to the first system there."""

    system: str
    trace: str
    machine: str
    seed: int
    placement: str
    chunks: int = Field(description="the pipelining degree, where the best one was asked for the one found")
    gpus: int
    step_s: float = Field(description="a forward pass, mean over steps")
    step_p99_s: float
    tokens_per_s: float
    tokens_per_s_per_gpu: float
    speedup: float = Field(description="tokens per second over the first system's")
    imbalance: float = Field(description="pairs of the fullest rank over the mean, mean over layers and steps")
    reached_gpus: float = Field(description="GPUs that hold an expert of a token, mean over tokens")
    dispatch_s: float | None = Field(description="of a layer, from when the last GPU is ready; median over layers")
    dispatch_p99_s: float | None
    combine_s: float | None
    combine_p99_s: float | None
    exposed_share: float = Field(description="of the time that GPUs wait for dispatch and combine")
    waiting_share: float = Field(description="of the time that GPUs wait for slower ones")
    dropped_share: float = Field(description="of (token, expert) pairs, beyond the capacity")
    replica_bytes_per_gpu: float = Field(description="of the fullest GPU")
    needed_bytes_per_gpu: float = Field(description="of the fullest GPU, all categories")
    fits: bool
    bound_by: str
    bound_by_share: float
    breakdown: list[TimeShare] = Field(description="mean over GPUs, all steps")
    evidence_shares: dict[Kind, float]


class ClusterComparisonResult(Part):
    """Everything that a comparison of systems on clusters found."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["cluster comparison"] = "cluster comparison"
    moesim_version: str
    question: str
    comparison: dict[str, Any]
    base_scenario: dict[str, Any]
    rows: list[SystemRow]
    answer: list[str] = Field(description="a sentence for each trace and machine")
    warnings: list[str]

    def to_json(self) -> str:
        """The bytes that are saved."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
