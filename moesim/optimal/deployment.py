"""The cheapest mix of deployments that carries a load: whole deployments, requests split as one likes.

Options o (a GPU, a number of them, a parallelism, a precision) cost so much per hour and serve requests of size bucket
b at a rate of at most t_ob (simulated within the latency goals; 0 where they can't be met)::

    min sum cost_o n_o    s.t.  sum_o y_ob = rate_b,   sum_b y_ob / t_ob <= n_o,   n whole, n_o <= available_o

A covering program as Melange's (Griggs et al., arXiv 2404.14527), which cuts the load into slices instead. Rates that
depend on the mix make it a linearisation: simulate the plan that it chooses again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moesim.errors import Fault, MoesimError
from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.program import Program

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Demand:
    """What is to be carried, and by what.

    Attributes:
        cost: of one deployment of each option, as in usd per hour. [options]
        most: rate at which one deployment serves each bucket alone; 0: not within the goals. [options, buckets]
        rate: requests per second of each bucket. [buckets]
        available: most deployments of each option; infinite: any number. [options]
        use, limit: further limits on the numbers, as GPUs of a kind or a power budget. [limits, options], [limits]
    """

    cost: Floats
    most: Floats
    rate: Floats
    available: Floats | None = None
    use: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    limit: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Mix:
    """The cost, deployments of each option, and the rate that each serves of each bucket.

    ``count`` [options] and ``served`` [options, buckets] are None where no mix was found in time.
    """

    answer: Answer
    count: Ints | None
    served: Floats | None


def cheapest_mix(demand: Demand, *, time_limit_s: float | None = None) -> Mix:
    """The best mix that was found.

    Raises:
        MoesimError: a bucket that no option serves, or limits that no mix keeps.
    """
    clock, wanted = Stopwatch(time_limit_s), demand.rate > 0
    unserved = wanted & ~(demand.most > 0).any(axis=0)
    if unserved.any():
        buckets = ", ".join(map(str, np.flatnonzero(unserved).tolist()))
        raise MoesimError.of("deployment", f"no option serves bucket {buckets} within the goals", "larger options")
    options = _undominated(demand)
    program, unit = Program("cost", "per hour"), float(demand.cost[options].max()) or 1.0
    highs = [None if not np.isfinite(limit) else float(limit) for limit in _available(demand)[options]]
    count = program.variables(demand.cost[options] / unit, high=highs, integer=True)
    share = {}
    for place, option in enumerate(options.tolist()):
        for bucket in np.flatnonzero(wanted & (demand.most[option] > 0)).tolist():
            (share[place, bucket],) = program.variables([0.0], high=1.0)
    for bucket in np.flatnonzero(wanted).tolist():
        program.sum_row([variable for (_, b), variable in share.items() if b == bucket], "==", 1.0)
    for place, option in enumerate(options.tolist()):
        busy = demand.rate / np.where(demand.most[option] > 0, demand.most[option], 1.0)
        terms = [(variable, float(busy[bucket])) for (p, bucket), variable in share.items() if p == place]
        program.row([*terms, (count[place], -1.0)], "<=", 0.0)
    for use, limit in zip(demand.use, demand.limit.tolist(), strict=True):
        program.row(zip(count, use[options].tolist(), strict=True), "<=", limit)
    try:
        solved = program.solve(time_limit_s=clock.left_s)
    except MoesimError:
        told = "no mix carries the load within the limits"
        raise MoesimError(Fault("deployment", told, "more available deployments, or looser goals")) from None
    found = solved.answer
    bound = None if found.bound is None else found.bound * unit
    if solved.values is None:
        return Mix(
            answer("cost", "per hour", value=None, bound=bound, solver="HiGHS", seconds=clock.seconds), None, None
        )
    numbers = np.zeros(len(demand.cost), dtype=np.int64)
    numbers[options] = np.round(solved.values[count.start : count.stop])
    served = np.zeros_like(demand.most)
    for (place, bucket), variable in share.items():
        served[options[place], bucket] = solved.values[variable] * demand.rate[bucket]
    value = float(demand.cost @ numbers)
    best = answer("cost", "per hour", value=value, bound=bound, solver="HiGHS", seconds=clock.seconds)
    return Mix(best, numbers, served)


def _available(demand: Demand) -> Floats:
    return np.full(len(demand.cost), np.inf) if demand.available is None else demand.available


def _undominated(demand: Demand) -> Ints:
    """Options that no other one replaces: at most its cost and use, at least its rates, any number of it. [left]"""
    any_number, cost, most = ~np.isfinite(_available(demand)), demand.cost, demand.most
    use = demand.use if len(demand.use) else np.zeros((0, len(cost)))
    left = []
    for option in range(len(cost)):
        cheap, able = cost <= cost[option], (most >= most[option]).all(axis=1)
        better = any_number & cheap & able & (use <= use[:, [option]]).all(axis=0)
        same = (cost == cost[option]) & (most == most[option]).all(axis=1) & (use == use[:, [option]]).all(axis=0)
        better &= ~(same & (np.arange(len(cost)) >= option))  # of equal ones the first stays
        if not better.any():
            left.append(option)
    return np.array(left, dtype=np.int64)
