"""Experts dealt out one by one: expert e lies on rank e modulo G; further slots go on with the first experts.

Source: the usual alternative to contiguous blocks; neighbours in index never share a rank.
"""

from __future__ import annotations

import numpy as np

from moesim.policies.api import Placed, PolicyParams
from moesim.policies.packing import ranks_of_slots
from moesim.policies.placement_profile import PlacementProfile


class Params(PolicyParams):
    """None."""


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """The j-th slot of rank r holds expert ``j G + r`` modulo E."""
    slot = np.arange(profile.num_slots)
    rank, place_in_rank = slot // profile.slots_per_rank, slot % profile.slots_per_rank
    row = (place_in_rank * profile.ranks + rank) % profile.num_experts
    return np.tile(row, (profile.num_layers, 1)), ranks_of_slots(profile)
