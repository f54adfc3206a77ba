"""Linear programs, integer or not: built with PuLP, solved by HiGHS or CBC.

The only module that sees PuLP. What solvers do not say by themselves is settled here (each point has a test):

- after a time limit both report "optimal": only a solver's own proof counts, and an unfinished linear program gives
  neither value nor bound;
- PuLP holds the objective's constant back, so it is added to values and bounds here;
- HiGHS calls a gap of 1e-4 optimal: here the gap is 0 unless the caller asks for another;
- HiGHS fails after somebody changed its number of threads in the process: its scheduler is reset, and its status read;
- CBC says its bound in its log only.

A time limit holds whatever the solver does: HiGHS is told to stop, and left behind if it does not; CBC is ended. No
process outlives a call, also when it is interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pulp
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.solvers import Outcome, run_cbc, run_highs

Floats = NDArray[np.float64]
Solver = Literal["HiGHS", "CBC"]
Sense = Literal["<=", ">=", "=="]
_SENSES = {"<=": pulp.LpConstraintLE, ">=": pulp.LpConstraintGE, "==": pulp.LpConstraintEQ}


@dataclass(frozen=True)
class Solution:
    """The answer, and the best solution's variables in the order in which they were made; None where there is none."""

    answer: Answer
    values: Floats | None


class Program:
    """A program that is minimised.

    Variables are numbered from 0 in the order in which they are made; rows take them by number.
    """

    def __init__(self, problem: str, unit: str):
        self.problem, self.unit = problem, unit
        self._model = pulp.LpProblem("moesim", pulp.LpMinimize)
        self._variables: list[Any] = []
        self._objective: list[tuple[Any, float]] = []
        self._constant = 0.0
        self._rows = 0
        self._is_integer = False

    @property
    def size(self) -> tuple[int, int]:
        """Variables and rows."""
        return len(self._variables), self._rows

    def variables(
        self,
        costs: Iterable[float],
        *,
        low: float | Sequence[float] = 0.0,
        high: float | Sequence[float | None] | None = None,
        integer: bool = False,
    ) -> range:
        """Make a variable for each of ``costs`` (its coefficient in the objective); returns their numbers."""
        costs = [float(cost) for cost in costs]
        lows = [low] * len(costs) if isinstance(low, (int, float)) else low
        highs = [high] * len(costs) if high is None or isinstance(high, (int, float)) else high
        kind = pulp.LpInteger if integer else pulp.LpContinuous
        first = len(self._variables)
        for number, (cost, least, most) in enumerate(zip(costs, lows, highs, strict=True), first):
            # PuLP sorts variables by name: these sort as their numbers do.
            variable = self._model.add_variable(f"x{number:09d}", least, most, kind)
            self._variables.append(variable)
            self._objective.append((variable, cost))  # also where it is 0: PuLP would not know the variable else
        self._is_integer |= integer
        return range(first, len(self._variables))

    def row(self, terms: Iterable[tuple[int, float]], sense: Sense, right: float) -> None:
        """Sum of coefficient x variable over ``terms``, on one side of ``right``; each variable once."""
        expression = pulp.LpAffineExpression([(self._variables[number], float(by)) for number, by in terms])
        constraint = pulp.LpConstraint(expression, _SENSES[sense], rhs=float(right))
        self._model.addConstraint(constraint, f"r{self._rows:09d}")
        self._rows += 1

    def sum_row(self, numbers: Iterable[int], sense: Sense, right: float) -> None:
        """The sum of variables on one side of ``right``."""
        self.row(((number, 1.0) for number in numbers), sense, right)

    def add_constant(self, constant: float) -> None:
        """Add to the objective what no variable changes."""
        self._constant += constant

    def solve(self, *, time_limit_s: float | None = None, solver: Solver = "HiGHS", gap: float = 0.0) -> Solution:
        """Minimise.

        Args:
            time_limit_s: wall clock; what was found by then is kept.
            solver: HiGHS, or CBC where that is known to be quicker.
            gap: stop when value and bound are that near, as a share; such an answer is "feasible with gap".
        """
        clock = Stopwatch(time_limit_s)
        self._model.setObjective(pulp.LpAffineExpression(self._objective))
        run = run_highs if solver == "HiGHS" else run_cbc
        outcome = run(self._model, self._is_integer, clock, gap)
        return self._solution(outcome, solver, clock)

    def _solution(self, outcome: Outcome, solver: Solver, clock: Stopwatch) -> Solution:
        values, value = None, None
        if outcome.values is not None:
            values = np.asarray(outcome.values, dtype=np.float64)
            if self._is_integer:
                values = self._rounded(values)
            value = self._constant + float(np.dot([cost for _, cost in self._objective], values))
        bound = None if outcome.bound is None else outcome.bound + self._constant
        if outcome.is_proven and bound is None:
            bound = value
        found = answer(self.problem, self.unit, value=value, bound=bound, solver=solver, seconds=clock.seconds)
        return Solution(found, values)

    def _rounded(self, values: Floats) -> Floats:
        """Integer variables are integers, not numbers near them."""
        whole = np.array([variable.cat == pulp.LpInteger for variable in self._variables])
        return np.where(whole, np.round(values), values)
