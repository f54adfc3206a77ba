"""A resident model's forward pass: laws, values worked out by hand, and what it says of its own evidence."""

import numpy as np
import pytest

from moesim.costs import attention, collective, gemm, moe_layer
from moesim.costs.fitted import peaks_of
from moesim.costs.products import head_shape, mixer_products
from moesim.costs.resident import Parallel, Resident, Step, rank_load
from moesim.errors import CardError
from moesim.hardware import load_gpu
from moesim.hardware.fits import shipped_fits
from moesim.models import Precisions, available_models, get_precision, load_model, parameters

BF16 = get_precision("bf16")
PLAIN = Precisions(BF16, BF16)


def resident(model="qwen3-30b-a3b", gpu="h100-sxm", **parallel):
    return Resident(load_model(model), PLAIN, load_gpu(gpu), Parallel(**parallel))


@pytest.mark.parametrize("name", available_models())
def test_products_hold_the_parameters_of_attention(name):
    spec = load_model(name)
    for layer in range(spec.num_layers):
        weights = sum(n * k for n, k in mixer_products(spec.mixer(layer), spec.hidden_size))
        cross = 2 if 0 < spec.num_encoder_layers <= layer else 1
        # what is left are norms, biases, convolutions, and decays and states of state mixers
        assert weights * cross == pytest.approx(parameters.attention_params(spec, layer), rel=0.02)


@pytest.mark.parametrize("name", available_models())
def test_heads_hold_the_kv_cache_and_its_arithmetic(name):
    spec = load_model(name)
    for layer in range(spec.num_layers):
        shape = head_shape(spec.mixer(layer))
        if shape is not None:
            assert shape.kv_heads * shape.key_elements == parameters.kv_elements_per_token(spec, layer)
            flop = parameters.attention_flops_per_token_per_kv_position(spec, layer)
            assert shape.heads * shape.pair_flop == flop


def test_every_part_is_its_form_with_the_gpus_constants():
    price, gpu, fits = resident(), load_gpu("h100-sxm"), shipped_fits()
    peaks = peaks_of(gpu)
    # Qwen3-30B-A3B: 48 layers, 32 heads and 4 KV heads of 128, hidden 2048: QKV 2048 -> 5120, out 4096 -> 2048
    fit = fits["h100-sxm", "gemm", "vllm"]
    work = [{"m": np.array([16.0]), "n": np.array([n]), "k": np.array([k])} for n, k in ((5120, 2048), (2048, 4096))]
    wanted = 48 * sum(gemm.FORM.seconds(sizes, peaks, fit.constants) for sizes in work)
    parts = {part.name: part for part in price.dense([16])}
    assert parts["projections"].seconds == pytest.approx(wanted)
    assert parts["projections"].basis.kind == "measured"
    layer = price.moe_layer([16], [128], [60])
    sizes = {"tokens": 16, "topk": 8, "hidden": 2048, "width": 768, "matrices": 3, "local_experts": 128, "ranks": 1}
    sizes |= {"pairs": 128, "distinct": 60, "weight_bytes": 2, "untuned": 0, "unpadded": 1}
    work = {name: np.array([float(value)]) for name, value in sizes.items()}
    own = fits["h100-sxm", "moe_layer", "vllm triton"].constants
    assert layer.seconds == pytest.approx(moe_layer.FORM.seconds(work, peaks, own))
    assert not layer.extrapolated.any()


def test_attention_of_a_window_reads_the_windows_keys():
    price = resident("gpt-oss-20b")
    assert price.windows == (128.0, 0.0)
    parts = price.attention(price.contexts(decode=[1000, 50]))
    shape = attention.HeadShape(64, 8, 128, 128, 256).work()
    fit = shipped_fits()["h100-sxm", "attention_decode", "flash_attn_fa3"].constants
    loads = [attention.decode_load([1000, 50], window) for window in (128, 0)]
    wanted = [
        12 * attention.DECODE.seconds({**shape, **load, "kv_bytes": np.array(2.0)}, peaks_of(load_gpu("h100-sxm")), fit)
        for load in loads
    ]
    assert [float(part.seconds) for part in parts] == pytest.approx([float(value) for value in wanted])


def test_tensor_parallelism_adds_two_sums_per_layer():
    price = resident("llama-3.1-8b", tp=4)
    parts = price.all_reduces([8])
    # 32 layers, after attention and after the FFN: 64 all-reduces of 8 x 4096 x 2 B
    assert len(parts) == 1
    fit = shipped_fits()["h100-sxm", "collective", "vllm_vLLM_custom_graph all_reduce"].constants
    work = {"bus_bytes": collective.bus_bytes("all_reduce", [65536.0], 4), "gpus": np.array([4.0])}
    work["int8_reduction"] = np.array([0.0])
    assert parts[0].seconds == pytest.approx(64 * collective.FORM.seconds(work, peaks_of(load_gpu("h100-sxm")), fit))
    assert not resident("llama-3.1-8b").all_reduces([8])


def test_a_dense_model_has_no_experts():
    price = resident("llama-3.1-8b", "rtx-pro-6000-server")
    names = price.forward(Step(price.contexts(decode=[100] * 8))).by_name()
    assert {"projections", "dense FFN", "attention decode", "output head"} <= set(names)
    assert not {"MoE layer", "router", "shared experts"} & set(names)


def test_steps_broadcast_and_nothing_costs_nothing():
    price = resident()
    contexts = price.contexts(decode=[[100, 0], [100, 200], [0, 0]], prefill=[[0], [0], [0]])
    found = price.forward(Step(contexts, pairs=np.array([[8.0], [16.0], [0.0]]) * np.ones(48), distinct=8.0))
    assert found.seconds.shape == (3,)
    assert found.seconds[2] == 0
    alone = price.forward(Step(price.contexts(decode=[100, 200]), pairs=np.full(48, 16.0), distinct=8.0))
    assert found.seconds[1] == pytest.approx(float(alone.seconds))
    assert sum(found.by_name().values()) == pytest.approx(found.seconds)
    assert sum(found.by_kind().values()) == pytest.approx(found.seconds)


def test_more_gpus_share_the_work_and_more_tokens_never_take_less():
    tokens = np.array([1, 8, 64, 512, 4096])
    one, four = (sum(part.seconds for part in resident(tp=tp).dense(tokens)) for tp in (1, 4))
    assert (np.diff(one) > 0).all()
    assert (four < one).all()


def test_a_rank_counts_its_own_pairs_and_experts():
    # experts 0 to 3 on rank 0, 4 to 7 on rank 1; 255 means none
    pairs, distinct = rank_load(np.array([[0, 1], [1, 7], [1, 255]]), 2, 8)
    assert pairs.tolist() == [4, 1]
    assert distinct.tolist() == [2, 1]


def test_what_is_not_fitted_is_said():
    narrow = Resident(load_model("gpt-oss-20b"), Precisions(get_precision("mxfp4"), BF16), load_gpu("h100-sxm"))
    layer = narrow.moe_layer([16], [64], [20])
    assert layer.extrapolated.all()
    assert layer.reasons == ("weights in mxfp4; fitted in bf16",)
    assert set(layer.by_kind()) == {"measured", "assumed"}
    assert layer.by_kind()["measured"] == 0
    other = resident(gpu="l40s").moe_layer([16], [128], [60])
    assert other.basis.how == "class"
    assert other.basis.kind in ("datasheet", "assumed")
    assert resident(gpu="h100-sxm", tp=16).all_reduces([8])[0].extrapolated.all()


def test_a_group_that_does_not_divide_is_refused():
    with pytest.raises(CardError, match="ep: must divide"):
        resident(tp=2, ep=4)
    with pytest.raises(CardError, match="do not divide over"):
        resident("gpt-oss-20b", dp=3, ep=3)
    with pytest.raises(CardError, match="at least 1"):
        resident(tp=0)
