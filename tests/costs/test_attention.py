"""The time of attention, worked out by hand."""

import numpy as np
import pytest

from moesim.costs.attention import (
    HeadShape,
    causal_pairs,
    decode_load,
    decode_terms,
    even_decode_load,
    even_prefill_load,
    naive_seconds,
    prefill_load,
    prefill_terms,
)
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
HEADS = HeadShape(heads=32, kv_heads=4, key_elements=256, io_elements=256, pair_flop=512)
BF16 = {"kv_bytes": np.array(2.0)}
DECODE = {**HEADS.work(), **even_decode_load([50.0], 1024), **BF16}


def test_decode_by_hand():
    found = decode_terms(DECODE, PEAKS, SIMPLE)
    assert found["launch"] == pytest.approx(8e-6)
    # 50 x 4 blocks on 100 SMs: 2 rounds of 1 us, and 1024 positions of 1 ns
    assert found["blocks"] == pytest.approx(2e-6 + 1.024e-6)
    # 2 x 50 x 4 x 1024 x 128 x 2 B + 4 x 50 x 32 x 128 B = 105.7 MB at 0.5 TB/s
    assert found["KV cache"] == pytest.approx((104_857_600 + 819_200) / 0.5e12)
    # 4 x 50 x 4 x 128 FLOP x 64 (8 queries in a tile of 64) x 1024, at 0.1 PFLOP/s
    assert found["arithmetic"] == pytest.approx(4 * 50 * 4 * 128 * 64 * 1024 / 1e14)


def test_prefill_by_hand():
    found = prefill_terms({**HEADS.work(), **even_prefill_load([1.0], 1024), **BF16}, PEAKS, SIMPLE)
    # 32 heads x 8 blocks of 128 queries = 256 blocks: 2.56 rounds of 1 us
    assert found["blocks"] == pytest.approx(2.56e-6 + 1.024e-6)
    # 4 B x 1024 x 128 x (32 + 4) at 0.5 TB/s
    assert found["KV cache"] == pytest.approx(4 * 1024 * 128 * 36 / 0.5e12)
    # 4 x 32 x 128 FLOP x (1024 x 1025 / 2 pairs + 64 x 1024 on the diagonal)
    assert found["arithmetic"] == pytest.approx(4 * 32 * 128 * (524_800 + 65_536) / 1e14)


def test_a_window_bounds_what_is_read_and_counted():
    near = {**DECODE, **even_decode_load([50.0], 1024, 128)}
    assert decode_terms(near, PEAKS, SIMPLE)["KV cache"] < 0.15 * decode_terms(DECODE, PEAKS, SIMPLE)["KV cache"]
    # 5 queries, window 2: 1 + 2 + 2 + 2 + 2 pairs
    assert causal_pairs(np.array([5.0]), np.array([2.0])) == pytest.approx(9.0)
    assert causal_pairs(np.array([5.0]), np.array([0.0])) == pytest.approx(15.0)


def test_requests_of_unequal_length_by_hand():
    load = decode_load([[5, 70, 0], [64, 64, 64]])
    assert load["batch"].tolist() == [2, 3]
    assert load["keys"].tolist() == [75, 192]
    # whole tiles of 64: 64 + 128
    assert load["key_tiles"].tolist() == [192, 192]
    assert load["longest"].tolist() == [70, 64]
    assert decode_load([5, 70, 0], window=8)["keys"] == 13


def test_a_chunk_after_a_past_by_hand():
    load = prefill_load([3, 130, 0], past=[2, 0, 9])
    # the first request's queries see 3, 4 and 5 positions; the second's 1 to 130
    assert load["pairs"] == 3 + 4 + 5 + 130 * 131 / 2
    assert (load["batch"], load["queries"], load["past"], load["longest"]) == (2, 133, 2, 130)
    assert load["query_blocks"] == 1 + 2
    # window 4: they see 3, 4, 4
    assert prefill_load([3], past=[2], window=4)["pairs"] == 11


@pytest.mark.parametrize("window", [0, 100])
def test_equal_requests_are_the_same_from_lengths_and_from_counts(window):
    for one, other in (
        (decode_load([300, 300, 0], window), even_decode_load(2, 300, window)),
        (prefill_load([300, 300, 0], 0, window), even_prefill_load(2, 300, window)),
    ):
        assert {name: float(value) for name, value in one.items() if name != "seq"} == {
            name: float(value) for name, value in other.items() if name != "seq"
        }


def test_the_plain_roofline():
    # decode: 105.7 MB at 1 TB/s
    assert naive_seconds(DECODE, PEAKS) == pytest.approx(105_676_800 / 1e12)
