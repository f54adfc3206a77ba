"""What an offloading node's operations cost, against values worked out by hand, the arithmetic beside it."""

import numpy as np
import pytest
from builders import trace_of, visits_for

from moesim.costs import gemm
from moesim.costs.cpu_expert import PER_CORE_BYTES_PER_S, START_S, cpu_expert_s, memory_bytes_per_s
from moesim.costs.devices import arithmetic
from moesim.costs.fitted import peaks_of
from moesim.costs.kernels import GRAPH_LAUNCH, Kernels, Software
from moesim.costs.layers import Layers
from moesim.costs.node_times import node_times
from moesim.costs.step_contexts import contexts_of, turns_of
from moesim.costs.transfer import transfer_s
from moesim.hardware import build_node, load_cpu, load_gpu
from moesim.hardware.fits import shipped_fits
from moesim.models import Precisions, get_precision, load_model

BF16 = get_precision("bf16")
PLAIN = Precisions(BF16, BF16)
EAGER = Software(cuda_graphs=False)


def layers(model="mixtral-8x7b", gpu="h100-sxm", precisions=PLAIN):
    return Layers(load_model(model), precisions, Kernels(load_gpu(gpu), EAGER))


def test_transfer_is_latency_plus_bytes_over_bandwidth():
    # 352,321,536 B (a Mixtral expert in bf16) / 26 GB/s = 13.5508 ms, and 6 us
    assert transfer_s(352_321_536, 6e-6, 26e9) == pytest.approx(13.5568e-3, rel=1e-5)


def test_an_elementwise_kernel_is_a_launch_and_its_bytes():
    gpu = load_gpu("h100-sxm")
    part = Kernels(gpu, EAGER).elementwise([0.0, 3.35e9], kernels=2)
    # 3.35 GB at 3.35 TB/s times the card's efficiency: 1 ms over it; and two launches; nothing is nothing
    assert part.seconds[1] == pytest.approx(1e-3 / gpu.memory_efficiency.value + 2 * gpu.kernel_launch.value)
    assert part.seconds[0] == 0
    graph = Kernels(gpu).elementwise([1.0]).terms["launch"]
    assert graph == pytest.approx(GRAPH_LAUNCH * gpu.kernel_launch.value)


def test_an_expert_alone_is_two_products_and_an_activation():
    parts = {part.name: part for part in layers().expert(np.array([1.0, 4096.0]))}
    gpu, fit = load_gpu("h100-sxm"), shipped_fits()["h100-sxm", "gemm", "vllm"]
    # gate and up [4096 -> 28672], down [14336 -> 4096]; each launched in a stream, not in a graph
    work = [
        {"m": np.array([1.0, 4096.0]), "n": np.array(n), "k": np.array(k)} for n, k in ((28672, 4096), (4096, 14336))
    ]
    products = sum(gemm.FORM.seconds(sizes, peaks_of(gpu), fit.constants) for sizes in work)
    gaps = 2 * (1 - GRAPH_LAUNCH) * gpu.kernel_launch.value
    assert parts["expert FFN"].seconds == pytest.approx(products + gaps)
    # one token: gate and up are read, 2 x 14336 values, and their product is written, 14336: 86,016 B
    rate = gpu.memory_bandwidth.value * gpu.memory_efficiency.value
    assert parts["activations"].terms["memory"][0] == pytest.approx(86_016 / rate)
    # in all: 352 MB of weights at 3.35 TB/s are 105 us at best, and 4096 tokens 1.44 PFLOP at 989 TFLOP/s 1.46 ms
    whole = sum(part.seconds for part in parts.values())
    assert 105e-6 < whole[0] < 150e-6
    assert 1.46e-3 < whole[1] < 2.4e-3


def test_narrow_weights_move_fewer_bytes_and_are_said_to_be_extrapolated():
    narrow = layers("gpt-oss-20b", precisions=Precisions(get_precision("mxfp4"), BF16)).expert(np.array([1.0]))
    wide = layers("gpt-oss-20b").expert(np.array([1.0]))
    assert narrow[0].terms["memory"] < 0.4 * wide[0].terms["memory"]
    assert narrow[0].extrapolated.all()
    assert not wide[0].extrapolated.any()


def test_a_users_efficiency_goes_before_the_fit():
    node = build_node("server-h100-sxm", overrides={"gpu.memory_efficiency": 0.5, "gpu.kernel_launch": "10 us"})
    part = Kernels(node.gpu).gemm([1.0], 4096, 4096)
    # 2 x 4096 x 4096 + 2 x 2 x 4096 B at half of 3.35 TB/s is what is read at the least
    assert part.terms["memory"] + part.terms["arithmetic"] >= 33_570_816 / (0.5 * 3.35e12)
    assert part.terms["launch"] == pytest.approx(10e-6)
    assert part.basis.kind == "assumed"
    assert {"scenario override"} <= {constant.source for constant in part.basis.constants}


def test_an_expert_on_the_cpu_reads_or_computes():
    cpu, spec = load_cpu("ryzen-5-5600-ddr4-3200"), load_model("qwen3-30b-a3b")
    found = cpu_expert_s([0, 1, 64], spec, BF16, cpu)
    # 3 x 2048 x 768 = 4,718,592 weights of 2 B at 0.85 x 51.2 GB/s; one token's activations 2 x (4096 + 1536) B
    rate = 0.85 * 51.2e9
    assert found[1] == pytest.approx(START_S + 9_437_184 / rate + 11_264 / rate)
    # 64 tokens: 2 x 4,718,592 x 64 = 604 MFLOP at 0.7 x 672 GFLOP/s = 1.284 ms; activations 64 x 11,264 B
    assert found[2] == pytest.approx(START_S + 603_979_776 / (0.7 * 672e9) + 720_896 / rate)
    assert found[0] == 0


def test_few_threads_draw_little_and_tiles_compute_whole_rows():
    cpu, spec = load_cpu("xeon-8480-ddr5-4800"), load_model("qwen3-30b-a3b")
    one, all_ = memory_bytes_per_s(cpu, 1), memory_bytes_per_s(cpu, cpu.cores.value)
    assert one == pytest.approx(cpu.memory_efficiency.value * PER_CORE_BYTES_PER_S)
    assert all_ == pytest.approx(cpu.memory_efficiency.value * cpu.memory_bandwidth.value)
    # AMX: 17 tokens fill two tiles of 16 rows, on one thread long enough to hide the reading
    took = cpu_expert_s([17.0, 32.0], spec, BF16, cpu, threads=1)
    activations = 2 * (2 * 2048 + 2 * 768) / one
    assert took[1] - took[0] == pytest.approx(15 * activations)


def test_turns_tell_decoding_from_prefill():
    trace = trace_of(np.zeros((7, 1, 1), int), num_experts=2, prompt=2, requests=[0, 0, 0, 0, 1, 1, 1])
    visits = visits_for(trace, batch=2)
    turns = turns_of(visits.steps, trace.request, trace.position)
    contexts = contexts_of(turns, visits.steps.num_steps, (0.0, 1.0))
    # prompts of 2 and 2 alone, then both decode (contexts 3 and 3), then request 0 alone (4)
    assert contexts.prefilling.tolist() == [1, 1, 0, 0]
    assert contexts.decoding.tolist() == [0, 0, 2, 1]
    assert contexts.decode[0.0]["keys"].tolist() == [0, 0, 6, 4]
    assert contexts.decode[1.0]["keys"].tolist() == [0, 0, 2, 1]
    # two prompt tokens: 1 + 2 pairs
    assert contexts.prefill[0.0]["pairs"].tolist() == [3, 3, 0, 0]
    assert contexts.tokens.tolist() == [2, 2, 2, 1]


def test_charges_add_up_to_the_engines_times():
    trace = trace_of(np.arange(12).reshape(6, 1, 2) % 8, num_experts=8, prompt=3)
    spec = load_model("mixtral-8x7b").model_copy(update={"num_layers": 2})
    trace = trace_of(np.repeat(np.arange(12).reshape(6, 1, 2) % 8, 2, axis=1), num_experts=8, prompt=3)
    visits = visits_for(trace)
    node = build_node("desktop-rtx4090-ddr5-64g-nvme4")
    times = node_times(spec, PLAIN, node, trace, visits, np.full(visits.num_keys, 1000, dtype=np.int64))
    for place in ("before", "shared", "expert", "after"):
        charged = [charge.seconds for charge in times.charges if charge.place == place]
        total = getattr(times, place).total_s
        assert sum(charged, np.zeros(total.shape)) == pytest.approx(total)
    assert (times.before.total_s > 0).all()
    assert (times.shared.total_s == 0).all()


def test_arithmetic_falls_back_to_the_next_wider():
    offered = {"bf16": 1, "fp16": 1}
    assert [arithmetic(offered, wanted) for wanted in ("bf16", "fp8", "fp4", "int8")] == ["bf16"] * 4
    assert arithmetic({"fp16": 1}, "bf16") == "fp16"
    assert arithmetic({"bf16": 1, "fp8": 1}, "fp4") == "fp8"
