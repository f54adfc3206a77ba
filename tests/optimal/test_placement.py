"""Placements against trying them all, flows, and the example that EPLB was published with."""

import os
from itertools import permutations

import networkx as nx
import numpy as np
import pytest

from moesim.errors import MoesimError
from moesim.optimal.placement.affinity import crossings, fewest_crossings, pair_bound, swept
from moesim.optimal.placement.balance import balance_bound, balanced, fullest, swapped
from moesim.optimal.placement.reach import Tokens, least_reach, reach_bound, reached, tokens_of, two_levels
from moesim.optimal.placement.replicas import replica_bound, replicated
from moesim.optimal.placement.split import split_tokens
from moesim.policies import api
from moesim.policies.placement_profile import PlacementProfile

INSTANCES = max(int(os.environ.get("MOESIM_OPTIMA", "40")) // 2, 5)


def even_assignments(experts, ranks):
    """Every way to put experts equally on ranks."""
    return set(permutations(np.arange(experts) % ranks)) if experts <= 6 else None


def profile_of(load, *, nodes=1, ranks=4, slots=2, groups=1, sample=None):
    load = np.atleast_2d(np.asarray(load, float))
    node = np.repeat(np.arange(nodes), ranks // nodes)
    profile = PlacementProfile(
        load.shape[0], load.shape[1], node, slots, groups, **({"sample": sample} if sample is not None else {})
    )
    if sample is None:
        profile.__dict__["load"] = load  # of a sample that we do not make
    return profile


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_the_fullest_rank_is_as_empty_as_trying_all_makes_it(seed):
    rng = np.random.default_rng(seed)
    ranks = int(rng.choice([2, 3]))
    weight = rng.integers(1, 60, 6).astype(float)
    best = min(fullest(weight, np.array(rank), ranks) for rank in even_assignments(6, ranks))
    found = balanced(weight, ranks)
    assert found.answer.status == "optimal"
    assert found.answer.value == pytest.approx(best)
    assert balance_bound(weight, ranks) <= best + 1e-9
    assert fullest(weight, found.rank, ranks) == pytest.approx(best)
    assert np.bincount(found.rank).tolist() == [6 // ranks] * ranks


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_swaps_never_fill_the_fullest_rank_and_keep_counts(seed):
    rng = np.random.default_rng(seed)
    weight, rank = rng.pareto(1.0, 24), rng.permutation(24) % 4
    after = swapped(weight, rank, 4)
    assert fullest(weight, after, 4) <= fullest(weight, rank, 4)
    assert np.bincount(after).tolist() == [6] * 4
    assert balance_bound(weight, 4) <= fullest(weight, after, 4) * (1 + 1e-12)


def test_ranks_must_divide_the_experts():
    with pytest.raises(MoesimError, match="equally"):
        balanced(np.ones(5), 2)


def test_the_example_that_eplb_was_published_with():
    """Two layers of 12 experts, 16 copies in 4 groups on 2 nodes of 4 GPUs (README of deepseek-ai/EPLB)."""
    load = [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
    published = [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    profile = profile_of(load, nodes=2, ranks=8, slots=2, groups=4)
    copies = np.array([np.bincount(row, minlength=12) for row in published])
    share = np.asarray(load) / copies
    fullest_there = [share[layer][np.array(row).reshape(8, 2)].sum(axis=1).max() for layer, row in enumerate(published)]
    found = replicated(profile, hierarchical=True)
    assert (found.fullest <= np.array(fullest_there) + 1e-9).all()
    policy = api.load("placement", "eplb", {"mode": "hierarchical"})
    logical, _ = policy.module.place(policy.params, profile, np.random.default_rng(0))
    ours = [share[layer][row.reshape(8, 2)].sum(axis=1).max() for layer, row in enumerate(logical)]
    assert ours == pytest.approx(fullest_there)
    flat = replicated(profile)
    assert (flat.bound <= flat.fullest + 1e-9).all()
    assert (flat.fullest <= found.fullest + 1e-9).all()


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_no_replication_beats_its_bound(seed):
    """Four experts, six slots on three ranks: every copy count and every way to deal them out."""
    rng = np.random.default_rng(seed)
    load = rng.integers(1, 50, 4).astype(float)
    best = np.inf
    for first in range(4):
        for second in range(first, 4):
            slots = [0, 1, 2, 3, first, second]
            copies = np.bincount(slots, minlength=4)
            for order in set(permutations(slots)):
                loads = [sum(load[e] / copies[e] for e in order[at : at + 2]) for at in (0, 2, 4)]
                best = min(best, max(loads))
    (bound,) = replica_bound(load[None], 3, 6)
    assert bound <= best + 1e-9
    found = replicated(profile_of(load, ranks=3, slots=2))
    assert best <= found.answer.value + 1e-9


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_the_token_split_is_a_maximum_flow(seed):
    rng = np.random.default_rng(seed)
    experts, ranks = 5, 3
    logical = np.concatenate([np.arange(experts), rng.integers(0, experts, 4)])
    rank = rng.permutation(np.arange(len(logical)) % ranks)
    load = rng.integers(0, 40, experts).astype(float)
    found = split_tokens(load, logical, rank, ranks)
    assert found.answer.status == "optimal"
    assert np.bincount(logical, weights=found.tokens, minlength=experts) == pytest.approx(load)
    least = float(found.answer.value)

    def carries(most):
        graph = nx.DiGraph()
        for expert in range(experts):
            graph.add_edge("from", ("expert", expert), capacity=load[expert])
        for expert, holder in zip(logical.tolist(), rank.tolist(), strict=True):
            graph.add_edge(("expert", expert), ("rank", holder))
        for number in range(ranks):
            graph.add_edge(("rank", number), "to", capacity=most)
        return nx.maximum_flow_value(graph, "from", "to") >= load.sum() - 1e-6

    assert carries(least + 1e-6)
    assert least == 0 or not carries(least - 1e-3)


@pytest.mark.parametrize("seed", range(max(INSTANCES // 2, 5)))
def test_crossings_of_small_models_are_proven(seed):
    rng = np.random.default_rng(seed)
    sample = rng.integers(0, 4, (30, 3, 1))
    profile = profile_of(np.ones((3, 4)), ranks=2, slots=2, sample=sample)
    moved = [profile.transitions(layer) for layer in range(2)]
    choices = [np.array(rank) for rank in even_assignments(4, 2)]
    best = min(crossings(moved, np.array([a, b, c])) for a in choices for b in choices for c in choices)
    assert sum(pair_bound(matrix, 2) for matrix in moved) <= best
    found = fewest_crossings(profile)
    assert found.answer.status == "optimal"
    assert found.answer.value == best
    assert crossings(moved, found.rank) == best
    assert best <= crossings(moved, swept(moved, np.tile(np.arange(4) // 2, (3, 1)), 2))
    assert found.by_rule["best"] <= min(found.by_rule.values())


@pytest.mark.parametrize("seed", range(max(INSTANCES // 2, 5)))
def test_one_expert_on_each_rank_is_exact(seed):
    rng = np.random.default_rng(seed)
    sample = rng.integers(0, 3, (40, 3, 1))
    profile = profile_of(np.ones((3, 3)), ranks=3, slots=1, sample=sample)
    moved = [profile.transitions(layer) for layer in range(2)]
    orders = [np.array(order) for order in permutations(range(3))]
    best = min(crossings(moved, np.array([a, b, c])) for a in orders for b in orders for c in orders)
    found = fewest_crossings(profile, time_limit_s=0)
    assert (found.answer.status, found.answer.value) == ("optimal", best)
    assert pair_bound(moved[0], 1) + pair_bound(moved[1], 1) == best


@pytest.mark.parametrize("seed", range(max(INSTANCES // 2, 5)))
def test_nodes_reached_by_small_layers_are_proven(seed):
    rng = np.random.default_rng(seed)
    sample = np.array([rng.permutation(6)[:2] for _ in range(25)])
    tokens = tokens_of(sample, 6)
    best = min(reached(tokens, np.array(node), 3) for node in even_assignments(6, 3))
    found = least_reach(tokens, 3)
    assert found.answer.status == "optimal"
    assert found.answer.value == best == reached(tokens, found.node, 3)
    assert reach_bound(tokens, 2) <= best


def test_two_levels_place_nodes_first():
    """Pairs (0, 4), (1, 5), (2, 6), (3, 7) are used together: each pair fits one rank, and two of them one node."""
    sample = np.array([[e, e + 4] for e in range(4)] * 5)
    nodes, rank = two_levels(tokens_of(sample, 8), 2, 2)
    assert nodes.answer.value == 20
    assert nodes.answer.status == "optimal"
    assert (rank[:4] == rank[4:]).all()
    assert np.bincount(rank).tolist() == [2] * 4
    tokens = Tokens(np.array([[True, True, False, False]]), np.array([3.0]))
    assert reached(tokens, np.array([0, 1, 0, 1]), 2) == 6
