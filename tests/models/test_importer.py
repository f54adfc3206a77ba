"""Configurations as Hugging Face has them, against the cards of the same models."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.documents import parse_yaml, validate
from moesim.errors import CardError, FileError
from moesim.models import ModelSpec, available_models, load_model
from moesim.models import parameters as p
from moesim.models.families import FAMILIES
from moesim.models.importer import from_hf_config, read_hf_config, to_card


def config(model_type, layers, hidden, heads, kv_heads, vocabulary, top_k, **more):
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "num_experts_per_tok": top_k,
        "torch_dtype": "bfloat16",
        **more,
    }


MLA = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
DEEPSEEK_V3 = config(
    "deepseek_v3", 61, 7168, 128, 128, 129280, 8,
    **MLA, q_lora_rank=1536, topk_method="noaux_tc", first_k_dense_replace=3, moe_layer_freq=1, intermediate_size=18432,
    moe_intermediate_size=2048, n_routed_experts=256, n_shared_experts=1, tie_word_embeddings=False,
    quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
)  # fmt: skip
CONFIGS = {
    "mixtral-8x7b": config(
        "mixtral", 32, 4096, 32, 8, 32000, 2, intermediate_size=14336, num_local_experts=8, sliding_window=None
    ),
    "qwen1.5-moe-a2.7b": config(
        "qwen2_moe", 24, 2048, 16, 16, 151936, 4,
        intermediate_size=5632, moe_intermediate_size=1408, shared_expert_intermediate_size=5632, num_experts=60,
        decoder_sparse_step=1, use_sliding_window=False, sliding_window=32768, mlp_only_layers=[],
    ),
    "qwen3-30b-a3b": config(
        "qwen3_moe", 48, 2048, 32, 4, 151936, 8,
        head_dim=128, intermediate_size=6144, moe_intermediate_size=768, num_experts=128, decoder_sparse_step=1,
    ),
    "qwen3-next-80b-a3b": config(
        "qwen3_next", 48, 2048, 16, 2, 151936, 10,
        head_dim=256, intermediate_size=5120, moe_intermediate_size=512, shared_expert_intermediate_size=512,
        num_experts=512, full_attention_interval=4, linear_num_key_heads=16, linear_num_value_heads=32,
        linear_key_head_dim=128, linear_value_head_dim=128, linear_conv_kernel_dim=4,
    ),
    "olmoe-1b-7b": config("olmoe", 16, 2048, 16, 16, 50304, 8, intermediate_size=1024, num_experts=64),
    "deepseek-v2-lite": config(
        "deepseek_v2", 27, 2048, 16, 16, 102400, 6,
        **MLA, q_lora_rank=None, topk_method="greedy", first_k_dense_replace=1, intermediate_size=10944,
        moe_intermediate_size=1408, n_routed_experts=64, n_shared_experts=2,
    ),
    "deepseek-v3": DEEPSEEK_V3,
    "kimi-k2": DEEPSEEK_V3 | {
        "model_type": "kimi_k2", "num_attention_heads": 64, "vocab_size": 163840, "n_routed_experts": 384,
        "first_k_dense_replace": 1,
    },
    "glm-4.5": config(
        "glm4_moe", 92, 5120, 96, 8, 151552, 8,
        head_dim=128, attention_bias=True, use_qk_norm=True, first_k_dense_replace=3, intermediate_size=12288,
        moe_intermediate_size=1536, n_routed_experts=160, n_shared_experts=1,
    ),
    "gpt-oss-20b": config(
        "gpt_oss", 24, 2880, 64, 8, 201088, 4,
        head_dim=64, intermediate_size=2880, num_local_experts=32, sliding_window=128,
        layer_types=["sliding_attention", "full_attention"] * 12, quantization_config={"quant_method": "mxfp4"},
    ),
    "phi-3.5-moe": config(
        "phimoe", 32, 4096, 32, 8, 32064, 2,
        intermediate_size=6400, num_local_experts=16, attention_bias=True, lm_head_bias=True, sliding_window=131072,
        max_position_embeddings=131072,
    ),
    "jamba-1.5-mini": config(
        "jamba", 32, 4096, 32, 8, 65536, 2,
        intermediate_size=14336, num_experts=16, expert_layer_period=2, expert_layer_offset=1, attn_layer_period=8,
        attn_layer_offset=4, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=256,
    ),
    "llama-4-maverick": {
        "model_type": "llama4",
        "text_config": config(
            "llama4_text", 48, 5120, 40, 8, 202048, 1,
            head_dim=128, intermediate_size=8192, intermediate_size_mlp=16384, num_local_experts=128,
            interleave_moe_layer_step=2, attention_chunk_size=8192, no_rope_layers=[],
        ),
    },
    "dbrx": {
        "model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352,
        "attn_config": {"kv_n_heads": 8, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
        "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
}  # fmt: skip
GRANITE = config(
    "granitemoe", 32, 1536, 24, 8, 49155, 8, intermediate_size=512, num_local_experts=40, tie_word_embeddings=True
)


def figures(spec: ModelSpec) -> dict[str, object]:
    layers = range(spec.num_layers)
    return {
        "total": p.total_params(spec),
        "active": p.active_params(spec, "with_head_only"),
        "expert": p.expert_params(spec),
        "shared": p.shared_params(spec),
        "router": p.router_params(spec),
        "MoE layers": spec.moe_layer_indices,
        "KV": [p.kv_elements_per_token(spec, layer) for layer in layers],
        "FLOP": [p.attention_flops_per_token_per_kv_position(spec, layer) for layer in layers],
        "window": [p.attention_window(spec, layer) for layer in layers],
        "bytes": (p.expert_bytes(spec, spec.expert_precision), p.resident_bytes(spec, spec.dense_precision)),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_gives_the_figures_of_the_card(name):
    assert figures(from_hf_config(CONFIGS[name], name)) == figures(load_model(name))


def test_the_name_that_transformers_5_writes_is_read_too():
    old = CONFIGS["qwen3-30b-a3b"]
    new = {key: value for key, value in old.items() if key != "num_experts"} | {"num_local_experts": old["num_experts"]}
    assert from_hf_config(new, "qwen3-30b-a3b") == from_hf_config(old, "qwen3-30b-a3b")


def test_granite_has_the_size_in_its_name():
    spec = from_hf_config(GRANITE, "granite-3.1-3b-a800m")
    assert p.total_params(spec) == pytest.approx(3.3e9, rel=0.01)
    assert p.active_params(spec, "without_embedding_and_head") == pytest.approx(0.8e9, rel=0.05)


#: Dense families: from memory, the totals that their names or model cards state (in units of 1e9).
DENSE = {
    "llama": (32, 4096, 32, 8, 128256, 14336, False, 8.03),
    "mistral": (32, 4096, 32, 8, 32768, 14336, False, 7.25),
    "qwen2": (28, 3584, 28, 4, 152064, 18944, False, 7.62),
    "qwen3": (36, 4096, 32, 8, 151936, 12288, False, 8.19),
}


@pytest.mark.parametrize("family", DENSE)
def test_a_dense_model_has_the_size_of_its_card(family):
    layers, hidden, heads, kv_heads, vocabulary, width, tied, billions = DENSE[family]
    dense = config(family, layers, hidden, heads, kv_heads, vocabulary, 0, intermediate_size=width)
    spec = from_hf_config(dense | {"tie_word_embeddings": tied}, family)
    assert p.total_params(spec) == pytest.approx(billions * 1e9, rel=0.01)
    assert spec.num_moe_layers == 0
    assert p.expert_params(spec) == 0


def test_every_family_is_tested():
    tested = {data["model_type"] for data in [*CONFIGS.values(), GRANITE]} | set(DENSE)
    same_function = {"granitemoeshared", "llama4_text"}
    assert tested | same_function == set(FAMILIES)


@pytest.mark.parametrize("name", available_models())
def test_a_written_card_reads_back_the_same(name):
    spec = load_model(name)
    assert validate(parse_yaml(to_card(spec), name, CardError), ModelSpec, CardError) == spec


def test_an_unknown_family_lists_those_that_are_known():
    with pytest.raises(CardError) as raised:
        from_hf_config({"model_type": "bert"}, "bert")
    (fault,) = raised.value.faults
    assert fault.message == "unknown family 'bert'"
    assert all(family in fault.hint for family in FAMILIES)


def test_all_missing_keys_are_named():
    with pytest.raises(CardError) as raised:
        from_hf_config({"model_type": "mixtral", "hidden_size": -1}, "broken")
    assert {fault.place for fault in raised.value.faults} >= {"num_hidden_layers", "vocab_size", "hidden_size"}


def test_dense_layers_in_the_middle_are_refused():
    with pytest.raises(CardError) as raised:
        from_hf_config(CONFIGS["qwen3-30b-a3b"] | {"mlp_only_layers": [5]}, "qwen")
    assert raised.value.faults[0].place == "mlp_only_layers"


@pytest.mark.parametrize("method", ["gptq", None, 4])
def test_an_unsupported_quantisation_is_refused(method):
    with pytest.raises(CardError) as raised:
        from_hf_config(CONFIGS["mixtral-8x7b"] | {"quantization_config": {"quant_method": method}}, "mixtral")
    assert raised.value.faults[0].place == "quantization_config.quant_method"


@settings(deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), st.data())
def test_a_wrong_value_is_a_card_error_or_another_model(name, data):
    broken = dict(CONFIGS[name])
    broken.update(broken.pop("text_config", {}), model_type=broken["model_type"])
    key = data.draw(st.sampled_from(sorted(set(broken) - {"model_type"})))
    broken[key] = data.draw(st.sampled_from([None, "x", -1, 0, 1.5, True, [], ["x"], [1], {}, {"a": 1}, 10**30]))
    with suppress(CardError):
        assert p.total_params(from_hf_config(broken, name)) > 0


def test_files(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GRANITE))
    assert read_hf_config(path) == GRANITE
    for text in ["{", "[1]", "[" * 100_000, "NaN"]:
        path.write_text(text)
        with pytest.raises(CardError):
            read_hf_config(path)
    with pytest.raises(FileError):
        read_hf_config(tmp_path)
