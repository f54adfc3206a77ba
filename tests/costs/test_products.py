"""The products of a layer, and kernels put together from them, by hand."""

import numpy as np
import pytest

from moesim.costs import gemm
from moesim.costs.attention import DECODE, PREFILL, decode_load, prefill_load
from moesim.costs.fitted import peaks_of
from moesim.costs.kernels import Kernels
from moesim.costs.layers import Layers
from moesim.costs.products import ffn_products, head_shape, mixer_products, shared_width, state_elements
from moesim.hardware import load_gpu
from moesim.hardware.fits import shipped_fits
from moesim.models import Precisions, get_precision, load_model

BF16 = get_precision("bf16")
GPU = load_gpu("h100-sxm")


def seconds_of(*products: tuple[int, int], tokens: float) -> float:
    """Products one after the other, by the fitted form."""
    fit = shipped_fits()["h100-sxm", "gemm", "vllm"]
    work = [{"m": np.array(tokens), "n": np.array(float(n)), "k": np.array(float(k))} for n, k in products]
    return sum(float(gemm.FORM.seconds(sizes, peaks_of(GPU), fit.constants)) for sizes in work)


def test_grouped_queries_are_one_product_and_the_output_another():
    mixer = load_model("mixtral-8x7b").mixer(0)
    # 32 heads of 128, 8 of keys and 8 of values: (32 + 16) x 128 = 6144 from 4096, and 4096 back
    assert mixer_products(mixer, 4096) == [(6144, 4096), (4096, 4096)]
    # over four GPUs 8 heads, and 2 of keys and of values: 12 x 128; over sixteen the keys are copied, one head to each
    assert mixer_products(mixer, 4096, tp=4) == [(1536, 4096), (4096, 1024)]
    assert mixer_products(mixer, 4096, tp=16) == [(512, 4096), (4096, 256)]


def test_latent_attention_compresses_and_expands():
    mixer = load_model("deepseek-v2-lite").mixer(0)
    # 16 heads of 128 + 64; latent 512 + 64; up to 16 x (128 + 128) from 512; 16 x 128 back to 2048
    assert mixer_products(mixer, 2048) == [(3072, 2048), (576, 2048), (4096, 512), (2048, 2048)]
    decoding, expanded = head_shape(mixer), head_shape(mixer, decoding=False)
    # the latent is one KV head that all heads share; a query and key pair takes 2 (512 + 64) + 2 x 512 FLOP
    assert (decoding.heads, decoding.kv_heads, decoding.key_elements, decoding.pair_flop) == (16, 1, 576, 2176)
    assert (expanded.heads, expanded.kv_heads, expanded.key_elements, expanded.pair_flop) == (16, 16, 320, 640)


def test_networks_are_divided_by_their_width():
    assert ffn_products(4096, 14336, 3) == [(28672, 4096), (4096, 14336)]  # gate and up together
    assert ffn_products(4096, 14336, 2) == [(14336, 4096), (4096, 14336)]
    assert ffn_products(4096, 14336, 3, tp=8) == [(3584, 4096), (4096, 1792)]


def test_shared_experts_are_one_network():
    spec = load_model("deepseek-v2-lite")
    assert shared_width(spec) == 2 * 1408
    assert shared_width(load_model("mixtral-8x7b")) == 0
    layers = Layers(spec, Precisions(BF16, BF16), Kernels(GPU))
    network, activation = layers.shared_experts(np.asarray(4.0))
    assert network.seconds == pytest.approx(seconds_of((5632, 2048), (2048, 2816), tokens=4.0))
    # 4 tokens x (5632 read + 2816 written) x 2 B at 0.878 x 3.35 TB/s
    assert activation.terms["memory"] == pytest.approx(4 * 8448 * 2 / (0.878 * 3.35e12))
    assert Layers(load_model("mixtral-8x7b"), Precisions(BF16, BF16), Kernels(GPU)).shared_experts(np.ones(1)) == []


def test_a_dense_layer_a_router_and_a_head_are_their_products():
    layers = Layers(load_model("deepseek-v2-lite"), Precisions(BF16, BF16), Kernels(GPU))
    four = np.asarray(4.0)
    assert layers.dense_ffn(four)[0].seconds == pytest.approx(seconds_of((21888, 2048), (2048, 10944), tokens=4.0))
    logits, chosen = layers.router(four)
    assert logits.seconds == pytest.approx(seconds_of((64, 2048), tokens=4.0))
    assert chosen.terms["memory"] == pytest.approx(4 * 64 * 4 / (0.878 * 3.35e12))  # 4 B for each logit
    assert layers.head(four)[0].seconds == pytest.approx(seconds_of((102_400, 2048), tokens=4.0))


def test_a_state_is_read_and_written_for_each_request():
    mixer = next(m for m in (load_model("qwen3-next-80b-a3b").mixer(layer) for layer in range(4)) if not head_shape(m))
    # 32 value heads x 128 x 128
    assert state_elements(mixer, 2048) == 32 * 128 * 128
    assert state_elements(load_model("mixtral-8x7b").mixer(0), 4096) == 0


def test_attention_is_its_form_with_the_shape_of_the_heads():
    shape = head_shape(load_model("mixtral-8x7b").mixer(0))
    load, prompt = decode_load([[1000.0, 3000.0]]), prefill_load([[512.0]])
    kernels, fits = Kernels(GPU), shipped_fits()
    decoded = kernels.decode_attention(shape, load)
    work = {**load, **shape.work(), "kv_bytes": np.array(2.0)}
    fit = fits["h100-sxm", "attention_decode", "flash_attn_fa3"]
    assert decoded.seconds == pytest.approx(DECODE.seconds(work, peaks_of(GPU), fit.constants))
    # at the least, 4000 positions x 8 heads x 256 values x 2 B at the datasheet's 3.35 TB/s
    assert decoded.seconds[0] > 16_384_000 / 3.35e12
    prefilled = kernels.prefill_attention(shape, prompt)
    work = {**prompt, **shape.work(), "kv_bytes": np.array(2.0)}
    fit = fits["h100-sxm", "attention_prefill", "flash_attn_fa3"]
    assert prefilled.seconds == pytest.approx(PREFILL.seconds(work, peaks_of(GPU), fit.constants))
    # and 512 x 513 / 2 pairs x 32 heads x 512 FLOP at 989 TFLOP/s
    assert prefilled.seconds[0] > 131_328 * 32 * 512 / 989e12
