"""Which key of a Hugging Face configuration holds what, family by family (``model_type``).

Each function gives the fields of a :class:`~moesim.models.spec.ModelSpec` that its family has, without name, origin
and precisions. Source: the configuration and modelling files of transformers 5.23.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from moesim.errors import Fault

Fields = dict[str, Any]
Item = TypeVar("Item")


class Config:
    """A configuration that notes missing keys instead of stopping at the first. Text models may lie in a part."""

    def __init__(self, data: Mapping[str, Any]):
        text = data.get("text_config")
        self._data = {**data, **text} if isinstance(text, Mapping) else data
        self.faults: list[Fault] = []

    def need(self, key: str) -> Any:
        """The value of a key; a fault, and None, where it is missing or null."""
        value = self._data.get(key)
        if value is None:
            self.faults.append(Fault(key, "is required", "add this key"))
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key that may be missing or null."""
        value = self._data.get(key)
        return default if value is None else value

    def first(self, *keys: str) -> str:
        """The first of several names of the same key that is there; else the first."""
        return next((key for key in keys if self._data.get(key) is not None), keys[0])

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least ``least``; a fault, and ``least``, where it isn't one."""
        value = self.need(key) if default is None else self.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        if value is not None:
            self.faults.append(Fault(key, f"must be a whole number of at least {least} (got {value!r})"))
        return least

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        return bool(self.get(key, default))

    def items(self, key: str, kind: type[Item]) -> list[Item]:
        """A list whose items are all of one kind, or nothing; a fault where it is something else."""
        value = self.get(key, [])
        if isinstance(value, list) and all(type(item) is kind for item in value):
            return value
        self.faults.append(Fault(key, f"must be a list of {kind.__name__} (got {value!r})"))
        return []

    def part(self, key: str) -> Config:
        """A nested configuration, whose faults are noted here."""
        value = self.need(key)
        inner = Config(value if isinstance(value, Mapping) else {})
        inner.faults = self.faults
        return inner


def _shape(config: Config, *, width: str, experts: str, dense_width: str | None = None) -> Fields:
    """What nearly all families have, with the three keys whose names differ."""
    fields = {
        "num_layers": config.number("num_hidden_layers"),
        "hidden_size": config.number("hidden_size"),
        "moe_intermediate_size": config.number(width),
        # transformers 5 writes num_local_experts for families that called it num_experts
        "num_experts": config.number(config.first(experts, "num_local_experts")),
        "top_k": config.number("num_experts_per_tok"),
        "vocab_size": config.number("vocab_size"),
        "tied_embeddings": config.flag("tie_word_embeddings"),
    }
    return fields | ({"dense_intermediate_size": config.number(dense_width)} if dense_width else {})


def _gqa(config: Config, **extra: Any) -> Fields:
    heads = config.number("num_attention_heads")
    return {
        "kind": "gqa",
        "num_heads": heads,
        "num_kv_heads": config.number("num_key_value_heads", heads),
        "head_dim": config.number("head_dim", max(1, config.number("hidden_size", heads) // heads)),
        **_window(config),
        **extra,
    }


def _window(config: Config) -> Fields:
    """A sliding window, where the configuration has one that is in use and shorter than the context."""
    if config.get("sliding_window") is None or not config.flag("use_sliding_window", True):
        return {}
    window = config.number("sliding_window")
    return {"window": window} if window < config.number("max_position_embeddings", window + 1) else {}


def _windowed_layers(window: int, chosen: Sequence[bool]) -> Fields:
    """A window in the chosen layers, told by the shortest period with which they repeat."""
    layers = range(len(chosen))
    periods = range(1, len(chosen) + 1)
    period = next(period for period in periods if all(chosen[layer] == chosen[layer % period] for layer in layers))
    offsets = [layer for layer in range(period) if chosen[layer]]
    return {"window": window, "window_period": period, "window_offsets": offsets} if offsets else {"window": None}


def _mla(config: Config) -> Fields:
    ranks = {"q_lora_rank": config.number("q_lora_rank")} if config.get("q_lora_rank") else {}
    keys = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    numbers = {key: config.number(key) for key in keys}
    return {"kind": "mla", "num_heads": config.number("num_attention_heads"), **ranks, **numbers}


def _mixtral(config: Config) -> Fields:
    return _shape(config, width="intermediate_size", experts="num_local_experts") | {"attention": _gqa(config)}


def _sparse_step(config: Config) -> Fields:
    """Qwen's pattern: every ``decoder_sparse_step``-th layer has experts, but not those of ``mlp_only_layers``."""
    step = config.number("decoder_sparse_step", 1)
    dense = sorted(config.items("mlp_only_layers", int))
    if dense != list(range(len(dense))):
        hint = "write the card by hand"
        config.faults.append(Fault("mlp_only_layers", f"only the first layers may stand here (got {dense})", hint))
    return {"num_dense_layers": len(dense), "moe_layer_period": step, "moe_layer_offset": step - 1}


def _qwen_shared(config: Config) -> Fields:
    return {
        "num_shared_experts": 1,
        "shared_intermediate_size_total": config.number("shared_expert_intermediate_size"),
        "shared_expert_gate": True,
    }


def _qwen_shape(config: Config) -> Fields:
    shape = _shape(config, width="moe_intermediate_size", experts="num_experts", dense_width="intermediate_size")
    return shape | _sparse_step(config)


def _qwen2_moe(config: Config) -> Fields:
    attention = _gqa(config, qkv_bias=config.flag("qkv_bias", True))
    return _qwen_shape(config) | _qwen_shared(config) | {"attention": attention}


def _qwen3_moe(config: Config) -> Fields:
    bias = config.flag("attention_bias")
    return _qwen_shape(config) | {"attention": _gqa(config, qk_norm="head", qkv_bias=bias, output_bias=bias)}


def _qwen3_next(config: Config) -> Fields:
    period = config.number("full_attention_interval", 4)
    other = {
        "kind": "gated_deltanet",
        "key_heads": config.number("linear_num_key_heads"),
        "value_heads": config.number("linear_num_value_heads"),
        "key_head_dim": config.number("linear_key_head_dim"),
        "value_head_dim": config.number("linear_value_head_dim"),
        "conv_kernel": config.number("linear_conv_kernel_dim"),
    }
    full = _gqa(config, qk_norm="head", output_gate=True)
    attention = {"kind": "hybrid", "full_period": period, "full_offset": period - 1, "full": full, "other": other}
    return _qwen_shape(config) | _qwen_shared(config) | {"attention": attention}


def _olmoe(config: Config) -> Fields:
    shape = _shape(config, width="intermediate_size", experts="num_experts")
    bias = config.flag("attention_bias")
    return shape | {"attention": _gqa(config, qk_norm="all_heads", qkv_bias=bias, output_bias=bias)}


def _deepseek_shape(config: Config) -> Fields:
    """Also GLM's: dense layers first, then experts beside shared ones as wide as they are."""
    if config.get("moe_layer_freq", 1) != 1:
        config.faults.append(Fault("moe_layer_freq", "only 1 is supported", "write the card by hand"))
    shape = _shape(config, width="moe_intermediate_size", experts="n_routed_experts", dense_width="intermediate_size")
    return shape | {
        "num_dense_layers": config.number("first_k_dense_replace", 0, least=0),
        "num_shared_experts": config.number("n_shared_experts", 0, least=0),
    }


def _deepseek(config: Config) -> Fields:
    biased = config.get("topk_method") == "noaux_tc"
    return _deepseek_shape(config) | {"router_bias": biased, "attention": _mla(config)}


def _glm4_moe(config: Config) -> Fields:
    norm = "head" if config.flag("use_qk_norm") else None
    attention = _gqa(config, qkv_bias=config.flag("attention_bias"), qk_norm=norm)
    return _deepseek_shape(config) | {"router_bias": True, "attention": attention}


def _gpt_oss(config: Config) -> Fields:
    types = config.items("layer_types", str) or ["sliding_attention", "full_attention"]
    window = _windowed_layers(config.number("sliding_window"), [kind == "sliding_attention" for kind in types])
    attention = _gqa(config, qkv_bias=True, output_bias=True, sinks=True) | window
    shape = _shape(config, width="intermediate_size", experts="num_local_experts")
    return shape | {"ffn_bias": True, "router_bias": True, "attention": attention}


def _phimoe(config: Config) -> Fields:
    shape = _shape(config, width="intermediate_size", experts="num_local_experts")
    bias = config.flag("attention_bias")
    attention = _gqa(config, qkv_bias=bias, output_bias=bias)
    return shape | {"norm_bias": True, "head_bias": config.flag("lm_head_bias"), "attention": attention}


def _granitemoe(config: Config) -> Fields:
    shape = _shape(config, width="intermediate_size", experts="num_local_experts")
    bias = config.flag("attention_bias")
    shared = config.number("shared_intermediate_size", 0, least=0)
    together = {"num_shared_experts": 1, "shared_intermediate_size_total": shared} if shared else {}
    return shape | together | {"attention": _gqa(config, qkv_bias=bias, output_bias=bias)}


def _jamba(config: Config) -> Fields:
    shape = _shape(config, width="intermediate_size", experts="num_experts", dense_width="intermediate_size")
    automatic = config.get("mamba_dt_rank", "auto") == "auto"
    rank = math.ceil(config.number("hidden_size") / 16) if automatic else config.number("mamba_dt_rank")
    mamba = {
        "kind": "mamba",
        "d_state": config.number("mamba_d_state", 16),
        "d_conv": config.number("mamba_d_conv", 4),
        "expand": config.number("mamba_expand", 2),
        "dt_rank": rank,
    }
    attention = {
        "kind": "hybrid",
        "full_period": config.number("attn_layer_period"),
        "full_offset": config.number("attn_layer_offset", least=0),
        "full": _gqa(config),
        "other": mamba,
    }
    period, offset = config.number("expert_layer_period"), config.number("expert_layer_offset", least=0)
    return shape | {"moe_layer_period": period, "moe_layer_offset": offset, "attention": attention}


def _llama4(config: Config) -> Fields:
    step = config.number("interleave_moe_layer_step", 1)
    rotary = config.items("no_rope_layers", int) or [1, 1, 1, 0]  # layers without rotary positions see everything
    window = _windowed_layers(config.number("attention_chunk_size", 8192), [bool(layer) for layer in rotary])
    shape = _shape(config, width="intermediate_size", experts="num_local_experts", dense_width="intermediate_size_mlp")
    return shape | {
        "moe_layer_period": step,
        "moe_layer_offset": step - 1,
        "num_shared_experts": 1,
        "attention": _gqa(config) | window,
    }


def _dbrx(config: Config) -> Fields:
    attention, ffn = config.part("attn_config"), config.part("ffn_config")
    hidden, heads = config.number("d_model"), config.number("n_heads")
    gqa = {"num_heads": heads, "num_kv_heads": attention.number("kv_n_heads"), "head_dim": max(1, hidden // heads)}
    return {
        "num_layers": config.number("n_layers"),
        "hidden_size": hidden,
        "moe_intermediate_size": ffn.number("ffn_hidden_size"),
        "num_experts": ffn.number("moe_num_experts"),
        "top_k": ffn.number("moe_top_k"),
        "vocab_size": config.number("vocab_size"),
        "tied_embeddings": config.flag("tie_word_embeddings"),
        "attention": {"kind": "gqa", **gqa},
    }


def _dense(config: Config, **attention: Any) -> Fields:
    """A model without experts."""
    return {
        "num_layers": config.number("num_hidden_layers"),
        "num_dense_layers": config.number("num_hidden_layers"),
        "hidden_size": config.number("hidden_size"),
        "dense_intermediate_size": config.number("intermediate_size"),
        "moe_intermediate_size": 0,
        "num_experts": 0,
        "top_k": 0,
        "vocab_size": config.number("vocab_size"),
        "tied_embeddings": config.flag("tie_word_embeddings"),
        "attention": _gqa(config, **attention),
    }


def _llama(config: Config) -> Fields:
    bias = config.flag("attention_bias")
    return _dense(config, qkv_bias=bias, output_bias=bias)


def _qwen3(config: Config) -> Fields:
    bias = config.flag("attention_bias")
    return _dense(config, qk_norm="head", qkv_bias=bias, output_bias=bias)


FAMILIES: dict[str, Callable[[Config], Fields]] = {
    "dbrx": _dbrx,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "glm4_moe": _glm4_moe,
    "gpt_oss": _gpt_oss,
    "granitemoe": _granitemoe,
    "granitemoeshared": _granitemoe,
    "jamba": _jamba,
    "kimi_k2": _deepseek,
    "llama": _llama,
    "llama4": _llama4,
    "llama4_text": _llama4,
    "mistral": _dense,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "phimoe": _phimoe,
    "qwen2_moe": _qwen2_moe,
    "qwen2": lambda config: _dense(config, qkv_bias=True),
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "qwen3_next": _qwen3_next,
}
