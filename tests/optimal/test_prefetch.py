"""The bracket on the least stall holds the optimum, which is found here by searching all states."""

import heapq
import os
from dataclasses import replace
from itertools import count as counter

import numpy as np
import pytest
from optimal.instances import random_requests

from moesim.optimal.answer import Stopwatch
from moesim.optimal.caching.requests import requests_from
from moesim.optimal.prefetch.bracket import bracket
from moesim.optimal.prefetch.fluid import fits, fluid_bound
from moesim.optimal.prefetch.phases import phased_bound_s
from moesim.optimal.prefetch.plan import aggressive
from moesim.optimal.prefetch.prefix import prefix_bound_s
from moesim.optimal.prefetch.problem import TimedRequests
from moesim.optimal.prefetch.slots import slot_bound

INSTANCES = int(os.environ.get("MOESIM_OPTIMA", "40"))


def instance(seed):
    rng = np.random.default_rng(seed)
    requests = random_requests(rng, keys=5, sets=7, largest=2)
    slots = int(rng.integers(requests.largest_set, min(requests.num_keys, 4) + 1))
    return TimedRequests(
        requests,
        compute_s=rng.integers(1, 5, requests.num_sets).astype(float),
        fetch_s=np.full(requests.num_keys, float(rng.integers(1, 7))),
        slots=slots,
        lead_s=float(rng.integers(0, 3)),
    )


def least_time_by_search(problem):
    """Dijkstra over (set, rest of its compute, transfer under way and its rest, what is there)."""
    sets = [frozenset(members) for members in problem.requests.sets]
    fetch_s, order = float(problem.fetch_s[0]), counter()
    queue, seen = [(0.0, next(order), (-1, problem.lead_s, -1, 0.0, frozenset()))], set()
    while queue:
        now, _, state = heapq.heappop(queue)
        if state in seen:
            continue
        seen.add(state)
        number, rest, moving, moving_rest, here = state
        if number == len(sets) - 1 and rest == 0:
            return now
        if rest == 0 and sets[number + 1] <= here:  # starting late helps nobody
            number, rest = number + 1, float(problem.compute_s[number + 1])
            heapq.heappush(queue, (now, next(order), (number, rest, moving, moving_rest, here)))
            continue
        if moving < 0:
            running = sets[number] if rest > 0 and number >= 0 else frozenset()
            for key in range(problem.requests.num_keys):
                if key in here:
                    continue
                leavers = [None] if len(here) < problem.slots else sorted(here - running)
                for leaver in leavers:
                    held = here - {leaver}
                    heapq.heappush(queue, (now, next(order), (number, rest, key, fetch_s, held)))
        steps = [left for left in (rest, moving_rest if moving >= 0 else 0.0) if left > 0]
        if not steps:
            continue
        step = min(steps)
        rest_after = rest - step if rest > 0 else 0.0
        if moving >= 0:
            left = moving_rest - step
            after = (
                (number, rest_after, -1, 0.0, here | {moving})
                if left == 0
                else (number, rest_after, moving, left, here)
            )
            # a transfer holds its slot from its start on
            if len(here) + 1 > problem.slots:
                continue
        else:
            after = (number, rest_after, -1, 0.0, here)
        heapq.heappush(queue, (now + step, next(order), after))
    raise AssertionError("no schedule")


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_the_bracket_holds_the_optimum(seed):
    problem = instance(seed)
    best = least_time_by_search(problem)
    found, plan = bracket(problem)
    assert prefix_bound_s(problem) <= phased_bound_s([problem], Stopwatch()) + 1e-9 <= best + 2e-9
    assert found.bound <= best + 1e-9 <= plan.end_s + 2e-9
    assert plan.end_s <= 1.5 * best
    assert fits(problem)
    for sharper in (fluid_bound(problem), slot_bound(problem)):
        assert sharper.status == "bound only"
        assert sharper.bound <= best + 1e-6
    if found.status == "optimal":
        assert found.value == pytest.approx(best)


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_a_plan_is_a_schedule_that_could_run(seed):
    """One transfer at a time, each set complete when it starts, and never more than the slots."""
    problem = instance(seed)
    plan, sets = aggressive(problem), problem.requests.sets
    ends = plan.start_s + problem.fetch_s[plan.key]
    assert (plan.start_s[1:] >= ends[:-1] - 1e-9).all()
    done_s = problem.lead_s
    for number, ready_s in enumerate(plan.ready_s):
        assert ready_s >= done_s - 1e-9
        for key in sets[number]:
            assert any(plan.key[i] == key and ends[i] <= ready_s + 1e-9 for i in range(len(ends)))
        done_s = ready_s + problem.compute_s[number]
    assert plan.end_s == pytest.approx(done_s)
    assert plan.end_s >= problem.busy_s


def test_worked_out_by_hand():
    """a | b | a with one slot too few: 3 fetches of 4 s, each set computes 1 s."""
    requests = requests_from([[0], [1], [0]], 2)
    problem = TimedRequests(requests, np.ones(3), np.full(2, 4.0), slots=1)
    found, plan = bracket(problem)
    assert plan.key.tolist() == [0, 1, 0]
    # fetch a 0-4, compute 4-5, its slot is free at 5: fetch b 5-9, compute 9-10, fetch a 10-14, compute 14-15
    assert plan.start_s.tolist() == [0.0, 5.0, 10.0]
    assert plan.end_s == 15.0
    assert prefix_bound_s(problem) == 13.0  # 3 fetches and the last compute
    assert slot_bound(problem).bound == 15.0  # the link idles while each set runs, since the one slot is taken
    assert found.status == "optimal"
    roomy = replace(problem, slots=2)
    assert bracket(roomy)[0].status == "optimal"
    assert bracket(roomy)[0].value == 10.0  # a 0-4, b 4-8, compute b 8-9, a again 9-10


def test_a_set_larger_than_the_gpu_is_bounded_only():
    problem = TimedRequests(requests_from([[0, 1, 2], [0, 1]], 3), np.ones(2), np.full(3, 2.0), slots=2, model="bypass")
    found, plan = bracket(problem)
    assert found.status == "bound only"
    assert found.bound == pytest.approx(3 * 2.0 + 2)
    assert plan.end_s >= found.bound


def test_one_link_may_bound_the_first_sets_and_another_one_the_rest():
    """Reads of 10 s for two new experts, then copies of 4 s into the one slot of the GPU; each set computes 1 s."""
    requests = requests_from([[0], [1], [0], [1], [0], [1], [0]], 2)
    link = TimedRequests(requests, np.ones(7), np.full(2, 4.0), slots=1)
    drive = replace(link, fetch_s=np.full(2, 10.0), slots=3, arrival_s=4.0)
    assert prefix_bound_s(link) == 7 * 4 + 1
    assert prefix_bound_s(drive) == 20 + 4 + 6
    # the second read is up at 24; the five sets after it need five copies and the last one's compute
    assert phased_bound_s([link, drive], Stopwatch(), cuts=7) == 24 + 5 * 4 + 1
    assert phased_bound_s([replace(link, model="overshoot"), drive], Stopwatch()) == 30
