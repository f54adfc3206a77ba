"""In which tier and in how many bits each expert is kept: the least cost within several capacities.

Each expert takes one option (a tier and a precision); an option costs something and uses something of each capacity
(GPU bytes, host bytes, tolerated error, ...)::

    min sum_eo cost_eo x_eo    s.t.  sum_o x_eo = 1,   sum_eo use_eoc x_eo <= capacity_c  for each c

A multiple-choice knapsack. From below: prices on the capacities (the Lagrangian dual, which here is the linear
program's value), found by cutting planes. From above: the choice at those prices, repaired and improved one expert at a
time. What lies between is settled by the integer program over the options that may still be part of a better solution:
those that at these prices cost at most the gap more than their expert's cheapest. They are few, since the linear
program leaves at most as many experts undecided as there are capacities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError
from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.program import Program

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: The integer program is tried up to so many options that are left.
MAX_BINARIES = 60_000
_CUTS = 200
_NEAR = 1e-6
_FITS = 1e-9


@dataclass(frozen=True)
class Choices:
    """What may be chosen.

    Attributes:
        cost: of each expert's options; infinite where an option is none. [experts, options]
        use: of each capacity. [capacities, experts, options]
        capacity: [capacities]
    """

    cost: Floats
    use: Floats
    capacity: Floats


@dataclass(frozen=True)
class Allocation:
    """The total cost, and the option of each expert. [experts]"""

    answer: Answer
    option: Ints


def allocate(choices: Choices, *, unit: str = "cost", time_limit_s: float | None = None) -> Allocation:
    """The cheapest allocation that was found, with its bound.

    Args:
        time_limit_s: for the integer program, which is solved where it is small; 0: none is.

    Raises:
        MoesimError: no allocation fits.
    """
    clock = Stopwatch(time_limit_s)
    scaled = _scaled(choices)
    bound, prices = dual_bound(scaled)
    option = _improved(scaled, _repaired(scaled, _cheapest(scaled, prices), prices), prices)
    value = total(scaled, option)
    found = answer("allocation", unit, value=value, bound=bound, solver="prices; repaired")
    left = _left(scaled, prices, value - bound)
    if found.status != "optimal" and left.sum() <= MAX_BINARIES and time_limit_s != 0:
        proven, chosen = _program(scaled, left, value, clock)
        if chosen is not None and total(scaled, chosen) <= value:
            option, value = chosen, total(scaled, chosen)
        bound = bound if proven is None else max(bound, proven)
        found = answer("allocation", unit, value=value, bound=bound, solver="prices; HiGHS")
    return Allocation(clock.stamp(found), option)


def total(choices: Choices, option: Ints) -> float:
    """The cost of an allocation."""
    return float(choices.cost[np.arange(len(option)), option].sum())


def used(choices: Choices, option: Ints) -> Floats:
    """What an allocation uses of each capacity. [capacities]"""
    return np.asarray(choices.use[:, np.arange(len(option)), option].sum(axis=1))


def dual_bound(choices: Choices) -> tuple[float, Floats]:
    """The best bound by prices on the capacities, and those prices. [capacities]

    The bound at any prices holds; cutting planes look for the best ones (Kelley 1960).
    """
    spread = float(np.ptp(choices.cost[np.isfinite(choices.cost)])) or 1.0
    count, most = len(choices.capacity), spread * choices.cost.shape[0]
    prices, cuts = np.zeros(count), []
    best, best_prices = -np.inf, prices
    for _ in range(_CUTS):
        option = _cheapest(choices, prices)
        beyond = used(choices, option) - choices.capacity
        value = total(choices, option) + float(prices @ beyond)
        if value > best:
            best, best_prices = value, prices
        cuts.append((value - float(prices @ beyond), beyond))
        above, prices = _master(cuts, most)
        if above - best <= _NEAR * max(1.0, abs(best)):
            break
    return best, best_prices


def _master(cuts: list[tuple[float, Floats]], most: float) -> tuple[float, Floats]:
    """The highest that the dual can be by the cuts so far, and where."""
    scale = max(abs(constant) for constant, _ in cuts) or 1.0
    program = Program("dual", "cost")
    (top,) = program.variables([-1.0], low=-1e6)
    prices = program.variables(np.zeros(len(cuts[0][1])), high=most / scale)
    for constant, beyond in cuts:
        terms = zip(prices, (-beyond).tolist(), strict=True)
        program.row([(top, 1.0), *terms], "<=", constant / scale)
    solved = program.solve()
    assert solved.values is not None
    return float(solved.values[top]) * scale, solved.values[prices.start :] * scale


def _scaled(choices: Choices) -> Choices:
    """Capacities as 1, so that prices are in units of cost."""
    capacity = np.asarray(choices.capacity, dtype=np.float64)
    unit = np.where(capacity > 0, capacity, 1.0)
    return Choices(np.asarray(choices.cost, np.float64), choices.use / unit[:, None, None], capacity / unit)


def _cheapest(choices: Choices, prices: Floats) -> Ints:
    """Each expert's cheapest option at these prices. [experts]"""
    return np.asarray(np.argmin(choices.cost + np.tensordot(prices, choices.use, axes=1), axis=1), dtype=np.int64)


def _repaired(choices: Choices, option: Ints, prices: Floats) -> Ints:
    """Change one expert at a time until everything fits: the least cost, at the prices, for what is used too much.

    Raises:
        MoesimError: nothing that could be changed helps.
    """
    option, rows = option.copy(), np.arange(len(option))
    priced = choices.cost + np.tensordot(prices, choices.use, axes=1)
    here = used(choices, option)
    while (here > choices.capacity + _FITS).any():
        over = np.maximum(here - choices.capacity, 0.0)[:, None, None]
        freed = choices.use[:, rows, option][:, :, None] - choices.use
        helped = np.minimum(freed, over).sum(axis=0) - np.maximum(-freed, 0.0)[over[:, 0, 0] > 0].sum(axis=0)
        breaks = ((here[:, None, None] - freed > choices.capacity[:, None, None] + _FITS) & (over <= 0)).any(axis=0)
        dearer = priced - priced[rows, option][:, None]
        ratio = np.where((helped > 1e-15) & ~breaks, np.maximum(dearer, 0.0) / np.maximum(helped, 1e-15), np.inf)
        best = int(np.argmin(ratio))
        expert, chosen = divmod(best, choices.cost.shape[1])
        if not np.isfinite(ratio[expert, chosen]) or not np.isfinite(dearer[expert, chosen]):
            raise MoesimError.of("tiers", "no allocation fits into the capacities", "more memory, or fewer bits")
        option[expert] = chosen
        here = used(choices, option)
    return option


def _improved(choices: Choices, option: Ints, prices: Floats) -> Ints:
    """Change one expert at a time to what is cheaper and still fits: first what is best at the prices, then what saves.

    What is left of a capacity is worth its price, so a change is good that saves what it uses is worth.
    """
    option, rows = option.copy(), np.arange(len(option))
    priced = choices.cost + np.tensordot(prices, choices.use, axes=1)
    by_price = True
    while True:
        room = choices.capacity - used(choices, option)
        more = choices.use - choices.use[:, rows, option][:, :, None]
        fits = (more <= room[:, None, None] + _FITS).all(axis=0)
        saved = np.where(fits, choices.cost[rows, option][:, None] - choices.cost, -np.inf)
        worth = saved
        if by_price:
            lost = priced - priced[rows, option][:, None]
            worth = np.where(saved > _NEAR * np.abs(choices.cost), -lost / np.maximum(saved, 1e-300), -np.inf)
        expert, chosen = divmod(int(np.argmax(worth)), choices.cost.shape[1])
        if not np.isfinite(worth[expert, chosen]) or saved[expert, chosen] <= 1e-12 * abs(total(choices, option)):
            if not by_price:
                return option
            by_price = False
            continue
        option[expert] = chosen


def _left(choices: Choices, prices: Floats, gap: float) -> NDArray[np.bool_]:
    """Options that a solution better than the best known may have: any other would cost the gap or more. [as cost]"""
    priced = choices.cost + np.tensordot(prices, choices.use, axes=1)
    return np.asarray(priced - priced.min(axis=1)[:, None] <= gap * (1 + 1e-6) + 1e-12)


def _program(
    choices: Choices, allowed: NDArray[np.bool_], value: float, clock: Stopwatch
) -> tuple[float | None, Ints | None]:
    """The integer program over ``allowed`` options, in units of the best value known."""
    experts, options = choices.cost.shape
    unit, program = abs(value) or 1.0, Program("allocation", "cost")
    place = np.full((experts, options), -1)
    place[allowed] = program.variables(choices.cost[allowed] / unit, high=1.0, integer=True)
    for row in place:
        program.sum_row(row[row >= 0].tolist(), "==", 1.0)
    for use, capacity in zip(choices.use, choices.capacity.tolist(), strict=True):
        program.row(zip(place[allowed].tolist(), use[allowed].tolist(), strict=True), "<=", capacity)
    solved = program.solve(time_limit_s=clock.left_s)
    bound = None if solved.answer.bound is None else solved.answer.bound * unit
    if solved.values is None:
        return bound, None
    chosen = np.argmax(np.where(allowed, solved.values[np.maximum(place, 0)], -1.0), axis=1)
    return bound, chosen.astype(np.int64)
