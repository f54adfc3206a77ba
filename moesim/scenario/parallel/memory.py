"""What each GPU of a cluster holds, by category, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.models import parameters
from moesim.scenario.parallel.offload import Cached
from moesim.scenario.parallel.parts import ParallelParts, layers_of_stage
from moesim.scenario.parallel.schema import ParallelSpec
from moesim.setup.placement import Placement
from moesim.units import format_bytes, parse

Floats = NDArray[np.float64]
#: Hidden states that live at once between kernels of a layer, in widths of the hidden size (assumed).
LIVE_STATES = 8
CATEGORIES = (
    "routed experts",
    "replicas",
    "shared experts",
    "attention and dense",
    "embedding and head",
    "KV cache",
    "activations",
    "communication buffers",
    "reserve",
)


@dataclass(frozen=True)
class ParallelMemory:
    """Bytes of each GPU by category. [gpus] each; ``total`` is what a GPU has.

    ``host``: what each node's memory must hold of experts that GPUs only cache, beside what it has.
    """

    uses: dict[str, Floats]
    total: int
    host: tuple[float, int] | None = None

    @property
    def needed(self) -> Floats:
        """All categories together. [gpus]"""
        return sum(self.uses.values(), start=np.zeros(1))

    @property
    def fits(self) -> bool:
        """Whether every GPU holds what it must."""
        host_fits = self.host is None or self.host[0] <= self.host[1]
        return bool((self.needed <= self.total).all()) and host_fits


def memory_of(
    parts: ParallelParts, parallel: ParallelSpec, placement: Placement, longest: int, cached: Cached | None = None
) -> ParallelMemory:
    """The memory of every GPU.

    Args:
        longest: positions that each request's KV cache holds.
        cached: how GPUs hold their experts where they don't hold all.
    """
    stages = [_stage(parts, parallel, placement, longest, number) for number in range(parts.degrees.pp)]
    uses = {name: np.concatenate([stage[name] for stage in stages]) for name in CATEGORIES}
    total, host = parts.gpu.memory.value, None
    if cached is not None:
        owned = uses["routed experts"] + uses["replicas"]
        node = parts.topology.node_of[: len(owned)]
        host = float(np.bincount(node, weights=owned).max()), parts.topology.node_card.host_memory.value
        share = np.minimum(cached.capacity_bytes / np.maximum(owned, 1.0), 1.0)
        uses |= {name: uses[name] * share for name in ("routed experts", "replicas")}
    return ParallelMemory(uses, total, host)


def verdict_of(memory: ParallelMemory) -> str:
    """Whether GPUs (and hosts) hold what they must, in words."""
    needed = memory.needed
    fullest = int(np.argmax(needed))
    told = f"GPU {fullest} needs {format_bytes(float(needed[fullest]))} of {format_bytes(memory.total)}"
    if memory.host is not None:
        told += f"; its node's host {format_bytes(memory.host[0])} of {format_bytes(memory.host[1])}"
    return f"fits: {told}" if memory.fits else f"out of memory: {told}"


def _stage(
    parts: ParallelParts, parallel: ParallelSpec, placement: Placement, longest: int, number: int
) -> dict[str, Floats]:
    model, degrees, precisions = parts.model, parts.degrees, parts.precisions
    layers, moe = layers_of_stage(model, number, degrees.pp)
    one = np.ones(degrees.stage)
    expert = precisions.experts.bytes_for(parameters.expert_params(model)) / degrees.expert_tp
    slots = np.repeat(placement.slots_on[moe].sum(axis=0), degrees.expert_tp).astype(np.float64)
    share = len(moe) * model.num_experts / placement.logical[moe].size
    attention = sum(parameters.attention_params(model, layer) for layer in layers)
    dense = (len(layers) - len(moe)) * parameters.dense_ffn_params(model) + attention
    routers = len(moe) * parameters.router_params(model)
    ends = parameters.embedding_params(model) * (number == 0)
    head = parameters.head_params(model) * (number == degrees.pp - 1 and not (model.tied_embeddings and number == 0))
    stored = precisions.dense.bytes_for
    buffers, batch = _buffers(parts, parallel), parallel.batch
    kv = sum(parameters.kv_elements_per_token(model, layer) for layer in layers) * precisions.kv_bytes_per_element
    requests = batch.tokens_per_gpu if batch.phase == "decode" else 1
    requests *= degrees.stage if parallel.exchange.coherent else 1  # every GPU has every request's context
    live = LIVE_STATES + model.top_k
    whole = float(batch.scope == "model")
    return {
        "routed experts": slots * expert * share,
        "replicas": slots * expert * (1 - share),
        "shared experts": one * stored(len(moe) * parameters.shared_params(model)) / degrees.tp,
        "attention and dense": one * (whole * stored(dense) / degrees.tp + stored(routers)),
        "embedding and head": one * whole * stored(ends + head) / degrees.tp,
        "KV cache": one * whole * kv * longest * requests,
        "activations": one * 2 * live * model.hidden_size * batch.tokens_per_gpu,
        "communication buffers": one * buffers,
        "reserve": one * parse(parallel.reserve, "bytes"),
    }


def _buffers(parts: ParallelParts, parallel: ParallelSpec) -> float:
    """Send and receive buffers. DeepEP's low-latency kernels keep a place for every token and expert, twice."""
    model, tokens = parts.model, parallel.batch.tokens_per_gpu
    if parallel.exchange.kind == "deepep-low-latency":
        experts = model.num_experts + parallel.redundant_experts
        return 2.0 * experts * tokens * (2 * model.hidden_size + model.hidden_size * 1.04 + 16)
    copies = model.top_k if parallel.exchange.kind in ("nccl", "hierarchical", "fused") else 1
    return 2.0 * 2 * copies * tokens * 2 * model.hidden_size
