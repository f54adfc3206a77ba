"""The shapes of the bundled models: which real model each stands in for, and how long it is trained."""

from dataclasses import dataclass
from typing import Any

from tokens import VOCABULARY
from transformers import DeepseekV2Config, MixtralConfig, PreTrainedConfig, Qwen3MoeConfig

CONTEXT = 512  # tokens of a training sequence; a recorded request is never longer


@dataclass(frozen=True)
class Shape:
    """One bundled trace: the config of its language model and the steps that it is trained for.

    `requests` are recorded, `tokens_per_step` is sequences per step times `CONTEXT`.
    """

    name: str
    stands_in_for: str
    config: PreTrainedConfig
    steps: int
    requests: int
    sequences_per_step: int = 4
    learning_rate: float = 4e-3
    balancing: float = 1e-3

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimiser step sees."""
        return self.sequences_per_step * CONTEXT


def common(hidden: int, layers: int, heads: int, head_dim: int) -> dict[str, Any]:
    """The part of a config that all shapes share."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": head_dim,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def moe_32x4() -> Shape:
    """32 experts top-4, 12 layers; softmax over the chosen four, as gpt-oss-20b routes (of 24 layers)."""
    config = Qwen3MoeConfig(
        **common(hidden=96, layers=12, heads=2, head_dim=48),
        num_key_value_heads=1,
        num_experts=32,
        num_experts_per_tok=4,
        moe_intermediate_size=48,
        intermediate_size=48,
        norm_topk_prob=True,
    )
    return Shape("moe-32x4", "gpt-oss-20b", config, steps=1600, requests=72)


def moe_8x2() -> Shape:
    """8 experts top-2, 12 layers, as Mixtral 8x7B routes (of 32 layers)."""
    config = MixtralConfig(
        **common(hidden=96, layers=12, heads=2, head_dim=48),
        num_key_value_heads=1,
        num_local_experts=8,
        num_experts_per_tok=2,
        intermediate_size=96,
        sliding_window=None,
    )
    return Shape("moe-8x2", "Mixtral-8x7B", config, steps=1600, requests=72)


def moe_64x6() -> Shape:
    """64 experts top-6 and 2 shared, 12 MoE layers behind a dense one, as DeepSeek-V2-Lite routes (of 26)."""
    config = DeepseekV2Config(
        **common(hidden=96, layers=13, heads=2, head_dim=48) | {"head_dim": 24},
        num_key_value_heads=2,
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=32,
        intermediate_size=256,
        first_k_dense_replace=1,
        kv_lora_rank=48,
        q_lora_rank=None,
        qk_nope_head_dim=24,
        qk_rope_head_dim=24,
        v_head_dim=48,
    )
    return Shape("moe-64x6", "DeepSeek-V2-Lite", config, steps=1600, requests=72)


def moe_128x8() -> Shape:
    """128 experts top-8, 12 layers; softmax over the chosen eight, as Qwen3-30B-A3B routes (of 48 layers)."""
    config = Qwen3MoeConfig(
        **common(hidden=96, layers=12, heads=2, head_dim=48),
        num_key_value_heads=1,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=24,
        intermediate_size=48,
        norm_topk_prob=True,
    )
    return Shape("moe-128x8", "Qwen3-30B-A3B", config, steps=1600, requests=72)


SHAPES = {"32x4": moe_32x4, "8x2": moe_8x2, "64x6": moe_64x6, "128x8": moe_128x8}
