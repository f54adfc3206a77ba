"""Replicate the experts with the most load per copy, then pack the copies so that all GPUs carry the same load.

``hierarchical``: groups of experts are packed to nodes first, copies are made inside of each node, and packed to its
GPUs, so that a router limited to groups keeps tokens within nodes. ``auto`` does so where the groups divide by the
nodes, as the published code. Source: DeepSeek's EPLB (github.com/deepseek-ai/EPLB, ``rebalance_experts``).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.errors import PolicyError
from moesim.policies.api import Floats, Ints, Placed, PolicyParams
from moesim.policies.packing import balanced_packing, packed, ranks_of_slots, replicate, spread
from moesim.policies.placement_profile import PlacementProfile

needs_training = True
replicates = True


class Params(PolicyParams):
    """How the nodes take part."""

    mode: Literal["auto", "flat", "hierarchical"] = Field("auto", description="auto: hierarchical where groups allow")
    groups: int | None = Field(None, ge=1, description="groups of experts; default: those of the model's router")


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """The plan for the profiled load."""
    groups, nodes = params.groups or profile.groups, profile.num_nodes
    divides = groups % nodes == 0 and profile.num_experts % groups == 0 and profile.ranks % nodes == 0
    if params.mode == "hierarchical" and not divides:
        told = f"{groups} groups of {profile.num_experts} experts don't divide by {nodes} nodes"
        raise PolicyError.of("groups", told, "mode: flat, or groups that the number of nodes divides")
    if params.mode == "flat" or not divides:
        return spread(profile.load, profile), ranks_of_slots(profile)
    return _hierarchical(profile.load, profile, groups), ranks_of_slots(profile)


def _hierarchical(load: Floats, profile: PlacementProfile, groups: int) -> Ints:
    """The expert of each slot: groups to nodes, copies within nodes, copies to GPUs. [layers, slots]"""
    layers, nodes, experts = profile.num_layers, profile.num_nodes, profile.num_experts
    size, per_node = experts // groups, experts // nodes
    node, place_in_node = balanced_packing(load.reshape(layers, groups, size).sum(axis=2), nodes)
    first = (node * (groups // nodes) + place_in_node) * size
    moved = (first[:, :, None] + np.arange(size)).reshape(layers, experts)  # where each expert goes
    expert_at = np.argsort(moved, axis=1)  # and which expert stands at each place, node by node
    by_node = np.take_along_axis(load, expert_at, axis=1).reshape(layers * nodes, per_node)
    logical, copies = replicate(by_node, profile.num_slots // nodes)
    share = np.take_along_axis(by_node / copies, logical, axis=1)
    within = packed(logical, share, profile.ranks // nodes).reshape(layers, nodes, -1)
    place = (within + (np.arange(nodes) * per_node)[None, :, None]).reshape(layers, -1)
    return np.take_along_axis(expert_at, place, axis=1)
