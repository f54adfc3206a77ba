"""What mixes tokens in a layer: the kinds of attention, and what stands in for it in hybrid models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0, strict=True)]
Index = Annotated[int, Field(ge=0, strict=True)]


class _Mixer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GqaAttention(_Mixer):
    """Grouped-query attention; multi-head attention where ``num_kv_heads == num_heads``.

    - ``qkv_bias``, ``output_bias``: the projections add a bias.
    - ``qk_norm``: a norm on queries and keys, of each head (``head``) or over all of them (``all_heads``).
    - ``output_gate``: a gate as wide as the queries, projected along with them.
    - ``sinks``: one learned logit per head.
    - ``window``: layers see only so many past positions (sliding or chunked): those whose index modulo
      ``window_period`` is among ``window_offsets``; by default all layers.
    """

    kind: Literal["gqa"]
    num_heads: Count
    num_kv_heads: Count
    head_dim: Count
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: Literal["head", "all_heads"] | None = None
    output_gate: bool = False
    sinks: bool = False
    window: Count | None = None
    window_period: Count = 1
    window_offsets: list[Index] = [0]


class MlaAttention(_Mixer):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are kept compressed.

    ``q_lora_rank`` None: queries are projected directly.
    """

    kind: Literal["mla"]
    num_heads: Count
    q_lora_rank: Count | None = None
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    v_head_dim: Count


class GatedDeltaNet(_Mixer):
    """Linear attention of Qwen3-Next: a state per head instead of keys and values per position."""

    kind: Literal["gated_deltanet"]
    key_heads: Count
    value_heads: Count
    key_head_dim: Count
    value_head_dim: Count
    conv_kernel: Count


class LightningAttention(_Mixer):
    """Linear attention of MiniMax-01: a state per head instead of keys and values per position."""

    kind: Literal["lightning"]
    num_heads: Count
    head_dim: Count


class Mamba(_Mixer):
    """State-space mixer of Jamba (Mamba-1): ``expand`` times the hidden size wide, a state per channel."""

    kind: Literal["mamba"]
    d_state: Count
    d_conv: Count
    expand: Count
    dt_rank: Count


FullAttention = GqaAttention | MlaAttention
StateMixer = GatedDeltaNet | LightningAttention | Mamba
Mixer = FullAttention | StateMixer


class HybridAttention(_Mixer):
    """Full attention in layers whose index modulo ``full_period`` is ``full_offset``, a state mixer in the others."""

    kind: Literal["hybrid"]
    full_period: Count
    full_offset: Index
    full: Annotated[FullAttention, Field(discriminator="kind")]
    other: Annotated[StateMixer, Field(discriminator="kind")]


Attention = GqaAttention | MlaAttention | HybridAttention
