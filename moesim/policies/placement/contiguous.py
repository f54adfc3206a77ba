"""Experts in order: rank r holds the experts from r E/G on; further slots repeat the experts from the first one on.

Source: Megatron-LM's and DeepSpeed-MoE's expert parallelism; the order of further slots is that of SGLang's
``init_expert_location: trivial``.
"""

from __future__ import annotations

import numpy as np

from moesim.policies.api import Placed, PolicyParams
from moesim.policies.packing import ranks_of_slots
from moesim.policies.placement_profile import PlacementProfile


class Params(PolicyParams):
    """None."""


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """Slot i holds expert i modulo E."""
    row = np.arange(profile.num_slots) % profile.num_experts
    return np.tile(row, (profile.num_layers, 1)), ranks_of_slots(profile)
