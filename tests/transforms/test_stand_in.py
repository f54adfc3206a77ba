import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.errors import TraceError
from moesim.traces import check
from moesim.transforms import stand_in


@pytest.fixture
def three_layers(make_trace):
    """One token, layer l uses expert l; a perfect lookahead of 1 and 2."""
    ahead = {1: np.array([[[1], [2], [255]]], np.uint8), 2: np.array([[[2], [255], [255]]], np.uint8)}
    return make_trace([[[0], [1], [2]]], lookahead=ahead, weights=np.array([[[1], [0.5], [0.25]]], np.float16))


def test_layers_repeat_in_a_cycle(three_layers):
    stood = check(stand_in(three_layers, 7))
    assert stood.experts[0, :, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert stood.weights[0, :, 0].tolist() == [1, 0.5, 0.25, 1, 0.5, 0.25, 1]
    assert stood.lookahead[1][0, :, 0].tolist() == [1, 2, 255, 1, 2, 255, 255]
    assert stood.lookahead[2][0, :, 0].tolist() == [2, 255, 255, 2, 255, 255, 255]


def test_fewer_layers_cut_the_lookahead(three_layers):
    stood = check(stand_in(three_layers, 2))
    assert stood.lookahead[1][0, :, 0].tolist() == [1, 255]
    assert stood.lookahead[2][0, :, 0].tolist() == [255, 255]


def test_card_says_what_was_done(full_trace):
    card = stand_in(full_trace, 5).card
    assert (card.origin, card.labels, card.transforms) == ("stand-in", ("stand-in",), ["stand_in(num_layers=5)"])
    assert (card.moe_layer_indices, card.expert_bytes) == ([0, 1, 2, 3, 4], None)


def test_impossible_layers(full_trace):
    with pytest.raises(TraceError, match="with 0 MoE layers"):
        stand_in(full_trace, 0)


@given(num_layers=st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_lookahead_speaks_of_the_layer_that_is_there(three_layers, num_layers):
    """The source predicts perfectly, so what the stand-in predicts must come true, and only seams are silent."""
    stood = check(stand_in(three_layers, num_layers))
    for distance, channel in stood.lookahead.items():
        for layer, predicted in enumerate(channel[0, :, 0]):
            known = layer % 3 + distance < 3 and layer + distance < num_layers
            assert predicted == (stood.experts[0, layer + distance, 0] if known else 255)
