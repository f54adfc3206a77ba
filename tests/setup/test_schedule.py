"""Schedules: written, read, refused where they do not belong, and replayed alike by both engines."""

from dataclasses import replace

import numpy as np
import pytest
from builders import setup_of, trace_of, visits_for

from moesim.engine import simulate
from moesim.errors import FileError, ScenarioError
from moesim.policies import api
from moesim.policies.api import Candidates
from moesim.replay import count
from moesim.replay.timed import replay_timed
from moesim.setup import Schedule, load_schedule, save_schedule
from moesim.setup.schedule import HostPlan, check_schedule, digest_of, no_proposals, with_host_plan

ROWS = [[[0, 1]], [[2, 1]], [[0, 3]], [[1, 2]], [[0, 2]]]


def visits_of_rows(rows=ROWS):
    return visits_for(trace_of(rows, num_experts=4))


def schedule_of(visits, **changed):
    given = {
        "purpose": "a test",
        "trace_sha256": "0" * 64,
        "visits_sha256": digest_of(visits),
        "capacity_bytes": 3,
        "rule": "reserve",
        "keep_until": visits.next_use,
        "proposals": no_proposals(visits),
    }
    return Schedule(**{**given, **changed})


def test_written_and_read_again(tmp_path):
    visits = visits_of_rows()
    proposals = Candidates(np.array([0, 1, 1, 2, 2, 2]), np.array([3, 2]), np.array([2, 4]))
    schedule = schedule_of(visits, proposals=proposals)
    save_schedule(schedule, tmp_path / "s.npz")
    found = load_schedule(tmp_path / "s.npz")
    for name, array in schedule.arrays().items():
        assert np.array_equal(found.arrays()[name], array)
    assert (found.purpose, found.capacity_bytes, found.rule) == ("a test", 3, "reserve")
    assert found.host is None
    first = (tmp_path / "s.npz").read_bytes()
    save_schedule(schedule, tmp_path / "s.npz")
    assert (tmp_path / "s.npz").read_bytes() == first


def plan_of_host(visits, capacity=5):
    """Keys 0 and 3 go up twice."""
    start = np.minimum(np.array([0, 2, 3, 4, 6]), 6)
    assert len(start) == visits.num_keys + 1
    return HostPlan(capacity, start, np.array([0, 4, 1, 2, 3, 5]))


def test_a_plan_for_host_memory_is_written_and_belongs_to_its_size(tmp_path):
    visits = visits_of_rows()
    schedule = schedule_of(visits, host=plan_of_host(visits))
    save_schedule(schedule, tmp_path / "s.npz")
    found = load_schedule(tmp_path / "s.npz").host
    assert found.capacity_bytes == 5
    assert np.array_equal(found.start, schedule.host.start)
    assert np.array_equal(found.asks, schedule.host.asks)
    check_schedule(schedule, visits, 3, "reserve", "here", host_bytes=5)
    with pytest.raises(ScenarioError, match="this one has 6 bytes"):
        check_schedule(schedule, visits, 3, "reserve", "here", host_bytes=6)
    with pytest.raises(ScenarioError, match="holds every expert"):
        check_schedule(schedule, visits, 3, "reserve", "here")
    broken = replace(schedule, host=replace(schedule.host, start=np.array([0, 9])))
    with pytest.raises(ScenarioError, match="does not have"):
        check_schedule(broken, visits, 3, "reserve", "here", host_bytes=5)
    save_schedule(broken, tmp_path / "s.npz")
    with pytest.raises(FileError, match="plan for host memory"):
        load_schedule(tmp_path / "s.npz")


def test_host_memory_keeps_what_goes_up_soonest():
    """A slot on the GPU, two in host memory; 0 1 2 0 go up: lru would drop 0 for 2, the plan drops 1."""
    trace = trace_of([[[0]], [[1]], [[2]], [[0]]], num_experts=3)
    setup = setup_of(trace, slots=1, host_slots=2, copy_s=1.0, read_s=8.0, caching="scheduled")
    assert simulate(setup).moves["flash"].key.tolist() == [0, 1, 2, 0]
    plan = HostPlan(setup.host.capacity_bytes, np.array([0, 2, 3, 4]), np.array([0, 3, 1, 2]))
    planned = with_host_plan(setup, schedule_of(setup.visits, host=plan))
    assert simulate(planned).moves["flash"].key.tolist() == [0, 1, 2]
    assert replay_timed(planned).step_end_s[-1] == simulate(planned).step_end_s[-1]


def test_a_plan_for_host_memory_knows_one_form_only():
    trace = trace_of([[[0]], [[1]]], num_experts=3)
    setup = setup_of(trace, slots=1, host_slots=2, on_miss=("hobbit", {}))
    plan = HostPlan(setup.host.capacity_bytes, np.array([0, 1, 2, 2]), np.array([0, 1]))
    with pytest.raises(ScenarioError, match="one form"):
        with_host_plan(setup, schedule_of(setup.visits, host=plan))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"visits_sha256": "1" * 64}, "another workload"),
        ({"capacity_bytes": 4}, "cache of 4 bytes"),
        ({"rule": "evict_after"}, "evict_after"),
        ({"proposals": Candidates(np.array([0, 1, 1, 1, 1, 1]), np.array([9]), np.array([2]))}, "does not have"),
    ],
)
def test_refused_where_it_does_not_belong(wrong, told):
    visits = visits_of_rows()
    check_schedule(schedule_of(visits), visits, 3, "reserve", "here")
    with pytest.raises(ScenarioError, match=told):
        check_schedule(schedule_of(visits, **wrong), visits, 3, "reserve", "here")


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"no archive")
    with pytest.raises(FileError, match=r"s\.npz"):
        load_schedule(tmp_path / "s.npz")


def test_with_next_uses_it_is_belady_in_counts_and_in_both_engines():
    rng = np.random.default_rng(3)
    rows = [[rng.permutation(6)[:2].tolist() for _ in range(2)] for _ in range(40)]
    trace = trace_of(rows, num_experts=6)
    for name in ("belady", "scheduled"):
        setup = setup_of(trace, slots=5, caching=name)
        outcome, timed = simulate(setup), replay_timed(setup)
        assert np.array_equal(outcome.step_end_s, timed.step_end_s)
        assert np.array_equal(outcome.label, timed.label)
        counts = count(setup.visits, setup.sizes, setup.gpu.policy, setup.gpu.capacity_bytes)
        assert int(counts.hits.sum()) == int((outcome.label == 0).sum())
        if name == "belady":
            expected = outcome.step_end_s
    assert np.array_equal(outcome.step_end_s, expected)


def test_what_a_schedule_does_not_keep_leaves_first():
    """Two slots; after its first use expert 0 is not kept, although Belady would keep it."""
    trace = trace_of([[[0]], [[1]], [[2]], [[0]], [[1]]], num_experts=3)
    setup = setup_of(trace, slots=2, caching="scheduled")
    assert simulate(setup).label.tolist() == [2, 2, 2, 0, 2]
    told = setup.visits.next_use.copy()
    told[0] += len(told) + 1
    changed = replace(setup, visits=replace(setup.visits, keep_until=told))
    assert simulate(changed).label.tolist() == [2, 2, 2, 2, 0]
    assert api.load("caching", "scheduled").needs_future
