"""Arithmetic by hand, then every card against figures computed elsewhere and against those that were published."""

import pytest

from moesim.models import ModelSpec, available_models, load_model
from moesim.models import parameters as p

#: name: (parameters of one expert; total; active without embedding and head, with head, with both), the last four in
#: billions: computed by an independent script from the same configurations.
EXPECTED = {
    "dbrx": (198_180_864, 131.597, 35.237, 35.853, 36.47),
    "deepseek-r1": (44_040_192, 671.026, 35.699, 36.626, 37.552),
    "deepseek-v2": (23_592_960, 235.741, 20.327, 20.852, 21.376),
    "deepseek-v2-lite": (8_650_752, 15.706, 2.242, 2.451, 2.661),
    "deepseek-v3": (44_040_192, 671.026, 35.699, 36.626, 37.552),
    "glm-4.5": (23_592_960, 352.798, 32.08, 32.856, 33.632),
    "glm-4.5-air": (17_301_504, 106.852, 12.183, 12.803, 13.424),
    "gpt-oss-120b": (24_891_840, 116.829, 4.554, 5.133, 5.712),
    "gpt-oss-20b": (24_891_840, 20.915, 3.029, 3.608, 4.187),
    "grok-1": (603_979_776, 315.685, 82.951, 83.757, 83.757),
    "jamba-1.5-large": (603_979_776, 398.555, 93.076, 93.612, 94.149),
    "jamba-1.5-mini": (176_160_768, 51.57, 11.573, 11.842, 12.11),
    "kimi-k2": (44_040_192, 1026.408, 30.513, 31.687, 32.862),
    "llama-4-maverick": (125_829_120, 400.712, 15.116, 16.15, 17.185),
    "llama-4-scout": (125_829_120, 107.77, 15.104, 16.138, 17.173),
    "minimax-m1": (169_869_312, 456.09, 45.945, 47.174, 48.403),
    "mixtral-8x22b": (301_989_888, 140.621, 38.759, 38.955, 39.152),
    "mixtral-8x7b": (176_160_768, 46.703, 12.618, 12.749, 12.88),
    "nllb-moe-54b": (33_564_672, 54.501, 3.226, 3.751, 3.751),
    "olmoe-1b-7b": (6_291_456, 6.919, 1.076, 1.179, 1.282),
    "openmoe-8b": (50_331_648, 9.305, 2.215, 2.74, 3.265),
    "phi-3.5-moe": (78_643_200, 41.873, 6.378, 6.51, 6.641),
    "qwen1.5-moe-a2.7b": (8_650_752, 14.316, 2.067, 2.378, 2.689),
    "qwen2-57b-a14b": (27_525_120, 57.409, 13.16, 13.705, 14.249),
    "qwen3-235b-a22b": (18_874_368, 235.094, 20.946, 21.568, 22.191),
    "qwen3-30b-a3b": (4_718_592, 30.532, 2.731, 3.042, 3.353),
    "qwen3-next-80b-a3b": (3_145_728, 79.674, 3.253, 3.564, 3.875),
    "switch-base-128": (4_718_592, 7.415, 0.199, 0.224, 0.224),
    "switch-base-16": (4_718_592, 1.072, 0.198, 0.223, 0.223),
    "switch-base-256": (4_718_592, 14.664, 0.201, 0.225, 0.225),
    "switch-base-32": (4_718_592, 1.979, 0.199, 0.223, 0.223),
    "switch-base-64": (4_718_592, 3.791, 0.199, 0.223, 0.223),
    "switch-base-8": (4_718_592, 0.619, 0.198, 0.223, 0.223),
}


def test_mixtral_by_hand():
    spec = load_model("mixtral-8x7b")
    assert p.expert_params(spec) == 3 * 4096 * 14336 == 176_160_768
    assert p.attention_params(spec, layer=0) == 2 * 4096 * 4096 + 2 * 4096 * 1024 == 41_943_040
    assert p.router_params(spec) == 4096 * 8
    assert p.norm_params(spec) == (2 * 32 + 1) * 4096
    assert p.embedding_params(spec) == p.head_params(spec) == 32_000 * 4096 == 131_072_000
    layers = 32 * (41_943_040 + 32_768) + 266_240
    assert p.total_params(spec) == layers + 32 * 8 * 176_160_768 + 2 * 131_072_000 == 46_702_792_704
    assert p.active_params(spec, "without_embedding_and_head") == layers + 32 * 2 * 176_160_768
    assert p.active_params(spec, "with_head_only") == layers + 32 * 2 * 176_160_768 + 131_072_000
    assert p.active_params(spec, "with_embedding_and_head") == layers + 32 * 2 * 176_160_768 + 2 * 131_072_000
    assert p.expert_bytes(spec, "bf16") == 352_321_536
    assert p.resident_bytes(spec, "bf16") == 2 * (layers + 2 * 131_072_000)
    assert p.kv_elements_per_token(spec, layer=0) == 2 * 8 * 128
    assert p.kv_bytes_per_token_per_layer(spec) == 4096
    assert p.attention_flops_per_token_per_kv_position(spec, layer=0) == 4 * 32 * 128


def test_deepseek_v2_lite_attention_by_hand():
    spec = load_model("deepseek-v2-lite")
    queries = 2048 * 16 * (128 + 64)
    down = 2048 * (512 + 64) + 512
    up = 512 * 16 * (128 + 128)
    assert p.attention_params(spec, layer=0) == queries + down + up + 16 * 128 * 2048 == 13_763_072
    assert p.kv_elements_per_token(spec, layer=0) == 512 + 64
    assert p.attention_flops_per_token_per_kv_position(spec, layer=0) == 2 * 16 * (512 + 64) + 2 * 16 * 512
    assert p.dense_ffn_params(spec) == 3 * 2048 * 10944
    assert p.shared_params(spec) == 2 * p.expert_params(spec)


def test_gpt_oss_has_biases_and_windows():
    spec = load_model("gpt-oss-20b")
    assert p.expert_params(spec) == 3 * 2880 * 2880 + 2 * 2880 + 2880 == 24_891_840
    assert p.expert_bytes(spec, "mxfp4") == 24_891_840 * 17 // 32  # 4.25 bits: 17 bytes for 32 weights
    assert [p.attention_window(spec, layer) for layer in range(4)] == [128, None, 128, None]


def test_a_hybrid_has_keys_and_values_in_its_full_layers_only():
    spec = load_model("qwen3-next-80b-a3b")
    elements = [p.kv_elements_per_token(spec, layer) for layer in range(spec.num_layers)]
    assert elements == [0, 0, 0, 2 * 2 * 256] * 12
    assert p.kv_bytes_per_token_per_layer(spec, 1) == 12 * 1024 / 48
    assert p.attention_flops_per_token_per_kv_position(spec, layer=0) == 0


def test_every_card_is_expected():
    assert set(EXPECTED) <= set(available_models())


@pytest.mark.parametrize("name", EXPECTED)
def test_counts_of_a_card(name):
    spec = load_model(name)
    expert, total, *active = EXPECTED[name]
    assert p.expert_params(spec) == expert
    assert round(p.total_params(spec) / 1e9, 3) == total
    conventions = ("without_embedding_and_head", "with_head_only", "with_embedding_and_head")
    assert [round(p.active_params(spec, convention) / 1e9, 3) for convention in conventions] == active


@pytest.mark.parametrize("name", available_models())
def test_the_total_is_the_published_one_or_explained(name):
    spec = load_model(name)
    if spec.total_published:
        agrees = p.total_params(spec) == pytest.approx(spec.total_published.billions * 1e9, rel=0.01)
        assert agrees != bool(spec.difference_explained)


@pytest.mark.parametrize("name", available_models())
def test_the_active_count_is_the_published_one_by_its_convention(name):
    spec = load_model(name)
    if spec.active_published and spec.active_published_convention:
        active = p.active_params(spec, spec.active_published_convention)
        assert active == pytest.approx(spec.active_published.billions * 1e9, rel=0.03)  # stated to two digits


@pytest.mark.parametrize("name", available_models())
def test_parts_add_up(name):
    spec = load_model(name)
    stored_head = 0 if spec.tied_embeddings else p.head_params(spec)
    parts = p.layer_params(spec) + p.routed_params(spec) + p.embedding_params(spec) + stored_head
    assert parts == p.total_params(spec)
    everything = spec.model_copy(update={"top_k": spec.num_experts})
    assert p.active_params(everything, "with_embedding_and_head") == p.total_params(spec)
    assert p.resident_bytes(spec, "fp16") == 2 * (p.total_params(spec) - p.routed_params(spec))


def test_the_mean_kv_size_is_that_of_all_layers():
    for name in available_models():
        spec: ModelSpec = load_model(name)
        elements = sum(p.kv_elements_per_token(spec, layer) for layer in range(spec.num_layers))
        assert p.kv_bytes_per_token_per_layer(spec) * spec.num_layers == pytest.approx(2 * elements)
