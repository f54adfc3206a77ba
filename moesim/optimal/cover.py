"""Which machines to take, how many of each for each load: the covering program behind a mix of machine types.

``min sum cost_c x_cl``  subject to  ``sum_c capacity_cl x_cl >= 1`` for each load l, ``sum gpus_c x_cl <= stock_m``
over the configurations c of each stock m, and x whole. A machine serves one load; its capacity is the share of that
load that it carries by itself. Exact up to the solver's proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, answer
from moesim.optimal.program import Program
from moesim.optimal.solvers import SolverError

#: A share of a load that rounding may leave uncovered.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Cover:
    """``count``: machines of each configuration for each load; None where no cover exists. [configurations, loads]"""

    answer: Answer
    count: NDArray[np.int64] | None


def cover(
    cost: Sequence[float],
    capacity: NDArray[np.float64],
    gpus: Sequence[int] = (),
    stocks: Sequence[tuple[Sequence[int], int]] = (),
    time_limit_s: float = 20.0,
) -> Cover:
    """The cheapest machines that carry all loads.

    Args:
        cost: of one machine of each configuration. [configurations]
        capacity: share of each load that one machine carries; 0: none. [configurations, loads]
        gpus: of one machine, for ``stocks``: (configurations that share it, GPUs that can be had).
    """
    configurations, loads = capacity.shape
    program = Program("mix of machines", "USD/h")
    numbers = np.array([list(program.variables([each] * loads, integer=True)) for each in cost]).reshape(-1, loads)
    for load in range(loads):
        able = [c for c in range(configurations) if capacity[c, load] > 0]
        program.row([(int(numbers[c, load]), float(capacity[c, load])) for c in able], ">=", 1 - _ROUNDING)
        for c in set(range(configurations)) - set(able):
            program.row([(int(numbers[c, load]), 1.0)], "<=", 0.0)
    for members, most in stocks:
        program.row(
            [(int(numbers[c, load]), float(gpus[c])) for c in members for load in range(loads)], "<=", float(most)
        )
    if not (capacity > 0).any(axis=0).all():
        return Cover(_none(), None)
    try:
        solution = program.solve(time_limit_s=time_limit_s)
    except SolverError as error:
        if "infeasible" not in str(error):
            raise
        return Cover(_none(), None)
    if solution.values is None:
        return Cover(solution.answer, None)
    return Cover(solution.answer, solution.values[numbers].astype(np.int64))


def _none() -> Answer:
    return answer("mix of machines", "USD/h", value=None, bound=None, solver="no cover exists")
