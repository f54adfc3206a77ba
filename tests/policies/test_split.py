"""How a cache is shared out among layers."""

from itertools import product

import numpy as np
import pytest
from builders import setup_of, trace_of, visits_for

from moesim.engine import simulate
from moesim.policies import api
from moesim.policies.split import SplitFacts, least_cost
from moesim.replay import count
from moesim.scenario.splits import first_choice_accuracy, layer_bytes, layer_hits

EXPERTS, LAYERS, TOP_K = 8, 3, 2


def training(seed=0, tokens=60, skew=(0.2, 1.0, 3.0)):
    """Routing whose layers differ: each prefers its first experts more strongly than the layer before."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(tokens):
        keys = [rng.gumbel(size=EXPERTS) - strength * np.arange(EXPERTS) / 2 for strength in skew]
        rows.append([np.argsort(-key)[:TOP_K].tolist() for key in keys])
    return visits_for(trace_of(rows, num_experts=EXPERTS))


@pytest.mark.parametrize("name", api.names("split"))
@pytest.mark.parametrize("slots", [3, 10, 17, 24, 40])
def test_every_split_gives_each_layer_a_slot_and_no_more_than_there_are(name, slots):
    parts = layer_bytes(api.load("split", name), slots * 100 + 50, 100, TOP_K, training())
    assert len(parts) == LAYERS
    assert min(parts) >= 100
    assert sum(parts) <= slots * 100
    if name != "equal":
        assert sum(parts) == min(slots, EXPERTS * LAYERS) * 100 or name in ("optimal", "adapmoe")


def test_least_cost_is_the_least_of_all_splits():
    rng = np.random.default_rng(3)
    for _ in range(40):
        cost = rng.random((3, 6)).round(1)
        slots = int(rng.integers(3, 12))
        every = [split for split in product(range(1, 6), repeat=3) if sum(split) <= slots]
        best = min(sum(cost[layer, given] for layer, given in enumerate(split)) for split in every)
        found = least_cost(cost, slots)
        assert sum(cost[range(3), found]) == pytest.approx(best)
        assert found.sum() <= slots


def test_adapmoe_s_cost_is_that_of_its_released_code_for_top_2_of_8():
    module = api.load("split", "adapmoe").module
    for size, accuracy in product(range(9), (0.0, 0.7, 1.0)):
        both = max((8 - size) * (7 - size) / 56, 0)
        one = 2 * (8 - size) * size / 56
        assert module._loads(8, 2, size, accuracy) == pytest.approx(
            2 * both * (1 - accuracy) + both * accuracy + one * (1 - accuracy)
        )
        assert module._loads(8, 1, size, accuracy) == pytest.approx((1 - size / 8) * (1 - accuracy))


def test_layer_hits_are_those_of_lru_caches():
    visits = training()
    hits = layer_hits(visits)
    lru = api.load("caching", "lru")
    for slots in range(TOP_K, EXPERTS + 1):
        counts = count(visits, np.ones(visits.num_keys, np.int64), lru, slots * LAYERS, per_layer=True)
        assert hits[:, slots].tolist() == counts.hits.tolist()


def test_the_optimal_split_hits_at_least_as_often_as_any_other_where_it_learned():
    visits = training()
    hits = layer_hits(visits)
    for slots in (6, 9, 15):
        best = least_cost(-hits, slots)
        sums = {
            name: hits[range(LAYERS), np.array(layer_bytes(api.load("split", name), slots, 1, TOP_K, visits))].sum()
            for name in api.names("split")
        }
        assert hits[range(LAYERS), best].sum() == max(sums.values())


def test_the_engine_keeps_to_the_layers_shares():
    rows = [[[t % 3], [t % 2]] for t in range(8)]
    setup = setup_of(trace_of(rows, num_experts=3), slots=4, per_layer=True)
    tier = type(setup.gpu)(setup.gpu.policy, 4, True, None, (3 * 2**20, 2**20))
    uneven = simulate(type(setup)(**{**vars(setup), "gpu": tier}))
    misses = (uneven.label == 2).reshape(8, 2).sum(axis=0)
    assert misses.tolist() == [3, 8]  # three slots hold layer 0's three experts, one slot never holds the next of two


def test_splits_see_the_training_split_only():
    facts = SplitFacts(1, 2, 1, 2, np.ones((1, 2)), np.ones(1), np.zeros((1, 3)))
    assert not any(hasattr(facts, name) for name in ("visits", "trace"))


def test_adapmoe_gives_more_to_layers_whose_prefetch_is_worse():
    rng = np.random.default_rng(2)
    rows = np.array([[rng.permutation(EXPERTS)[:TOP_K] for _ in range(LAYERS)] for _ in range(80)])
    look = np.full_like(rows, -1)
    look[:, 0, 0], look[:, 1, 0] = (rows[:, 1, 0] + 1) % EXPERTS, rows[:, 2, 1]  # mostly wrong, then always right
    trace = trace_of(rows, num_experts=EXPERTS, lookahead={1: look})
    visits = visits_for(trace)
    found = first_choice_accuracy(trace, visits.steps.row)
    assert found[0] == 0
    assert found[1] < 0.3
    assert found[2] == 1
    policy = api.load("split", "adapmoe")
    shares = layer_bytes(policy, 12 * 100, 100, TOP_K, visits, trace)
    assert shares[2] < shares[1] <= shares[0]
    fixed = layer_bytes(api.load("split", "adapmoe", {"accuracy": [0.0, 0.5, 0.5]}), 1200, 100, TOP_K, visits, trace)
    assert fixed == layer_bytes(api.load("split", "adapmoe", {"accuracy": [0.0, 0.5, 0.5]}), 1200, 100, TOP_K, visits)
