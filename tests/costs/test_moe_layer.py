"""The time of a fused MoE layer, worked out by hand."""

import numpy as np
import pytest

from moesim.costs.fitted import Peaks, overlapped, total
from moesim.costs.moe_layer import CONSTANTS, FORM, l2_miss, naive_seconds, terms, uniform_distinct

PEAKS = Peaks(bytes_per_s=1e12, flop_per_s=1e15, l2_bytes=0.0, sms=100, link_bytes_per_s=0.0)
SIMPLE = {
    "launch": 10e-6,
    "per_expert": 0.1e-6,
    "bandwidth_share": 0.5,
    "arithmetic_share": 0.5,
    "tile_step": 1e-12,
    "sharpness": 1.0,
    "pair_passes": 1.0,
    "output_passes": 1.0,
    "tile_reads": 2.0,
    "untuned": 0.5,
    "misaligned": 1.0,
}


def layer(**changes: float) -> dict[str, np.ndarray]:
    """4 tokens, top-2 of 8 experts on one rank, 8 pairs on 5 distinct experts; hidden 1000, width 320, gated, bf16."""
    sizes = {"tokens": 4, "topk": 2, "hidden": 1000, "width": 320, "matrices": 3, "local_experts": 8, "ranks": 1}
    sizes |= {"pairs": 8, "distinct": 5, "weight_bytes": 2, "untuned": 0, "unpadded": 0}
    return {name: np.array([float(value)]) for name, value in (sizes | changes).items()}


def test_every_term_by_hand():
    found = terms(layer(), PEAKS, SIMPLE)
    assert found["launch"] == pytest.approx(10e-6)
    assert found["experts held"] == pytest.approx(0.8e-6)  # 8 experts x 0.1 us
    # weights: 5 x 3 x 1000 x 320 x 2 B = 9.6 MB at half of 1 TB/s
    assert found["expert weights"] == pytest.approx(19.2e-6)
    # arithmetic: 2 x 8 x 3 x 1000 x 320 = 15.36 MFLOP at half of 1 PFLOP/s
    assert found["arithmetic"] == pytest.approx(30.72e-9, rel=1e-4)
    # activations: 2 B x (8 x (2 x 1000 + 3 x 320) + 4 x 2 x 1000) = 63360 B at 0.5 TB/s
    assert found["activations"] == pytest.approx(126.72e-9)
    assert total(found) == pytest.approx(10e-6 + 0.8e-6 + 19.2e-6 + 30.72e-9 + 126.72e-9, rel=1e-6)


def test_each_step_of_64_cubed_takes_an_sm_its_time_however_fast_the_tensor_cores_are():
    slow, fast = ({**SIMPLE, "tile_step": 0.1e-6, "arithmetic_share": share} for share in (0.5, 1e9))
    # 15.36 MFLOP are 15.36e6 / (2 x 64^3) = 29.297 steps on 100 SMs of 0.1 us each
    assert terms(layer(), PEAKS, fast)["arithmetic"] == pytest.approx(29.297e-9, rel=1e-4)
    assert terms(layer(), PEAKS, slow)["arithmetic"] == pytest.approx(29.297e-9 + 30.72e-9, rel=1e-4)


def test_untuned_tiles_read_slowly_once_there_are_more_tokens_than_experts():
    few, many = layer(untuned=1.0), layer(untuned=1.0, tokens=9.0)
    assert terms(few, PEAKS, SIMPLE)["expert weights"] == pytest.approx(19.2e-6)
    assert terms(many, PEAKS, SIMPLE)["expert weights"] == pytest.approx(38.4e-6)
    assert terms(few, PEAKS, SIMPLE)["arithmetic"] == pytest.approx(61.44e-9, rel=1e-4)


def test_a_width_that_16_does_not_divide_costs_extra_only_where_the_kernel_does_not_pad():
    aligned = terms(layer(unpadded=1.0), PEAKS, SIMPLE)["expert weights"]
    odd = terms(layer(unpadded=1.0, width=328.0), PEAKS, SIMPLE)["expert weights"]
    padded = terms(layer(unpadded=0.0, width=328.0), PEAKS, SIMPLE)["expert weights"]
    assert odd == pytest.approx(2 * aligned * 328 / 320)
    assert padded == pytest.approx(aligned * 328 / 320)


def test_a_set_far_below_the_l2_reads_three_times_as_fast():
    small, large = l2_miss(np.array([1e3, 1e12]), 50e6)
    assert small == pytest.approx(1 / 3)
    assert large == pytest.approx(1.0)


def test_overlap_is_a_sum_at_one_and_the_roofline_far_above():
    assert sum(overlapped(3.0, 4.0, 1.0)) == pytest.approx(7.0)
    assert sum(overlapped(3.0, 4.0, 2.0)) == pytest.approx(5.0)
    assert sum(overlapped(3.0, 4.0, 1000.0)) == pytest.approx(4.0, rel=1e-3)
    assert sum(overlapped(0.0, 4.0, 3.0)) == pytest.approx(4.0)


def test_more_tokens_or_more_experts_never_take_less_time():
    constants = {constant.name: constant.start for constant in CONSTANTS}
    grow = np.arange(1, 200, dtype=float)
    for name in ("distinct", "pairs", "hidden", "tokens"):
        work = layer() | {name: grow}
        seconds = FORM.seconds(
            {key: np.broadcast_to(value, grow.shape) for key, value in work.items()}, PEAKS, constants
        )
        assert (np.diff(seconds) >= 0).all(), name


def test_the_formulas_to_compare_with():
    work = layer()
    # all 8 experts: 8 x 3 x 1000 x 320 x 2 B = 15.36 MB at 1 TB/s
    assert naive_seconds(work, PEAKS, work["local_experts"]) == pytest.approx(15.36e-6)
    # 8 x (1 - (1 - 2/8)^4) = 5.46875
    assert uniform_distinct(work) == pytest.approx(5.46875)
