"""The saved result of a run. Seconds, bytes and counts are plain numbers; null is what is undefined, never zero.

The same scenario and seed give the same bytes: nothing here depends on the wall clock or the machine.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from moesim.documents import read_text
from moesim.errors import FileError, ResultError

SCHEMA_VERSION = "1.0"
MAX_RESULT_BYTES = 2**30
Saved = TypeVar("Saved", bound=BaseModel)
Kind = Literal["measured", "published", "datasheet", "assumed"]


class Part(BaseModel):
    """Base of all parts of a result: frozen, strict about keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelFacts(TypedDict):
    """The language model that was simulated; sizes in bytes."""

    name: str
    hf_id: str | None
    layers: int
    moe_layers: int
    experts: int
    top_k: int
    total_params: int
    expert_precision: str
    expert_bits_per_weight: float
    dense_precision: str
    expert_bytes: int


class HardwareFacts(TypedDict):
    """The machine."""

    name: str
    gpu: str
    cpu: str
    link: str
    storage: str | None
    host_memory_bytes: int


class TraceFacts(TypedDict):
    """The routing that was replayed; ``sha256`` of the arrays in the trace's file."""

    name: str
    recorded_from: str
    origin: str
    labels: list[str]
    transforms: list[str]
    sha256: str
    requests: int
    tokens: int
    licence: str


class Distribution(Part):
    """Of a quantity over requests or tokens; percentiles by linear interpolation."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    min: float
    max: float


class Headline(Part):
    """The answer in a few numbers."""

    output_tokens_per_s: float = Field(description="output tokens over the time from start to end, prefill included")
    decode_tokens_per_s: float | None = Field(description="decode tokens over the time of decode steps")
    ttft_s: Distribution | None = Field(description="time to first token, over requests; null without prefill")
    tpot_s: Distribution | None = Field(description="(latency - TTFT) / (output tokens - 1), over requests")
    itl_s: Distribution | None = Field(description="gaps between a request's output tokens, over all tokens")
    hit_rate_per_lookup: float | None = Field(description="(hits + late) / lookups")
    late_rate_per_lookup: float | None = Field(description="late / lookups: in flight when asked for")
    decode_hit_rate_per_lookup: float | None
    decode_late_rate_per_lookup: float | None
    fetched_bytes_per_decode_token: float | None = Field(description="to the GPU, for decode visits, per decode token")
    duration_s: float = Field(description="simulated, warm-up excluded")
    joules_per_output_token: float | None = Field(None, description="at the wall socket; null where a card lacks it")
    usd_per_million_output_tokens: float | None = Field(None, description="rented or owned; null where unknown")


class TimeShare(Part):
    """A part of the simulated time; the parts add up to the whole."""

    name: str
    seconds: float
    share: float


class Breakdown(Part):
    """Where time went: what the GPU did, and what it waited for."""

    total: list[TimeShare]
    prefill: list[TimeShare]
    decode: list[TimeShare]


class OutputChanged(Part):
    """What of the model's output the policies changed, as shares of all gate weight (of counted steps).

    A token's gate weights in a layer sum to 1. Weights that all experts have in the scenario's own precision are not a
    change: they are the model that is run.
    """

    share: float = Field(0.0, description="of gate weight, in any of these ways")
    low_precision: float = Field(0.0, description="computed with fewer bits than the scenario's precision")
    skipped: float = Field(0.0, description="not computed")
    substituted: float = Field(0.0, description="computed with another expert")


class LinkUse(Part):
    """What a link (or the CPU) did; its busy time overlaps with the GPU's."""

    name: str
    busy_s: float
    busy_share: float
    demand_transfers: int
    prefetch_transfers: int
    demand_bytes: int
    prefetch_bytes: int


class Counters(Part):
    """Integer counts. A lookup is one distinct expert of a visit; an activation one (token, layer, expert) use."""

    requests: int
    steps: int
    prefill_tokens: int
    decode_tokens: int
    output_tokens: int
    activations: int
    lookups: int
    hits: int
    late: int
    misses: int
    cpu_lookups: int = Field(description="misses that the CPU computed")
    streamed_lookups: int = Field(0, description="misses brought for one visit only")
    low_precision_lookups: int = Field(0, description="lookups computed with a copy in low precision")
    skipped_lookups: int = Field(0, description="lookups not computed")
    substituted_lookups: int = Field(0, description="misses for which another expert was computed")
    fetched_bytes: int = Field(description="to the GPU, demand and prefetch")
    flash_bytes: int = Field(description="read from flash")
    evictions: int
    overshoot_bytes: int = Field(description="most that the GPU's cache held beyond its capacity")
    prefetch_proposed: int
    prefetch_redundant: int = Field(description="already there or on its way")
    prefetch_withdrawn: int = Field(description="not started before its visit's router spoke")
    prefetch_no_room: int
    prefetch_started: int
    prefetch_used: int
    prefetch_late: int
    prefetch_wasted: int = Field(description="left without being used")


class LayerRow(Part):
    """One MoE layer, over all visits."""

    layer: int
    lookups: int
    hits: int
    late: int
    misses: int
    fetched_bytes: int
    compute_s: float
    stall_s: float
    mean_decode_visit_s: float | None


class StepColumns(Part):
    """Every counted step, as columns of equal length."""

    phase: list[Literal["prefill", "decode"]]
    tokens: list[int]
    start_s: list[float]
    end_s: list[float]
    stall_s: list[float]


class RequestRow(Part):
    """One request. TTFT counts from when a slot was free for it (closed loop)."""

    request: int
    prompt_tokens: int
    output_tokens: int
    arrival_s: float
    ttft_s: float | None
    tpot_s: float | None
    latency_s: float


class Residency(Part):
    """Where experts were: the share of visits at whose end each held space on the GPU. [layers][experts]"""

    gpu_share: list[list[float]]
    gpu_slots: float = Field(description="capacity over the size of one expert")
    gpu_capacity_bytes: int
    host_capacity_bytes: int | None


class MemoryRow(Part):
    """A use of a memory."""

    memory: Literal["gpu", "host"]
    name: str
    bytes: int


class ConstantRow(Part):
    """A number from a card, in SI units; the unit of a share is "1"."""

    name: str
    value: float
    unit: Literal["B/s", "FLOP/s", "s", "1/s", "W", "1"]
    source: str
    kind: Kind


class EvidenceRow(Part):
    """A part of the simulated time and the constants it rests on.

    Its kind is that of the weakest constant, and ``assumed`` where it is extrapolated.
    """

    term: str
    seconds: float
    share: float
    kind: Kind
    constants: list[ConstantRow]
    extrapolated: list[str] = Field([], description="what lies outside of what the constants were fitted to")


class EnergyRow(Part):
    """A part of the machine in one state; watts at the wall socket."""

    part: str
    state: str
    seconds: float
    watts: float
    joules: float
    kind: Kind


class MoneyRow(Part):
    """What some of the money is for."""

    item: str
    usd: float
    meaning: str
    kind: Kind


class Economy(Part):
    """Energy and money of the counted steps; ``energy_lacking`` and ``money_lacking`` say why a total is null."""

    joules: float | None
    energy: list[EnergyRow]
    energy_lacking: list[str]
    basis: Literal["rent", "own"] | None
    usd: float | None
    money: list[MoneyRow]
    money_lacking: list[str]


class Bound(Part):
    """What no policy could beat, with what is proven about it."""

    name: str
    meaning: str
    status: Literal["optimal", "feasible with gap", "bound only"]
    value: float
    unit: str
    ours: float = Field(description="this run's value")


class WhatIf(Part):
    """The same run with one thing changed, simulated again."""

    change: str
    meaning: str
    decode_tokens_per_s: float | None
    output_tokens_per_s: float
    speedup: float = Field(description="of output tokens per second, prefill included")
    decode_speedup: float | None


class Bottleneck(Part):
    """What limits the run, and what would help most."""

    bound_by: str
    share: float = Field(description="of the simulated time")
    what_if: list[WhatIf] | None = Field(description="most helpful first; null where not asked for")


class Result(Part):
    """Everything that a run found, and everything that it was run with."""

    schema_version: str = SCHEMA_VERSION
    moesim_version: str
    question: str
    scenario: dict[str, Any] = Field(description="as run, defaults included")
    scenario_sha256: str
    seed: int
    model: ModelFacts
    hardware: HardwareFacts
    trace: TraceFacts
    policies: dict[str, Any]
    headline: Headline
    bottleneck: Bottleneck
    bounds: list[Bound]
    output_changed: OutputChanged = Field(default_factory=OutputChanged)
    breakdown: Breakdown
    links: list[LinkUse]
    counters: Counters
    layers: list[LayerRow]
    steps: StepColumns
    requests: list[RequestRow]
    residency: Residency
    memory: list[MemoryRow]
    economy: Economy | None = None
    evidence: list[EvidenceRow]
    evidence_shares: dict[Kind, float]
    warnings: list[str]

    def to_json(self) -> str:
        """The bytes that are saved: keys in the order of this class, floats in full."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def save_result(result: Result, path: Path) -> None:
    """Write a result under a temporary name, then rename it."""
    write_text(path, result.to_json())


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        FileError: the path is a folder.
    """
    if path.is_dir():
        raise FileError.of(str(path), "is a directory", "name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_result(path: Path) -> Result:
    """Read a saved result.

    Raises:
        FileError: the file can't be read.
        ResultError: it isn't a result, or one of a newer major version.
    """
    return load_versioned(path, Result)


def load_versioned(path: Path, kind: type[Saved]) -> Saved:
    """Read a saved file of this schema version; see :func:`load_result`."""
    text = read_text(path, MAX_RESULT_BYTES)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        told = str(error).partition(";")[0]
        raise ResultError.of(str(path), f"is not JSON: {told}", "run the scenario again") from None
    version = str(data.get("schema_version", "")) if isinstance(data, dict) else ""
    if not version:
        raise ResultError.of(str(path), "is not a moesim result: it has no schema_version")
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        told = f"has schema version {version}, and this moesim reads {SCHEMA_VERSION}"
        raise ResultError.of(str(path), told, "run the scenario again, or use the moesim that wrote it")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ResultError.of(str(path), f"is damaged at {place}: {first['msg']}", "run the scenario again") from None
