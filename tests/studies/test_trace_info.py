import json
from dataclasses import fields

import numpy as np
import pytest

from moesim.errors import PolicyError
from moesim.policies import api
from moesim.replay import count
from moesim.studies.hit_curves import hit_curves
from moesim.studies.trace_info import describe
from moesim.traces import statistics as stats
from moesim.traces.importers.neutral import import_neutral
from moesim.traces.steps import closed_loop
from moesim.traces.visits import visits_of


@pytest.fixture
def two_requests(make_trace):
    """Two requests of 3 prompt and 5 output tokens, 3 layers, top-2 of 8, two domains, with lookahead."""
    rng = np.random.default_rng(1)
    experts = rng.permuted(np.tile(np.arange(8), (16, 3, 1)), axis=2)[..., :2].astype(np.uint8)
    ahead = np.concatenate([experts[:, 1:], np.full((16, 1, 2), 255, np.uint8)], axis=1)
    return make_trace(
        experts,
        num_experts=8,
        card={"domains": [{"name": "a"}, {"name": "b"}], "expert_bytes": [10, 20, 30]},
        request=np.repeat([4, 9], 8).astype(np.int32),
        position=np.tile(np.arange(8), 2).astype(np.int32),
        phase=np.tile([0, 0, 0, 1, 1, 1, 1, 1], 2).astype(np.uint8),
        lookahead={1: ahead},
        domain=np.repeat([0, 1], 8).astype(np.int16),
    )


def test_facts_and_figures(two_requests):
    info = describe(two_requests)
    assert (info.requests, info.tokens, info.layers, info.experts, info.top_k) == (2, 16, 3, 8, 2)
    assert (info.sha256, info.recorded_share) == (two_requests.sha256, 1.0)
    assert list(info.phases) == ["prefill", "decode", "all"]
    decode = info.phases["decode"]
    assert (decode.tokens, decode.runs) == (10, 2)
    assert (decode.cycle_experts, decode.cycle_bytes) == (6, 2 * (10 + 20 + 30))
    assert decode.lookahead_recall[1].layers == (None, 1.0, 1.0)
    assert [row.batch for row in decode.distinct if row.sequence is not None] == [1, 2, 4]
    assert [row.batch for row in decode.distinct if row.requests is not None] == [1, 2]
    assert [(part.name, part.tokens) for part in decode.domains] == [("a", 5), ("b", 5)]
    assert decode.mean_request is not None
    assert decode.mean_request.tokens == 5


def test_figures_are_those_of_the_statistics(two_requests):
    decode = describe(two_requests).phases["decode"]
    rows = stats.token_rows(two_requests, "decode")
    assert decode.consecutive_overlap.layers == tuple(stats.consecutive_overlap(rows))
    assert decode.load_cv.mean == pytest.approx(stats.load_cv(stats.load(rows)).mean())
    assert decode.chance_overlap == 2 / 8


def test_plain_and_ready_for_json(two_requests):
    info = describe(two_requests, curve_policies=("lru",))
    plain = json.loads(json.dumps(info.to_dict(), allow_nan=False))
    assert set(plain) == {field.name for field in fields(info)}
    assert plain["phases"]["decode"]["lookahead_recall"]["1"]["layers"] == [None, 1.0, 1.0]
    assert plain["hit_curves"][0]["policy"] == "lru"


def test_larger_traces_are_described_by_their_first_requests(two_requests):
    info = describe(two_requests, max_tokens=10)
    assert (info.tokens, info.tokens_used) == (16, 8)


def test_one_token_is_described_without_a_warning(make_trace):
    info = describe(make_trace([[[0], [255]]]))
    assert list(info.phases) == ["decode"]
    assert info.phases["decode"].consecutive_overlap.mean is None
    assert info.phases["decode"].mean_request is None
    json.dumps(info.to_dict(), allow_nan=False)


def test_strongest_pairs_are_those_that_go_together(make_trace):
    experts = [[[0, 1]], [[2, 3]]] * 10 + [[[0, 1]]] * 10
    pairs = describe(make_trace(experts)).phases["decode"].strongest_pairs
    assert (pairs[0].experts, pairs[0].tokens) == ((2, 3), 10)
    assert pairs[0].lift == pytest.approx((10 / 30) / (10 / 30 * 10 / 30))


def test_hit_curves_rise_and_belady_is_above(two_requests):
    lru, belady = hit_curves(two_requests, ("lru", "belady"))
    assert lru.lookups == belady.lookups
    assert lru.capacity_bytes[-1] == int(0.75 * 8 * 60)
    assert list(belady.hit_rate_per_lookup) == sorted(belady.hit_rate_per_lookup)
    assert belady.hit_rate_per_lookup[-1] >= lru.hit_rate_per_lookup[-1] > 0
    assert hit_curves(two_requests, ()) == ()
    with pytest.raises(PolicyError, match="unknown name 'lrru'"):
        hit_curves(two_requests, ("lrru",))


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_the_cliff_of_one_token_s_cycle(make_trace, shared):
    """Consecutive tokens share ``shared`` experts of 2 a layer: LRU hits none below the cycle, all of them above."""
    layers, tokens = 4, 12
    ids = np.array([[t if shared < 1 else 0, 100 + (t if shared < 2 else 0)] for t in range(tokens)])
    trace = make_trace(np.repeat(ids[:, None, :], layers, axis=1), num_experts=200)
    visits, sizes = visits_of(trace, closed_loop(trace, [0])), np.ones(layers * 200, np.int64)
    cycle = int(stats.cycle_experts(stats.token_rows(trace)))
    assert cycle == 8

    def hits(capacity):
        return int(count(visits, sizes, api.load("caching", "lru"), capacity).hits.sum())

    assert hits(cycle - 2) == 0
    assert hits(cycle) == shared * layers * (tokens - 1)


def test_imported_trace_is_described_in_full(shared_data):
    info = describe(import_neutral(shared_data / "traces" / "qwen3-30b-a3b_edge.npz"), curve_policies=("lru",))
    decode = info.phases["decode"]
    assert decode.cycle_bytes == 822_804_480
    assert next(row for row in decode.distinct if row.batch == 16).sequence == pytest.approx(33.48, abs=0.01)
    assert decode.segment_cache_hit_rate.mean == pytest.approx(0.669, abs=1e-3)


def test_lru_of_each_layer_counts_decode_only(two_requests):
    lru = describe(two_requests).layer_lru
    assert (lru.slots, lru.lookups, lru.uniform) == (4, 10 * 3 * 2, 0.5)
    assert lru.hit_rate_per_lookup is not None
