"""The time of a matrix product, worked out by hand."""

import numpy as np
import pytest

from moesim.costs.fitted import Peaks
from moesim.costs.gemm import CONSTANTS, FORM, naive_seconds, terms

PEAKS = Peaks(bytes_per_s=1e12, flop_per_s=1e14, l2_bytes=0.0, sms=100, link_bytes_per_s=0.0)
SIMPLE = {
    "launch": 3e-6,
    "k_step": 1e-12,
    "bandwidth_share": 0.5,
    "arithmetic_share": 1.0,
    "sharpness": 1.0,
    "split": 1.0,
    "quantisation": 1.0,
}


def product(m: float, n: float, k: float) -> dict[str, np.ndarray]:
    return {"m": np.array([m]), "n": np.array([n]), "k": np.array([k])}


def test_every_term_by_hand():
    found = terms(product(1280.0, 1280.0, 100.0), PEAKS, SIMPLE)
    assert found["launch"] == pytest.approx(3e-6)
    # 2 B x (1280 x 100 + 1280 x 100 + 1280 x 1280) = 3.7888 MB at 0.5 TB/s
    assert found["memory"] == pytest.approx(7.5776e-6)
    # 100 tiles of 128 x 128 on 100 SMs: one wave of 100 steps, each 2 x 128 x 128 FLOP at 1 TFLOP/s
    assert found["arithmetic"] == pytest.approx(3.2768e-6, rel=1e-4)


def test_an_unfilled_wave_counts_whole_with_quantisation_and_in_part_without():
    # 200 rows more than 20 tiles of 64 hold: the best tiling can't fill its last wave
    whole = terms(product(1480.0, 1280.0, 4096.0), PEAKS, SIMPLE)["arithmetic"]
    part = terms(product(1480.0, 1280.0, 4096.0), PEAKS, SIMPLE | {"quantisation": 0.01})["arithmetic"]
    assert part < whole


def test_a_long_k_on_few_tiles_is_divided_where_a_second_pass_is_cheap():
    one = terms(product(16.0, 64.0, 65536.0), PEAKS, SIMPLE)["arithmetic"]
    divided = terms(product(16.0, 64.0, 65536.0), PEAKS, SIMPLE | {"split": 1e-6})["arithmetic"]
    # one block: 65536 x 2 x 16 x 64 FLOP at 1 TFLOP/s; 32 blocks: 1/32 of it, 1 us, 32 partial sums of 4 KiB
    assert one == pytest.approx(134.2e-6, rel=1e-2)
    assert divided == pytest.approx(134.2e-6 / 32 + 1e-6 + 32 * 4096 / 0.5e12, rel=1e-2)


def test_more_work_never_takes_less_time():
    constants = {constant.name: constant.start for constant in CONSTANTS}
    size = 2.0 ** np.arange(4, 15)
    for name in ("m", "n", "k"):
        work = {key: np.full(size.shape, 512.0) for key in "mnk"} | {name: size}
        assert (np.diff(FORM.seconds(work, PEAKS, constants)) >= 0).all(), name


def test_the_plain_roofline():
    assert naive_seconds(product(1.0, 1000.0, 1000.0), PEAKS) == pytest.approx(2.004e-6)
