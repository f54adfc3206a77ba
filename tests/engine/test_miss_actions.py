"""What may become of a miss, in runs whose times were worked out by hand: attention 1 s, an expert 1 s, a copy 4 s."""

import numpy as np
import pytest
from builders import setup_of, trace_of

from moesim.engine import simulate
from moesim.engine.outcome import HIT, MISS
from moesim.errors import PolicyError
from moesim.policies.api import CPU, FETCH, LOW, SKIP, STREAM, SUBSTITUTE
from moesim.setup import FULL, STREAMED
from moesim.setup import LOW as LOW_FORM


def pcie(outcome):
    return [(span.key, span.form, span.start_s, span.end_s) for span in outcome.transfers["pcie"]]


def test_a_streamed_expert_is_gone_after_its_visit_and_what_is_cached_stays():
    trace = trace_of([[[0]], [[1]], [[1]]], num_experts=2)
    outcome = simulate(setup_of(trace, slots=1, on_miss=("stream", {"slots": 1})))
    # nothing is ever cached: each token waits 4 s for its copy
    assert pcie(outcome) == [(0, STREAMED, 1, 5), (1, STREAMED, 7, 11), (1, STREAMED, 13, 17)]
    assert outcome.action.tolist() == [STREAM] * 3
    assert outcome.label.tolist() == [MISS] * 3
    assert outcome.resident_bytes.tolist() == [0] * 3


def test_with_one_streaming_slot_a_copy_waits_until_the_expert_before_it_is_computed():
    trace = trace_of([[[0, 1]]], num_experts=2)
    one = simulate(setup_of(trace, slots=1, on_miss=("stream", {"slots": 1})))
    assert pcie(one) == [(0, STREAMED, 1, 5), (1, STREAMED, 6, 10)]
    two = simulate(setup_of(trace, slots=1, on_miss=("stream", {"slots": 2})))
    assert pcie(two) == [(0, STREAMED, 1, 5), (1, STREAMED, 5, 9)]


def hobbit(weights, **options):
    return setup_of(
        trace_of([[[0, 1]]] * len(weights), num_experts=2, weights=weights), on_miss=("hobbit", {}), **options
    )


def test_low_precision_is_brought_in_half_the_time_and_serves_later_choices_only():
    # first choice 0.75 > T1: the second may be low. Token 2 turns the order round: 1 is needed in full, 0 is there.
    outcome = simulate(hobbit([[[0.75, 0.25]], [[0.75, 0.25]], [[0.25, 0.75]]], slots=2))
    # ask at 1: 0 in full 1-5, 1 in low 5-7; expert 0 5-6, 1 in low 7-7.5
    # ask at 8.5: both hit: 0 8.5-9.5, 1 in low 9.5-10; ask at 11: 1 in full 11-15, 0 11-12, 1 15-16
    assert pcie(outcome) == [(0, FULL, 1, 5), (1, LOW_FORM, 5, 7), (1, FULL, 11, 15)]
    assert outcome.action.tolist() == [FETCH, LOW, FETCH, LOW, FETCH, FETCH]
    assert outcome.label.tolist() == [MISS, MISS, HIT, HIT, HIT, MISS]
    assert outcome.step_end_s.tolist() == [7.5, 10, 16]


def test_the_least_important_are_skipped_and_change_the_output_by_their_weight():
    setup = hobbit([[[0.9375, 0.0625]]], slots=2)
    outcome = simulate(setup)
    assert outcome.action.tolist() == [FETCH, SKIP]
    assert pcie(outcome) == [(0, FULL, 1, 5)]
    assert outcome.step_end_s.tolist() == [6]
    assert setup.visits.gates.total.tolist() == [0.9375, 0.0625]


def test_with_several_tokens_the_most_important_use_decides():
    rows, weights = [[[0, 1]], [[1, 0]]], [[[0.75, 0.25]], [[0.75, 0.25]]]
    trace = trace_of(rows, num_experts=2, weights=weights, prompt=2)
    gates = setup_of(trace, slots=2).visits.gates
    assert gates.before.tolist() == [0, 0]
    assert gates.largest.tolist() == [0.75, 0.75]
    assert gates.total.tolist() == [1, 1]
    assert simulate(setup_of(trace, slots=2, on_miss=("hobbit", {}))).action.tolist() == [FETCH, FETCH]


def test_drop_cold_drops_a_cold_resident_only_if_told_to():
    rows, weights = [[[0, 1]], [[1, 0]]], [[[0.5, 0.5]], [[0.75, 0.25]]]
    trace = trace_of(rows, num_experts=2, weights=weights)
    kept = simulate(setup_of(trace, slots=2, on_miss=("drop-cold", {"share": 0.3})))
    assert kept.action.tolist() == [FETCH] * 4
    dropped = simulate(setup_of(trace, slots=2, on_miss=("drop-cold", {"share": 0.3, "resident": True})))
    assert dropped.action.tolist() == [FETCH] * 3 + [SKIP]
    assert dropped.label.tolist() == [MISS, MISS, HIT, HIT]
    assert dropped.step_end_s[1] - dropped.step_start_s[1] == 2


def test_substitute_takes_the_most_used_free_resident_and_fetches_where_there_is_none():
    # 0, 1 and 3 come in, since nobody free is there or they weigh too much; at last 1 (used twice) stands in for 2
    trace = trace_of([[[0, 3]], [[1, 3]], [[1, 3]], [[3, 2]]], num_experts=4, weights=[[[0.75, 0.25]]] * 4)
    outcome = simulate(setup_of(trace, slots=4, on_miss=("substitute", {"below": 0.5})))
    assert outcome.action.tolist() == [FETCH, FETCH, FETCH, FETCH, FETCH, FETCH, FETCH, SUBSTITUTE]
    last = [(span.what, span.key, span.start_s, span.end_s) for span in outcome.compute if span.visit == 3]
    start = outcome.step_start_s[3]
    assert last[1:3] == [("expert", 3, start + 1, start + 2), ("substitute of expert", 2, start + 2, start + 3)]


def test_hybrimoe_gives_the_loaded_expert_to_the_gpu_and_the_rest_to_the_cpu():
    # a prompt of 3 tokens: expert 0 has 3 tokens, 1 has 2, 2 has 1; the CPU takes 3 s for each expert here
    rows = [[[0, 1]], [[0, 1]], [[0, 2]]]
    outcome = simulate(setup_of(trace_of(rows, num_experts=3, prompt=3), slots=3, on_miss=("hybrimoe", {})))
    action = dict(zip(outcome_keys(rows, 3), outcome.action.tolist(), strict=True))
    # 0 transfers: CPU 9 s; 1: GPU 4 + 1, CPU 6; 2: GPU 4, 8 + 1 = 9; so one
    assert action == {0: FETCH, 1: CPU, 2: CPU}
    assert [(span.key, span.start_s, span.end_s) for span in outcome.transfers["cpu"]] == [(2, 1, 4), (1, 4, 7)]
    assert pcie(outcome) == [(0, FULL, 1, 5)]
    assert outcome.step_end_s.tolist() == [7]


def outcome_keys(rows, prompt):
    return setup_of(trace_of(rows, num_experts=3, prompt=prompt), slots=3).visits.lookup_key.tolist()


@pytest.mark.parametrize(
    ("action", "instead", "told"),
    [(CPU, -1, "ACTIONS"), (LOW, -1, "no copies"), (SUBSTITUTE, 0, "free expert"), (SUBSTITUTE, 1, "free expert")],
)
def test_a_policy_that_chooses_what_can_t_be_done_is_refused(monkeypatch, action, instead, told):
    setup = setup_of(trace_of([[[0]]], num_experts=2), slots=1, on_miss=("substitute", {}))
    monkeypatch.setattr(setup.on_miss.module, "ACTIONS", (FETCH, LOW, SUBSTITUTE))

    def plan(state_f, asked):
        asked.action[0], asked.instead[0] = action, instead

    monkeypatch.setattr(setup.on_miss.module, "plan", plan)
    with pytest.raises(PolicyError, match=told):
        simulate(setup)


def test_gate_shares_of_a_token_sum_to_one():
    rng = np.random.default_rng(1)
    rows = [[rng.permutation(6)[:3] for _ in range(2)] for _ in range(9)]
    trace = trace_of(rows, num_experts=6, weights=rng.random((9, 2, 3)), prompt=5)
    visits = setup_of(trace, slots=2).visits
    assert visits.gates.total.sum() == pytest.approx(9 * 2)
    assert (visits.gates.before >= 0).all()
