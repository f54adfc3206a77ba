"""The time of attention, worked out by hand."""

import numpy as np
import pytest

from moesim.costs.attention import causal_pairs, decode_terms, naive_seconds, prefill_terms
from moesim.costs.fitted import Peaks

PEAKS = Peaks(bytes_per_s=1e12, flop_per_s=1e14, l2_bytes=0.0, sms=100, link_bytes_per_s=0.0)
SIMPLE = {
    "launch": 8e-6,
    "bandwidth_share": 0.5,
    "arithmetic_share": 1.0,
    "sharpness": 1.0,
    "per_item": 1e-6,
    "per_position": 1e-9,
}


def attention(**changes: float) -> dict[str, np.ndarray]:
    sizes = {"batch": 50, "seq": 1024, "heads": 32, "kv_heads": 4, "head_dim": 128, "window": 0, "kv_bytes": 2}
    return {name: np.array([float(value)]) for name, value in (sizes | changes).items()}


def test_decode_by_hand():
    found = decode_terms(attention(), PEAKS, SIMPLE)
    assert found["launch"] == pytest.approx(8e-6)
    # 50 x 4 blocks on 100 SMs: 2 rounds of 1 us, and 1024 positions of 1 ns
    assert found["blocks"] == pytest.approx(2e-6 + 1.024e-6)
    # 2 x 50 x 4 x 1024 x 128 x 2 B + 4 x 50 x 32 x 128 B = 105.7 MB at 0.5 TB/s
    assert found["KV cache"] == pytest.approx((104_857_600 + 819_200) / 0.5e12)
    # 4 x 50 x 4 x 128 FLOP x 64 (8 queries in a tile of 64) x 1024, at 0.1 PFLOP/s
    assert found["arithmetic"] == pytest.approx(4 * 50 * 4 * 128 * 64 * 1024 / 1e14)


def test_prefill_by_hand():
    found = prefill_terms(attention(batch=1.0, seq=1024.0), PEAKS, SIMPLE)
    # 32 heads x 8 blocks of 128 queries = 256 blocks: 2.56 rounds of 1 us
    assert found["blocks"] == pytest.approx(2.56e-6 + 1.024e-6)
    # 4 B x 1024 x 128 x (32 + 4) at 0.5 TB/s
    assert found["KV cache"] == pytest.approx(4 * 1024 * 128 * 36 / 0.5e12)
    # 4 x 32 x 128 FLOP x (1024 x 1025 / 2 pairs + 64 x 1024 on the diagonal)
    assert found["arithmetic"] == pytest.approx(4 * 32 * 128 * (524_800 + 65_536) / 1e14)


def test_a_window_bounds_what_is_read_and_counted():
    assert (
        decode_terms(attention(window=128.0), PEAKS, SIMPLE)["KV cache"]
        < 0.15 * (decode_terms(attention(), PEAKS, SIMPLE)["KV cache"])
    )
    # 5 queries, window 2: 1 + 2 + 2 + 2 + 2 pairs
    assert causal_pairs(np.array([5.0]), np.array([2.0])) == pytest.approx(9.0)
    assert causal_pairs(np.array([5.0]), np.array([0.0])) == pytest.approx(15.0)


def test_the_plain_roofline():
    # decode: 105.7 MB at 1 TB/s
    assert naive_seconds(attention(), PEAKS, np.array([1.0])) == pytest.approx(105_676_800 / 1e12)
