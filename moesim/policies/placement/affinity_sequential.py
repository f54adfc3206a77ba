"""Layer by layer, experts go where their tokens come from: each layer is a transportation problem given its neighbours.

The first layer is contiguous; every next one puts its experts onto ranks (equally many on each) so that the most
tokens stay on the rank, and else on the node, where they were in the layer before. ``sweeps`` goes through the layers
again with both neighbours known. It helps where tokens stay at their experts' GPU between layers, not where each layer
returns them home. Source: ExFlow (arXiv 2401.08383), whose integer programme this follows one layer at a time.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.policies.api import Floats, Ints, Placed, PolicyParams
from moesim.policies.packing import ranks_of_slots
from moesim.policies.placement_profile import PlacementProfile

needs_training = True


class Params(PolicyParams):
    """How often, and what a node counts."""

    sweeps: int = Field(2, ge=0, le=20, description="passes over all layers after the first")
    node_weight: float = Field(0.5, ge=0, le=1, description="worth of staying on the node, relative to the rank")


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """The expert of each slot; further slots repeat experts in order."""
    experts, ranks = profile.num_experts, profile.ranks
    room = -(-experts // ranks)
    moved = [profile.transitions(layer) for layer in range(profile.num_layers - 1)]
    same_node = profile.node_of_rank[:, None] == profile.node_of_rank
    worth = params.node_weight * same_node + (1 - params.node_weight) * np.eye(ranks)
    rank = [np.arange(experts) // room]
    for layer in range(1, profile.num_layers):
        rank.append(_assigned(_stays(moved[layer - 1].T, rank[layer - 1], worth), room))
    for _ in range(params.sweeps):
        for layer in range(profile.num_layers):
            stays = np.zeros((experts, ranks))
            if layer > 0:
                stays += _stays(moved[layer - 1].T, rank[layer - 1], worth)
            if layer + 1 < profile.num_layers:
                stays += _stays(moved[layer], rank[layer + 1], worth)
            rank[layer] = _assigned(stays, room)
    return _slots(np.array(rank), profile), ranks_of_slots(profile)


def _stays(moved: Floats, rank: Ints, worth: Floats) -> Floats:
    """Tokens (by worth) that stay if an expert lies on a rank. [experts, ranks]"""
    member = np.zeros((len(rank), len(worth)))
    member[np.arange(len(rank)), rank] = 1.0
    return np.asarray(moved @ member @ worth)


def _assigned(stays: Floats, room: int) -> Ints:
    """Experts to ranks, at most ``room`` each, for the most tokens that stay. [experts]"""
    from scipy.optimize import linear_sum_assignment

    experts, seats = linear_sum_assignment(np.repeat(stays, room, axis=1), maximize=True)
    rank = np.empty(len(stays), dtype=np.int64)
    rank[experts] = seats // room
    return rank


def _slots(rank: Ints, profile: PlacementProfile) -> Ints:
    """Slots filled rank by rank; those left over repeat the experts in order."""
    logical = np.empty((profile.num_layers, profile.num_slots), dtype=np.int64)
    for layer, of_layer in enumerate(rank):
        spare = 0
        for number in range(profile.ranks):
            own = np.flatnonzero(of_layer == number)
            missing = profile.slots_per_rank - len(own)
            extra = np.arange(spare, spare + missing) % profile.num_experts
            spare += missing
            start = number * profile.slots_per_rank
            logical[layer, start : start + profile.slots_per_rank] = np.concatenate([own, extra])
    return logical
