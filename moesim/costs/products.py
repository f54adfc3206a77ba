"""The dense products of a layer, as the (n, k) of ``y[m, n] = x[m, k] w[k, n]``, on one of ``tp`` GPUs.

Tensor parallelism divides heads and widths: the first product of a pair by its columns, the second by its rows
(Shoeybi et al., "Megatron-LM", arXiv 1909.08053). What engines fuse is one product: queries, keys and values; gate and
up. Compressions of MLA and selections of state mixers that all heads share are not divided.
"""

from __future__ import annotations

import math

from moesim.costs.attention import HeadShape
from moesim.models import ModelSpec
from moesim.models.attention import (
    GatedDeltaNet,
    GqaAttention,
    LightningAttention,
    Mamba,
    Mixer,
    MlaAttention,
)

Product = tuple[int, int]


def mixer_products(mixer: Mixer, hidden: int, tp: int = 1) -> list[Product]:
    """Projections of attention or of what stands in for it."""
    match mixer:
        case GqaAttention():
            queries, keys = _part(mixer.num_heads, tp) * mixer.head_dim, _part(mixer.num_kv_heads, tp) * mixer.head_dim
            return [(queries * (2 if mixer.output_gate else 1) + 2 * keys, hidden), (hidden, queries)]
        case MlaAttention():
            return _mla_products(mixer, hidden, tp)
        case GatedDeltaNet():
            keys, values = mixer.key_heads * mixer.key_head_dim, mixer.value_heads * mixer.value_head_dim
            inputs = _part(2 * keys + 2 * values + 2 * mixer.value_heads, tp)
            return [(inputs, hidden), (hidden, _part(values, tp))]
        case LightningAttention():
            width = _part(mixer.num_heads * mixer.head_dim, tp)
            return [(4 * width, hidden), (hidden, width)]
        case Mamba():
            inner, chosen = _part(mixer.expand * hidden, tp), mixer.dt_rank + 2 * mixer.d_state
            return [(2 * inner, hidden), (chosen, inner), (inner, mixer.dt_rank), (hidden, inner)]


def _mla_products(mla: MlaAttention, hidden: int, tp: int) -> list[Product]:
    heads, latent = _part(mla.num_heads, tp), mla.kv_lora_rank + mla.qk_rope_head_dim
    queries = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    if mla.q_lora_rank is None:
        down = [(queries, hidden), (latent, hidden)]
    else:
        down = [(mla.q_lora_rank + latent, hidden), (queries, mla.q_lora_rank)]
    up = (heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank)
    return [*down, up, (hidden, heads * mla.v_head_dim)]


def ffn_products(hidden: int, width: int, matrices: int, tp: int = 1) -> list[Product]:
    """A feed-forward network: gate and up together, then down."""
    own = _part(width, tp)
    return [((matrices - 1) * own, hidden), (hidden, own)]


def head_shape(mixer: Mixer, tp: int = 1, decoding: bool = True) -> HeadShape | None:
    """The heads of one GPU; None for state mixers, which have no keys.

    MLA decodes against the latent itself, as one KV head (queries and outputs absorb the up-projections); in prefill
    keys and values are expanded for each head.
    """
    match mixer:
        case GqaAttention():
            width = mixer.head_dim
            return HeadShape(_part(mixer.num_heads, tp), _part(mixer.num_kv_heads, tp), 2 * width, 2 * width, 4 * width)
        case MlaAttention():
            heads, rank, rope = _part(mixer.num_heads, tp), mixer.kv_lora_rank, mixer.qk_rope_head_dim
            if decoding:
                return HeadShape(heads, 1, rank + rope, 2 * rank + rope, 2 * (2 * rank + rope))
            width = mixer.qk_nope_head_dim + rope + mixer.v_head_dim
            return HeadShape(heads, heads, width, width, 2 * width)
        case _:
            return None


def state_elements(mixer: Mixer, hidden: int) -> int:
    """Numbers that a state mixer keeps for each request; 0 for attention."""
    match mixer:
        case GatedDeltaNet():
            return mixer.value_heads * mixer.key_head_dim * mixer.value_head_dim
        case LightningAttention():
            return mixer.num_heads * mixer.head_dim**2
        case Mamba():
            return mixer.expand * hidden * mixer.d_state
        case _:
            return 0


def shared_width(spec: ModelSpec) -> int:
    """Width of all shared experts of a layer together; 0 where there are none."""
    if not spec.num_shared_experts:
        return 0
    return spec.shared_intermediate_size_total or spec.num_shared_experts * spec.moe_intermediate_size


def _part(count: int, tp: int) -> int:
    """One GPU's share, at least 1: KV heads fewer than GPUs are copied."""
    return max(1, math.ceil(count / tp))
