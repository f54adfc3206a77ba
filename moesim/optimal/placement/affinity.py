"""Tokens that stay on their rank from one MoE layer to the next: as few crossings as possible.

With M_l[e, f] tokens that use e in layer l and f in the next, and equally many experts on each rank::

    min  sum_l sum_ef M_l[e, f] (1 - sum_g r_lefg)
    s.t. sum_g x_leg = 1,  sum_e x_leg = E/G,  r_lefg <= x_leg,  r_lefg <= x_(l+1)fg

From above: the published ways (each layer a transportation problem given its neighbours, as ExFlow's program one layer
at a time; clusters, then clusters to ranks, as MoETuner's two stages), then sweeps until nothing changes. From below:
each pair of neighbouring layers alone (an expert can stay with as many as its rank holds), and the integer program,
whose linear bound is 0, so that it proves small cases only. With one expert on each rank only what lies together
counts, so each pair of layers is an assignment of its own: exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.program import Program
from moesim.policies import api
from moesim.policies.placement_profile import PlacementProfile
from moesim.setup.placement import Placement

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: The integer program is tried up to so many r's.
MAX_PAIRS = 20_000


@dataclass(frozen=True)
class Affinity:
    """Crossings, and the rank of each expert. [layers, experts]"""

    answer: Answer
    rank: Ints
    by_rule: dict[str, float]


def fewest_crossings(profile: PlacementProfile, *, time_limit_s: float | None = None) -> Affinity:
    """The best placement that was found, each expert once.

    Raises:
        PolicyError: experts do not divide by the ranks.
    """
    clock = Stopwatch(time_limit_s)
    moved = [profile.transitions(layer) for layer in range(profile.num_layers - 1)]
    found = {name: _by_policy(name, profile) for name in ("contiguous", "affinity-sequential", "moetuner")}
    by_rule = {name: crossings(moved, rank) for name, rank in found.items() if rank is not None}
    ranks = {name: rank for name, rank in found.items() if rank is not None}
    even = {name: swept(moved, rank, profile.ranks) for name, rank in ranks.items() if _is_even(rank, profile.ranks)}
    best_name = min(even, key=lambda name: crossings(moved, even[name]))
    best = even[best_name]
    room = profile.num_experts // profile.ranks
    bound, solver = sum(pair_bound(matrix, room) for matrix in moved), f"{best_name} + sweeps; bound: pairs of layers"
    if room == 1:
        best, solver = chained(moved), "an assignment for each pair of layers"
    value = crossings(moved, best)
    pairs = sum(int((matrix > 0).sum()) for matrix in moved) * profile.ranks
    if pairs <= MAX_PAIRS and value > bound and clock.left_s != 0:
        solved, rank = _program(moved, profile.ranks, clock.left_s)
        bound = max(bound, solved.bound or 0.0)
        if rank is not None and crossings(moved, rank) <= value:
            best, value, solver = rank, crossings(moved, rank), "HiGHS"
    by_rule["best"] = value
    told = answer("crossings", "pairs", value=value, bound=bound, solver=solver)
    return Affinity(clock.stamp(told), best, by_rule)


def crossings(moved: list[Floats], rank: Ints) -> float:
    """Tokens whose expert of the next layer lies on another rank. ``rank``: [layers, experts]"""
    return float(
        sum(matrix[rank[layer][:, None] != rank[layer + 1][None, :]].sum() for layer, matrix in enumerate(moved))
    )


def swept(moved: list[Floats], rank: Ints, ranks: int, most: int = 20) -> Ints:
    """Each layer placed anew given its neighbours, until a whole sweep changes nothing."""
    from scipy.optimize import linear_sum_assignment

    rank, room = rank.copy(), rank.shape[1] // ranks
    before = crossings(moved, rank)
    for _ in range(most):
        for layer in range(len(rank)):
            stays = np.zeros((rank.shape[1], ranks))
            if layer > 0:
                stays += moved[layer - 1].T @ np.eye(ranks)[rank[layer - 1]]
            if layer < len(moved):
                stays += moved[layer] @ np.eye(ranks)[rank[layer + 1]]
            experts, seats = linear_sum_assignment(np.repeat(stays, room, axis=1), maximize=True)
            rank[layer, experts] = seats // room
        after = crossings(moved, rank)
        if after >= before:
            break
        before = after
    return rank


def chained(moved: list[Floats]) -> Ints:
    """One expert on each rank: each layer put beside the one before by the best assignment. [layers, experts]"""
    from scipy.optimize import linear_sum_assignment

    rank = [np.arange(len(moved[0]))]
    for matrix in moved:
        first, second = linear_sum_assignment(matrix, maximize=True)
        after = np.empty_like(rank[-1])
        after[second] = rank[-1][first]
        rank.append(after)
    return np.array(rank)


def pair_bound(matrix: Floats, room: int) -> float:
    """At least so many tokens cross between two layers with ``room`` experts on each rank."""
    from scipy.optimize import linear_sum_assignment

    if room == 1:
        return float(matrix.sum() - matrix[linear_sum_assignment(matrix, maximize=True)].sum())
    stay = (np.sort(each, axis=1)[:, -room:].sum() for each in (matrix, matrix.T))
    return float(matrix.sum() - min(stay))


def _by_policy(name: str, profile: PlacementProfile) -> Ints | None:
    """The rank of each expert under a placement policy; None where it does not place every expert once.

    Where the profile knows no bandwidths, all links between ranks are alike.
    """
    if not profile.bandwidth.size:
        alike = np.where(np.eye(profile.ranks, dtype=bool), np.inf, 1.0)
        profile = replace(profile, bandwidth=alike)
    policy = api.load("placement", name)
    logical, rank = policy.module.place(policy.params, profile, np.random.default_rng(0))
    placement = Placement(name, profile.num_experts, profile.ranks, logical, rank)
    if placement.num_slots != profile.num_experts:
        return None
    found = np.empty_like(placement.rank)
    np.put_along_axis(found, placement.logical, placement.rank, axis=1)
    return found


def _is_even(rank: Ints, ranks: int) -> bool:
    return all((np.bincount(row, minlength=ranks) == rank.shape[1] // ranks).all() for row in rank)


def _program(moved: list[Floats], ranks: int, time_limit_s: float | None) -> tuple[Answer, Ints | None]:
    """The integer program, in units of the tokens that move."""
    total = float(sum(matrix.sum() for matrix in moved)) or 1.0
    program, experts = Program("crossings", "pairs"), len(moved[0])
    program.add_constant(1.0)
    place = [
        np.array(program.variables(np.zeros(experts * ranks), high=1.0, integer=True)).reshape(experts, ranks)
        for _ in range(len(moved) + 1)
    ]
    for at in place:
        for expert in range(experts):
            program.sum_row(at[expert].tolist(), "==", 1.0)
        for rank in range(ranks):
            program.sum_row(at[:, rank].tolist(), "==", experts // ranks)
    program.sum_row([int(place[0][0, 0])], "==", 1.0)  # ranks are alike: the first expert lies on the first
    for layer, matrix in enumerate(moved):
        for first, second in np.argwhere(matrix > 0).tolist():
            stay = program.variables(np.full(ranks, -matrix[first, second] / total), high=1.0)
            for rank, variable in enumerate(stay):
                program.row([(variable, 1.0), (int(place[layer][first, rank]), -1.0)], "<=", 0.0)
                program.row([(variable, 1.0), (int(place[layer + 1][second, rank]), -1.0)], "<=", 0.0)
    solved = program.solve(time_limit_s=time_limit_s)
    bound = None if solved.answer.bound is None else max(0.0, solved.answer.bound * total)
    found = answer("crossings", "pairs", value=None, bound=bound, solver="HiGHS", seconds=solved.answer.seconds)
    if solved.values is None:
        return found, None
    values = solved.values
    return found, np.array([np.argmax(values[at], axis=1) for at in place], dtype=np.int64)
