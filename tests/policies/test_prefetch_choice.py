"""Prefetch policies that choose at run time, tables learned on a training split, pinned experts."""

from dataclasses import replace

import numpy as np
import pytest
from builders import MIB, setup_of, trace_of, visits_for

from moesim.engine import simulate
from moesim.engine.outcome import HIT, MISS
from moesim.policies import api
from moesim.policies.api import ABSENT, COMING, HERE, Offered
from moesim.policies.gates import modelled
from moesim.replay.timed import not_covered, replay_timed
from moesim.traces.steps import closed_loop
from moesim.traces.visits import visits_of


def offered(ahead, there, tokens=None, fetch_s=4.0, cpu_s=3.0, gpu_s=1.0):
    count = len(ahead)
    costs = [[seconds] * count for seconds in (fetch_s, cpu_s, gpu_s)]
    return Offered(ahead, there, tokens or [1] * count, *costs, rank=list(range(count)))


def choose(name, given, **params):
    policy = api.load("prefetch", name, params)
    policy.module.choose(policy.params, given)
    return given.rank


def test_hobbit_looks_beyond_a_layer_only_if_nothing_of_it_is_missing():
    assert choose("hobbit", offered([1, 1, 2], [HERE, ABSENT, ABSENT])) == [0, 1, -1]
    assert choose("hobbit", offered([1, 1, 2, 3], [HERE, COMING, ABSENT, ABSENT])) == [0, 1, 2, -1]
    assert choose("hobbit", offered([1, 2], [HERE, COMING])) == [0, 1]  # nothing to send for; what is there is kept
    assert choose("hobbit", offered([1, 1, 1], [ABSENT, HERE, ABSENT]), budget=1) == [0, 1, -1]


def test_hybrimoe_prefetches_what_shortens_a_layer_most():
    # layer 1: two missing, 3 s each on the CPU: 6 s, or one on the CPU and one copied: 5 s. With one resident: 3 s.
    # layer 2: one missing, another here: 3 s on the CPU; resident: 2 s.
    rank = choose("hybrimoe", offered([1, 1, 2, 2], [ABSENT, ABSENT, ABSENT, HERE]))
    assert rank == [0, 1, 2, -1]
    assert choose("hybrimoe", offered([1, 1, 2, 2], [ABSENT, ABSENT, ABSENT, HERE]), budget=1) == [0, -1, -1, -1]
    nothing = choose("hybrimoe", offered([1], [ABSENT], cpu_s=0.5))
    assert nothing == [-1]  # the CPU is faster than the GPU would be


def test_hybrimoe_s_code_prefetches_the_next_layer_s_highest_scores():
    rows = [[[0, 1], [2, 3]], [[0, 1], [1, 3]], [[0, 1], [0, 2]]]
    weights = [[[0.5, 0.5], [0.75, 0.25]], [[0.5, 0.5], [0.875, 0.125]], [[0.5, 0.5], [0.5, 0.5]]]
    trace = trace_of(rows, num_experts=4, weights=weights)
    visits = visits_for(trace)
    policy = api.load("prefetch", "hybrimoe", {"rule": "scores", "budget": 2})
    found = policy.module.candidates(policy.params, visits, trace, np.random.default_rng(0))
    # of layer 1, S with alpha 0.5: nothing; then 2: 0.375, 3: 0.125; then 1: 0.4375, 2: 0.1875, 3: 0.125
    assert found.start.tolist() == [0, 0, 0, 2, 2, 4, 4]
    assert found.key.tolist() == [4 + 2, 4 + 3, 4 + 1, 4 + 2]
    assert choose("hybrimoe", offered([1, 1], [ABSENT, ABSENT], cpu_s=0.5), rule="scores") == [0, 1]


def test_what_a_policy_chooses_is_what_goes_out():
    rng = np.random.default_rng(4)
    rows = [[rng.permutation(6)[:2] for _ in range(4)] for _ in range(30)]
    look = {d: np.roll(rows, -d, axis=1) for d in (1, 2, 3)}
    for d, channel in look.items():
        channel[:, -d:] = -1
    trace = trace_of(rows, num_experts=6, lookahead=look)
    policy = api.load("prefetch", "hobbit", {"low": False})
    setup = replace(setup_of(trace, slots=12, prefetch=("hobbit", {"low": False})), prefetch=policy)
    chosen, plain = simulate(setup), simulate(replace(setup, prefetch=None))
    assert chosen.prefetch.proposed < plain.prefetch.proposed
    for outcome in (chosen, plain):
        counts = outcome.prefetch
        assert counts.proposed == counts.redundant + counts.withdrawn + counts.no_room + counts.started
    assert "prefetch" in str(not_covered(setup)[0])


def test_a_modelled_gate_is_right_as_often_as_it_says_and_never_names_an_expert_twice():
    rng = np.random.default_rng(9)
    trace = trace_of([[rng.permutation(6)[:3] for _ in range(3)] for _ in range(2000)], num_experts=6)
    channel = modelled(trace, 1, [0.2, 0.5, 0.9], np.random.default_rng(0))
    truth = np.asarray(trace.experts)
    for layer, accuracy in ((0, 0.5), (1, 0.9)):
        assert (channel[:, layer] == truth[:, layer + 1]).mean() == pytest.approx(accuracy, abs=0.02)
        wrong = channel[:, layer] != truth[:, layer + 1]
        assert not (channel[:, layer, :, None] == truth[:, layer + 1, None]).any(axis=2)[wrong].any()
        ordered = np.sort(channel[:, layer], axis=1)
        assert (np.diff(ordered.astype(int), axis=1) > 0).all()
    assert (channel[:, 2] == trace.sentinel).all()
    every = trace_of([[[0, 1]]], num_experts=2)
    assert (modelled(every, 0, 0.0, rng) == every.sentinel).all()


LEARNING = ["activation-matching", "edgemoe", "fmoe", "transition"]


@pytest.mark.parametrize("name", LEARNING)
def test_a_table_is_learned_on_the_training_split_only(name):
    """With a training split, what is proposed at a visit depends on that split and on its own step, nothing else."""
    rng = np.random.default_rng(5)
    request = np.repeat(np.arange(6), 6)
    rows = np.array([[rng.permutation(4)[:2] for _ in range(4)] for _ in request])

    def proposals(rows):
        trace = trace_of(rows, num_experts=4, requests=request, prompt=1)
        training, scored = closed_loop(trace, [0, 1, 2]), closed_loop(trace, [3, 4, 5])
        policy = api.load("prefetch", name)
        both = visits_of(trace, scored.after(training))
        found = policy.module.candidates(policy.params, both, trace, np.random.default_rng(0))
        return scored, found.behind(training.num_steps * 4)

    scored, expected = proposals(rows)
    assert len(expected.key)
    changed = rows.copy()
    changed[request == 3] = (changed[request == 3] + 1) % 4
    _, found = proposals(changed)
    first = int(np.flatnonzero(np.isin(scored.row, np.flatnonzero(request == 4)))[0])
    visit = int(np.searchsorted(scored.row_start, first)) * 4
    assert found.key[found.start[visit] :].tolist() == expected.key[expected.start[visit] :].tolist()


@pytest.mark.parametrize("per_layer", [False, True])
def test_pinned_experts_are_there_from_the_start_and_never_leave_in_both_engines(per_layer):
    rng = np.random.default_rng(6)
    trace = trace_of([[rng.permutation(6)[:2] for _ in range(2)] for _ in range(40)], num_experts=6)
    setup = setup_of(trace, slots=8, per_layer=per_layer)
    parts = (5 * MIB, 3 * MIB) if per_layer else None
    setup = replace(setup, gpu=replace(setup.gpu, pinned=(1, 8), layer_bytes=parts))
    outcome = simulate(setup)
    assert (outcome.resident_share[[1, 8]] == 1).all()
    assert (outcome.label[np.isin(setup.visits.lookup_key, [1, 8])] == 0).all()
    assert outcome.resident_bytes.max() <= 8 * MIB
    timed = replay_timed(setup)
    assert (timed.label == outcome.label).all()
    assert (timed.step_end_s == outcome.step_end_s).all()


def test_whole_model_lru_evicts_a_model_before_it_touches_another():
    """Two models of two layers and room for one: every switch brings both layers anew."""
    visits = visits_for(trace_of([[[m], [m]] for m in (0, 0, 1, 1, 0)], num_experts=2))
    setup = setup_of(trace_of([[[m], [m]] for m in (0, 0, 1, 1, 0)], num_experts=2), slots=2, caching="whole-model")
    assert simulate(setup).label.tolist() == [2, 2, 0, 0, 2, 2, 0, 0, 2, 2]
    assert visits.num_layers == 2


@pytest.mark.parametrize(("protect", "label"), [(True, HIT), (False, MISS)])
def test_what_hobbit_predicts_stays_until_its_turn(protect, label):
    # the last step misses expert 1 of layer 0; the one unused for longest is expert 0 of layer 1, which is predicted
    rows = [[[0, 2], [0, -1]], [[0, 2], [-1, -1]], [[2, 1], [0, -1]]]
    look = np.full((3, 2, 2), -1)
    look[2, 0, 0] = 0
    params = {"low": False, "depth": 1, "protect": protect}
    setup = setup_of(trace_of(rows, num_experts=3, lookahead={1: look}), slots=3, prefetch=("hobbit", params))
    outcome = simulate(replace(setup, prefetch=api.load("prefetch", "hobbit", params)))
    assert outcome.label[-1] == label
