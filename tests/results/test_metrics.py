"""The definitions of TTFT, TPOT and ITL on requests worked out by hand."""

import numpy as np
import pytest

from moesim.results import metrics


def test_a_request_with_prefill():
    # arrives at 1, its prompt is done at 3 (first token), then tokens at 4, 6 and 9
    row = metrics.request_row(7, 1.0, [2.0, 3.0], 10, [4.0, 6.0, 9.0])
    assert (row.ttft_s, row.latency_s, row.output_tokens) == (2.0, 8.0, 4)
    assert row.tpot_s == pytest.approx((8.0 - 2.0) / (4 - 1))
    assert metrics.inter_token_s(3.0, [4.0, 6.0, 9.0]).tolist() == [1.0, 2.0, 3.0]


def test_without_prefill_there_is_no_ttft_and_never_zero():
    row = metrics.request_row(0, 1.0, [], 0, [3.0, 5.0])
    assert row.ttft_s is None
    assert (row.output_tokens, row.tpot_s) == (2, 2.0)
    assert metrics.inter_token_s(None, [3.0, 5.0]).tolist() == [2.0]


def test_a_request_that_only_reads_has_one_token_and_no_tpot():
    row = metrics.request_row(0, 0.0, [2.0], 5, [])
    assert (row.output_tokens, row.ttft_s, row.tpot_s, row.latency_s) == (1, 2.0, None, 2.0)


def test_percentiles_interpolate_and_nothing_is_none():
    found = metrics.distribution(np.arange(101.0))
    assert (found.n, found.mean, found.p50, found.p90, found.p99, found.min, found.max) == (101, 50, 50, 90, 99, 0, 100)
    assert metrics.distribution([]) is None


def test_shares_add_up_and_leave_out_nothing_but_zeros():
    shares = metrics.time_shares({"a": 3.0, "b": 0.0, "c": 1.0})
    assert [(part.name, part.share) for part in shares] == [("a", 0.75), ("c", 0.25)]
