"""Experts on the ranks of a cluster: balance, copies, crossings from layer to layer, and ranks that a token reaches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.placement.affinity import crossings, fewest_crossings
from moesim.optimal.placement.balance import balanced
from moesim.optimal.placement.reach import Reach, least_reach, reached, tokens_of
from moesim.optimal.placement.replicas import replicated
from moesim.optimal.placement.split import split_tokens
from moesim.policies.placement_profile import PlacementProfile
from moesim.scenario.parallel.placing import profile_of, sample_of
from moesim.setup.placement import Placement
from moesim.studies.optimum.found import Found, Solution, Subject, finding

Ints = NDArray[np.int64]
SETTINGS = "policies: {placement: {name: fixed, file: FILE}}"
RULE = "the tokens that the scenario runs, all steps together, known beforehand; equally many experts on each rank"


def solve(subject: Subject) -> Iterator[Found]:
    """Each objective on its own; their best placements differ."""
    built = subject.parallel
    row, steps = built.batch.row, np.arange(built.parallel.batch.steps)[:, None, None]
    profile = profile_of(subject.file, built.parts, built.parallel, sample_of(built.parts, built.batch, row, steps))
    own, name = built.plan.placements[0], built.parts.placement.name
    limit_s = subject.wanted.time_limit_s
    if profile.num_slots > profile.num_experts:
        yield _copies(profile, own, name)
        return
    yield _balance(profile, own, name, limit_s)
    ranks = _rank_of_experts(own)
    if ranks is not None and profile.num_layers > 1:
        yield _crossings(profile, ranks, name, limit_s)
    if ranks is not None:
        yield _reaches(profile, ranks, name, limit_s)


def _balance(profile: PlacementProfile, own: Placement, name: str, limit_s: float) -> Found:
    clock, layers = Stopwatch(limit_s), profile.num_layers
    solved = [
        balanced(load, profile.ranks, time_limit_s=(clock.left_s or 0.0) / (layers - layer))
        for layer, load in enumerate(profile.load)
    ]
    told = finding(
        "placement",
        "the tokens of the fullest rank, summed over layers, each expert once",
        RULE,
        clock.stamp(_summed("fullest rank", "tokens", [each.answer for each in solved])),
        ours=float(own.rank_load(profile.load).max(axis=1).sum()),
        ours_name=name,
        figures={"mean rank": float(profile.load.sum() / profile.ranks)},
    )
    ranks = np.array([each.rank for each in solved])
    return Found(told, _file("placement-balance.json", "fullest rank", ranks, profile))


def _copies(profile: PlacementProfile, own: Placement, name: str) -> Found:
    plan = replicated(profile)
    split = [
        split_tokens(load, plan.placement.logical[layer], plan.placement.rank[layer], profile.ranks).answer.value or 0.0
        for layer, load in enumerate(profile.load)
    ]
    figures: dict[str, float | str | None] = {
        "mean rank": float(profile.load.sum() / profile.ranks),
        "largest gap of a layer": f"{plan.worst_gap:.3%}",
        "with the best split of tokens over these copies": float(np.sum(split)),
    }
    nodes, groups = profile.num_nodes, profile.groups
    if nodes > 1 and groups % nodes == 0:
        figures["hierarchical (groups stay on nodes)"] = replicated(profile, hierarchical=True).answer.value
    told = finding(
        "placement",
        "the tokens of the fullest rank, summed over layers, copies with equal shares",
        RULE,
        plan.answer,
        ours=float(own.rank_load(profile.load).max(axis=1).sum()),
        ours_name=name,
        figures=figures,
    )
    return Found(told, Solution("placement-balance.json", plan.placement.to_json(), SETTINGS))


def _crossings(profile: PlacementProfile, own: Ints, name: str, limit_s: float) -> Found:
    solved = fewest_crossings(profile, time_limit_s=limit_s)
    moved = [profile.transitions(layer) for layer in range(profile.num_layers - 1)]
    told = finding(
        "placement",
        "pairs of a token's experts in neighbouring layers that lie on different ranks",
        RULE,
        solved.answer,
        ours=crossings(moved, own),
        ours_name=name,
        figures={f"{rule}": value for rule, value in solved.by_rule.items() if rule != "best"},
    )
    return Found(told, _file("placement-crossings.json", "fewest crossings", solved.rank, profile))


def _reaches(profile: PlacementProfile, own: Ints, name: str, limit_s: float) -> Found:
    """Nodes where there are several, else ranks: what a dispatched token has to be sent to."""
    by_node = profile.num_nodes > 1
    parts = profile.num_nodes if by_node else profile.ranks
    where = profile.node_of_rank[own] if by_node else own
    clock, solved, ours = Stopwatch(limit_s), [], 0.0
    for layer in range(profile.num_layers):
        tokens = tokens_of(profile.sample[:, layer], profile.num_experts)
        share_s = (clock.left_s or 0.0) / (profile.num_layers - layer)
        solved.append(least_reach(tokens, parts, time_limit_s=share_s))
        ours += reached(tokens, where[layer], parts)
    what = "nodes" if by_node else "ranks"
    told = finding(
        "placement",
        f"{what} that a token's experts lie on, summed over tokens and layers",
        RULE,
        clock.stamp(_summed(f"{what} reached", "token visits", [each.answer for each in solved])),
        ours=ours,
        ours_name=name,
        figures={
            "tokens": float(len(profile.sample)),
            f"{what} for each token and layer, best": _per_token(solved, profile),
        },
    )
    node = np.array([each.node for each in solved])
    ranks = np.array([_within(row, profile) for row in node]) if by_node else node
    return Found(told, _file("placement-reach.json", f"fewest {what}", ranks, profile))


def _per_token(solved: list[Reach], profile: PlacementProfile) -> float:
    total = sum(each.answer.value or 0.0 for each in solved)
    return total / max(1, len(profile.sample) * profile.num_layers)


def _within(node: Ints, profile: PlacementProfile) -> Ints:
    """The rank of each expert, those of a node dealt to its ranks in order. [experts]"""
    rank = np.zeros_like(node)
    for number in range(profile.num_nodes):
        experts, ranks = np.flatnonzero(node == number), np.flatnonzero(profile.node_of_rank == number)
        rank[experts] = ranks[np.arange(len(experts)) // (len(experts) // len(ranks))]
    return rank


def _summed(problem: str, unit: str, answers: list[Answer]) -> Answer:
    """Layers are placed one by one, so values and bounds add up."""
    value = sum(each.value or 0.0 for each in answers)
    bound = sum(each.bound or 0.0 for each in answers)
    solvers = "; ".join(dict.fromkeys(each.solver for each in answers))
    return answer(problem, unit, value=value, bound=bound, solver=solvers)


def _rank_of_experts(placement: Placement) -> Ints | None:
    """The rank of each expert where each has one slot. [layers, experts]"""
    if placement.num_slots != placement.num_experts:
        return None
    rank = np.empty_like(placement.rank)
    np.put_along_axis(rank, placement.logical, placement.rank, axis=1)
    return rank


def _file(name: str, purpose: str, ranks: Ints, profile: PlacementProfile) -> Solution:
    """A placement of each expert once. ``ranks``: [layers, experts]"""
    order = np.argsort(ranks, axis=1, kind="stable")
    placed = Placement(purpose, profile.num_experts, profile.ranks, order, np.take_along_axis(ranks, order, axis=1))
    return Solution(name, placed.to_json(), SETTINGS)
