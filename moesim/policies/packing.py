"""What several placement policies are made of: dealing experts out to ranks, and choosing what to replicate.

``balanced_packing`` and ``replicate`` follow DeepSeek's EPLB (github.com/deepseek-ai/EPLB, ``eplb.py``), in numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.policies.placement_profile import PlacementProfile

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def ranks_of_slots(profile: PlacementProfile) -> Ints:
    """The rank of each slot where every rank holds as many: ``slot // slots_per_rank``. [layers, slots]"""
    row = np.arange(profile.num_slots) // profile.slots_per_rank
    return np.tile(row, (profile.num_layers, 1))


def balanced_packing(weight: Floats, packs: int) -> tuple[Ints, Ints]:
    """Items into packs of equally many: heaviest first, each into the lightest pack that has room.

    Args:
        weight: [layers, items]

    Returns:
        The pack of each item, and its place in it. [layers, items] each
    """
    layers, items = weight.shape
    if items == packs:
        return np.tile(np.arange(items), (layers, 1)), np.zeros((layers, items), dtype=np.int64)
    room = items // packs
    pack = np.zeros((layers, items), dtype=np.int64)
    place = np.zeros((layers, items), dtype=np.int64)
    row = np.arange(layers)
    filled = np.zeros((layers, packs), dtype=np.int64)
    total = np.zeros((layers, packs))
    order = np.argsort(-weight, axis=1, kind="stable")
    for item in order.T:
        lightest = np.argmin(np.where(filled < room, total, np.inf), axis=1)
        pack[row, item], place[row, item] = lightest, filled[row, lightest]
        total[row, lightest] += weight[row, item]
        filled[row, lightest] += 1
    return pack, place


def replicate(weight: Floats, slots: int) -> tuple[Ints, Ints]:
    """Copies of the experts with the most load per copy, one at a time, until there are ``slots``.

    Args:
        weight: [layers, experts]

    Returns:
        The expert of each slot [layers, slots], and copies of each expert [layers, experts].
    """
    layers, experts = weight.shape
    logical = np.tile(np.arange(slots), (layers, 1))
    copies = np.ones((layers, experts), dtype=np.int64)
    row = np.arange(layers)
    for slot in range(experts, slots):
        hottest = np.argmax(weight / copies, axis=1)
        logical[:, slot] = hottest
        copies[row, hottest] += 1
    return logical, copies


def packed(logical: Ints, weight: Floats, ranks: int) -> Ints:
    """Physical experts dealt to ranks by :func:`balanced_packing`; the expert of each slot, rank by rank.

    Args:
        logical: the expert of each physical expert. [layers, slots]
        weight: its load. [layers, slots]
    """
    pack, place = balanced_packing(weight, ranks)
    room = logical.shape[1] // ranks
    slot = pack * room + place
    ordered = np.empty_like(logical)
    np.put_along_axis(ordered, slot, logical, axis=1)
    return ordered


def spread(load: Floats, profile: PlacementProfile) -> Ints:
    """Replicate by load, then pack: the flat EPLB. The expert of each slot. [layers, slots]"""
    logical, copies = replicate(load, profile.num_slots)
    share = np.take_along_axis(load / copies, logical, axis=1)
    return packed(logical, share, profile.ranks)


def improved(cost: Floats, rank: Ints, max_swaps: int = 1000) -> Ints:
    """Experts swapped between ranks while that lowers the sum of ``cost`` between experts of different ranks.

    Args:
        cost: symmetric weights between experts. [experts, experts]
        rank: [experts]
    """
    rank = rank.copy()
    ranks = int(rank.max()) + 1
    for _ in range(max_swaps):
        member = np.zeros((len(rank), ranks))
        member[np.arange(len(rank)), rank] = 1.0
        tie = cost @ member
        gain_to = tie - tie[np.arange(len(rank)), rank][:, None]
        gain = gain_to[:, rank]
        gain = np.where(rank[:, None] == rank, 0.0, gain + gain.T - 2 * cost)
        best = int(np.argmax(gain))
        first, second = divmod(best, len(rank))
        if gain[first, second] <= 1e-9:
            break
        rank[first], rank[second] = rank[second], rank[first]
    return rank
