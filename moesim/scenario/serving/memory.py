"""What a replica's GPUs hold, and what is left for KV caches."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.costs.resident import Parallel
from moesim.errors import Fault, ScenarioError
from moesim.models import ModelSpec, Precisions, parameters
from moesim.models.attention import GqaAttention
from moesim.units import format_bytes


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of one GPU (the fullest), and the KV cache of the whole replica.

    Attributes:
        total, experts, dense, reserve, kv: bytes; reserve includes what the engine leaves untouched.
        kv_tokens: that the replica holds.
        token_bytes: of KV cache, for one token on one GPU.
    """

    total: int
    experts: int
    dense: int
    reserve: int
    kv: int
    kv_tokens: int
    token_bytes: float


def kv_bytes_per_token(spec: ModelSpec, parallel: Parallel, bytes_per_element: float) -> float:
    """KV cache of one token on one GPU: KV heads are divided over tp, a latent is held by each."""
    whole = 0.0
    for layer in range(spec.num_layers):
        mixer = spec.mixer(layer)
        shared = min(parallel.tp, mixer.num_kv_heads) if isinstance(mixer, GqaAttention) else 1
        whole += parameters.kv_elements_per_token(spec, layer) / shared
    return whole * bytes_per_element / parallel.pp


def gpu_memory(
    spec: ModelSpec,
    precisions: Precisions,
    parallel: Parallel,
    *,
    total: int,
    utilization: float,
    reserve: int,
    kv_tokens: int | None,
) -> GpuMemory:
    """Share a GPU out: weights, the engine's reserve, and KV cache from the rest.

    Args:
        utilization: share of the GPU that the engine takes at all.
        reserve: for activations, workspace and graphs.
        kv_tokens: of the replica, where the user gives them.

    Raises:
        ScenarioError: the weights, or the KV cache, don't fit; says what takes how much.
    """
    experts = parameters.routed_params(spec) and -(
        -spec.num_moe_layers * spec.num_experts * parameters.expert_bytes(spec, precisions.experts) // parallel.gpus
    )
    dense = -(-parameters.resident_bytes(spec, precisions.dense) // (parallel.tp * parallel.pp))
    each = kv_bytes_per_token(spec, parallel, precisions.kv_bytes_per_element)
    left = round(total * utilization) - experts - dense - reserve
    held = (
        f"{format_bytes(total)} x {utilization:g} less experts {format_bytes(experts)}, "
        f"other weights {format_bytes(dense)} and reserve {format_bytes(reserve)}"
    )
    if left <= 0:
        hint = "more GPUs (serving.parallel), a larger GPU, or a narrower precision"
        raise ScenarioError(Fault("serving.parallel", f"the weights don't fit on a GPU: {held}", hint))
    most = int(left / each) * parallel.dp if each else 10**9
    if kv_tokens is not None and kv_tokens > most:
        told = f"{kv_tokens} tokens of KV cache don't fit: there is room for {most} ({held})"
        raise ScenarioError(Fault("serving.kv_tokens", told, "leave it out to take what is left"))
    tokens = most if kv_tokens is None else kv_tokens
    kv = round(tokens / parallel.dp * each)
    return GpuMemory(total, experts, dense, total - experts - dense - kv, kv, tokens, each)
