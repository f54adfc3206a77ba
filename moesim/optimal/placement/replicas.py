"""Copies of hot experts: how many, and where, so that the fullest rank is as empty as possible with equal shares.

From above: EPLB as DeepSeek published it, flat or hierarchical (nodes first), then swaps. From below: the mean load of
a rank; and the largest share that any replication leaves, with the lightest experts that can stand beside it. A
hierarchical plan is measured against the same bound: what it loses there is the price of keeping groups on nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.placement.balance import swapped
from moesim.policies import api
from moesim.policies.placement_profile import PlacementProfile
from moesim.setup.placement import Placement

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Replicated:
    """The answer (sum over layers of the fullest rank's load), the plan, and each layer's figures. [layers]"""

    answer: Answer
    placement: Placement
    fullest: Floats
    bound: Floats

    @property
    def worst_gap(self) -> float:
        """The largest share by which a layer's fullest rank lies above its bound."""
        return float((self.fullest / np.where(self.bound > 0, self.bound, 1.0) - 1.0).max())


def replicated(profile: PlacementProfile, *, hierarchical: bool = False) -> Replicated:
    """EPLB's plan, improved by swaps: of slots anywhere, or of a node's own where it is hierarchical.

    Raises:
        PolicyError: groups and nodes do not divide (hierarchical).
    """
    clock = Stopwatch()
    policy = api.load("placement", "eplb", {"mode": "hierarchical" if hierarchical else "flat"})
    logical, rank = policy.module.place(policy.params, profile, np.random.default_rng(0))
    logical = logical.copy()
    parts = profile.num_nodes if hierarchical else 1
    ranks, slots = profile.ranks // parts, profile.num_slots // parts
    for layer, load in enumerate(profile.load):
        copies = np.bincount(logical[layer], minlength=profile.num_experts)
        for part in range(parts):
            here = slice(part * slots, (part + 1) * slots)
            logical[layer, here] = _swapped_slots(logical[layer, here], load / copies, ranks)
    placement = Placement("replicas", profile.num_experts, profile.ranks, logical, rank)
    fullest = placement.rank_load(profile.load).max(axis=1)
    bound = replica_bound(profile.load, profile.ranks, profile.num_slots)
    solver = f"EPLB ({'hierarchical' if hierarchical else 'flat'}) + swaps; bound: mean, largest share"
    found = answer("fullest rank", "tokens", value=float(fullest.sum()), bound=float(bound.sum()), solver=solver)
    return Replicated(clock.stamp(found), placement, fullest, bound)


def replica_bound(load: Floats, ranks: int, slots: int) -> Floats:
    """No placement with equal shares has a fullest rank below this. [layers]

    Adding copies one by one where the share is largest leaves the smallest largest share, M(k) with k copies more. The
    rank that holds it holds S - 1 other slots. If r copies are of experts among them, 2 r slots at most are of such
    experts, the others are whole experts, and the largest share is M(k - r) at least.

    Args:
        load: [layers, experts]
        slots: physical experts of a layer.
    """
    layers, experts = load.shape
    room, extra = slots // ranks, slots - experts
    copies, row = np.ones_like(load), np.arange(layers)
    largest = [load.max(axis=1)]
    for _ in range(extra):
        hottest = np.argmax(load / copies, axis=1)
        copies[row, hottest] += 1
        largest.append((load / copies).max(axis=1))
    lightest = np.concatenate([np.zeros((layers, 1)), np.cumsum(np.sort(load, axis=1), axis=1)], axis=1)
    beside = [
        largest[extra - spent] + lightest[:, max(0, room - 1 - 2 * spent)] for spent in range(min(extra, room // 2) + 1)
    ]
    return np.asarray(np.maximum(load.sum(axis=1) / ranks, np.min(beside, axis=0)))


def _swapped_slots(logical: NDArray[np.int64], share: Floats, ranks: int) -> NDArray[np.int64]:
    """Slots of one layer (or node) dealt anew to the ranks, by swaps; equally many on each."""
    room = len(logical) // ranks
    rank = swapped(share[logical], np.arange(len(logical)) // room, ranks)
    return logical[np.argsort(rank, kind="stable")]
