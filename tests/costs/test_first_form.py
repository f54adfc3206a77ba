"""Each cost function against a value worked out by hand, the arithmetic beside it."""

import numpy as np
import pytest

from moesim.costs.devices import arithmetic
from moesim.costs.operations import Context, Pricer
from moesim.costs.roofline import Device, roofline
from moesim.costs.transfer import transfer_s
from moesim.models import load_model
from moesim.models.precision import get_precision

DEVICE = Device(flop_per_s=100e12, bytes_per_s=1e12, launch_s=5e-6)
ONE = np.array([1])


@pytest.fixture
def mixtral():
    bf16 = get_precision("bf16")
    return Pricer(load_model("mixtral-8x7b"), bf16, bf16, DEVICE, DEVICE)


def test_roofline_takes_the_longer_and_adds_launches():
    op = roofline([1e12, 1e12], [1e9, 100e9], [2, 0], DEVICE)
    # 1e12 FLOP / 100e12 = 10 ms; 1e9 B / 1e12 = 1 ms, 100e9 B = 100 ms; two launches of 5 us
    assert op.compute_s.tolist() == [0.01, 0.0]
    assert op.memory_s.tolist() == [0.0, 0.1]
    assert op.total_s.tolist() == pytest.approx([0.01 + 10e-6, 0.1])


def test_transfer_is_latency_plus_bytes_over_bandwidth():
    # 352,321,536 B (a Mixtral expert in bf16) / 26 GB/s = 13.5508 ms, and 6 us
    assert transfer_s(352_321_536, 6e-6, 26e9) == pytest.approx(13.5568e-3, rel=1e-5)


def test_expert_is_bound_by_its_weights_at_one_token_and_by_arithmetic_at_many(mixtral):
    weights = 3 * 4096 * 14336
    assert weights == 176_160_768
    op = mixtral.expert(np.array([1, 4096]))
    # one token: 2 B x 176,160,768 + 2 B x (2 x 4096 + 2 x 14336) = 352,395,264 B -> 352.395 us
    assert op.memory_s[0] == pytest.approx(352.395264e-6)
    # 4096 tokens: 2 x 176,160,768 x 4096 FLOP = 1.44311e12 -> 14.4311 ms
    assert op.compute_s[1] == pytest.approx(14.4310901e-3, rel=1e-6)
    assert op.launch_s.tolist() == pytest.approx([15e-6, 15e-6])


def test_attention_reads_weights_once_and_the_kv_cache_of_every_request(mixtral):
    # GQA, 32 heads, 8 KV heads of 128: Q and O 4096 x 4096 each, K and V 4096 x 1024 each
    weights = 2 * 4096 * 4096 + 2 * 4096 * 1024
    context = Context((None,), attended=np.array([[1000]]), read=np.array([[1000]]))
    op = mixtral.attention(0, ONE, context)
    # weights 2 x 41,943,040 B = 83.886 us; KV 1000 x 2 x 8 x 128 x 2 B = 4.096 us
    assert weights == 41_943_040
    assert op.memory_s[0] == pytest.approx(83.88608e-6 + 4.096e-6)
    assert op.launch_s[0] == pytest.approx(6 * 5e-6)


def test_router_and_head(mixtral):
    # router 4096 x 8 weights of 2 B = 65,536 B; head 32,000 x 4096 x 2 B = 262.144 MB
    assert mixtral.router(ONE).memory_s[0] == pytest.approx(65_536e-12)
    assert mixtral.output_head(ONE).memory_s[0] == pytest.approx(262.144e-6)
    assert mixtral.shared_experts(ONE).total_s[0] == 0.0


def test_narrow_weights_move_fewer_bytes():
    bf16, mxfp4 = get_precision("bf16"), get_precision("mxfp4")
    pricer = Pricer(load_model("gpt-oss-20b"), bf16, mxfp4, DEVICE, DEVICE)
    # 24,891,840 weights (with biases) x 4.25 bit = 13,223,790 B; activations 2 x (2 + 2) x 2880 = 23,040 B
    assert pricer.expert(ONE).memory_s[0] == pytest.approx(13_246_830e-12)


def test_arithmetic_falls_back_to_the_next_wider():
    offered = {"bf16": 1, "fp16": 1}
    assert [arithmetic(offered, wanted) for wanted in ("bf16", "fp8", "fp4", "int8")] == ["bf16"] * 4
    assert arithmetic({"fp16": 1}, "bf16") == "fp16"
    assert arithmetic({"bf16": 1, "fp8": 1}, "fp4") == "fp8"
