"""Experts in an order of chance, drawn for each layer; further slots repeat experts drawn without replacement.

Source: the control that a placement must beat.
"""

from __future__ import annotations

import numpy as np

from moesim.policies.api import Placed, PolicyParams
from moesim.policies.packing import ranks_of_slots
from moesim.policies.placement_profile import PlacementProfile


class Params(PolicyParams):
    """None."""


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """A permutation of the slots for each layer."""
    slots = np.tile(np.arange(profile.num_slots) % profile.num_experts, (profile.num_layers, 1))
    return rng.permuted(slots, axis=1), ranks_of_slots(profile)
