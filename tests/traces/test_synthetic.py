import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moesim.traces import load_trace, save_trace
from moesim.traces import statistics as stats
from moesim.traces.synthetic import SyntheticRouting, synthesize


def made(**changes):
    """A trace of 4 requests x 80 tokens, 3 layers, top-2 of 16, with some settings changed."""
    fields = {"num_layers": 3, "num_experts": 16, "top_k": 2, "requests": 4, "output_tokens": 80}
    return synthesize(SyntheticRouting(**(fields | changes)))


def test_shape_phases_and_card():
    trace = made(prompt_tokens=10, output_tokens=20)
    assert (trace.num_tokens, trace.num_layers, trace.top_k) == (120, 3, 2)
    assert (trace.phase[:30] == 0).sum() == 10
    assert trace.card.labels == ("synthetic",)
    assert trace.card.training["generator"]["num_experts"] == 16


def test_same_seed_same_trace():
    assert made(seed=3, drift=0.1).sha256 == made(seed=3, drift=0.1).sha256
    assert made(seed=3).sha256 != made(seed=4).sha256


def test_weights_are_shares_in_rank_order():
    weights = made(top_k=4, skew=1).weights.astype(float)
    assert weights.sum(axis=-1) == pytest.approx(1, abs=2e-3)
    assert (np.diff(weights, axis=-1) <= 0).all()


def test_skew_is_that_of_zipf():
    """Top-1 of four, uniform and in proportion to 1, 1/2, 1/3, 1/4."""
    rows = stats.token_rows(made(num_experts=4, top_k=1, skew=1, output_tokens=3000))
    shares = np.sort(stats.load(rows)[0])[::-1] / rows.num_tokens
    assert shares == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=0.02)
    assert stats.load_cv(stats.load(stats.token_rows(made(output_tokens=3000)))).max() < 0.1


@pytest.mark.parametrize("stickiness", [0.0, 0.5, 1.0])
def test_stickiness_is_the_overlap_beyond_chance(stickiness):
    overlap = np.mean(stats.consecutive_overlap(stats.token_rows(made(stickiness=stickiness, output_tokens=1000))))
    chance = (1 - stickiness) * 2 / 16  # a slot that was given up is filled by chance
    assert overlap == pytest.approx(stickiness + chance, abs=0.03)


def test_affinity_makes_the_next_layer_predictable():
    loose, tight = (stats.successor_recall(stats.token_rows(made(affinity=a)))[0][1:].mean() for a in (0, 1))
    assert loose < 0.25
    assert tight == 1


def test_drift_changes_what_is_popular():
    def drifted(drift):
        rows = stats.token_rows(made(skew=2, drift=drift, requests=1, output_tokens=1000))
        half = np.arange(1000) < 500
        return stats.divergence(stats.load(rows.subset(half)), stats.load(rows.subset(~half))).mean()

    assert drifted(0) < 0.02 < 0.1 < drifted(0.005)


def test_marked_for_ever(tmp_path):
    save_trace(made(), tmp_path / "t.npz")
    assert load_trace(tmp_path / "t.npz").card.origin == "synthetic"


@given(
    st.builds(
        SyntheticRouting,
        num_layers=st.integers(1, 3),
        num_experts=st.integers(3, 6),
        top_k=st.integers(1, 3),
        requests=st.integers(1, 3),
        output_tokens=st.integers(1, 5),
        skew=st.sampled_from([0.0, 1.0, 10.0]),
        stickiness=st.sampled_from([0.0, 0.5, 1.0]),
        affinity=st.sampled_from([0.0, 0.5, 1.0]),
        drift=st.sampled_from([0.0, 0.5, 1.0]),
        seed=st.integers(0, 9),
    )
)
@settings(max_examples=60, deadline=None)
def test_every_setting_makes_a_sound_trace(routing):
    trace = synthesize(routing)  # which checks it
    assert trace.num_tokens == routing.requests * routing.output_tokens
    assert (trace.experts != trace.sentinel).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 17}, "top_k 17 is more than num_experts 16"),
        ({"output_tokens": 0}, "are both 0"),
        ({"stickiness": 1.1}, "less than or equal to 1"),
        ({"skew": -1}, "greater than or equal to 0"),
        ({"skewness": 1}, "Extra inputs"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ValidationError, match=message):
        made(**changes)
