"""Optima of caching against each other, against Belady's MIN, and against a search of all cache contents.

``MOESIM_OPTIMA=400`` runs so many instances of each test; by default fewer.
"""

import os

import networkx as nx
import numpy as np
import pytest
from builders import trace_of, visits_for
from optimal.instances import cheapest_by_search, random_requests

from moesim.errors import MoesimError
from moesim.optimal.caching import fewest as fewest_module
from moesim.optimal.caching.cpu import fetch_or_cpu
from moesim.optimal.caching.fewest import fewest, fewest_by_layer, fewest_by_set
from moesim.optimal.caching.intervals import intervals_of, linear_bound, sized, weighted
from moesim.optimal.caching.requests import MODELS, requests_from, requests_of, singles
from moesim.optimal.caching.split import best_split
from moesim.policies import api
from moesim.replay import count

INSTANCES = int(os.environ.get("MOESIM_OPTIMA", "40"))


def instance(seed):
    rng = np.random.default_rng(seed)
    requests = random_requests(rng)
    model = MODELS[seed % 3]
    least = requests.largest_set if model == "together" else 1
    return rng, requests, model, int(rng.integers(least, requests.num_keys + 1))


def most_kept_by_flow(requests, slots, model):
    """The most intervals that can be kept, as a minimum cost flow of networkx along the points."""
    intervals = intervals_of(requests, model)
    room = [slots - (len(members) if model == "together" else 0) for members in requests.sets]
    if model == "overshoot":
        room = [max(slots, len(members) + 1) for members in requests.sets]
    graph = nx.MultiDiGraph()
    for point in range(intervals.num_points):
        graph.add_edge(point, point + 1, capacity=10**6, weight=0)
    for low, high in zip(intervals.low.tolist(), intervals.high.tolist(), strict=True):
        if low < high:
            graph.add_edge(low, high, capacity=1, weight=-1)
    supply = np.diff([0, *room, 0])
    for point, amount in enumerate(supply.tolist()):
        graph.add_node(point, demand=-amount)
    return int((intervals.low == intervals.high).sum()) - nx.min_cost_flow_cost(graph)


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_equal_sizes_pass_program_flow_and_search_agree(seed):
    _, requests, model, slots = instance(seed)
    missed = int(fewest(requests, slots, model).sum())
    ones = np.ones(requests.num_keys)
    program = weighted(requests, ones, slots, model)
    assert program.answer.status == "optimal"
    assert program.answer.value == pytest.approx(missed)
    assert int((~program.kept).sum()) >= missed
    assert len(requests.key) - most_kept_by_flow(requests, slots, model) == missed
    assert cheapest_by_search(requests, ones, ones, slots, model) == missed
    by_set = fewest_by_set(requests, slots, model)
    assert by_set[-1] == missed
    middle = requests.num_sets // 2
    assert by_set[middle] == fewest(requests_from(requests.sets[: middle + 1], requests.num_keys), slots, model).sum()


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_a_warm_start_may_hold_anything(seed):
    _, requests, model, slots = instance(seed)
    ones = np.ones(requests.num_keys)
    expected = cheapest_by_search(requests, ones, ones, slots, model, warm=True)
    assert int(fewest(requests, slots, model, warm=True).sum()) == expected


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_costs_of_their_own(seed):
    rng, requests, model, slots = instance(seed)
    costs = rng.integers(1, 20, requests.num_keys).astype(float)
    found = weighted(requests, costs, slots, model)
    assert found.answer.status == "optimal"
    expected = cheapest_by_search(requests, np.ones(requests.num_keys), costs, slots, model)
    assert found.answer.value == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_mixed_sizes_linear_integer_and_search(seed):
    rng, requests, model, _ = instance(seed)
    sizes = rng.choice([1, 2, 4], requests.num_keys)
    costs = sizes * rng.choice([1.0, 5.0], requests.num_keys)
    together = max(int(sizes[members].sum()) for members in requests.sets)
    capacity = int(rng.integers(together if model == "together" else 1, sizes.sum() + 1))
    expected = cheapest_by_search(requests, sizes, costs, capacity, model)
    found = sized(requests, sizes, costs, capacity, model)
    assert found.answer.status == "optimal"
    assert found.answer.value == pytest.approx(expected)
    linear = linear_bound(requests, sizes, costs, capacity, model)
    assert linear.status == "bound only"
    assert linear.bound <= expected + 1e-6
    missed = np.ones(len(requests.key), dtype=bool)
    intervals = intervals_of(requests, model)
    missed[intervals.second[found.kept[intervals.first]]] = False
    assert costs[requests.key[missed]].sum() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_bound_linear_integer_and_every_policy_stand_in_this_order(seed):
    rng = np.random.default_rng(seed)
    rows = [[rng.permutation(5)[:2].tolist() for _ in range(2)] for _ in range(20)]
    visits = visits_for(trace_of(rows, num_experts=5))
    requests, slots = requests_of(visits), int(rng.integers(2, 10))
    sizes = np.ones(visits.num_keys, dtype=np.int64)
    least = int(fewest(requests, slots).sum())
    assert linear_bound(requests, sizes, sizes.astype(float), slots).bound == pytest.approx(least)
    for name in ("belady", "lru", "lfu", "fifo", "sieve", "s3fifo", "arc", "lru-k"):
        for per_layer in (False, True):
            if per_layer and slots < 4:
                continue
            counts = count(visits, sizes, api.load("caching", name), slots, per_layer=per_layer)
            misses = int((counts.lookups - counts.hits).sum())
            assert misses >= least
            if name == "belady" and not per_layer:
                assert misses == least
            if name == "belady" and per_layer:
                assert misses == sum(fewest_by_layer(requests, 2, [slots // 2, slots // 2]))


def test_the_kernel_compiled_agrees_with_itself_interpreted(monkeypatch):
    rng = np.random.default_rng(1)
    requests = singles(rng.zipf(1.3, 5000) % 50, 50)
    for model in MODELS:
        for warm in (False, True):
            interpreted = fewest(requests, 12, model, warm=warm)
            monkeypatch.setattr(fewest_module, "COMPILE_FROM", 0)
            assert np.array_equal(fewest(requests, 12, model, warm=warm), interpreted)
            monkeypatch.undo()


def test_worked_out_by_hand():
    """Two slots, a b c a b: a stays or b stays, not both (MIN: 4 fetches); with bypass c need not enter (3)."""
    requests = singles(np.array([0, 1, 2, 0, 1]), 3)
    assert fewest(requests, 2).tolist() == [True, True, True, False, True]
    assert int(fewest(requests, 2, "bypass").sum()) == 3
    assert int(fewest(requests, 1).sum()) == 5
    costs = np.array([1.0, 9.0, 1.0])
    kept = weighted(requests, costs, 2)
    assert kept.answer.value == 12.0  # b is kept, a is fetched twice
    assert kept.kept.tolist() == [False, True, False, False, False]
    with pytest.raises(MoesimError, match="does not stand together"):
        fewest(requests_from([[0, 1, 2]], 3), 2)
    with pytest.raises(MoesimError, match="does not stand together"):
        weighted(requests_from([[0, 1, 2]], 3), np.ones(3), 2)


@pytest.mark.parametrize("seed", range(max(INSTANCES // 4, 5)))
def test_the_best_split_over_layers_is_that_of_trying_all(seed):
    rng = np.random.default_rng(seed)
    liked = [rng.dirichlet(np.ones(4) * spread) + 0.02 for spread in (0.3, 3.0, 30.0)]
    rows = [
        [rng.choice(4, 1 + layer % 2, False, p / p.sum()).tolist() for layer, p in enumerate(liked)] for _ in range(25)
    ]
    requests = requests_from([members for row in rows for members in row], 12)
    requests = requests_from(
        [[key + 4 * (number % 3) for key in members] for number, members in enumerate(requests.sets)], 12
    )
    slots = int(rng.integers(4, 12))
    found = best_split(requests, 3, slots)
    assert sum(found.slots) <= slots
    splits = [(a, b, c) for a in range(1, 5) for b in range(2, 5) for c in range(1, 5) if a + b + c <= slots]
    assert found.answer.value == min(sum(fewest_by_layer(requests, 3, list(split))) for split in splits)
    assert fewest_by_layer(requests, 3, found.slots) == found.fetches


def fetch_or_cpu_by_search(requests, fetch, cpu, slots):
    """Dynamic programming over cache contents; at each set some members are on the GPU, the others run on the CPU."""
    best, place = {frozenset(): 0.0}, 0
    for members in requests.sets:
        after = {}
        price = dict(zip(members, cpu[place : place + len(members)].tolist(), strict=True))
        place += len(members)
        for held, cost in best.items():
            for kept in _subsets(held | set(members)):
                if len(kept) > slots:
                    continue
                paid = cost + sum(fetch[key] for key in kept - held)
                paid += sum(price[key] for key in members if key not in kept)
                after[kept] = min(paid, after.get(kept, np.inf))
        best = after
    return min(best.values())


def _subsets(keys):
    keys = sorted(keys)
    return [frozenset(key for bit, key in enumerate(keys) if mask >> bit & 1) for mask in range(1 << len(keys))]


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_a_miss_may_run_on_the_cpu(seed):
    rng = np.random.default_rng(seed)
    requests = random_requests(rng, keys=5, sets=7)
    slots = int(rng.integers(1, requests.num_keys + 1))
    fetch = rng.integers(2, 9, requests.num_keys).astype(float)
    cpu = rng.integers(1, 12, len(requests.key)).astype(float)
    found = fetch_or_cpu(requests, fetch, cpu, slots)
    assert found.answer.status == "optimal"
    least = fetch_or_cpu_by_search(requests, fetch, cpu, slots)
    assert found.answer.value == pytest.approx(least)
    assert found.on_gpu.shape == requests.key.shape
    quick = fetch_or_cpu(requests, fetch, cpu, slots, time_limit_s=0).answer
    assert quick.bound <= least + 1e-9
    assert quick.value is None or quick.value >= least - 1e-9
    assert (quick.value is None) == (requests.largest_set > slots)
