import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import TraceError
from moesim.traces import check
from moesim.traces.synthetic import SyntheticRouting, synthesize
from moesim.transforms import merge, prune


@pytest.fixture
def two_layers(make_trace):
    """Two tokens, top-3 of 6, layer 0 predicts layer 1."""
    return make_trace(
        [[[0, 1, 2], [3, 4, 5]], [[5, 4, 3], [0, 255, 255]]],
        num_experts=6,
        weights=np.array([[[0.5, 0.25, 0.25]] * 2, [[0.5, 0.25, 0.25], [1, 0, 0]]], np.float16),
        lookahead={1: np.array([[[3, 4, 0], [255] * 3], [[0, 1, 2], [255] * 3]], np.uint8)},
        card={"expert_bytes": [1, 2]},
    )


def test_pruned_experts_are_renumbered_and_leave_gaps_at_the_end(two_layers):
    pruned = check(prune(two_layers, [[2, 0, 4], [5, 3, 0]]))
    assert pruned.experts.tolist() == [[[1, 0, 255], [1, 0, 255]], [[2, 255, 255], [2, 255, 255]]]
    assert pruned.weights[0, 0].tolist() == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-3)
    assert pruned.weights[1].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert pruned.lookahead[1][:, 0].tolist() == [[1, 2, 255], [2, 255, 255]]  # by layer 1's new numbers
    card = pruned.card
    assert (card.num_experts, card.expert_bytes, card.transforms) == (3, [1, 2], ["prune(kept=3 of 6)"])


def test_pruning_below_top_k(two_layers):
    pruned = check(prune(two_layers, [[1, 3], [1, 2]]))
    assert (pruned.top_k, pruned.card.top_k) == (2, 2)
    assert pruned.experts.tolist() == [[[0, 255], [255, 255]], [[1, 255], [255, 255]]]
    assert pruned.weights[0, 1].tolist() == [0, 0]


@pytest.mark.parametrize(
    "kept", [[[0, 1]], [[0, 1], [0]], [[0, 0], [0, 1]], [[0, 6], [0, 1]], [[-1, 0], [0, 1]], [[], []]]
)
def test_sets_that_can_t_be_kept(two_layers, kept):
    with pytest.raises(TraceError, match=r"one list of experts for each of 2 layers|has experts 0 to 5"):
        prune(two_layers, kept)


def test_merged_experts_add_their_weights(two_layers):
    merged = check(merge(two_layers, np.array([[0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 0, 2]])))
    assert merged.experts[:, 0].tolist() == [[0, 1, 255], [2, 1, 255]]
    assert merged.experts[:, 1].tolist() == [[0, 2, 255], [0, 255, 255]]
    assert merged.weights[0, 0].tolist() == [0.75, 0.25, 0]
    assert merged.lookahead[1][:, 0].tolist() == [[0, 255, 255], [0, 1, 2]]
    assert (merged.card.num_experts, merged.card.expert_bytes) == (3, None)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.zeros((2, 5), int), r"integers \[2, 6\]"),
        (np.zeros((2, 6)), "got float64"),
        (np.ones((2, 6), int), "numbered from 0 without gaps"),
        (np.full((2, 6), -1), "numbered from 0 without gaps"),
    ],
)
def test_groups_that_make_no_sense(two_layers, groups, message):
    with pytest.raises(TraceError, match=message):
        merge(two_layers, groups)


@given(seed=st.integers(0, 99), groups=st.integers(1, 6))
def test_merging_loses_no_weight_and_keeps_who_was_used(seed, groups):
    trace = synthesize(SyntheticRouting(num_layers=2, num_experts=6, top_k=3, output_tokens=5, seed=seed))
    table = np.random.default_rng(seed).permuted(np.tile(np.arange(6) % groups, (2, 1)), axis=1)
    merged = check(merge(trace, table))
    assert merged.weights.sum(axis=-1) == pytest.approx(trace.weights.sum(axis=-1), abs=2e-3)
    for token in range(5):
        for layer in range(2):
            expected = {int(table[layer, expert]) for expert in trace.experts[token, layer]}
            assert {int(e) for e in merged.experts[token, layer] if e != 255} == expected
