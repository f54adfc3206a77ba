"""Experts that are chosen together share a rank: each layer's co-activation graph is cut into equal parts.

Fewer ranks per token means fewer copies of it on the wire where dispatch sends one copy to each rank. Starts from a
balanced packing by load and swaps pairs of experts between ranks while the cut shrinks (Kernighan and Lin, Bell System
Technical Journal 49(2), 1970). Source: graph partition as a placement is common to ExFlow's baselines and to Occult
(arXiv 2505.13345); the swap heuristic is moesim's own.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.policies.api import Placed, PolicyParams
from moesim.policies.packing import balanced_packing, improved, packed, ranks_of_slots
from moesim.policies.placement_profile import PlacementProfile

needs_training = True


class Params(PolicyParams):
    """How long it looks."""

    max_swaps: int = Field(500, ge=0, le=100_000, description="of pairs of experts, in each layer")


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """The expert of each slot; where slots are left over, they repeat experts in order, packed by load."""
    if profile.num_slots != profile.num_experts:
        row = np.arange(profile.num_slots) % profile.num_experts
        copies = np.bincount(row, minlength=profile.num_experts)
        logical = np.tile(row, (profile.num_layers, 1))
        return packed(logical, (profile.load / copies)[:, row], profile.ranks), ranks_of_slots(profile)
    start, _ = balanced_packing(profile.load, profile.ranks)
    ranks = [improved(profile.together(layer), start[layer], params.max_swaps) for layer in range(profile.num_layers)]
    return np.argsort(np.array(ranks), axis=1, kind="stable"), ranks_of_slots(profile)
