"""Caching as a choice of intervals: which experts stay from one use to the next.

For each pair of consecutive uses of an expert, in sets s1 < s2, x = 1 if it stays between them and its second use costs
nothing. At every point the intervals that span it fit beside what stands there anyway::

    max sum c x    s.t.  together, at each set s:   sum over s1 < s < s2 of w x  <=  C - w(set s)
                         bypass, after each set s:  sum over s1 <= s < s2 of w x  <=  C

The ones of a column are consecutive, so with equal sizes the program is integral for any costs. Taking each row from
the next leaves two numbers in a column: a flow along the points, with y = w x (the form of FOO, Berger, Beckmann and
Harchol-Balter, SIGMETRICS 2018). With mixed sizes its value bounds the optimum, which is NP-hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError
from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.caching.requests import Ints, Model, Requests
from moesim.optimal.program import Program, Solver
from moesim.traces.visits import next_use

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: Above so many intervals CBC's simplex is several times faster than HiGHS's (measured, HiGHS 1.15 and CBC 2.10).
CBC_FROM = 8_000
_WHOLE = 1e-6


@dataclass(frozen=True)
class Intervals:
    """Pairs of consecutive uses, in the order of their first use.

    Attributes:
        first, second: the lookups that they join. [intervals]
        key: [intervals]
        low, high: the points that an interval spans are ``low <= p < high``; none where they are equal. [intervals]
        num_points: [1]
    """

    first: Ints
    second: Ints
    key: Ints
    low: Ints
    high: Ints
    num_points: int


def intervals_of(requests: Requests, model: Model) -> Intervals:
    """Every interval; points are the sets (together) or the gaps after them (bypass)."""
    following = next_use(requests.key)
    first = np.flatnonzero(following < len(requests.key))
    second, sets = following[first], requests.set_of_lookup
    low = sets[first] + (1 if model == "together" else 0)
    return Intervals(first, second, requests.key[first], low, sets[second], requests.num_sets)


@dataclass(frozen=True)
class Kept:
    """An answer, and for each lookup whether its expert is kept until its next use."""

    answer: Answer
    kept: Bools


@dataclass(frozen=True)
class _Problem:
    requests: Requests
    sizes: Ints
    costs: Floats
    intervals: Intervals
    room: Ints

    @property
    def saved(self) -> Floats:
        """What keeping each interval saves. [intervals]"""
        return np.asarray(self.costs[self.intervals.key])

    @property
    def everything(self) -> float:
        """The cost when every lookup misses."""
        return float(self.costs[self.requests.key].sum())

    def kept(self, chosen: Bools) -> Bools:
        """By lookup."""
        kept = np.zeros(len(self.requests.key), dtype=np.bool_)
        kept[self.intervals.first[chosen]] = True
        return kept

    def cost(self, chosen: Bools) -> float:
        """Of the lookups that miss when ``chosen`` intervals are kept."""
        return self.everything - float(self.saved[chosen].sum())


def _problem(requests: Requests, sizes: Ints, costs: Floats, capacity: int, model: Model) -> _Problem:
    together = np.diff(np.concatenate([[0], np.cumsum(sizes[requests.key])])[requests.start])
    room: Ints = np.full(requests.num_sets, capacity, dtype=np.int64)
    if model == "together":
        room -= together
    elif model == "overshoot":
        room = np.maximum(room, together + int(sizes.max()))
    if (room < 0).any():
        told = f"a set of {int(np.max(together))} does not stand together in {capacity}"
        raise MoesimError.of("caching", told, "model 'bypass' bounds what visits cost that run in waves")
    return _Problem(requests, sizes, costs, intervals_of(requests, model), room)


def weighted(
    requests: Requests, costs: Floats, slots: int, model: Model = "together", *, time_limit_s: float | None = None
) -> Kept:
    """The least cost of fetches for experts of one size, each with a cost of its own: exact.

    Args:
        costs: of fetching each expert, as in seconds from where it lies. [keys]
    """
    problem = _problem(requests, np.ones(requests.num_keys, np.int64), np.asarray(costs, np.float64), slots, model)
    return _solved(problem, "cost of fetches", time_limit_s)


def sized(
    requests: Requests,
    sizes: Ints,
    costs: Floats,
    capacity: int,
    model: Model = "together",
    *,
    time_limit_s: float | None = None,
) -> Kept:
    """The least cost of fetches for experts of mixed sizes: linear bound, rounding, then the integer program."""
    problem = _problem(requests, np.asarray(sizes, np.int64), np.asarray(costs, float), capacity, model)
    return _solved(problem, "cost of fetches", time_limit_s)


def _solved(problem: _Problem, name: str, time_limit_s: float | None) -> Kept:
    clock = Stopwatch(time_limit_s)
    if not len(problem.intervals.first):
        found = answer(name, "cost", value=problem.everything, bound=problem.everything, solver="no expert comes twice")
        return Kept(found, np.zeros(len(problem.requests.key), dtype=np.bool_))
    solver: Solver = "CBC" if len(problem.intervals.first) >= CBC_FROM else "HiGHS"
    linear = _program(problem, name, integer=False).solve(time_limit_s=clock.left_s, solver=solver)
    share = None if linear.values is None else linear.values[: len(problem.intervals.first)]
    if share is not None and np.all(np.abs(share - np.round(share)) < _WHOLE):
        return Kept(clock.stamp(linear.answer), problem.kept(share > 0.5))
    rounded = round_down(problem, np.zeros(len(problem.intervals.first)) if share is None else share)
    best, bound = rounded, linear.answer.value
    by = "rounding" if bound is None else f"rounding; bound: {solver}, linear"
    if (clock.left_s is None or clock.left_s > 0) and bound is not None:
        whole = _program(problem, name, integer=True).solve(time_limit_s=clock.left_s, solver="CBC")
        bound = max(bound, whole.answer.bound) if whole.answer.bound is not None else bound
        if whole.values is not None and whole.answer.value is not None:
            chosen = whole.values[: len(problem.intervals.first)] > 0.5
            if problem.cost(chosen) <= problem.cost(best):
                best, by = chosen, "CBC"
    found = answer(name, "cost", value=problem.cost(best), bound=bound, solver=by, seconds=clock.seconds)
    return Kept(found, problem.kept(best))


def linear_bound(requests: Requests, sizes: Ints, costs: Floats, capacity: int, model: Model = "together") -> Answer:
    """The bound of the linear program alone."""
    problem = _problem(requests, np.asarray(sizes, np.int64), np.asarray(costs, float), capacity, model)
    solved = _program(problem, "cost of fetches", integer=False).solve()
    return answer("cost of fetches", "cost", value=None, bound=solved.answer.value, solver=solved.answer.solver)


def _program(problem: _Problem, name: str, *, integer: bool) -> Program:
    """In flow form: y flows from an interval's first point to the one after its last; slack flows along."""
    program, intervals = Program(name, "cost"), problem.intervals
    program.add_constant(problem.everything)
    program.variables(-problem.saved, high=1.0, integer=integer)
    slack = program.variables(np.zeros(intervals.num_points))
    terms: list[list[tuple[int, float]]] = [[] for _ in range(intervals.num_points)]
    weights = problem.sizes[intervals.key].tolist()
    for number, (low, high) in enumerate(zip(intervals.low.tolist(), intervals.high.tolist(), strict=True)):
        if low < high:
            terms[low].append((number, weights[number]))
            if high < intervals.num_points:
                terms[high].append((number, -weights[number]))
    for point, row in enumerate(terms):
        row.append((slack[point], 1.0))
        right = int(problem.room[point])
        if point:
            row.append((slack[point - 1], -1.0))
            right -= int(problem.room[point - 1])
        program.row(row, "==", right)
    return program


def round_down(problem: _Problem, share: Floats) -> Bools:
    """Keep intervals in the order of their share (then of what they save for their space and time) while they fit."""
    intervals, room = problem.intervals, problem.room.copy()
    weights = problem.sizes[intervals.key]
    taken = weights * np.maximum(intervals.high - intervals.low, 1)
    order = np.lexsort((-problem.saved / taken, -np.round(share, 6)))
    chosen = np.zeros(len(share), dtype=np.bool_)
    low, high = intervals.low.tolist(), intervals.high.tolist()
    for number in order.tolist():
        span = room[low[number] : high[number]]
        if not len(span) or span.min() >= weights[number]:
            span -= weights[number]
            chosen[number] = True
    return chosen
