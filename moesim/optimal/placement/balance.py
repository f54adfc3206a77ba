"""Experts on ranks, equally many on each, so that the fullest rank is as empty as possible.

    min z    s.t.  sum_g x_eg = 1,  sum_e x_eg = E/G,  sum_e w_e x_eg <= z

From above: heaviest first, then swaps between the fullest rank and another. From below: the mean, and pigeonholes (of
the m G + 1 heaviest experts some rank holds m + 1, and beside them the lightest there are). The integer program, with
the i-th heaviest on one of the first i ranks, for proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError
from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.program import Program
from moesim.policies.packing import balanced_packing

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: The integer program is tried up to so many variables.
MAX_BINARIES = 20_000
_SAME = 1e-12


@dataclass(frozen=True)
class Balanced:
    """The load of the fullest rank, and the rank of each expert. [experts]"""

    answer: Answer
    rank: Ints


def balanced(weight: Floats, ranks: int, *, time_limit_s: float | None = None) -> Balanced:
    """The best assignment that was found.

    Args:
        weight: load of each expert. [experts]
        time_limit_s: for the integer program; 0: none is solved.

    Raises:
        MoesimError: the ranks do not divide the experts.
    """
    clock, weight = Stopwatch(time_limit_s), np.asarray(weight, dtype=np.float64)
    if len(weight) % ranks:
        told = f"{len(weight)} experts can't be put equally on {ranks} ranks"
        raise MoesimError.of("placement", told, "a number of ranks that divides them")
    pack, _ = balanced_packing(weight[None], ranks)
    rank = swapped(weight, pack[0], ranks)
    value, bound = fullest(weight, rank, ranks), balance_bound(weight, ranks)
    found = answer(
        "fullest rank", "tokens", value=value, bound=bound, solver="heaviest first + swaps; bound: pigeonhole"
    )
    if found.status != "optimal" and time_limit_s != 0 and len(weight) * ranks <= MAX_BINARIES:
        found, rank = _proven(weight, ranks, rank, found, clock)
    return Balanced(clock.stamp(found), rank)


def fullest(weight: Floats, rank: Ints, ranks: int) -> float:
    """Load of the fullest rank."""
    return float(np.bincount(rank, weights=weight, minlength=ranks).max())


def balance_bound(weight: Floats, ranks: int) -> float:
    """No assignment of equally many has a fullest rank below this."""
    heavy, room = np.sort(weight)[::-1], len(weight) // ranks
    lightest = np.concatenate([[0.0], np.cumsum(heavy[::-1])])
    best = float(weight.sum()) / ranks
    for together in range(room):
        last = together * ranks + 1
        inside = heavy[last - together - 1 : last].sum()
        best = max(best, float(inside + lightest[min(room - together - 1, len(weight) - last)]))
    return best


def swapped(weight: Floats, rank: Ints, ranks: int, max_swaps: int = 10_000) -> Ints:
    """Swap an item of the fullest rank (or, where that is no help, two) with as many of another rank.

    Each time the swap that empties the two ranks most, until none empties the fullest one. Equally many on each rank.

    Args:
        weight: of each item. [items]
        rank: [items]
    """
    member = np.argsort(rank, kind="stable").reshape(ranks, -1)  # [ranks, room]
    groups = [np.arange(member.shape[1])[:, None], np.array(list(combinations(range(member.shape[1]), 2)))]
    for _ in range(max_swaps):
        held = weight[member]
        if not any(_swap(member, held, places) for places in groups if len(places)):
            break
    found = np.empty_like(rank)
    found[member.ravel()] = np.repeat(np.arange(ranks), member.shape[1])
    return found


def _swap(member: Ints, held: Floats, places: Ints) -> bool:
    """Make the best swap of the fullest rank's items at some ``places`` with another's; False where none helps.

    Args:
        member, held: items of each rank, and their weights. [ranks, room] each
        places: which items go together. [groups, items of a group]
    """
    load = held.sum(axis=1)
    full = int(np.argmax(load))
    sums = held[:, places].sum(axis=2)
    moved = sums[full][:, None, None] - sums  # [own group, rank, other group]
    after = np.maximum(load[full] - moved, load[:, None] + moved)
    after[:, full] = np.inf
    own, other, theirs = np.unravel_index(int(np.argmin(after)), after.shape)
    if after[own, other, theirs] >= load[full] * (1 - _SAME):
        return False
    here, there = places[own], places[theirs]
    member[full, here], member[other, there] = member[other, there].copy(), member[full, here].copy()
    return True


def _proven(weight: Floats, ranks: int, rank: Ints, found: Answer, clock: Stopwatch) -> tuple[Answer, Ints]:
    """The integer program, in units of the mean load of a rank."""
    experts, unit = len(weight), float(weight.sum()) / ranks or 1.0
    order, program = np.argsort(-weight, kind="stable"), Program("fullest rank", "tokens")
    assert found.bound is not None
    (top,) = program.variables([1.0], low=found.bound / unit)
    place = {}
    for number, expert in enumerate(order.tolist()):
        for each, variable in enumerate(program.variables([0.0] * min(number + 1, ranks), high=1.0, integer=True)):
            place[expert, each] = variable
    for expert in range(experts):
        program.sum_row([place[expert, each] for each in range(ranks) if (expert, each) in place], "==", 1.0)
    for each in range(ranks):
        here = [expert for expert in range(experts) if (expert, each) in place]
        program.sum_row([place[expert, each] for expert in here], "==", experts // ranks)
        program.row([*((place[expert, each], weight[expert] / unit) for expert in here), (top, -1.0)], "<=", 0.0)
    solved = program.solve(time_limit_s=clock.left_s)
    value, by = found.value, found.solver
    if solved.values is not None:
        chosen = np.zeros(experts, dtype=np.int64)
        for (expert, each), variable in place.items():
            if solved.values[variable] > 0.5:
                chosen[expert] = each
        if value is None or fullest(weight, chosen, ranks) < value:
            value, rank, by = fullest(weight, chosen, ranks), chosen, "HiGHS"
    bound = found.bound if solved.answer.bound is None else max(found.bound, solved.answer.bound * unit)
    return answer(found.problem, found.unit, value=value, bound=bound, solver=f"{by}; HiGHS"), rank
