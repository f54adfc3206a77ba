"""Copies as EPLB plans them; each batch's tokens are then dealt to the copies so that the fullest GPU gets the fewest.

The split is a linear programme per layer and batch: ``min z``, copies of an expert sum to its tokens, a GPU's to z.
Source: DeepSeek's LPLB (github.com/deepseek-ai/LPLB), which solves it by an interior-point method on one SM in about
100 us; its plan graphs (cube, hypercube, torus) are not modelled.
"""

from __future__ import annotations

import numpy as np

from moesim.policies.api import Floats, Ints, Placed, PolicyParams
from moesim.policies.packing import ranks_of_slots, spread
from moesim.policies.placement_profile import PlacementProfile

needs_training = True
replicates = True


class Params(PolicyParams):
    """None."""


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """The flat EPLB plan for the profiled load."""
    return spread(profile.load, profile), ranks_of_slots(profile)


def split(params: Params, load: Floats, logical: Ints, rank: Ints) -> Floats:
    """The share of its expert's tokens that each slot gets, least for the fullest rank. [slots]"""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    slots, experts, ranks = len(logical), len(load), int(rank.max()) + 1
    slot = np.arange(slots)
    dealt = coo_array((np.ones(slots), (logical, slot)), shape=(experts, slots + 1))
    full = coo_array(
        (
            np.concatenate([np.ones(slots), -np.ones(ranks)]),
            (np.concatenate([rank, np.arange(ranks)]), np.concatenate([slot, np.full(ranks, slots)])),
        ),
        shape=(ranks, slots + 1),
    )
    cost = np.zeros(slots + 1)
    cost[-1] = 1.0
    found = linprog(cost, A_ub=full, b_ub=np.zeros(ranks), A_eq=dealt, b_eq=load, method="highs")
    tokens = np.maximum(found.x[:slots], 0.0)
    of_expert = np.bincount(logical, weights=tokens, minlength=experts)
    copies = np.bincount(logical, minlength=experts)
    used = of_expert[logical] > 0
    return np.where(used, tokens / np.where(used, of_expert[logical], 1.0), 1.0 / copies[logical])
