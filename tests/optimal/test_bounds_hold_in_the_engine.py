"""No policy in the engine beats a bound, on random setups; and schedules replay alike in both engines."""

import os
from dataclasses import replace

import numpy as np
import pytest
from builders import setup_of, trace_of

from moesim.engine import simulate
from moesim.errors import ScenarioError
from moesim.optimal.answer import Stopwatch
from moesim.optimal.caching.fewest import fewest
from moesim.optimal.caching.intervals import sized
from moesim.optimal.caching.requests import requests_of, singles
from moesim.optimal.prefetch.fluid import fits, fluid_bound
from moesim.optimal.prefetch.phases import phased_bound_s
from moesim.optimal.prefetch.plan import aggressive
from moesim.optimal.prefetch.prefix import prefix_bound_s
from moesim.optimal.prefetch.problem import link_seconds, model_of, planned, relaxed, relaxed_flash
from moesim.optimal.prefetch.schedules import as_kept, fewest_bytes, least_stall, through_host, with_host
from moesim.optimal.prefetch.slots import fits as slots_fit
from moesim.optimal.prefetch.slots import slot_bound
from moesim.replay.timed import replay_timed
from moesim.setup.schedule import check_schedule, with_schedule

INSTANCES = int(os.environ.get("MOESIM_OPTIMA", "40"))
PREFETCH = [("none", {}), ("oracle", {"horizon": 1}), ("oracle", {"horizon": 4}), ("fetch-all", {})]
TOLERANCE = 1 + 1e-9


def random_setup(seed, **fixed):
    rng = np.random.default_rng(seed)
    layers, experts = int(rng.integers(1, 4)), int(rng.integers(3, 7))
    top_k = int(rng.integers(1, 3))
    rows = [[rng.permutation(experts)[:top_k].tolist() for _ in range(layers)] for _ in range(int(rng.integers(2, 14)))]
    tier = ("link", "flash", "unified")[seed % 3]
    options = {
        "slots": int(rng.integers(2, layers * experts + 1)),
        "host_slots": int(rng.integers(3, layers * experts + 1)) if tier == "flash" else None,
        "unified": tier == "unified",
        "caching": ("belady", "lru", "static", "lfu")[int(rng.integers(4))],
        "prefetch": PREFETCH[int(rng.integers(len(PREFETCH)))],
        "rule": ("reserve", "evict_after")[int(rng.integers(2))],
        "link": ("fifo", "demand-first")[int(rng.integers(2))],
        "workload": {"batch": int(rng.integers(1, 3))},
        "training_uses": rng.integers(0, 9, layers * experts),
        **{name: float(rng.choice([0.25, 1.0, 3.0])) for name in ("before_s", "expert_s", "copy_s", "read_s")},
        **{name: float(rng.choice([0.0, 0.5])) for name in ("after_s", "shared_s")},
    }
    prompt = int(rng.integers(0, 4))
    requests = sorted(rng.integers(0, 2, len(rows)).tolist())
    return setup_of(trace_of(rows, num_experts=experts, prompt=prompt, requests=requests), **{**options, **fixed})


def fetched(setup, outcome):
    return len(outcome.transfers["flash" if setup.unified else "pcie"])


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_no_policy_beats_a_bound(seed):
    setup = random_setup(seed)
    outcome = simulate(setup)
    end_s = float(outcome.step_end_s[-1])
    problem = relaxed(setup)
    links = [bounded for bounded in (problem, relaxed_flash(setup)) if bounded is not None]
    assert problem.busy_s <= end_s * TOLERANCE
    assert max(map(prefix_bound_s, links)) <= phased_bound_s(links, Stopwatch()) * TOLERANCE
    assert phased_bound_s(links, Stopwatch()) <= end_s * TOLERANCE
    for bounded in (problem, relaxed_flash(setup)):
        if bounded is None:
            continue
        assert prefix_bound_s(bounded) <= end_s * TOLERANCE
        if slots_fit(bounded):
            assert slot_bound(bounded).bound <= end_s * (1 + 1e-6)
        if fits(bounded):
            assert fluid_bound(bounded).bound <= end_s * (1 + 1e-6)
    least = fewest(requests_of(setup.visits), problem.slots, model_of(setup), warm=problem.warm).sum()
    assert least <= fetched(setup, outcome)


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_schedules_replay_alike_in_both_engines(seed):
    setup = random_setup(seed, host_slots=None, caching="lru", prefetch=("none", {}))
    plan = aggressive(planned(setup, link_seconds(setup)))
    for schedule in (fewest_bytes(setup, "0" * 64), least_stall(setup, "0" * 64, plan)):
        check_schedule(schedule, setup.visits, setup.gpu.capacity_bytes, setup.rule, "here")
        scheduled = with_schedule(setup, schedule)
        outcome, timed = simulate(scheduled), replay_timed(scheduled)
        assert np.array_equal(outcome.step_end_s, timed.step_end_s)
        assert np.array_equal(outcome.label, timed.label)
        assert prefix_bound_s(relaxed(setup)) <= float(outcome.step_end_s[-1]) * TOLERANCE
        if schedule.purpose == "fewest fetches" and model_of(setup) == "together":
            least = fewest(requests_of(setup.visits), setup.gpu.capacity_bytes // 2**20)
            assert fetched(setup, outcome) == least.sum()


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_schedules_for_two_links_replay_alike_in_both_engines(seed):
    """A drive below host memory: plans for both, adapted to what went up; no bound is beaten."""
    setup = random_setup(3 * seed + 1, caching="lru", prefetch=("none", {}))
    assert setup.host is not None
    schedule = fewest_bytes(setup, "0" * 64)
    went_up = simulate(with_schedule(setup, schedule)).moves["pcie"].key
    plan = through_host(setup, ahead=2)
    for made, keys in ((schedule, went_up), (least_stall(setup, "0" * 64, plan), plan.key)):
        told = with_host(setup, made, keys)
        host_bytes = setup.host.capacity_bytes
        check_schedule(told, setup.visits, setup.gpu.capacity_bytes, setup.rule, "here", host_bytes)
        outcome, timed = (engine(with_schedule(setup, told)) for engine in (simulate, replay_timed))
        assert np.array_equal(outcome.step_end_s, timed.step_end_s)
        assert np.array_equal(outcome.label, timed.label)
        least_s = phased_bound_s([relaxed(setup), relaxed_flash(setup)], Stopwatch())
        assert least_s <= float(outcome.step_end_s[-1]) * TOLERANCE


@pytest.mark.parametrize("seed", range(INSTANCES // 2))
def test_host_memory_reads_as_little_as_belady(seed):
    """One expert at a time: what goes up is a stream of single uses, and the plan is Belady's MIN on it."""
    rng = np.random.default_rng(seed)
    rows = [[[int(expert)]] for expert in rng.integers(0, 6, 40)]
    setup = setup_of(trace_of(rows, num_experts=6), slots=1 + seed % 2, host_slots=2 + seed % 3)
    schedule = fewest_bytes(setup, "0" * 64)
    went_up = simulate(with_schedule(setup, schedule)).moves["pcie"].key
    replayed = simulate(with_schedule(setup, with_host(setup, schedule, went_up)))
    assert np.array_equal(replayed.moves["pcie"].key, went_up)
    assert len(replayed.moves["flash"]) == fewest(singles(went_up, 6), 2 + seed % 3).sum()


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_what_an_interval_program_keeps_is_kept_in_the_engine(seed):
    """Mixed sizes: the engine fetches the bytes of the integer program, no more and no less."""
    setup = random_setup(seed, host_slots=None, caching="lru", prefetch=("none", {}), rule="reserve")
    sizes = np.random.default_rng(seed).choice([1, 2, 4], setup.visits.num_keys).astype(np.int64)
    requests = requests_of(setup.visits)
    together = max(int(sizes[members].sum()) for members in requests.sets)
    capacity = together + seed % 4
    mixed = replace(setup, sizes=sizes, gpu=replace(setup.gpu, capacity_bytes=capacity))
    solved = sized(requests, sizes, sizes.astype(float), capacity)
    assert solved.answer.status == "optimal"
    outcome = simulate(with_schedule(mixed, as_kept(mixed, "0" * 64, solved.kept)))
    moved = sum(int(sizes[span.key]) for span in outcome.transfers["flash" if setup.unified else "pcie"])
    assert moved == solved.answer.value


def test_a_plan_runs_in_the_engine_as_planned():
    """One layer, one expert a token, everything before the router takes 1 s: the plan's times are the engine's."""
    trace = trace_of([[[0]], [[1]], [[2]], [[0]], [[3]], [[1]]], num_experts=4)
    setup = setup_of(trace, slots=3, copy_s=1.5, before_s=1.0, expert_s=1.0)
    plan = aggressive(planned(setup, link_seconds(setup)))
    outcome = simulate(with_schedule(setup, least_stall(setup, "0" * 64, plan)))
    assert plan.end_s == pytest.approx(float(outcome.step_end_s[-1]))
    starts = sorted(span.start_s for span in outcome.transfers["pcie"])
    assert starts == pytest.approx(plan.start_s.tolist())
    assert float(outcome.step_end_s[-1]) < float(simulate(setup).step_end_s[-1])


def test_a_schedule_of_another_workload_is_refused():
    setup = random_setup(0)
    other = random_setup(3)
    with pytest.raises(ScenarioError, match="another workload"):
        check_schedule(
            fewest_bytes(other, "0" * 64), setup.visits, setup.gpu.capacity_bytes, setup.rule, "policies.schedule"
        )
