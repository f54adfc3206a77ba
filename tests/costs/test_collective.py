"""Times of collectives and of expert-parallel dispatch, worked out by hand."""

from math import comb

import numpy as np
import pytest

from moesim.costs import collective, dispatch
from moesim.costs.collective import bus_bytes
from moesim.costs.fitted import Peaks, total

PEAKS = Peaks(bytes_per_s=1e12, flop_per_s=1e14, l2_bytes=0.0, sms=100, link_bytes_per_s=100e9)
COLLECTIVE = {
    "alpha": 5e-6,
    "step": 1e-6,
    "low_share": 0.1,
    "extra": 20e-6,
    "local": 0.7,
    "share": 0.8,
    "growth": 0.1,
    "int8": 0.1,
}
NORMAL = {"launch": 30e-6, "per_sm": 0.01, "write": 0.5, "token": 1000.0, "share": 0.5, "sharpness": 1.0}
LOW_LATENCY = {"launch": 8e-6, "per_expert": 1e-8, "per_value": 1e-9, "share": 0.5, "sharpness": 1.0}


def arrays(**sizes: float) -> dict[str, np.ndarray]:
    return {name: np.array([float(value)]) for name, value in sizes.items()}


def test_bytes_on_the_bus_are_those_of_nccl_tests():
    assert bus_bytes("all_reduce", 800, 8) == pytest.approx(1400)
    assert bus_bytes("all_gather", 800, 8) == pytest.approx(700)
    assert bus_bytes("send_recv", 800, 2) == pytest.approx(800)


def test_few_bytes_take_the_low_latency_protocol_and_many_the_bulk_one():
    # 8 GPUs: 5 + 6 x 1 us, and a tenth of that for each doubling of 1 KiB: log2(1 + 7168 B / 1024 B) = 3, so 14.3 us;
    # 7168 B and a tenth of that for the own part, at 10 GB/s; the bulk protocol takes 20 us more, and 80 GB/s
    few = collective.terms(arrays(bus_bytes=7168, gpus=8, int8_reduction=0), PEAKS, COLLECTIVE)
    low, bulk = 14.3e-6 + 7884.8 / 10e9, 34.3e-6 + 7884.8 / 80e9
    assert total(few) == pytest.approx((low**-3 + bulk**-3) ** (-1 / 3))
    assert few["latency"] == pytest.approx(14.3e-6)
    # 1 GiB: 20 doublings and 33 us to start; 1.18 GB at 80 GB/s, where the other protocol would take eight times that
    many = total(collective.terms(arrays(bus_bytes=(2**20 - 1) * 1024, gpus=8, int8_reduction=0), PEAKS, COLLECTIVE))
    volume = 1.1 * (2**20 - 1) * 1024
    bulk, low = 53e-6 + volume / 80e9, 33e-6 + volume / 10e9
    assert many == pytest.approx((low**-3 + bulk**-3) ** (-1 / 3))
    assert many == pytest.approx(bulk, rel=1e-3)
    int8 = total(collective.terms(arrays(bus_bytes=(2**20 - 1) * 1024, gpus=8, int8_reduction=1), PEAKS, COLLECTIVE))
    assert int8 == pytest.approx(1.1 * many)


def test_gpus_reached_is_the_exact_expectation():
    # 8 GPUs with 16 of 128 experts each: a GPU is missed with probability C(112, 8) / C(128, 8)
    assert dispatch.gpus_reached(128, 8, 8) == pytest.approx(8 * (1 - comb(112, 8) / comb(128, 8)))
    assert dispatch.gpus_reached(8, 2, 8) == pytest.approx(2.0)


def test_normal_dispatch_by_hand():
    work = arrays(tokens=1000, hidden=4000, reached=4, gpus=8, sms=20, value_bytes=2)
    found = dispatch.normal_terms(work, PEAKS, NORMAL)
    assert found["launch"] == pytest.approx(30e-6)
    # 1000 x (4000 x (1 + 0.5 x 4) + 1000) = 13 M values; 20 SMs x 0.01 x 100 G per second
    assert found["copying"] == pytest.approx(13e6 / 20e9)
    # 1000 x 4000 x 4 x 2 B x 7/8 at 50 GB/s
    assert found["link"] == pytest.approx(28e6 / 50e9)


def test_low_latency_dispatch_by_hand():
    work = arrays(tokens=10, hidden=4000, topk=8, experts=256, value_bytes=1)
    found = dispatch.low_latency_terms(work, PEAKS, LOW_LATENCY)
    # 8 us + 256 x 10 ns + 4000 x 1 ns; 10 x 8 x 4000 B at 50 GB/s
    assert found["launch"] == pytest.approx(8e-6 + 2.56e-6 + 4e-6)
    assert found["link"] == pytest.approx(6.4e-6)
