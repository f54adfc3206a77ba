"""Placement policies: laws for every one of them, the published EPLB example, and answers worked out by hand."""

from itertools import product

import numpy as np
import pytest

from moesim.errors import PolicyError
from moesim.policies import api
from moesim.policies.placement_profile import PlacementProfile
from moesim.setup import Placement, placement_by, read_placement
from moesim.setup.placement import imbalance

NAMES = [name for name in api.names("placement") if name != "fixed"]
SINGLE = ("moetuner",)  # policies that place each expert once


def profile_of(sample, experts, ranks, slots_per_rank=None, nodes=1, groups=1, load=None, folder=None):
    sample = np.asarray(sample, dtype=np.int64)
    profile = PlacementProfile(
        num_layers=sample.shape[1],
        num_experts=experts,
        node_of_rank=np.arange(ranks) * nodes // ranks,
        slots_per_rank=slots_per_rank or -(-experts // ranks),
        groups=groups,
        sample=sample,
        bandwidth=np.where(np.eye(ranks, dtype=bool), np.inf, 1e9),
        **({} if folder is None else {"folder": folder}),
    )
    if load is not None:
        profile.__dict__["load"] = np.asarray(load, dtype=np.float64)
    return profile


def skewed(tokens=400, layers=3, experts=16, top_k=2, seed=0):
    rng = np.random.default_rng(seed)
    shares = np.stack([rng.permutation(1 / np.arange(1, experts + 1)) for _ in range(layers)])
    score = np.log(shares)[None] - np.log(-np.log(rng.random((tokens, layers, experts))))
    return np.argsort(-score, axis=2)[:, :, :top_k]


def plan(name, profile, seed=0, **params):
    return placement_by(api.load("placement", name, params), profile, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("name", "redundant"), [*((name, 0) for name in NAMES), *((name, 1) for name in NAMES if name not in SINGLE)]
)
def test_every_policy_gives_every_expert_a_slot(name, redundant):
    profile = profile_of(skewed(), 16, 4, slots_per_rank=4 + redundant, nodes=2, groups=4)
    placed = plan(name, profile)
    assert placed.logical.shape == (3, 16 + 4 * redundant)
    assert (placed.copies >= 1).all()
    assert placed.slots_on.sum() == placed.logical.size
    if name not in SINGLE:
        assert (placed.slots_on == 4 + redundant).all()
    again = plan(name, profile)
    assert (again.logical == placed.logical).all()
    assert (again.rank == placed.rank).all()
    np.testing.assert_allclose(placed.rank_load(profile.load).sum(axis=1), profile.load.sum(axis=1))


def test_eplb_reproduces_the_published_example():
    load = [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
    profile = profile_of(np.zeros((1, 2, 1)), 12, 8, slots_per_rank=2, nodes=2, groups=4, load=load)
    placed = plan("eplb", profile)
    assert placed.logical.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]


def test_eplb_is_flat_where_groups_do_not_divide():
    profile = profile_of(skewed(), 16, 4, slots_per_rank=5, nodes=2, groups=1)
    assert (plan("eplb", profile).logical == plan("eplb", profile, mode="flat").logical).all()
    with pytest.raises(PolicyError, match="don't divide by 2 nodes"):
        plan("eplb", profile, mode="hierarchical")


def test_greedy_and_eplb_balance_what_contiguous_does_not():
    profile = profile_of(skewed(), 16, 4, slots_per_rank=4)
    more = profile_of(skewed(), 16, 4, slots_per_rank=5)
    plain, greedy = (imbalance(plan(name, profile).rank_load(profile.load)) for name in ("contiguous", "greedy"))
    replicated = imbalance(plan("eplb", more).rank_load(more.load))
    assert (greedy <= plain).all()
    assert (replicated <= greedy + 1e-12).all()


def test_lplb_splits_tokens_by_hand():
    """Experts 0, 1 on rank 0, a copy of 0 with expert 2 on rank 1: loads 6, 2, 0 split into 4 and 4."""
    lplb = api.load("placement", "lplb")
    share = lplb.module.split(lplb.params, np.array([6.0, 2.0, 0.0]), np.array([0, 1, 0, 2]), np.array([0, 0, 1, 1]))
    assert share == pytest.approx([1 / 3, 1, 2 / 3, 1])


@pytest.mark.parametrize("seed", range(5))
def test_lplb_is_never_worse_than_equal_shares_and_loses_no_token(seed):
    rng = np.random.default_rng(seed)
    profile = profile_of(skewed(seed=seed), 16, 4, slots_per_rank=5)
    placed, lplb = plan("lplb", profile), api.load("placement", "lplb")
    load = rng.integers(0, 50, 16).astype(float)
    share = lplb.module.split(lplb.params, load, placed.logical[0], placed.rank[0])
    np.testing.assert_allclose(np.bincount(placed.logical[0], weights=share), 1.0)
    split = np.bincount(placed.rank[0], weights=share * load[placed.logical[0]], minlength=4)
    equal = placed.rank_load(np.tile(load, (3, 1)))[0]
    assert split.max() <= equal.max() + 1e-6
    assert split.max() >= load.sum() / 4 - 1e-6


def chained(tokens=200, layers=4, experts=8):
    """Expert e is always followed by 3 e + 1 modulo E."""
    first = np.arange(tokens) % experts
    rows = [first]
    for _ in range(layers - 1):
        rows.append((3 * rows[-1] + 1) % experts)
    return np.stack(rows, axis=1)[:, :, None]


def moved_tokens(placed, sample):
    rank = np.stack([np.empty(placed.num_experts, dtype=np.int64)] * placed.num_layers)
    for layer in range(placed.num_layers):
        rank[layer, placed.logical[layer]] = placed.rank[layer]
    at = np.take_along_axis(rank, sample[:, :, 0].T, axis=1)
    return int((at[1:] != at[:-1]).sum())


@pytest.mark.parametrize("name", ["affinity-sequential", "moetuner"])
def test_affinity_keeps_chained_experts_together(name):
    sample = chained()
    profile = profile_of(sample, 8, 4)
    assert moved_tokens(plan(name, profile), sample) == 0
    assert moved_tokens(plan("contiguous", profile), sample) > 0


def test_partition_keeps_pairs_on_one_rank():
    """Tokens choose 0 with 4, 1 with 5, 2 with 6 or 3 with 7: contiguous halves each pair, partition none."""
    sample = np.stack([np.arange(40) % 4, np.arange(40) % 4 + 4], axis=1)[:, None, :]
    placed = plan("affinity-partition", profile_of(sample, 8, 4))
    rank = np.empty(8, dtype=np.int64)
    rank[placed.logical[0]] = placed.rank[0]
    assert (rank[:4] == rank[4:]).all()


def test_moetuner_uses_uneven_clusters_by_hand():
    """Loads 6, 1, 1, 1, 1, 2 on two ranks: 6 alone against the other five; equal counts would give 8 against 4."""
    load = [[6, 1, 1, 1, 1, 2]]
    profile = profile_of(np.zeros((1, 1, 1)), 6, 2, load=load)
    placed = plan("moetuner", profile)
    assert sorted(placed.rank_load(profile.load)[0]) == [6, 6]
    assert sorted(placed.slots_on[0]) == [1, 5]


def test_moetuner_stage_one_equals_enumeration():
    rng = np.random.default_rng(3)
    load = rng.integers(1, 40, (3, 6)).astype(float)
    profile = profile_of(np.zeros((1, 3, 1)), 6, 2, load=load)
    found = np.abs(plan("moetuner", profile).rank_load(load) - load.sum(axis=1, keepdims=True) / 2).sum(axis=1)
    for row, ours in zip(load, found, strict=True):
        best = min(abs(2 * row[list(map(bool, side))].sum() - row.sum()) for side in product((0, 1), repeat=6))
        assert ours <= best * 1.026 + 1e-9


def test_a_placement_comes_back_from_its_file(tmp_path):
    profile = profile_of(skewed(), 16, 4, slots_per_rank=5, folder=tmp_path)
    placed = plan("eplb", profile)
    (tmp_path / "placement.json").write_text(placed.to_json())
    for found in (read_placement(tmp_path / "placement.json"), plan("fixed", profile)):
        assert (found.logical == placed.logical).all()
        assert (found.rank == placed.rank).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ("{}", "is no placement"),
        ('{"format": "moesim-placement/2", "num_experts": 2, "ranks": 1, "logical": [[0]], "rank": [[0]]}', "format"),
        ('{"num_experts": 2, "ranks": 1, "logical": [[0, 0]], "rank": [[0, 0]]}', "expert 1 has no slot"),
        ('{"num_experts": 2, "ranks": 1, "logical": [[0, 1]], "rank": [[0, 1]]}', "names rank 1 of 1"),
        ('{"num_experts": 2, "ranks": 1, "logical": [[0, 1]], "rank": [[0]]}', "differ in length"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, message):
    path = tmp_path / "placement.json"
    path.write_text(text)
    with pytest.raises(PolicyError, match=message):
        read_placement(path)


def test_a_file_for_another_machine_is_refused(tmp_path):
    placed = Placement("x", 2, 1, np.array([[0, 1]]), np.array([[0, 0]]))
    (tmp_path / "placement.json").write_text(placed.to_json())
    with pytest.raises(PolicyError, match="has ranks 1, and this run 2"):
        plan("fixed", profile_of(np.zeros((1, 1, 1)), 2, 2, folder=tmp_path))
