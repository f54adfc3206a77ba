import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.traces import check
from moesim.traces import statistics as stats
from moesim.traces.synthetic import SyntheticRouting, synthesize
from moesim.transforms import dynamic_top_p, null_experts


@pytest.fixture
def weighted(make_trace):
    """Three tokens of one layer, top-3: sure, unsure, and one without experts."""
    weights = np.array([[[0.125, 0.75, 0.125]], [[0.5, 0.25, 0.25]], [[0, 0, 0]]], np.float16)
    return make_trace([[[0, 1, 2]], [[3, 2, 1]], [[255, 255, 255]]], weights=weights)


def test_top_p_by_hand(weighted):
    some = check(dynamic_top_p(weighted, 0.75))
    assert some.experts[:, 0].tolist() == [[1, 255, 255], [3, 2, 255], [255, 255, 255]]
    assert some.weights[0, 0].tolist() == [1, 0, 0]
    assert some.weights[1, 0].tolist() == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-3)
    assert some.card.transforms == ["dynamic_top_p(p=0.75)"]


def test_top_p_of_one_changes_nothing_and_a_tiny_one_leaves_one(weighted):
    assert dynamic_top_p(weighted, 1).sha256 == weighted.sha256
    assert (dynamic_top_p(weighted, 1e-9).experts != 255).sum(axis=-1)[:, 0].tolist() == [1, 1, 0]


def test_null_experts_by_hand(weighted):
    some = check(null_experts(weighted, 0.3))
    assert some.experts[:, 0].tolist() == [[1, 255, 255], [3, 255, 255], [255, 255, 255]]
    assert some.weights[:, 0].tolist() == [[0.75, 0, 0], [0.5, 0, 0], [0, 0, 0]]
    assert null_experts(weighted, 0).sha256 == weighted.sha256


def test_the_surer_the_fewer():
    trace = synthesize(SyntheticRouting(num_layers=2, num_experts=16, top_k=6, skew=1, output_tokens=200))
    used = [stats.cycle_experts(stats.token_rows(dynamic_top_p(trace, p))) for p in (0.3, 0.6, 0.9, 1.0)]
    assert used == sorted(used)
    assert used[-1] == 12


@pytest.mark.parametrize("p", [0, -1, 1.5, float("nan")])
def test_impossible_shares(weighted, p):
    with pytest.raises(TraceError, match="needs a share"):
        dynamic_top_p(weighted, p)


def test_impossible_null_shares_and_no_weights(weighted, make_trace):
    with pytest.raises(TraceError, match="needs a share"):
        null_experts(weighted, 1.5)
    for transform in (dynamic_top_p, null_experts):
        with pytest.raises(TraceError, match="has no gate weights"):
            transform(make_trace([[[0]]]), 0.5)
