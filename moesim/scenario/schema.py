"""What a scenario may say. Every default stands here, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from moesim.scenario.parallel.schema import ParallelSpec
from moesim.scenario.serving.schema import ArrivalsSpec, ServingSpec
from moesim.units import parse

#: No machine has more; what is beyond is a slip of the unit.
MAX_MEMORY_BYTES = 2**60
Count = Annotated[int, Field(ge=1, le=10**9)]


@dataclass(frozen=True)
class Short:
    """Lets a mapping be written as one string: ``caching: lru`` for ``caching: {name: lru}``."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Wrap the mapping's schema so that a string becomes ``{key: string}`` first."""

        def expand(value: Any) -> Any:
            if isinstance(value, str):
                return {self.key: value}
            if isinstance(value, (dict, BaseModel)):
                return value
            raise ValueError(f"must be text, or a mapping with the key {self.key!r}")

        return core_schema.no_info_before_validator_function(expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Either form, for editors."""
        return {"anyOf": [{"type": "string"}, handler(schema)]}


@dataclass(frozen=True)
class Size:
    """A quantity of bytes, or one of ``words``; kept as text, so that a Result shows what the user wrote."""

    words: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the text before its type, for a better message."""
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """What editors offer."""
        return {"type": "string", "examples": [*self.words, "24 GiB"]}

    def _read(self, value: Any) -> str:
        if isinstance(value, str) and value in self.words:
            return value
        try:
            size = parse(value, "bytes")
        except ValueError as error:
            raise ValueError(f"{error}" + (f", or one of: {', '.join(self.words)}" if self.words else "")) from None
        if size > MAX_MEMORY_BYTES:
            raise ValueError("must be at most 1 EiB | hint: check the unit")
        return str(value)


class Spec(BaseModel):
    """Base of all parts of a scenario: strict (no number for text, no text for a number) and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PolicyChoice(BaseModel):
    """A policy by name, and its parameters beside it; ``moesim policies show NAME`` lists them."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str = Field(
        min_length=1, description="as `moesim policies list` prints it; or a file, as in ./mine.py (with --allow-code)"
    )

    @property
    def params(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


Choice = Annotated[PolicyChoice, Short("name")]


#: In place of a trace's file.
NO_TRACE = "none"


class SyntheticSpec(Spec):
    """Routing out of chance, for models that nobody has recorded; every output says so. See `moesim trace formats`."""

    layers: int = Field(4, ge=1, le=1024, description="that differ; the model's are these, repeated")
    requests: int = Field(16, ge=1, le=100_000)
    prompt: int = Field(128, ge=0, le=100_000, description="tokens of each request's prompt")
    output: int = Field(128, ge=0, le=100_000, description="tokens of each request's answer")
    skew: float = Field(0.6, ge=0, le=10, description="Zipf exponent of the experts' popularity; 0 uniform (assumed)")
    stickiness: float = Field(0.2, ge=0, le=1, description="chance that an expert stays for the next token (assumed)")
    affinity: float = Field(0.0, ge=0, le=1, description="chance that an expert brings its successor with it")
    drift: float = Field(0.0, ge=0, le=1, description="chance that a token changes its request's topic")


class TraceSpec(Spec):
    """The routing that is replayed."""

    file: str = Field(min_length=1, description="a moesim trace, relative to the scenario's file; 'none': no trace")
    synthetic: SyntheticSpec | None = Field(None, description="with file: none, routing out of chance")
    stand_in: bool = Field(
        False,
        description="the trace is another model's with the same experts and top-k; its layers are repeated as needed. "
        "Every output then says so",
    )


class HardwareSpec(Spec):
    """A ready node, parts that replace its own, and numbers that replace those of the cards."""

    node: str | None = Field(None, description="a node card; `moesim hardware list`")
    cluster: str | None = Field(None, description="a cluster card, for scenarios with `parallel`")
    nodes: Count | None = Field(None, description="of the cluster; default: its card's")
    gpu: str | None = Field(None, description="a GPU card")
    cpu: str | None = Field(None, description="a CPU card")
    link: str | None = Field(None, description="a host link card; default: the node's, or the GPU's own")
    storage: str | None = Field(None, description="a storage card")
    host_memory: Annotated[str, Size()] | None = Field(None, description="as in '64 GiB'")
    fits: list[str] = Field(
        default_factory=list,
        description="constants from your own tables, as `moesim hardware import table` writes them; files, relative to "
        "the scenario's",
    )
    override: dict[str, str | float] = Field(
        default_factory=dict, description="single numbers, as in {link.bandwidth: 50 GB/s}; they count as assumed"
    )


class PoliciesSpec(Spec):
    """What decides. Defaults are what most offloading runtimes do: LRU, no prefetching, fetch what is missing."""

    caching: Choice = Field(PolicyChoice(name="lru"), description="what leaves the GPU")
    host_caching: Choice = Field(PolicyChoice(name="lru"), description="what leaves host memory, where flash is below")
    low_caching: Choice = Field(
        PolicyChoice(name="lru"),
        description="what leaves the space of copies in low precision, where on_miss uses them",
    )
    prefetch: Choice = Field(PolicyChoice(name="none"), description="what is fetched before it is asked for")
    on_miss: Choice = Field(PolicyChoice(name="fetch"), description="what becomes of a missing expert")
    placement: Choice = Field(PolicyChoice(name="contiguous"), description="which GPU of a cluster holds which expert")
    schedule: str | None = Field(
        None,
        min_length=1,
        description="for caching 'scheduled': what to keep and what to prefetch, as `moesim optimum` writes it; "
        "a file, relative to the scenario's",
    )
    precision: Choice = Field(PolicyChoice(name="uniform"), description="in how many bits each expert is stored")
    scope: Literal["global", "layer"] = Field("global", description="one GPU cache, or a part for each layer")
    split: Choice = Field(PolicyChoice(name="equal"), description="how large each layer's part is, with scope: layer")
    rule: Literal["reserve", "evict_after"] = Field(
        "reserve", description="victims leave before a transfer starts, or after the visit (overshooting meanwhile)"
    )
    batching: Choice = Field(PolicyChoice(name="arrival"), description="which requests decode together")
    link: Literal["demand-first", "fifo"] = Field("demand-first", description="what leaves a link's queue first")
    chunk: Annotated[
        str,
        Size(("whole",)),
        Field(
            description="a prefetch goes in pieces of at most so many bytes: between them demands go ahead, and one "
            "that is no longer wanted stops; or 'whole'"
        ),
    ] = "whole"
    withdraw: bool = Field(
        True, description="a prefetch that is not under way is given up when the router it was for did not choose it"
    )


class MemorySpec(Spec):
    """How much of each tier holds experts."""

    gpu_experts: Annotated[
        str, Size(("auto",)), Field(description="'auto' (what dense weights, KV cache and reserve leave), or bytes")
    ] = "auto"
    gpu_reserve: Annotated[
        str, Size(), Field(description="GPU memory for the driver's context, activations and workspace (assumed)")
    ] = "1 GiB"
    pinned: list[Annotated[str, Field(pattern=r"^\d+:(\d+|\*)$")]] = Field(
        default_factory=list,
        description="experts that never leave the GPU, as 'layer:expert' or 'layer:*', MoE layers counted from 0; "
        "super experts, say. (Shared experts are always there)",
    )
    host_experts: Annotated[
        str,
        Size(("auto", "all")),
        Field(description="'all', 'auto' (all, or what the reserve leaves if that is less), or bytes"),
    ] = "auto"
    host_reserve: Annotated[
        str, Size(), Field(description="host memory for everything else (assumed: a desktop with a browser)")
    ] = "6 GiB"


class TransfersSpec(Spec):
    """How experts move between the tiers. Defaults are what offloading runtimes strive for."""

    host: Literal["pinned", "pageable", "registered"] = Field(
        "pinned", description="the host memory that experts go up from; 'registered': pinned anew for each transfer"
    )
    copies: int = Field(1, ge=1, le=1024, description="copies per expert: 3 where each matrix goes by itself")
    flash: Literal["whole", "direct", "page_cache", "mmap", "mmap_random"] = Field(
        "whole",
        description="one large read per expert past the page cache, or reads of read_size, or through the page cache, "
        "or by faults of mapped memory",
    )
    read_size: Annotated[str, Size(), Field(description="of each read, with flash: direct")] = "1 MiB"
    depth: int = Field(4, ge=1, le=1024, description="reads in flight for each lane, with flash: direct")
    lanes: int = Field(1, ge=1, le=1024, description="threads that read, with flash other than whole")
    cached: float = Field(
        0.0, ge=0, le=1, description="share of an expert that the page cache holds, with flash: page_cache or mmap"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> TransfersSpec:
        if self.flash.startswith("mmap") and self.host == "pinned":
            raise ValueError("flash: mmap gives pageable memory | hint: host: pageable, or registered")
        if parse(self.read_size, "bytes") < 1:
            raise ValueError("read_size must be above zero")
        return self


class PrecisionSpec(Spec):
    """How weights are stored; defaults are the model's released precisions."""

    experts: str | None = Field(None, description="of routed experts; default: as released")
    dense: str | None = Field(None, description="of everything else; default: as released")
    kv: Literal["bf16", "fp8"] = Field("bf16", description="of the KV cache")


class WorkloadSpec(Spec):
    """Which requests of the trace run, and how they share steps."""

    requests: Count | None = Field(None, description="so many requests, in the trace's order; default: all")
    batch: int = Field(1, ge=1, le=4096, description="requests that decode together; the next starts when one ends")
    batching: Literal["closed-loop", "recorded"] = Field(
        "closed-loop", description="'recorded': tokens run together as the trace's source ran them"
    )
    max_prompt: Count | None = Field(None, description="keep the last so many prompt tokens of a request")
    max_output: Count | None = Field(None, description="stop after so many output tokens")
    prefill_chunk: Count | None = Field(None, description="prompt tokens per prefill step; default: the whole")
    train_fraction: float = Field(
        0.0, ge=0, lt=1, description="share of requests, from the start, to learn from; they are not scored"
    )
    warmup_requests: int = Field(
        0, ge=0, le=10**9, description="requests that run first and are not counted; default: cold start"
    )


@dataclass(frozen=True)
class Quantity:
    """A quantity of a dimension; kept as text, so that a Result shows what the user wrote."""

    dimension: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the text before its type, for a better message."""
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def _read(self, value: Any) -> Any:
        if value is not None and parse(value, self.dimension) == 0:
            raise ValueError("must be above zero")
        return value


class EconomicsSpec(Spec):
    """What the machine and its power cost."""

    basis: Literal["auto", "rent", "own"] = Field(
        "auto", description="'auto': rent where a card has a rent and no purchase is given, else own"
    )
    rent: Annotated[str, Quantity("money_rate")] | None = Field(
        None, description="of the GPU with its share of the machine, as in '2.50 USD/h'; default: middle of the card's"
    )
    purchase: Annotated[str, Quantity("money")] | None = Field(
        None, description="of the machine, as in '1500 USD'; default: the node's card, or a unified GPU's"
    )
    lifetime: Annotated[str, Quantity("time")] = Field("3 years", description="until it is worth nothing (assumed)")
    use: float = Field(0.5, gt=0, le=1, description="share of its life in which it works (assumed)")
    power: Annotated[str, Quantity("energy_price")] = Field("0.15 USD/kWh", description="tariff (assumed)")


class Scenario(Spec):
    """One run: this model, on this machine, with these policies, on this routing."""

    question: str = Field("", description="what the run is to answer; the report opens with it")
    model: str = Field(min_length=1, description="a language-model card; `moesim models list`")
    trace: Annotated[TraceSpec, Short("file")] = TraceSpec(file=NO_TRACE)
    hardware: Annotated[HardwareSpec, Short("node")]
    policies: PoliciesSpec = PoliciesSpec()
    memory: MemorySpec = MemorySpec()
    precision: PrecisionSpec = PrecisionSpec()
    transfers: TransfersSpec = TransfersSpec()
    workload: WorkloadSpec = WorkloadSpec()
    parallel: ParallelSpec | None = Field(None, description="many GPUs: expert parallelism on a cluster")
    economics: EconomicsSpec = EconomicsSpec()
    serving: ServingSpec | None = Field(None, description="requests that arrive, served by replicas of the model")
    arrivals: ArrivalsSpec | None = Field(None, description="of serving: which requests come when")
    expect: dict[str, Any] = Field(
        default_factory=dict, description="what was reported for this, to hold the run against; no run reads it"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of everything random")

    @model_validator(mode="after")
    def _complete(self) -> Scenario:
        if (self.serving is None) != (self.arrivals is None):
            given, lacks = ("arrivals", "serving") if self.serving is None else ("serving", "arrivals")
            raise ValueError(f"has {given}: and no {lacks}: | hint: serving needs both")
        if self.serving is None and self.trace.file == NO_TRACE and self.trace.synthetic is None:
            raise ValueError("trace is required | hint: add this key")
        return self
