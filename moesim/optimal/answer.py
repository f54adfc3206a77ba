"""What every optimum is reported as: a value that was found, a bound that is proven, and how far they are apart."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

Status = Literal["optimal", "feasible with gap", "bound only"]
#: Value and bound that differ by less than this share are the same number, computed in two ways.
SAME = 1e-7


@dataclass(frozen=True)
class Answer:
    """The answer to a minimisation.

    Attributes:
        problem: what was minimised, as in "fetches".
        unit: of ``value`` and ``bound``.
        status: ``optimal`` where value and bound agree; ``feasible with gap`` where a solution is known and not proven
            best; ``bound only`` where none is known.
        value: of the best solution found; None where there is none.
        bound: no solution is below it; None where nothing is proven.
        solver: what found it: a solver's name, or the rule.
        seconds: wall clock that it took.
    """

    problem: str
    unit: str
    status: Status
    value: float | None
    bound: float | None
    solver: str
    seconds: float

    @property
    def gap(self) -> float | None:
        """How far the value may lie above the optimum, as a share of the value; None where either is unknown."""
        if self.value is None or self.bound is None:
            return None
        return (self.value - self.bound) / abs(self.value) if self.value else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        names = ("problem", "unit", "status", "value", "bound")
        facts = {name: getattr(self, name) for name in names}
        return {**facts, "gap": self.gap, "solver": self.solver, "seconds": round(self.seconds, 6)}

    def tightened(self, bound: float, solver: str) -> Answer:
        """The same answer with another proven bound, where that one is higher."""
        if self.bound is not None and bound <= self.bound:
            return self
        by = self.solver if solver in self.solver else f"{self.solver}; bound: {solver}"
        return answer(self.problem, self.unit, value=self.value, bound=bound, solver=by, seconds=self.seconds)


def answer(
    problem: str, unit: str, *, value: float | None, bound: float | None, solver: str, seconds: float = 0.0
) -> Answer:
    """An answer whose status follows from its numbers: nothing unproven is ever called optimal."""
    if value is None:
        return Answer(problem, unit, "bound only", None, bound, solver, seconds)
    if bound is not None and value - bound <= SAME * max(1.0, abs(value)):
        return Answer(problem, unit, "optimal", value, min(bound, value), solver, seconds)
    return Answer(problem, unit, "feasible with gap", value, bound, solver, seconds)


class Stopwatch:
    """Wall clock since its start; ``left`` of a limit, None without one."""

    def __init__(self, limit_s: float | None = None):
        self._start, self._limit_s = time.perf_counter(), limit_s

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._start

    @property
    def left_s(self) -> float | None:
        """Of the limit, never below 0."""
        return None if self._limit_s is None else max(0.0, self._limit_s - self.seconds)

    def stamp(self, found: Answer) -> Answer:
        """The answer with the time that it took so far."""
        return replace(found, seconds=self.seconds)
