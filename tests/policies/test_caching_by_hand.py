"""Who leaves, worked out by hand: one slot is one expert, a visit is (layer, keys)."""

import numpy as np
import pytest

from moesim.policies import api
from moesim.policies.api import CacheContext
from moesim.replay.expert_cache import ExpertCache, partition

LAYERS, EXPERTS = 3, 4  # keys 0-3 are layer 0's, 4-7 layer 1's, 8-11 layer 2's


def leavers(name, visits, slots, weights=None, sizes=None, starts=(), **params):
    """The keys that leave, in order. ``starts``: the visits at which a request starts."""
    sizes = np.ones(LAYERS * EXPERTS, np.int64) if sizes is None else np.array(sizes)
    cache = ExpertCache(api.load("caching", name, params), CacheContext(sizes, slots, EXPERTS))
    left = []
    for number, (layer, keys) in enumerate(visits):
        cache.announce(layer, number in starts)
        missing = [key for key in keys if not cache.resident[key]]
        cache.begin_visit(keys)
        for key in missing:
            cache.expect(key)
            while not cache.fits(key):
                left.append(cache.next_to_leave())
                cache.drop(left[-1])
            cache.start_demand(key)
        notes = [0.0] * len(keys) if weights is None else weights[number]
        cache.end_visit(list(zip(keys, notes, strict=True)))
    return left


def asked(*keys):
    """One key a visit, all in layer 0."""
    return [(0, [key]) for key in keys]


def test_none_keeps_nothing():
    cache = ExpertCache(api.load("caching", "none"), CacheContext(np.ones(4, np.int64), 2, 4))
    cache.begin_visit([1])
    cache.start_demand(1)
    cache.end_visit([(1, 0.0)])
    assert not any(cache.resident)
    assert not cache.start_prefetch(2, 0.0)


def test_random_chooses_evenly_and_by_its_seed():
    visits = asked(*(key % 12 for key in range(4000)))
    first = leavers("random", visits, 4, seed=7)
    assert first == leavers("random", visits, 4, seed=7)
    assert first != leavers("random", visits, 4, seed=8)
    assert np.bincount(first, minlength=12).min() > 0.8 * len(first) / 12


def test_clock_gives_a_used_expert_another_round():
    # 0 is used again; the hand clears it and takes 1. At 3, both 0 (cleared) and 2 are at 0, and 2 came first.
    assert leavers("clock", asked(0, 1, 0, 2, 3), 2) == [1, 0]
    # Two bits: three uses last three rounds.
    assert leavers("clock", asked(0, 0, 0, 0, 1, 2, 3, 4, 5), 2, bits=2) == [1, 2, 3, 0]


def test_sieve_keeps_the_place_of_what_it_spares():
    # The hand spares 0, takes 1 and goes on to 2 and to 3, though 0, the oldest, is unmarked now. CLOCK made 0 newer
    # than 2, and comes to it before 3.
    assert leavers("sieve", asked(0, 1, 2, 0, 3, 4, 5), 3) == [1, 2, 3]
    assert leavers("clock", asked(0, 1, 2, 0, 3, 4, 5), 3) == [1, 2, 0]
    # From the newest the hand goes back to the oldest.
    assert leavers("sieve", asked(0, 1, 0, 2, 3), 2) == [1, 0]


def test_s3fifo_sends_newcomers_through_a_small_queue():
    # Small has 1 of 4 slots. Nothing has left, so 1, 2, 3 overflow into main. 4: main is not above its share, so
    # small's 0, unused, leaves; its ghost brings it straight to main when 5 has made 4 leave.
    assert leavers("s3fifo", asked(0, 1, 2, 3, 4, 0), 4, small_ratio=0.25) == [0, 4]
    # Used twice in small, 0 moves to main; main is then too long and its oldest unused, 1, leaves.
    assert leavers("s3fifo", asked(0, 0, 0, 1, 2, 3, 4), 4, small_ratio=0.25)[:1] == [1]


def test_arc_adapts_to_what_returns():
    # T1 = 0 1. 0 again: T2 = 0, T1 = 1. 2: T1 = 1 > p = 0, so 1 leaves to B1. 1 returns: p = 1, so |T1| = 1 is not
    # above p and T2's 0 leaves instead.
    assert leavers("arc", asked(0, 1, 0, 2, 1), 2) == [1, 0]


def test_lru_k_drops_what_was_used_once():
    # 0 and 1 are used twice, 2 and 3 once: 2 leaves although 0's last use is longer ago.
    assert leavers("lru-k", asked(0, 0, 1, 1, 2, 3), 3) == [2]
    # 2 returns with its past: uses at 4 and 6. Then 0's second to last use (0) is the oldest.
    assert leavers("lru-k", asked(0, 0, 1, 1, 2, 3, 2, 3), 3) == [2, 3, 0]
    # Forgetful: 2 starts anew when it returns, so 2 leaves for 3 again.
    assert leavers("lru-k", asked(0, 0, 1, 1, 2, 3, 2, 3), 3, remember=False) == [2, 3, 2]


def test_lfu_with_ageing_lets_go_of_old_fame():
    # 0 counts 3. 1, 2, 3 follow each other: ranks 1, 2, 3 as L grows; 4 finds 0 and 3 at rank 3, and 0 is older.
    visits = asked(0, 0, 0, 1, 2, 3, 4)
    assert leavers("lfu-ageing", visits, 2) == [1, 2, 0]
    assert leavers("lfu", visits, 2) == [1, 2, 3]
    # Halved at activation 4: 0 has 1, and then 1 has 1 + 1.
    assert leavers("lfu-ageing", asked(0, 0, 0, 1, 1, 2), 2, method="halving", period=4) == [0]


def test_gdsf_prefers_small_experts():
    sizes = [4, 1, *[1] * 10]
    # Values: 0: 2 uses x 4/4 = 2; 1: 1 use x 4/1 = 4. 2 (size 1) does not fit beside 5 bytes: 0 leaves.
    assert leavers("gdsf", asked(0, 0, 1, 2), 5, sizes=sizes) == [0]
    # By bytes every byte saved counts alike: 0 has 2, 1 has 1.
    assert leavers("gdsf", asked(0, 0, 1, 2), 5, sizes=sizes, cost="bytes") == [1]


def test_belady_by_size_weighs_bytes_with_time():
    sizes = [4, 1, *[1] * 10]
    # At activation 1: 0 is next used at 4 (3 x 4 bytes), 1 at 9 (8 x 1 byte).
    visits, notes = asked(0, 1, 2), [[4.0], [9.0], [8.0]]
    assert leavers("belady-size", visits, 5, weights=notes, sizes=sizes) == [0]
    assert leavers("belady", visits, 5, weights=notes, sizes=sizes) == [1]


def test_least_stale_drops_what_this_pass_left_behind():
    first = [(0, [0]), (1, [4]), (2, [8])]
    # Second pass, layer 0 asks for 1: 0 was passed over and leaves; LRU would do so too.
    # Layer 1 asks for 5: 4 is stale by now; LRU too. Layer 0 again: of 1, 5, 8, stale is 1, and LRU takes 8.
    assert leavers("least-stale", [*first, (0, [1]), (1, [5])], 3) == [0, 4]
    third = [*first, (0, [1]), (1, [5]), (2, [8]), (0, [2])]
    assert leavers("least-stale", third, 3) == [0, 4, 1]
    # Layer 0 keeps its 0, so nothing is stale when layer 0 also wants 1: of 4 and 8, still ahead, 8 is farther.
    assert leavers("least-stale", [*first, (0, [0, 1])], 3) == [8]
    assert leavers("lru", [*first, (0, [0, 1])], 3) == [4]


def test_layer_lfu_takes_from_the_fullest_layer():
    visits = [(0, [0]), (0, [1]), (0, [1]), (1, [4]), (2, [8])]
    assert leavers("layer-lfu", visits, 3) == [0]


def test_edgemoe_as_described_and_as_printed():
    # After a pass with one use each, layer 0 runs and asks for 1. Layers until the turn: key 0: 3, 4: 1, 8: 2.
    visits = [(0, [0]), (1, [4]), (2, [8]), (0, [1])]
    assert leavers("edgemoe", visits, 3) == [0]
    # Printed distances: key 0: 0, read as 3; 4: 2; 8: 1. With 0 used three times, the next layer's 4 leaves.
    often = [(0, [0]), (0, [0]), (0, [0]), (1, [4]), (2, [8]), (0, [1])]
    assert leavers("edgemoe", often, 3, formula="printed") == [4]
    # Described: 0 has 3/3, 4 has 1/1, 8 has 1/2.
    assert leavers("edgemoe", often, 3) == [8]


def test_hobbit_weighs_four_terms_and_forgets_at_a_new_request():
    visits = [(0, [0]), (0, [0]), (0, [1]), (0, [2])]
    only = {"lru": 0.0, "lfu": 0.0, "lhu": 0.0, "fld": 0.0}
    assert leavers("hobbit", visits, 2, **only | {"lfu": 1.0}) == [1]
    assert leavers("hobbit", visits, 2, starts=(2,), **only | {"lfu": 1.0}) == [0]
    layered = [(0, [0]), (1, [4]), (2, [8]), (0, [1])]
    assert leavers("hobbit", layered, 3, **only | {"fld": 1.0}) == [0]
    assert leavers("hobbit", [*layered[1:3], (0, [0, 1])], 3, **only | {"fld": 1.0}) == [8]
    assert leavers("hobbit", [*layered[1:3], (0, [0, 1])], 3, **only | {"fld": 1.0}, distance="printed") == [4]
    # High precision: 0 twice with a small weight, 1 once with a large one.
    weights = [[0.3], [0.3], [0.7], [0.5]]
    assert leavers("hobbit", visits, 2, weights=weights, **only | {"lhu": 1.0}) == [0]


def test_mrs_is_a_moving_average_of_gate_weights():
    # a = 1/2. Before 2 is asked for the layer grows old a last time. 0: 0.8 -> 0.4, 0.2, 0.1; 1: 0.5 -> 0.25, 0.125.
    visits, weights = asked(0, 1, 2), [[0.8], [0.5], [0.9]]
    assert leavers("mrs", visits, 2, weights=weights) == [0]
    assert leavers("mrs", visits, 2, weights=weights, alpha=0.1) == [1]
    # A layer that did not run does not grow old.
    assert leavers("mrs", [(1, [4]), (0, [0]), (0, [1])], 2, weights=[[0.5], [0.8], [0.9]]) == [0]


def test_mrs_hears_of_experts_that_are_not_here():
    cache = ExpertCache(api.load("caching", "mrs"), CacheContext(np.ones(4, np.int64), 2, 4))
    for key, weight, is_here in [(0, 0.1, True), (1, 0.2, True), (2, 0.9, False), (2, 0.9, False)]:
        cache.announce(0, False)
        cache.begin_visit([key])
        if is_here:
            cache.start_demand(key)
        cache.end_visit([(key, weight)])
    cache.drop(0)
    cache.start_prefetch(2, 0.0)
    assert cache.victim() == 1


@pytest.mark.parametrize(("formula", "leaver"), [("paper", 8), ("code", 4)])
def test_moe_infinity_weighs_activations_in_the_request_by_layer(formula, leaver):
    # Shares in the request are all 1. Paper: 1 - l/3 is 1, 2/3, 1/3. Code: nearness is 1 for layer 0 and l/4 beyond.
    visits = [(0, [0]), (1, [4]), (2, [8]), (0, [0, 1])]
    assert leavers("moe-infinity", visits, 3, formula=formula) == [leaver]


def test_moe_infinity_forgets_at_a_new_request():
    visits = [(0, [0]), (0, [0]), (0, [1]), (0, [2])]
    assert leavers("moe-infinity", visits, 2) == [1]
    assert leavers("moe-infinity", visits, 2, starts=(2,)) == [0]


@pytest.mark.parametrize("per_layer", [False, True])
def test_each_cache_hears_once_that_a_request_starts(per_layer):
    parts = partition(
        api.load("caching", "moe-infinity"), np.ones(12, np.int64), 6, experts_per_layer=EXPERTS, per_layer=per_layer
    )
    heard = []
    for number, cache in enumerate(parts.caches):
        cache.announce = lambda layer, starts, number=number: heard.append((number, layer, starts))
    for layer in range(LAYERS):
        parts.announce(layer, True)
    if per_layer:
        assert heard == [(0, 0, True), (1, 1, True), (2, 2, True)]
    else:
        assert heard == [(0, 0, True), (0, 1, False), (0, 2, False)]
