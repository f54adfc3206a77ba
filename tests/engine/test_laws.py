"""Laws that hold on every run, whatever the policies: nothing is lost, nothing is early, nothing is overfull."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from builders import MIB, setup_of, trace_of
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import simulate
from moesim.engine.outcome import HIT, LATE, MISS
from moesim.policies import api
from moesim.policies.api import CPU, FETCH, LOW, SKIP, STREAM, SUBSTITUTE
from moesim.setup import FULL, STREAMED
from moesim.setup import LOW as LOW_FORM

EXPERTS, LAYERS, TOP_K = 6, 3, 2
ROUTING = st.lists(
    st.lists(st.permutations(range(EXPERTS)).map(lambda order: order[:TOP_K]), min_size=LAYERS, max_size=LAYERS),
    min_size=2,
    max_size=14,
)
ON_MISS = [("fetch", {}), ("stream", {"slots": 1}), ("stream", {}), ("hobbit", {}), ("drop-cold", {"share": 0.4})]
ON_MISS += [("drop-cold", {"share": 0.4, "resident": True}), ("substitute", {"below": 0.7})]
WITH_CPU = [("cpu-compute", {"max_tokens": 1}), ("hybrimoe", {})]
HOBBIT = ("hobbit", {"depth": 1, "low": False})
SECONDS = st.sampled_from([0.0, 0.25, 1.0, 3.0])


@st.composite
def runs(draw):
    """A random setup with its trace: policies, tiers, links, batch, prefill, and times that make ties."""
    rows = draw(ROUTING)
    requests = np.sort(draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows))))
    guess = np.array([draw(st.permutations(range(EXPERTS)))[:TOP_K] for _ in rows])
    look = np.repeat(guess[:, None, :], LAYERS, axis=1)
    look[:, -1] = -1
    first = draw(st.lists(st.sampled_from([0.3, 0.5, 0.65, 0.95]), min_size=len(rows), max_size=len(rows)))
    weights = np.repeat(np.stack([first, 1 - np.array(first)], axis=1)[:, None, :], LAYERS, axis=1)
    trace = trace_of(
        rows,
        num_experts=EXPERTS,
        prompt=draw(st.integers(0, 3)),
        requests=requests,
        lookahead={1: look},
        weights=weights,
    )
    unified = draw(st.booleans())
    prefetch = draw(st.sampled_from([("none", {}), ("next-gate", {}), ("oracle", {"horizon": 2}), HOBBIT]))
    cut = {} if prefetch[0] == "none" else {"pieces": draw(st.integers(1, 3)), "withdraw": draw(st.booleans())}
    setup = setup_of(
        trace,
        slots=draw(st.integers(1, 12)),
        host_slots=None if unified else draw(st.one_of(st.none(), st.integers(1, 8))),
        unified=unified,
        caching=draw(st.sampled_from(["lru", "lfu", "fifo", "belady"])),
        prefetch=prefetch,
        on_miss=draw(st.sampled_from(ON_MISS if unified else ON_MISS + WITH_CPU)),
        rule=draw(st.sampled_from(["reserve", "evict_after"])),
        link=draw(st.sampled_from(["fifo", "demand-first"])),
        before_s=draw(SECONDS),
        expert_s=draw(SECONDS),
        copy_s=draw(SECONDS),
        read_s=draw(SECONDS),
        cpu_s=draw(SECONDS),
        shared_s=draw(SECONDS),
        workload={"batch": draw(st.integers(1, 3))},
        **cut,
    )
    return replace(setup, prefetch=api.load("prefetch", *HOBBIT)) if prefetch is HOBBIT else setup


@settings(max_examples=300, deadline=None)
@given(runs())
def test_every_run_obeys_the_laws(setup):
    outcome = simulate(setup)
    visits = setup.visits
    every_lookup_is_computed_once(setup, outcome)
    time_is_compute_plus_stall(outcome)
    nothing_overlaps_on_a_server(outcome)
    experts_are_computed_after_they_arrive(setup, outcome)
    if setup.rule == "reserve":
        assert outcome.resident_bytes.max() <= setup.gpu_bytes
        assert outcome.overshoot_bytes == 0
    counts = outcome.prefetch
    assert counts.proposed == counts.redundant + counts.withdrawn + counts.no_room + counts.started
    assert counts.started == counts.used + counts.late + counts.wasted
    assert ((outcome.resident_share >= 0) & (outcome.resident_share <= 1)).all()
    assert len(outcome.label) == len(visits.lookup_key)


def every_lookup_is_computed_once(setup, outcome):
    """On the GPU or on the CPU, unless it is skipped; what is skipped or substituted was not in space, or may be."""
    visits = setup.visits
    on_gpu = sorted((span.visit, span.key) for span in outcome.compute if span.key >= 0)
    on_cpu = sorted((span.visit, span.key) for span in outcome.transfers["cpu"])
    visit = np.repeat(np.arange(visits.num_visits), np.diff(visits.lookup_start))
    computed = outcome.action != SKIP
    asked = sorted(zip(visit[computed].tolist(), visits.lookup_key[computed].tolist(), strict=True))
    assert sorted(on_gpu + on_cpu) == asked
    assert len(on_cpu) == outcome.on_cpu.sum()
    assert set(np.unique(outcome.action)) <= {FETCH, *setup.on_miss.actions}
    assert (outcome.label[np.isin(outcome.action, (CPU, STREAM, SUBSTITUTE))] == MISS).all()


def time_is_compute_plus_stall(outcome):
    computed = sum(span.end_s - span.start_s for span in outcome.compute)
    assert computed + outcome.stall_s.sum() == pytest.approx(outcome.step_end_s[-1], rel=1e-12)
    assert (outcome.stall_s >= 0).all()
    assert (outcome.visit_end_s >= outcome.visit_start_s).all()
    assert (outcome.step_start_s[1:] == outcome.step_end_s[:-1]).all()


def nothing_overlaps_on_a_server(outcome):
    for spans in (outcome.compute, *outcome.transfers.values()):
        for earlier, later in pairwise(spans):
            assert earlier.start_s <= earlier.end_s <= later.start_s


def experts_are_computed_after_they_arrive(setup, outcome):
    """Each transfer to the GPU ends before the next use of what it brought, and a miss has a transfer of its own."""
    keys = setup.visits.num_keys
    to_gpu = [span for span in outcome.transfers["flash" if setup.unified else "pcie"] if span.is_last]
    fetched = np.bincount([span.form * keys + span.key for span in to_gpu], minlength=3 * keys)
    visit = np.repeat(np.arange(setup.visits.num_visits), np.diff(setup.visits.lookup_start))
    missed = (outcome.label == MISS) & np.isin(outcome.action, (FETCH, STREAM, LOW))
    form = np.select([outcome.action == STREAM, outcome.action == LOW], [STREAMED, LOW_FORM], FULL)
    misses = np.bincount((form * keys + setup.visits.lookup_key)[missed], minlength=3 * keys)
    assert fetched.sum() >= misses.sum()
    assert (fetched[2 * keys :] >= misses[2 * keys :]).all()
    # A waiting prefetch of a streamed expert becomes its transfer.
    assert (fetched[:keys] + fetched[keys : 2 * keys] >= misses[:keys] + misses[keys : 2 * keys]).all()
    used = {(span.visit, span.key): span.start_s for span in outcome.compute if span.what.startswith("expert")}
    arrivals: dict[int, list[float]] = {}
    for span in to_gpu:
        arrivals.setdefault(span.key + (2 * keys if span.form == LOW_FORM else 0), []).append(span.end_s)
    for lookup, key in enumerate(setup.visits.lookup_key.tolist()):
        start = used.get((int(visit[lookup]), key))
        if start is not None:
            ends = arrivals[key + (2 * keys if outcome.action[lookup] == LOW else 0)]
            before = [end for end in ends if end <= start]
            assert before
            if outcome.label[lookup] == HIT:
                assert min(ends) <= start
            if outcome.label[lookup] == LATE:
                assert before[-1] > outcome.visit_start_s[visit[lookup]]


@pytest.mark.parametrize("name", [name for name in api.names("caching") if not api.load("caching", name).admit])
def test_a_cache_that_holds_everything_fetches_each_expert_once(name):
    rng = np.random.default_rng(5)
    rows = [[rng.permutation(EXPERTS)[:TOP_K] for _ in range(LAYERS)] for _ in range(20)]
    uses = np.arange(EXPERTS * LAYERS)
    setup = setup_of(trace_of(rows, num_experts=EXPERTS), slots=EXPERTS * LAYERS + 2, caching=name, training_uses=uses)
    outcome = simulate(setup)
    distinct = len(np.unique(setup.visits.lookup_key))
    assert len(outcome.transfers["pcie"]) == distinct
    assert outcome.resident_bytes[-1] == distinct * MIB


def test_the_same_setup_gives_the_same_outcome():
    rng = np.random.default_rng(6)
    rows = [[rng.permutation(EXPERTS)[:TOP_K] for _ in range(LAYERS)] for _ in range(30)]
    setup = setup_of(trace_of(rows, num_experts=EXPERTS), slots=4, host_slots=9, prefetch=("oracle", {}))
    first, second = simulate(setup), simulate(setup)
    assert first.compute == second.compute
    assert first.transfers == second.transfers
    assert (first.stall_s == second.stall_s).all()
