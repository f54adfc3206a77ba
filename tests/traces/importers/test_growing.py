"""Routing that grows piece by piece is the routing that came in one piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import TraceError
from moesim.traces.importers._growing import GrowingRouting


def lines_of(experts, weights, tokens, layers):
    """One line for each activation: token, layer, expert, weight, slot."""
    token, layer, slot = np.nonzero(experts >= 0)
    return tokens[token], layers[layer], experts[token, layer, slot], weights[token, layer, slot], slot


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=st.tuples(*[st.integers(1, 6)] * 3))
def test_any_order_and_any_pieces_give_the_same(data, shape):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    experts, weights = rng.integers(0, 9, shape), rng.random(shape).astype(np.float16)
    tokens, layers = np.cumsum(rng.integers(1, 5, shape[0])), np.cumsum(rng.integers(1, 3, shape[1]))
    lines = rng.permutation(experts.size)
    columns = [column[lines] for column in lines_of(experts, weights, tokens, layers)]
    cuts = sorted(data.draw(st.lists(st.integers(0, experts.size), max_size=4), "cuts"))
    routing = GrowingRouting("file", by_slot=True)
    for part in zip(*(np.split(column, cuts) for column in columns), strict=True):
        if len(part[0]):
            assert routing.add(*part) is None
    found = routing.result()
    for result, expected in zip(found, (tokens, layers, experts, weights), strict=True):
        assert result.tolist() == expected.tolist()


def test_a_repetition_is_found_in_its_own_piece_and_in_a_later_one():
    ids, weights = np.array([[1, 2], [3, 4], [5, 6]]), np.zeros((3, 2))
    token, layer = np.array([0, 1, 2]), np.array([7, 7, 7])
    routing = GrowingRouting("file", by_slot=False)
    assert routing.add(token, layer, ids, weights) is None
    assert routing.add(np.array([3, 1, 4]), layer, ids, weights) == 1
    fresh = GrowingRouting("file", by_slot=False)
    assert fresh.add(np.array([0, 1, 0]), layer, ids, weights) == 2


def test_a_file_about_few_of_its_cells_is_refused_before_memory_is_taken():
    count = 5000
    routing = GrowingRouting("file", by_slot=True)
    with pytest.raises(TraceError, match="nearly all of the trace would be empty"):
        routing.add(np.arange(count), np.arange(count), np.ones(count), np.ones(count), np.zeros(count, int))


def test_spare_rooms_stay_when_a_later_piece_brings_another_layer():
    """Four tokens, then one more (room for six is made), then a layer that was not seen before."""
    routing = GrowingRouting("file", by_slot=True)
    for tokens, layer in (([0, 1, 2, 3], 0), ([4], 0), ([4], 1)):
        ones = np.ones(len(tokens))
        assert routing.add(np.array(tokens), layer * ones.astype(int), ones, ones, 0 * ones.astype(int)) is None
    assert routing.result()[2].tolist() == [[[1], [-1]]] * 4 + [[[1], [1]]]
