"""A batch's tokens over fixed copies, so that the fullest rank gets the fewest: exact, by linear programming.

    min z    s.t.  x_eg >= 0 where rank g holds expert e,  sum_g x_eg = n_e,  sum_e x_eg <= z

It is a flow; whole tokens need at most one more than z rounded up on a rank. The problem that LPLB solves per batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, answer
from moesim.optimal.program import Program

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TokenSplit:
    """Tokens on the fullest rank, and tokens of each slot. [slots]"""

    answer: Answer
    tokens: Floats


def split_tokens(load: Floats, logical: Ints, rank: Ints, ranks: int) -> TokenSplit:
    """The best split of one layer's tokens.

    Args:
        load: tokens of each expert. [experts]
        logical, rank: the expert and the rank of each slot. [slots]
    """
    program, slots = Program("fullest rank", "tokens"), len(logical)
    copies = np.bincount(logical, minlength=len(load))
    fixed = copies[logical] == 1  # experts with one copy leave nothing to decide
    base = np.bincount(rank[fixed], weights=load[logical[fixed]], minlength=ranks)
    open_slots = np.flatnonzero(~fixed)
    (top,) = program.variables([1.0], low=float(max(base.max(initial=0.0), load.sum() / ranks)))
    tokens = program.variables(np.zeros(len(open_slots)))
    of_expert: dict[int, list[int]] = {}
    of_rank: dict[int, list[int]] = {}
    for variable, slot in zip(tokens, open_slots.tolist(), strict=True):
        of_expert.setdefault(int(logical[slot]), []).append(variable)
        of_rank.setdefault(int(rank[slot]), []).append(variable)
    for expert, variables in of_expert.items():
        program.sum_row(variables, "==", float(load[expert]))
    for number, variables in of_rank.items():
        program.row([*((variable, 1.0) for variable in variables), (top, -1.0)], "<=", -float(base[number]))
    solved = program.solve()
    assert solved.values is not None
    dealt = np.zeros(slots)
    dealt[fixed] = load[logical[fixed]]
    dealt[open_slots] = np.maximum(solved.values[tokens.start :], 0.0)
    value = float(np.bincount(rank, weights=dealt, minlength=ranks).max(initial=0.0))
    found = solved.answer
    best = answer("fullest rank", "tokens", value=value, bound=found.bound, solver="HiGHS", seconds=found.seconds)
    return TokenSplit(best, dealt)
