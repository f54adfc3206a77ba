"""Flows: max-min fair shares against a linear programme, and times worked out by hand."""

import numpy as np
import pytest
from scipy.optimize import linprog

from moesim.engine.flows import Flow, FlowNetwork, fair_rates, flow_seconds
from moesim.hardware.topology import build_topology


def max_min_by_programmes(routes, capacity):
    """Raise the smallest rate as far as it goes, freeze those that can't go further, and again."""
    flows, links = len(routes), len(capacity)
    use = np.zeros((links, flows))
    for flow, route in enumerate(routes):
        use[[hop for hop in route if hop >= 0], flow] = 1
    fixed = {}
    while len(fixed) < flows:
        free = [flow for flow in range(flows) if flow not in fixed]

        def best(raised, floor, free=free):
            cost = np.zeros(flows + 1)
            cost[flows if raised is None else raised] = -1
            rows = np.hstack([use, np.zeros((links, 1))])
            least = np.zeros((len(free), flows + 1))
            for row, flow in enumerate(free):
                least[row, flow], least[row, flows] = -1, 1
            equal = np.zeros((len(fixed), flows + 1))
            for row, flow in enumerate(fixed):
                equal[row, flow] = 1
            bounds = [(0, None)] * flows + [(floor, None)]
            kept = {} if not fixed else {"A_eq": equal, "b_eq": list(fixed.values())}
            return -linprog(
                cost, A_ub=np.vstack([rows, least]), b_ub=[*capacity, *[0] * len(free)], bounds=bounds, **kept
            ).fun

        level = best(None, 0)
        for flow in free:
            if best(flow, level * (1 - 1e-9)) <= level * (1 + 1e-6):
                fixed[flow] = level
    return np.array([fixed[flow] for flow in range(flows)])


@pytest.mark.parametrize("seed", range(6))
def test_shares_equal_those_of_linear_programmes(seed):
    rng = np.random.default_rng(seed)
    capacity = rng.uniform(1, 10, 5)
    routes = np.full((6, 3), -1)
    for route in routes:
        hops = rng.choice(5, rng.integers(1, 4), replace=False)
        route[: len(hops)] = hops
    assert fair_rates(routes, capacity) == pytest.approx(max_min_by_programmes(routes, capacity), rel=1e-5)


def test_the_textbook_case():
    """Flow 0 crosses both links (capacities 1 and 2), flow 1 the first, flow 2 the second: 1/2, 1/2, 3/2."""
    assert fair_rates(np.array([[0, 1], [0, -1], [1, -1]]), np.array([1.0, 2.0])) == pytest.approx([0.5, 0.5, 1.5])


def test_times_by_hand():
    """Two flows share 10 B/s: 20 and 60 bytes. Until 4 s both at 5, then the second alone: 4 s and 4 + 40/10 = 8 s."""
    network = FlowNetwork(np.array([10.0]))
    assert network.run([Flow((0,), 20), Flow((0,), 60)]) == pytest.approx([4, 8])


def test_a_flow_that_starts_later():
    """30 bytes alone for 1 s at 10, then shared at 5: 20 left take 4 s; the other 20 bytes end at 1 + 4 = 5 s."""
    network = FlowNetwork(np.array([10.0]))
    assert network.run([Flow((0,), 30), Flow((0,), 20, 1.0)]) == pytest.approx([5, 5])


def test_nothing_to_send_and_no_link():
    assert FlowNetwork(np.array([1.0])).run([Flow((0,), 0), Flow((), 5, 2.0)]) == pytest.approx([0, 2])


@pytest.mark.parametrize("name", ["hgx-h100-x1", "hgx-h100-x2", "rtx3090-x4-peer"])
def test_a_balanced_all_to_all_takes_what_the_fullest_link_takes(name):
    topology = build_topology(name)
    gpus = topology.num_gpus
    traffic = np.full((gpus, gpus), 1e6)
    np.fill_diagonal(traffic, 0)
    sent, received = flow_seconds(topology, traffic)
    rate = np.array([link.alltoall_bytes_per_s for link in topology.links])
    alone = (topology.link_loads(traffic) / rate).max()
    assert received.max() == pytest.approx(alone, rel=0.02)
    assert sent.max() == pytest.approx(alone, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_skewed_traffic_is_never_faster_than_its_fullest_link(seed):
    topology = build_topology("hgx-h100-x2")
    traffic = np.random.default_rng(seed).pareto(1.5, (16, 16)) * 1e6
    np.fill_diagonal(traffic, 0)
    _, received = flow_seconds(topology, traffic)
    rate = np.array([link.alltoall_bytes_per_s for link in topology.links])
    assert received.max() >= (topology.link_loads(traffic) / rate).max() * (1 - 1e-9)
