"""The part ``parallel`` of a scenario: how a model is spread over a cluster, and how its GPUs talk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, le=10**6)]
Share = Annotated[float, Field(ge=0, le=1)]


class Spec(BaseModel):
    """Strict and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BatchSpec(Spec):
    """The tokens of a step. Each GPU holds equally many; they are rows of the trace, taken in its order."""

    phase: Literal["decode", "prefill"] = Field(
        "decode", description="decode: a token of each request; prefill: chunks"
    )
    tokens_per_gpu: Count = Field(64, description="whose hidden states a GPU holds between attention and experts")
    steps: Count = Field(4, description="forward passes that are simulated")
    context: Count | None = Field(
        None, description="positions that a decoding token sees; default: as the trace has them (short, in a capture)"
    )
    microbatches: Count = Field(1, description="parts of a step that follow each other through a pipeline's stages")
    routing: Literal["trace", "balanced"] = Field("trace", description="balanced: experts in turn, as benchmarks do")
    drift: Share = Field(
        0.0, description="share of each layer's experts that trade places after every step: the load drifts (assumed)"
    )
    scope: Literal["model", "moe"] = Field(
        "model", description="moe: routers, experts, dispatch and combine alone, as benchmarks of an MoE layer do"
    )


class ExchangeSpec(Spec):
    """Dispatch and combine."""

    kind: Literal["nccl", "hierarchical", "deepep-normal", "deepep-low-latency", "fused"] = Field(
        "nccl", description="how tokens get to their experts and back: moesim.costs.all_to_all"
    )
    dispatch: Literal["bf16", "fp8", "fp32"] = Field("bf16", description="of hidden states on their way to experts")
    combine: Literal["bf16", "fp32"] = Field("bf16", description="of experts' outputs on their way back")
    sync: Literal["barrier", "one-sided"] | None = Field(
        None, description="default: barrier for nccl and hierarchical, one-sided for the others"
    )
    flows: Literal["ports", "simulated"] = Field(
        "ports", description="ports: the fullest link decides; simulated: max-min fair shares, flow by flow (slow)"
    )
    coherent: Literal["tokens", "kv"] | None = Field(
        None,
        description="ExFlow: every GPU has every request's context, so tokens go on from their first expert's GPU "
        "instead of returning; at each step's end the new tokens' hidden states are gathered, or their keys and values",
    )


class OverlapSpec(Spec):
    """What runs beside what."""

    two_batches: bool = Field(
        False, description="the step's tokens as two batches that compute and communicate in turn"
    )
    pipeline: Annotated[int, Field(ge=1, le=16)] | Literal["best"] = Field(
        1, description="chunks through dispatch, experts and combine; best: the fastest of 1, 2, 4, 8 and 16"
    )
    shared_experts: bool = Field(False, description="shared experts beside dispatch")
    separate_links: bool = Field(
        False,
        description="NVLink and network at the same time (FSMoE): phases of a hierarchical exchange, or dispatch "
        "between ranks and the all-gather of expert_tp within them",
    )

    @property
    def parts(self) -> int:
        """Parts of a GPU's tokens that are counted and priced on their own."""
        if self.two_batches:
            return 2
        return 1 if self.pipeline == "best" else self.pipeline


class CapacitySpec(Spec):
    """A limit on what one GPU sends to one expert; tokens beyond are dropped, and counted."""

    factor: Annotated[float, Field(gt=0, le=1000)] | Literal["dynamic"] | None = Field(
        None, description="times the mean; null: dropless; dynamic: in each layer the least that drops nothing (Tutel)"
    )
    padded: bool = Field(False, description="every expert gets its full capacity, on the wire and in its products")

    @model_validator(mode="after")
    def _padding_needs_a_factor(self) -> CapacitySpec:
        if self.padded and self.factor is None:
            raise ValueError("padded needs a factor | hint: factor: 1.25, or padded: false")
        return self


class StragglerSpec(Spec):
    """GPUs that compute more slowly than the others."""

    gpus: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list, description="numbers of slow GPUs")
    slowdown: Annotated[float, Field(ge=1, le=100)] = Field(1.2, description="how many times as long they take")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="standard deviation of each GPU's speed in each pass, drawn from the seed"
    )


class RebalanceSpec(Spec):
    """Placing anew while running, from what was seen."""

    every: Count = Field(description="steps between placements; the policy sees the steps before, never later ones")
    window: Count | None = Field(None, description="steps that it looks back; default: all since the last placement")
    hidden: Share = Field(0.0, description="share of the weights' move that runs beside the steps")
    spread: Count = Field(
        1, description="a move's cost is divided by this: how many steps a real system makes for each simulated one"
    )


class ParallelSpec(Spec):
    """How the model is spread, and what its GPUs do. Degrees: gpus = pp * dp * tp = pp * ep * expert_tp."""

    gpus: Count | None = Field(None, description="of the cluster's; default: all")
    tp: Count = Field(1, description="GPUs that share attention, dense parts and the output head")
    dp: Count | None = Field(None, description="attention replicas; default: what gpus, tp and pp leave")
    pp: Count = Field(1, description="stages of layers")
    ep: Count | None = Field(None, description="expert-parallel ranks; default: what gpus, expert_tp and pp leave")
    expert_tp: Count = Field(1, description="GPUs that divide each expert's width (ESP)")
    redundant_experts: Annotated[int, Field(ge=0, le=10**5)] = Field(0, description="slots of a layer beyond one each")
    expert_groups: Count = Field(1, description="groups of experts that the router limits tokens to, for EPLB")
    replica: Literal["even", "nearest"] = Field("even", description="which copy a token uses, unless the policy splits")
    profile: Literal["training", "oracle"] = Field(
        "training", description="what placement learns from: workload.train_fraction, or the scored tokens themselves"
    )
    batch: BatchSpec = BatchSpec()
    exchange: ExchangeSpec = ExchangeSpec()
    overlap: OverlapSpec = OverlapSpec()
    capacity: CapacitySpec = CapacitySpec()
    stragglers: StragglerSpec = StragglerSpec()
    rebalance: RebalanceSpec | None = None
    engine: Literal["vllm", "sglang", "trtllm"] = Field("vllm", description="whose kernels are priced")
    launches: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0, description="kernels that an MoE layer launches beyond those that are priced, one after the other"
    )
    reserve: str = Field("2 GiB", description="GPU memory for contexts, workspace and fragments (assumed)")
    study: bool = Field(True, description="whether `moesim run` also asks what would help, and if replicas pay")
