"""The saved figures of routing traces, as ``moesim trace info`` finds them. Reports read this, never a trace."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moesim.results.result import SCHEMA_VERSION, load_versioned, write_text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a figure that no page shows needs no line here


class PerLayer(_Part):
    """A figure of every layer, and its mean over those where it is defined; null elsewhere."""

    mean: float | None
    layers: tuple[float | None, ...]


class Distinct(_Part):
    """Distinct experts of a layer that ``batch`` tokens touch: of one request, of as many requests, and by formula."""

    batch: int
    sequence: float | None
    requests: float | None
    uniform: float
    bound: int


class Pair(_Part):
    """Two experts of a layer, the tokens that both serve, and how many times more than by chance."""

    layer: int
    experts: tuple[int, int]
    tokens: int
    lift: float


class Group(_Part):
    """Tokens of one domain, or of the mean request: how concentrated, and how far from the others (bits)."""

    name: str
    tokens: float
    effective_experts: float | None
    divergence_from_rest: float | None


class PhaseFigures(_Part):
    """What ``moesim.studies.trace_info.PhaseInfo`` says of one phase."""

    tokens: int
    distinct: tuple[Distinct, ...]
    load_cv: PerLayer
    effective_experts: PerLayer
    consecutive_overlap: PerLayer
    chance_overlap: float
    next_layer_information: PerLayer
    chance_next_layer_information: PerLayer
    successor_recall: PerLayer
    popularity_recall: PerLayer
    lookahead_recall: dict[int, PerLayer]
    reuse_within_tokens: dict[int, float | None]
    cycle_experts: float | None
    cycle_bytes: float | None
    segment_routing_performance: PerLayer
    segment_cache_hit_rate: PerLayer
    drift_bits: PerLayer
    chance_drift_bits: PerLayer
    strongest_pairs: tuple[Pair, ...]
    domains: tuple[Group, ...]
    mean_request: Group | None


class LayerLru(_Part):
    """An LRU of ``slots`` experts in each layer while decoding."""

    slots: int
    lookups: int
    hit_rate_per_lookup: float | None
    uniform: float


class HitCurve(_Part):
    """Hits per lookup of one global cache, by the share of all experts' bytes that it holds."""

    policy: str
    lookups: int
    capacity_share: tuple[float, ...]
    capacity_bytes: tuple[int, ...]
    hit_rate_per_lookup: tuple[float | None, ...]


class TraceFigures(_Part):
    """All figures of one trace."""

    name: str
    model: str
    sha256: str
    origin: str
    labels: tuple[str, ...]
    transforms: tuple[str, ...]
    licence: str
    requests: int
    tokens: int
    tokens_used: int
    layers: int
    experts: int
    top_k: int
    recorded_share: float
    phases: dict[str, PhaseFigures]
    layer_lru: LayerLru
    hit_curves: tuple[HitCurve, ...]
    card: dict[str, Any] = Field(default_factory=dict, description="the trace's own card, where it was saved too")


class SavedTraces(_Part):
    """Traces whose figures stand side by side."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["trace"] = "trace"
    traces: tuple[TraceFigures, ...] = Field(min_length=1)

    def to_json(self) -> str:
        """The bytes that are saved."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def saved_traces(traces: Iterable[Mapping[str, Any]]) -> SavedTraces:
    """From what ``TraceInfo.to_dict`` gives, each with its ``card`` or without."""
    return SavedTraces(traces=tuple(TraceFigures.model_validate(trace) for trace in traces))


def save_traces(traces: SavedTraces, path: Path) -> None:
    """Write them so that the file is there whole or not at all."""
    write_text(path, traces.to_json())


def load_traces(path: Path) -> SavedTraces:
    """Read saved figures; errors as :func:`moesim.results.load_result`."""
    return load_versioned(path, SavedTraces)
