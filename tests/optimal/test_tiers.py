"""Tiers and bit-widths against trying every allocation."""

import os
from itertools import product

import numpy as np
import pytest

from moesim.errors import MoesimError
from moesim.optimal.tiers import Choices, allocate, dual_bound, total, used

INSTANCES = int(os.environ.get("MOESIM_OPTIMA", "40"))


def random_choices(seed):
    rng = np.random.default_rng(seed)
    experts, options, capacities = int(rng.integers(1, 6)), int(rng.integers(2, 6)), int(rng.integers(1, 4))
    use = rng.integers(0, 9, (capacities, experts, options)).astype(float)
    use[:, :, 0] = 0.0  # something always fits, at a price
    cost = rng.integers(0, 30, (experts, options)).astype(float)
    cost[:, 0] = 40.0
    cost[rng.random(cost.shape) < 0.1] = np.inf
    cost[:, 0] = 40.0
    capacity = rng.integers(0, 6 * experts, capacities).astype(float)
    return Choices(cost, use, capacity)


def best_by_trying_all(choices):
    experts, options = choices.cost.shape
    best = np.inf
    for chosen in product(range(options), repeat=experts):
        option = np.array(chosen)
        if (used(choices, option) <= choices.capacity + 1e-9).all():
            best = min(best, total(choices, option))
    return best


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_allocations_are_those_of_trying_all(seed):
    choices = random_choices(seed)
    best = best_by_trying_all(choices)
    found = allocate(choices)
    assert found.answer.status == "optimal"
    assert found.answer.value == pytest.approx(best)
    assert total(choices, found.option) == pytest.approx(best)
    assert (used(choices, found.option) <= choices.capacity + 1e-6).all()
    quick = allocate(choices, time_limit_s=0)
    assert quick.answer.bound <= best + 1e-6
    assert quick.answer.value >= best - 1e-9


def test_prices_worked_out_by_hand():
    """Two experts, room for one: the more used one saves 9, so a slot is worth at least what the other saves."""
    choices = Choices(np.array([[10.0, 1.0], [6.0, 1.0]]), np.array([[[0.0, 1.0], [0.0, 1.0]]]), np.array([1.0]))
    bound, prices = dual_bound(choices)
    assert bound == pytest.approx(7.0)
    assert 5.0 - 1e-6 <= prices[0] <= 9.0 + 1e-6
    assert allocate(choices).option.tolist() == [1, 0]


def test_what_does_not_fit_is_told():
    choices = Choices(np.ones((2, 2)), np.ones((1, 2, 2)), np.array([1.0]))
    with pytest.raises(MoesimError, match="fits"):
        allocate(choices)


def test_many_experts_are_near_their_bound_without_a_solver():
    rng = np.random.default_rng(0)
    count, bits = 3000, np.array([16, 8, 4, 3, 2.0])
    often = rng.permutation(np.arange(1, count + 1) ** -0.8)
    error = np.outer(rng.uniform(0.5, 1.5, count), 4.0 ** -(bits / 2))
    cost = np.concatenate([often[:, None] * (slow * bits / 16 + 10 * error) for slow in (0.02, 1.0, 6.0)], axis=1)
    size = np.tile(bits / 16, (count, 1))
    none = np.zeros_like(size)
    use = np.array([np.concatenate([size, none, none], axis=1), np.concatenate([none, size, none], axis=1)])
    found = allocate(Choices(cost, use, np.array([0.1, 0.2]) * count), time_limit_s=0)
    assert found.answer.gap < 5e-4
