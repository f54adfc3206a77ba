import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.traces import check
from moesim.transforms import first_tokens, select_layers, select_requests


def test_rows_of_the_requests_in_the_given_order(full_trace):
    both = check(select_requests(full_trace, [3, 7]))
    assert both.request.tolist() == [3, 7, 7]
    assert both.card.transforms == ["select_requests(2: 3, 7)"]
    one = check(select_requests(full_trace, [7]))
    for name, array in full_trace.arrays().items():
        assert np.array_equal(one.arrays()[name], array[:2])


@pytest.mark.parametrize(("ids", "message"), [([], "at least one"), ([7, 7], "each once"), ([1], "no request 1")])
def test_requests_that_can_t_be_selected(full_trace, ids, message):
    with pytest.raises(TraceError, match=message):
        select_requests(full_trace, ids)


def test_first_tokens_of_every_request(full_trace):
    cut = check(first_tokens(full_trace, 1))
    assert (cut.request.tolist(), cut.token_id.tolist()) == ([7, 3], [5, 7])
    assert first_tokens(full_trace, 9).sha256 == full_trace.sha256
    with pytest.raises(TraceError, match="can't be cut to 0 tokens"):
        first_tokens(full_trace, 0)


def test_layers_keep_the_lookahead_that_still_fits(make_trace):
    ahead = {1: np.array([[[1], [2], [3], [255]]], np.uint8), 2: np.array([[[2], [3], [255], [255]]], np.uint8)}
    trace = make_trace([[[0], [1], [2], [3]]], lookahead=ahead, card={"expert_bytes": [10, 11, 12, 13]})
    some = check(select_layers(trace, [0, 2, 3]))
    assert some.experts[0, :, 0].tolist() == [0, 2, 3]
    assert some.lookahead[1][0, :, 0].tolist() == [255, 3, 255]  # 0 predicted layer 1, which is gone
    assert some.lookahead[2][0, :, 0].tolist() == [255, 255, 255]
    assert (some.card.moe_layer_indices, some.card.expert_bytes) == ([0, 2, 3], [10, 12, 13])


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [2], [-1, 0]])
def test_layers_that_can_t_be_selected(full_trace, layers):
    with pytest.raises(TraceError, match="has layers 0 to 1; select some of them, ascending"):
        select_layers(full_trace, layers)
