"""Parameters, bytes and operations of a language model, by arithmetic on its fields.

Matrices, biases, norms, router, embedding and head are counted; multi-token-prediction layers and vision towers are
not, nor are tables of relative positions (below a thousand). Functions with a ``layer`` give that layer's figure: in
hybrid models the layers differ.
"""

from __future__ import annotations

from typing import get_args

from moesim.models.attention import (
    GatedDeltaNet,
    GqaAttention,
    LightningAttention,
    Mamba,
    Mixer,
    MlaAttention,
)
from moesim.models.precision import Precision, get_precision
from moesim.models.spec import Convention, ModelSpec

#: Every convention, from the fewest parameters to the most.
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def expert_params(spec: ModelSpec) -> int:
    """One routed expert: ``ffn_matrices * hidden * width``, and biases where it has them."""
    return _ffn_params(spec, spec.moe_intermediate_size)


def shared_params(spec: ModelSpec) -> int:
    """All shared experts of one MoE layer, and their gate; 0 where there are none."""
    if not spec.num_shared_experts:
        return 0
    width = spec.shared_intermediate_size_total or spec.num_shared_experts * spec.moe_intermediate_size
    return _ffn_params(spec, width) + (spec.hidden_size if spec.shared_expert_gate else 0)


def router_params(spec: ModelSpec) -> int:
    """The router of one MoE layer: ``hidden * experts``, and a bias per expert where it has one."""
    return spec.hidden_size * spec.num_experts + (spec.num_experts if spec.router_bias else 0)


def dense_ffn_params(spec: ModelSpec) -> int:
    """The feed-forward network of one dense layer; 0 where there are none."""
    return _ffn_params(spec, spec.dense_intermediate_size) if spec.dense_intermediate_size else 0


def attention_params(spec: ModelSpec, layer: int) -> int:
    """Attention (or state mixer) of one layer, without the norm before it; a decoder's cross attention counts too."""
    cross = 0 < spec.num_encoder_layers <= layer
    return _mixer_params(spec.mixer(layer), spec.hidden_size) * (2 if cross else 1)


def norm_params(spec: ModelSpec) -> int:
    """All norms on the hidden state: those of the layers, and a final one per stack."""
    num_decoders = spec.num_layers - spec.num_encoder_layers if spec.num_encoder_layers else 0
    num_stacks = 2 if spec.num_encoder_layers else 1
    count = spec.num_layers * spec.norms_per_layer + num_decoders + num_stacks
    return count * spec.hidden_size * (2 if spec.norm_bias else 1)


def embedding_params(spec: ModelSpec) -> int:
    """The input embedding: ``vocabulary * hidden``."""
    return spec.vocab_size * spec.hidden_size


def head_params(spec: ModelSpec) -> int:
    """The output head as a product sees it, ``vocabulary * hidden``; where tied, it is the embedding's matrix."""
    return spec.vocab_size * spec.hidden_size + (spec.vocab_size if spec.head_bias else 0)


def routed_params(spec: ModelSpec) -> int:
    """All routed experts of all layers."""
    return spec.num_moe_layers * spec.num_experts * expert_params(spec)


def layer_params(spec: ModelSpec) -> int:
    """All layers but their routed experts, with norms: what every token passes."""
    attention = sum(attention_params(spec, layer) for layer in range(spec.num_layers))
    moe = spec.num_moe_layers * (router_params(spec) + shared_params(spec))
    dense = (spec.num_layers - spec.num_moe_layers) * dense_ffn_params(spec)
    return attention + moe + dense + norm_params(spec)


def total_params(spec: ModelSpec) -> int:
    """Everything that is stored; a tied matrix once."""
    head = 0 if spec.tied_embeddings else head_params(spec)
    return layer_params(spec) + routed_params(spec) + embedding_params(spec) + head


def active_params(spec: ModelSpec, convention: Convention) -> int:
    """Parameters that one token uses: all layers with ``top_k`` experts each, and what the convention adds.

    ``with_head_only`` adds the head (tied or not), ``with_embedding_and_head`` all of the embedding as well, where
    it is a matrix of its own.
    """
    layers = layer_params(spec) + spec.num_moe_layers * spec.top_k * expert_params(spec)
    if convention == "without_embedding_and_head":
        return layers
    embedding = 0 if spec.tied_embeddings or convention == "with_head_only" else embedding_params(spec)
    return layers + head_params(spec) + embedding


def expert_bytes(spec: ModelSpec, precision: Precision | str) -> int:
    """One routed expert as stored in a precision."""
    return _precision(precision).bytes_for(expert_params(spec))


def resident_bytes(spec: ModelSpec, precision: Precision | str) -> int:
    """Everything but the routed experts as stored in a precision: what stays in GPU memory under expert offloading."""
    return _precision(precision).bytes_for(total_params(spec) - routed_params(spec))


def kv_elements_per_token(spec: ModelSpec, layer: int) -> int:
    """Elements of KV cache that one token adds in a layer.

    GQA: ``2 * kv_heads * head_dim``. MLA: the compressed ``kv_lora_rank + qk_rope_head_dim``. State mixers: none.
    """
    match spec.mixer(layer):
        case GqaAttention() as gqa:
            return 2 * gqa.num_kv_heads * gqa.head_dim
        case MlaAttention() as mla:
            return mla.kv_lora_rank + mla.qk_rope_head_dim
        case _:
            return 0


def kv_bytes_per_token_per_layer(spec: ModelSpec, bytes_per_element: float = 2) -> float:
    """Bytes of KV cache that one token adds, the mean over the layers (which differ only in hybrid models)."""
    elements = sum(kv_elements_per_token(spec, layer) for layer in range(spec.num_layers))
    return elements * bytes_per_element / spec.num_layers


def attention_window(spec: ModelSpec, layer: int) -> int | None:
    """How many past positions a layer sees; None: all."""
    mixer = spec.mixer(layer)
    if isinstance(mixer, GqaAttention) and layer % mixer.window_period in mixer.window_offsets:
        return mixer.window
    return None


def attention_flops_per_token_per_kv_position(spec: ModelSpec, layer: int) -> int:
    """Operations of scores and weighted sum for one query token and one past position, all heads.

    GQA: ``2 * heads * head_dim`` for each. MLA as in decoding, with the up-projections absorbed into queries and
    outputs: ``2 * heads * (kv_lora_rank + rope)`` for the scores, ``2 * heads * kv_lora_rank`` for the sum. State
    mixers: none; their cost per token doesn't grow with the context.
    """
    match spec.mixer(layer):
        case GqaAttention() as gqa:
            return 4 * gqa.num_heads * gqa.head_dim
        case MlaAttention() as mla:
            return 2 * mla.num_heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim)
        case _:
            return 0


def _precision(precision: Precision | str) -> Precision:
    return get_precision(precision) if isinstance(precision, str) else precision


def _ffn_params(spec: ModelSpec, width: int) -> int:
    biases = (spec.ffn_matrices - 1) * width + spec.hidden_size if spec.ffn_bias else 0
    return spec.ffn_matrices * spec.hidden_size * width + biases


def _mixer_params(mixer: Mixer, hidden: int) -> int:
    match mixer:
        case GqaAttention():
            return _gqa_params(mixer, hidden)
        case MlaAttention():
            return _mla_params(mixer, hidden)
        case GatedDeltaNet():
            return _gated_deltanet_params(mixer, hidden)
        case LightningAttention():
            width = mixer.num_heads * mixer.head_dim
            return 5 * hidden * width + width  # queries, keys, values, gate, output; norm
        case Mamba():
            return _mamba_params(mixer, hidden)


def _gqa_params(gqa: GqaAttention, hidden: int) -> int:
    queries, keys = gqa.num_heads * gqa.head_dim, gqa.num_kv_heads * gqa.head_dim
    projections = hidden * (queries * (3 if gqa.output_gate else 2) + 2 * keys)
    biases = (queries + 2 * keys if gqa.qkv_bias else 0) + (hidden if gqa.output_bias else 0)
    norms = {None: 0, "head": 2 * gqa.head_dim, "all_heads": queries + keys}[gqa.qk_norm]
    return projections + biases + norms + (gqa.num_heads if gqa.sinks else 0)


def _mla_params(mla: MlaAttention, hidden: int) -> int:
    query_dim = mla.num_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    rank = mla.q_lora_rank
    queries = hidden * query_dim if rank is None else hidden * rank + rank + rank * query_dim  # down, norm, up
    down = hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim) + mla.kv_lora_rank
    up = mla.kv_lora_rank * mla.num_heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return queries + down + up + mla.num_heads * mla.v_head_dim * hidden


def _gated_deltanet_params(net: GatedDeltaNet, hidden: int) -> int:
    keys, values = net.key_heads * net.key_head_dim, net.value_heads * net.value_head_dim
    inputs = hidden * (2 * keys + 2 * values + 2 * net.value_heads)  # q, k, v, gate; beta and decay per head
    conv = (2 * keys + values) * net.conv_kernel
    return inputs + conv + 2 * net.value_heads + net.value_head_dim + values * hidden


def _mamba_params(mamba: Mamba, hidden: int) -> int:
    inner, state = mamba.expand * hidden, mamba.d_state
    conv = inner * mamba.d_conv + inner
    selection = inner * (mamba.dt_rank + 2 * state) + (mamba.dt_rank + 2 * state)  # projection, norms (Jamba)
    step = mamba.dt_rank * inner + inner
    return 2 * hidden * inner + conv + selection + step + inner * state + inner + inner * hidden
