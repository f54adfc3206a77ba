"""Heaviest expert first, each onto the rank with the least load that has a slot left; no expert is replicated by plan.

Further slots repeat experts in order, as in ``contiguous``, each copy with an equal share of its expert's load.
Source: Graham's longest-processing-time rule with a limit on the number of items (SIAM J. Appl. Math. 17(2), 1969).
"""

from __future__ import annotations

import numpy as np

from moesim.policies.api import Placed, PolicyParams
from moesim.policies.packing import packed, ranks_of_slots
from moesim.policies.placement_profile import PlacementProfile

needs_training = True


class Params(PolicyParams):
    """None."""


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """Balanced packing of the slots by the load of their experts."""
    row = np.arange(profile.num_slots) % profile.num_experts
    logical = np.tile(row, (profile.num_layers, 1))
    copies = np.bincount(row, minlength=profile.num_experts)
    share = (profile.load / copies)[:, row]
    return packed(logical, share, profile.ranks), ranks_of_slots(profile)
