"""Clusters of experts of equal load, then clusters to GPUs so that tokens stay near where they were a layer before.

Stage 1, each layer: experts into one cluster per rank, ``min sum |T_c - mean|``, each cluster at least one expert, of
any number. Stage 2: clusters to ranks, ``min sum over layers of max over pairs of ranks of tokens / bandwidth``.
Both as published (integer programmes, relative gap 0.025) where they are small: stage 1 up to ``exact_experts``, stage
2 exactly by dynamic programming over permutations up to five ranks. Beyond: longest-processing-time with moves and
swaps, and one assignment per layer, swept. Not modelled: the limit on a GPU's experts over all layers; each rank's
memory is reported. Source: MoETuner (arXiv 2502.06643); its printed programme 1 lacks ``sum_c x = 1``, added here.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from pydantic import Field

from moesim.errors import PolicyError
from moesim.policies.api import Floats, Ints, Placed, PolicyParams
from moesim.policies.placement_profile import PlacementProfile

needs_training = True
MAX_EXACT_RANKS = 5
GAP = 0.025


class Params(PolicyParams):
    """Where the exact method ends."""

    exact_experts: int = Field(16, ge=0, le=64, description="integer programme up to so many experts per layer")
    sweeps: int = Field(3, ge=1, le=50, description="passes of stage 2 beyond five ranks")


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """One slot per expert, on the rank of its cluster."""
    if profile.num_slots != profile.num_experts:
        raise PolicyError.of("", "moetuner places each expert once", "redundant_experts: 0")
    if profile.num_experts < profile.ranks:
        told = f"{profile.num_experts} experts can't fill {profile.ranks} clusters"
        raise PolicyError.of("", told, "fewer expert-parallel ranks")
    exact = profile.num_experts <= params.exact_experts
    cluster = np.array([_clusters(load, profile.ranks, exact) for load in profile.load])
    flows = [
        _flow(profile.transitions(layer), cluster[layer], cluster[layer + 1], profile.ranks)
        for layer in range(profile.num_layers - 1)
    ]
    with np.errstate(divide="ignore"):
        per_token = np.where(np.eye(profile.ranks, dtype=bool), 0.0, 1.0 / profile.bandwidth)
    small = profile.ranks <= MAX_EXACT_RANKS
    seat = _exact(flows, per_token, profile) if small else _swept(flows, per_token, profile, params.sweeps)
    rank = np.take_along_axis(seat, cluster, axis=1)
    order = np.argsort(rank, axis=1, kind="stable")
    return order, np.take_along_axis(rank, order, axis=1)


def _clusters(load: Floats, clusters: int, exact: bool) -> Ints:
    """Stage 1 of one layer: the cluster of each expert."""
    start = _longest_first(load, clusters)
    return _programme(load, clusters, start) if exact and load.sum() > 0 else start


def _longest_first(load: Floats, clusters: int) -> Ints:
    """Heaviest first into the lightest cluster, an empty one first; then single moves that lower the deviation."""
    total, count = np.zeros(clusters), np.zeros(clusters, dtype=np.int64)
    cluster = np.zeros(len(load), dtype=np.int64)
    for place, expert in enumerate(np.argsort(-load, kind="stable")):
        left = len(load) - place
        empty = np.flatnonzero(count == 0)
        chosen = empty[0] if len(empty) >= left else int(np.lexsort((count, total))[0])
        cluster[expert] = chosen
        total[chosen] += load[expert]
        count[chosen] += 1
    return cluster


def _programme(load: Floats, clusters: int, start: Ints) -> Ints:
    """Stage 1 as an integer programme; the heuristic's answer where the solver finds none better."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    experts, mean = len(load), load.sum() / clusters
    size = experts * clusters
    one = np.kron(np.eye(experts), np.ones(clusters))
    per_cluster = np.kron(np.ones(experts), np.eye(clusters))
    weighted = np.kron(load, np.eye(clusters))
    deviation = np.eye(clusters)
    rows = [
        LinearConstraint(np.hstack([one, np.zeros((experts, clusters))]), 1, 1),
        LinearConstraint(np.hstack([per_cluster, np.zeros((clusters, clusters))]), 1, np.inf),
        LinearConstraint(np.hstack([weighted, -deviation]), -np.inf, mean),
        LinearConstraint(np.hstack([weighted, deviation]), mean, np.inf),
    ]
    cost = np.concatenate([np.zeros(size), np.ones(clusters)])
    kinds = np.concatenate([np.ones(size), np.zeros(clusters)])
    limits = Bounds(np.zeros(size + clusters), np.concatenate([np.ones(size), np.full(clusters, np.inf)]))
    options = {"mip_rel_gap": GAP, "node_limit": 20_000}
    found = milp(cost, constraints=rows, integrality=kinds, bounds=limits, options=options)
    ours = np.abs(np.bincount(start, weights=load, minlength=clusters) - mean).sum()
    if found.x is None or found.fun >= ours:
        return start
    return np.asarray(np.argmax(found.x[:size].reshape(experts, clusters), axis=1), dtype=np.int64)


def _flow(moved: Floats, first: Ints, second: Ints, clusters: int) -> Floats:
    """Tokens between the clusters of two layers. [clusters, clusters]"""
    flow = np.zeros((clusters, clusters))
    np.add.at(flow, (first[:, None], second[None, :]), moved)
    return flow


def _exact(flows: list[Floats], per_token: Floats, profile: PlacementProfile) -> Ints:
    """Stage 2 by dynamic programming over the permutations of each layer. [layers, clusters]"""
    choices = np.array(list(permutations(range(profile.ranks))), dtype=np.int64)
    best, came = np.zeros(len(choices)), []
    for flow in flows:
        cost = per_token[choices[:, None, :, None], choices[None, :, None, :]] * flow
        step = best[:, None] + cost.max(axis=(2, 3))
        came.append(np.argmin(step, axis=0))
        best = step.min(axis=0)
    chosen = [int(np.argmin(best))]
    for before in reversed(came):
        chosen.append(int(before[chosen[-1]]))
    return choices[chosen[::-1]]


def _swept(flows: list[Floats], per_token: Floats, profile: PlacementProfile, sweeps: int) -> Ints:
    """Stage 2 layer by layer: the assignment with the least total cost to the neighbours, swept."""
    from scipy.optimize import linear_sum_assignment

    seat = np.tile(np.arange(profile.ranks), (profile.num_layers, 1))
    for _ in range(sweeps):
        for layer in range(profile.num_layers):
            cost = np.zeros((profile.ranks, profile.ranks))
            if layer > 0:
                cost += flows[layer - 1].T @ per_token[seat[layer - 1]]
            if layer < len(flows):
                cost += flows[layer] @ per_token[:, seat[layer + 1]].T
            seat[layer] = linear_sum_assignment(cost)[1]
    return seat
