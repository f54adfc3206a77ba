"""Hand-worked values, laws, and slow but obvious versions of the figures as witnesses."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.traces import statistics as stats
from moesim.traces.importers.neutral import import_neutral

NONE = 255


def rows_of(experts, run=None, num_experts=4):
    """Token rows from nested lists; one run unless said otherwise."""
    experts = np.asarray(experts, np.uint8)
    run = np.zeros(len(experts), np.int64) if run is None else np.asarray(run, np.int64)
    return stats.TokenRows(experts, run, np.arange(len(experts)), num_experts)


@st.composite
def random_rows(draw):
    """Up to 24 tokens of up to 4 runs, 2 layers, top-2 of 5, some of it not recorded."""
    lengths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens = sum(lengths)
    experts = rng.permuted(np.tile(np.arange(5), (tokens, 2, 1)), axis=2)[..., :2]
    experts[rng.random((tokens, 2)) < draw(st.sampled_from([0.0, 0.2]))] = NONE
    return rows_of(experts, np.repeat(np.arange(len(lengths)), lengths), 5)


def chosen(rows, token, layer):
    """The experts of one token in one layer, as a list."""
    return [int(e) for e in rows.experts[token, layer] if e != NONE]


def test_rows_of_a_phase_and_their_runs(full_trace):
    every = stats.token_rows(full_trace)
    assert (every.num_tokens, every.run.tolist(), every.run_starts.tolist()) == (3, [0, 0, 1], [0, 2, 3])
    decode = stats.token_rows(full_trace, "decode")
    assert (decode.row.tolist(), decode.run.tolist()) == ([1, 2], [0, 1])
    assert decode.recorded.tolist() == [[True, False], [True, True]]
    assert decode.uses(0).astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    assert stats.token_rows(full_trace, "all", max_tokens=2).row.tolist() == [0, 1]
    assert stats.token_rows(full_trace, "all", max_tokens=1).row.tolist() == [0, 1]


def test_a_gap_in_positions_ends_a_run(make_trace):
    trace = make_trace([[[0]]] * 4, position=np.array([0, 1, 5, 6], np.int32))
    assert stats.token_rows(trace).run.tolist() == [0, 0, 1, 1]
    kept = stats.token_rows(trace).subset(np.array([True, True, False, True]))
    assert kept.run.tolist() == [0, 0, 1]
    apart = stats.token_rows(trace).subset(np.array([True, False, True, True]))
    assert apart.run.tolist() == [0, 1, 1]


def test_distinct_experts_by_hand():
    rows = rows_of([[[0, 1]], [[1, 2]], [[1, 2]], [[0, 3]]], run=[0, 0, 0, 1])
    assert stats.distinct_experts(rows, 1, "sequence").tolist() == [2.0]
    assert stats.distinct_experts(rows, 2, "sequence").tolist() == [2.5]  # {0,1,2} and {1,2}
    assert stats.distinct_experts(rows, 3, "sequence").tolist() == [3.0]
    assert math.isnan(stats.distinct_experts(rows, 4, "sequence")[0])
    assert stats.distinct_experts(rows, 2, "requests").tolist() == [3.0]  # the first tokens: {0,1} and {0,3}
    assert math.isnan(stats.distinct_experts(rows, 3, "requests")[0])


def test_distinct_formulas():
    assert stats.distinct_if_uniform(128, 6, 16) == pytest.approx(68.6244, abs=1e-4)
    assert stats.distinct_bound(128, 6, 16) == 96
    assert stats.distinct_bound(32, 4, 16) == 32
    assert stats.distinct_if_uniform(8, 2, 1) == pytest.approx(2)


@given(random_rows(), st.integers(1, 9))
def test_distinct_experts_against_counting_sets(rows, batch):
    for layer, mean in enumerate(stats.distinct_experts(rows, batch, "sequence")):
        sizes = []
        for first in range(rows.num_tokens - batch + 1):
            window = [chosen(rows, first + i, layer) for i in range(batch)]
            if rows.run[first] == rows.run[first + batch - 1] and all(window):
                sizes.append(len(set().union(*window)))
        assert mean == pytest.approx(np.mean(sizes)) if sizes else math.isnan(mean)


@given(random_rows())
def test_distinct_experts_grow_with_the_batch_and_keep_the_bound(rows):
    for together in ("sequence", "requests"):
        for batch in range(1, 5):
            mean = stats.distinct_experts(rows, batch, together)
            assert not (mean > stats.distinct_bound(5, 2, batch)).any()
            assert not (mean < 2).any()


def test_load_by_hand():
    counts = stats.load(rows_of([[[0, 1]], [[0, NONE]], [[0, 2]]]))
    assert counts.tolist() == [[3, 1, 1, 0]]
    assert stats.load_cv(counts)[0] == pytest.approx(np.std([3, 1, 1, 0]) / 1.25)
    assert stats.load_cv(np.array([2, 2, 2, 2])) == 0
    assert stats.load_cv(np.array([8, 0, 0, 0])) == pytest.approx(math.sqrt(3))
    assert stats.effective_experts(np.array([5, 5, 0, 0])) == pytest.approx(2)
    assert math.isnan(stats.load_cv(np.zeros(4)))
    assert math.isnan(stats.effective_experts(np.zeros(4, np.int64)))


def test_divergence_by_hand():
    p = np.array([1, 1, 0, 0])
    assert stats.divergence(p, 7 * p) == 0
    assert stats.divergence(p, p[::-1]) == pytest.approx(1)
    # shares (1, 0) and (1/2, 1/2): H(3/4, 1/4) - H(1/2, 1/2) / 2
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert stats.divergence(np.array([4, 0]), np.array([3, 3])) == pytest.approx(expected)


def test_consecutive_overlap_by_hand():
    rows = rows_of([[[0, 1]], [[1, 2]], [[2, 1]], [[0, 3]], [[0, NONE]]], run=[0, 0, 0, 1, 1])
    assert stats.consecutive_overlap(rows)[0] == pytest.approx((0.5 + 1 + 1) / 3)
    assert math.isnan(stats.consecutive_overlap(rows_of([[[0, 1]]]))[0])


@given(random_rows())
def test_reuse_gaps_against_looking_back(rows):
    for layer, gaps in enumerate(stats.reuse_gaps(rows)):
        expected = []
        for token in range(rows.num_tokens):
            for expert in chosen(rows, token, layer):
                before = [
                    t for t in range(token) if rows.run[t] == rows.run[token] and expert in chosen(rows, t, layer)
                ]
                expected.append(token - before[-1] if before else 0)
        assert sorted(gaps) == sorted(expected)


def test_reuse_shares_by_hand():
    gaps = stats.reuse_gaps(rows_of([[[0, 1]], [[0, 2]], [[0, 1]]]))
    assert sorted(gaps[0]) == [0, 0, 0, 1, 1, 2]
    assert stats.reuse_shares(gaps, [1, 2, 9]).tolist() == [2 / 6, 3 / 6, 3 / 6]
    assert np.isnan(stats.reuse_shares([], [1])).all()


def test_cycle_by_hand():
    rows = rows_of([[[0, 1], [0, 1]], [[0, 1], [2, NONE]]])
    assert stats.cycle_experts(rows) == 3.5
    assert stats.cycle_bytes(rows, [10, 100]) == 2 * 10 + 1.5 * 100


def test_pairs_by_hand():
    rows = rows_of([[[0, 1], [3, 2]], [[0, 1], [3, NONE]], [[2, 3], [0, 1]], [[0, 2], [0, 1]]])
    assert stats.pair_counts(rows, 0, 0)[0].tolist() == [3, 2, 1, 0]
    assert stats.pair_counts(rows, 0, 1)[0].tolist() == [1, 1, 1, 2]
    lift = stats.pair_lift(rows, 0)
    assert lift[0, 1] == pytest.approx((2 / 4) / (3 / 4 * 2 / 4))
    assert (lift[0, 3], math.isnan(lift[0, 0])) == (0, True)


def test_information_of_a_copied_and_of_an_unrelated_layer():
    now = np.tile([[0], [1]], (32, 1))[:, None, :]
    copied = rows_of(np.concatenate([now, 3 - now], axis=1))
    assert stats.next_layer_information(copied)[0].tolist() == pytest.approx([1.0])
    slow = np.repeat([0, 1], 32)[:, None, None]
    unrelated = rows_of(np.concatenate([now, slow], axis=1))
    assert stats.next_layer_information(unrelated)[0][0] == pytest.approx(0, abs=1e-12)
    constant = rows_of(np.concatenate([now, 0 * now], axis=1))
    assert math.isnan(stats.next_layer_information(constant)[0][0])


def test_information_by_chance_unmasks_small_samples():
    """Independent layers: with few tokens the estimate is far from 0, and chance explains all of it."""
    experts = np.random.default_rng(0).integers(0, 64, (200, 2, 1))
    share, by_chance = stats.next_layer_information(rows_of(experts, num_experts=64))
    assert share[0] > 0.3
    assert share[0] == pytest.approx(by_chance[0], abs=0.05)


def test_first_choices_only():
    rows = rows_of([[[0, 3], [1, 2]], [[1, 2], [0, 3]]] * 4)
    assert stats.next_layer_information(rows, first_choice_only=True)[0].tolist() == pytest.approx([1.0])


def test_lookahead_recall_by_hand():
    rows = rows_of([[[0, 1], [2, 3], [0, 1]], [[0, 1], [NONE, NONE], [2, NONE]]])
    one = np.array([[[2, 1], [0, 1], [NONE] * 2], [[2, 3], [1, 3], [NONE] * 2]], np.uint8)
    recall = stats.lookahead_recall(rows, one, 1)
    assert math.isnan(recall[0])
    assert recall[1:].tolist() == [0.5, 0.5]  # layer 1: only token 0 was recorded; layer 2: 2/2 and 0/1
    two = np.array([[[0, 3], [NONE] * 2, [NONE] * 2], [[2, 0], [NONE] * 2, [NONE] * 2]], np.uint8)
    assert stats.lookahead_recall(rows, two, 2)[2] == 0.75
    assert stats.lookahead_recall(rows.subset(np.array([False, True])), two, 2)[2] == 1


def test_successors_are_learned_on_the_first_half_only():
    experts = np.array([[[0], [2]], [[1], [3]]] * 4)
    recall, popular = stats.successor_recall(rows_of(experts))
    assert (math.isnan(recall[0]), recall[1], popular[1]) == (True, 1.0, 0.5)
    swapped = np.concatenate([experts, experts[:, ::-1] * 0 + np.array([[[0], [3]], [[1], [2]]] * 4)])
    assert stats.successor_recall(rows_of(swapped))[0][1] == 0.0


@given(random_rows(), st.integers(1, 4))
def test_srp_against_trying_every_threshold(rows, segment):
    for layer, performance in enumerate(stats.segment_routing_performance(rows, segment)):
        counts = []
        for first in range(rows.num_tokens - segment + 1):
            if rows.run[first] == rows.run[first + segment - 1]:
                uses = list(itertools.chain(*(chosen(rows, first + i, layer) for i in range(segment))))
                counts += [uses.count(expert) for expert in range(5)]
        actual = sum(counts)
        if not actual:
            assert math.isnan(performance)
            continue
        f1 = []
        for threshold in range(segment + 1):
            active = [n for n in counts if n >= threshold]
            f1.append(2 * sum(active) / (segment * len(active) + actual))
        assert performance == pytest.approx(max(f1))


def test_srp_of_routing_that_never_changes_is_one():
    assert stats.segment_routing_performance(rows_of([[[0, 1]]] * 6), 4).tolist() == [1.0]


def slow_sch(rows, layer, segment, slots, fills_hit):
    """SCH as its definition reads, one token at a time."""
    hits = total = 0
    for run in range(int(rows.run[-1]) + 1):
        tokens = [chosen(rows, t, layer) for t in np.flatnonzero(rows.run == run)]
        kept, last, clock = [], {}, 0
        for index, experts in enumerate(tokens):
            hits += sum(expert in kept for expert in experts)
            total += len(experts)
            for slot, expert in enumerate(experts):
                ahead = experts[slot:] + list(itertools.chain(*tokens[index + 1 : index + segment]))
                if expert not in kept:
                    if len(kept) < slots:
                        hits += fills_hit
                    else:
                        kept.remove(min(kept, key=lambda e: (ahead.count(e), last[e])))
                    kept.append(expert)
                clock += 1
                last[expert] = clock
    return hits / total if total else math.nan


@given(random_rows(), st.integers(1, 5), st.integers(1, 5), st.booleans())
@settings(max_examples=150)
def test_sch_against_its_definition(rows, segment, slots, fills_hit):
    fast = stats.segment_cache_hit_rate(rows, segment, slots, fills_hit)
    slow = [slow_sch(rows, layer, segment, slots, fills_hit) for layer in range(2)]
    assert fast.tolist() == pytest.approx(slow, nan_ok=True)


def test_a_cache_for_every_expert_misses_only_once_each():
    rows = rows_of([[[0, 1]], [[2, 3]], [[0, 3]]])
    assert stats.segment_cache_hit_rate(rows, 4, 4, fills_hit=True).tolist() == [1.0]
    assert stats.segment_cache_hit_rate(rows, 4, 4, fills_hit=False).tolist() == [pytest.approx(2 / 6)]


def test_qwen_shares_more_than_the_formulas_say(shared_data):
    """Known: the first 16 tokens of the sequence touch about 44 experts of a layer; formulas say 68.6 and 96."""
    trace = import_neutral(shared_data / "traces" / "qwen3-30b-a3b_edge.npz")
    first = stats.token_rows(trace).subset(np.arange(trace.num_tokens) < 16)
    assert np.nanmean(stats.distinct_experts(first, 16, "sequence")) == pytest.approx(43.6, abs=0.05)
    decode = stats.token_rows(trace, "decode")
    assert np.nanmean(stats.distinct_experts(decode, 16, "sequence")) == pytest.approx(33.5, abs=0.05)
    assert stats.cycle_experts(decode) == 48 * 6


def test_gpt_oss_is_as_local_as_is_known(shared_data):
    """Known of real models: consecutive tokens share 2.8 to 3.5 times as much as chance would have it."""
    rows = stats.token_rows(import_neutral(shared_data / "traces" / "gpt-oss-20b_decode.npz"), "decode")
    assert np.nanmean(stats.consecutive_overlap(rows)) / (4 / 32) == pytest.approx(3.50, abs=0.01)
