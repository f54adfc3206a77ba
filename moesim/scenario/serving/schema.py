"""What a scenario may say about serving. Every default stands here, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from moesim.units import parse

Count = Annotated[int, Field(ge=1, le=10**9)]
MAX_TOKENS = 2**20
#: Places of an offloading runtime.
MOST_OFFLOADED = 16


@dataclass(frozen=True)
class Quantity:
    """A quantity of some dimension; kept as text, so that a Result shows what the user wrote."""

    dimension: str
    example: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the text before its type, for a better message."""
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """What editors offer."""
        return {"type": "string", "examples": [self.example]}

    def _read(self, value: Any) -> str:
        parse(value, self.dimension)
        return str(value)


Time = Annotated[str, Quantity("time", "500 ms")]
Rate = Annotated[str, Quantity("request_rate", "10 /s")]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Lengths(_Spec):
    """How many tokens: always ``mean``, or log-normal around it with the coefficient of variation ``cv``."""

    mean: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    cv: Annotated[float, Field(ge=0, le=10)] = 0.0
    max: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(None, description="default: ten times the mean")


@dataclass(frozen=True)
class _OrNumber:
    """Lets lengths be written as one number."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """``256`` stands for ``{mean: 256}``."""
        return core_schema.no_info_before_validator_function(
            lambda value: {"mean": value} if isinstance(value, int) and not isinstance(value, bool) else value,
            handler(source),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Either form."""
        return {"anyOf": [{"type": "integer"}, handler(schema)]}


AnyLengths = Annotated[Lengths, _OrNumber()]


class ArrivalsSpec(_Spec):
    """Which requests come when. One of ``rate``, ``users`` and ``file``."""

    rate: Rate | None = Field(None, description="open: so many requests come on average, as in '10 /s'")
    cv: Annotated[float, Field(ge=0, le=20)] = Field(
        1.0, description="coefficient of variation of the gaps: 1 Poisson, 0 evenly, above 1 bursts (gamma)"
    )
    users: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="closed loop: so many users, each of whom waits for the answer, thinks, and asks again"
    )
    think: Time = Field("0 s", description="mean of a user's exponential thinking time")
    file: str | None = Field(
        None,
        description="a CSV (or .csv.gz) with a time stamp, prompt tokens and output tokens for each request, in order",
    )
    speed: Annotated[float, Field(gt=0, le=1e6)] = Field(1.0, description="the file's gaps are divided by it")
    requests: Count | None = Field(None, description="so many requests; default: the whole file, else 1,000")
    prompt: AnyLengths | None = Field(None, description="tokens of a prompt: a number, or {mean, cv, max}")
    output: AnyLengths | None = Field(None, description="tokens of an answer: a number, or {mean, cv, max}")

    @model_validator(mode="after")
    def _one_source(self) -> ArrivalsSpec:
        given = [name for name in ("rate", "users", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs one of rate, users and file (got {', '.join(given) or 'none'})")
        if self.file is None and (self.prompt is None or self.output is None):
            raise ValueError("needs prompt and output, the tokens of each, unless a file gives them")
        if self.rate is not None and parse(self.rate, "request_rate") <= 0:
            raise ValueError("rate must be above 0")
        return self


class ParallelSpec(_Spec):
    """How a replica is spread over GPUs: ``tp * dp * pp`` of them."""

    tp: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="tensor parallel")
    dp: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="copies of attention, each with its own requests")
    ep: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="groups that the routed experts are divided over")
    pp: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="stages of layers, one after the other")


class DisaggregationSpec(_Spec):
    """Prefill on ``replicas`` of them, decoding on others, and the KV cache sent between."""

    decode_replicas: Count = Field(description="replicas that only decode")
    network: str = Field("ib-ndr-400", description="a network card: the way of a KV cache, one transfer at a time")


class SloSpec(_Spec):
    """What a request must keep to, to count as good."""

    ttft: Time | None = Field(None, description="time to the first token")
    tpot: Time | None = Field(None, description="mean time per further token")
    latency: Time | None = Field(None, description="to the last token")
    share: Annotated[float, Field(gt=0, le=1)] = Field(0.99, description="of the requests that must be good")


class ServingSpec(_Spec):
    """One deployment: replicas that batch continuously, as a vLLM instance does, and its scheduler's limits."""

    engine: Literal["vllm", "sglang", "trtllm", "offload"] = Field(
        "vllm",
        description="whose kernels: their fitted constants; 'offload': one GPU whose experts come from host memory or "
        "flash, by the scenario's policies, which decodes one request at a time, or a few",
    )
    replicas: Annotated[int, Field(ge=1, le=4096)] = 1
    parallel: ParallelSpec = ParallelSpec()
    exchange: Literal["all-reduce", "low_latency", "normal"] = Field(
        "low_latency", description="how experts on other GPUs are reached where ep > 1"
    )
    network: str | None = Field(None, description="between the GPUs of a replica; default: the GPU's NVLink")
    max_num_seqs: Annotated[int, Field(ge=1, le=65_536)] = Field(256, description="requests that run at once (vLLM)")
    max_num_batched_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = Field(
        2048, description="tokens of a step (vLLM's default for small GPUs; 8192 for H100 and larger)"
    )
    chunked_prefill: bool = Field(True, description="whether a prompt may be divided over steps")
    block_size: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="tokens of a KV block")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(0.9, description="as vLLM's setting")
    kv_tokens: Count | None = Field(None, description="KV cache of a replica; default: what weights leave")
    shared_prefix: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = Field(
        0, description="prompt tokens that all requests share, and whose KV cache is kept; default: nothing is shared"
    )
    batching: Literal["arrival", "alike"] = Field(
        "arrival",
        description="which waiting request is admitted next: the first, or of the first `window` the one whose answer "
        "uses most of the experts that running requests use (known from the trace: modelled)",
    )
    window: Annotated[int, Field(ge=2, le=1024)] = Field(
        16, description="of batching: alike; one that was passed over so often is next"
    )
    routing: Literal["round-robin", "least-loaded"] = Field("round-robin", description="of requests to replicas")
    disaggregation: DisaggregationSpec | None = None
    slo: SloSpec = SloSpec()
    time_scale: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="every step takes so many times as long: how much does an error of the cost forms matter?"
    )
    usd_per_gpu_hour: Annotated[float, Field(ge=0, le=1e4)] | None = Field(
        None, description="default: the GPU card's rent, the middle of the range seen"
    )

    @model_validator(mode="after")
    def _offloads_on_one_gpu(self) -> ServingSpec:
        if self.engine != "offload":
            return self
        if self.parallel != ParallelSpec() or self.disaggregation is not None:
            raise ValueError("engine: offload runs on one GPU | hint: leave out parallel and disaggregation")
        if self.batching != "arrival":
            raise ValueError("engine: offload batches by a policy | hint: policies: {batching: expertflow}")
        if self.max_num_seqs > MOST_OFFLOADED:
            told = f"engine: offload decodes at most {MOST_OFFLOADED} requests at once (got {self.max_num_seqs})"
            raise ValueError(f"{told} | hint: max_num_seqs: 1")
        return self
