"""The cheapest mix of deployments against trying all numbers of each."""

import os
from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from moesim.errors import MoesimError
from moesim.optimal.deployment import Demand, cheapest_mix

INSTANCES = int(os.environ.get("MOESIM_OPTIMA", "40")) // 2


def carries(demand, numbers):
    """Whether so many deployments of each option carry the load."""
    options, buckets = demand.most.shape
    able = demand.most > 0
    dealt = np.zeros((buckets, options * buckets))
    busy = np.zeros((options, options * buckets))
    for option, bucket in product(range(options), range(buckets)):
        dealt[bucket, option * buckets + bucket] = 1.0
        busy[option, option * buckets + bucket] = 1.0 / demand.most[option, bucket] if able[option, bucket] else 0.0
    most = [(0, None if able.ravel()[place] else 0) for place in range(options * buckets)]
    zero = np.zeros(options * buckets)
    return linprog(zero, A_ub=busy, b_ub=numbers + 1e-9, A_eq=dealt, b_eq=demand.rate, bounds=most).status == 0


def random_demand(seed):
    rng = np.random.default_rng(seed)
    options, buckets = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    most = np.where(rng.random((options, buckets)) < 0.25, 0.0, rng.integers(1, 9, (options, buckets)))
    most[0] = np.maximum(most[0], 1.0)
    return Demand(rng.integers(1, 9, options).astype(float), most, rng.integers(0, 7, buckets).astype(float))


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_the_mix_is_that_of_trying_all(seed):
    demand = random_demand(seed)
    found = cheapest_mix(demand)
    assert found.answer.status == "optimal"
    highest = int(demand.rate.sum()) + 1
    dearest = found.answer.value
    affordable = [range(min(highest, int(dearest // cost)) + 1) for cost in demand.cost]
    cheaper = [n for n in product(*affordable) if demand.cost @ np.array(n) < dearest - 1e-9]
    assert not any(carries(demand, np.array(numbers)) for numbers in cheaper)
    assert carries(demand, found.count)
    assert demand.cost @ found.count == pytest.approx(dearest)
    assert found.served.sum(axis=0) == pytest.approx(demand.rate)
    busy = np.divide(found.served, demand.most, out=np.zeros_like(found.served), where=demand.most > 0)
    assert (busy.sum(axis=1) <= found.count + 1e-6).all()


def test_limits_are_kept_and_dominated_options_left_out():
    most = np.array([[4.0, 2.0], [4.0, 2.0], [9.0, 9.0]])
    demand = Demand(np.array([3.0, 2.0, 7.0]), most, np.array([8.0, 4.0]))
    assert cheapest_mix(demand).count.tolist() == [0, 4, 0] or cheapest_mix(demand).answer.value <= 8.0
    few = Demand(demand.cost, most, demand.rate, available=np.array([np.inf, 1.0, np.inf]))
    assert cheapest_mix(few).count[1] <= 1
    power = Demand(demand.cost, most, demand.rate, use=np.array([[1.0, 1.0, 5.0]]), limit=np.array([4.0]))
    assert cheapest_mix(power).count.tolist() == [0, 4, 0]
    tight = Demand(demand.cost, most, demand.rate, use=np.array([[1.0, 1.0, 5.0]]), limit=np.array([1.0]))
    with pytest.raises(MoesimError, match="no mix"):
        cheapest_mix(tight)


def test_a_bucket_that_nobody_serves_is_told():
    with pytest.raises(MoesimError, match="bucket 1"):
        cheapest_mix(Demand(np.ones(1), np.array([[1.0, 0.0]]), np.ones(2)))
